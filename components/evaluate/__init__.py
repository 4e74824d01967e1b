"""Stage `evaluate`: the student answers seeds, validation and test, and every answer is graded."""
