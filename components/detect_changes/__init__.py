"""Stage `detect_changes`: whether there is anything that the version in production has not been made from."""
