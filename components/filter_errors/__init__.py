"""Stage `filter_errors`: which examples the student needs help with, and whether to go on."""
