"""A student's answers: questions, generation, scoring of labels, losses of rows."""
