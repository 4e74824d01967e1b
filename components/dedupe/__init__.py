"""Stage `dedupe`: near copies and leaks out; the next training set."""
