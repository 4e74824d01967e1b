"""Stage `dedupe`: drops near copies and leaks; writes the next training set."""
