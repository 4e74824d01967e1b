"""Stage `detect_changes`: ends a run whose data and config the version in production was already made from."""
