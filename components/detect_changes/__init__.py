"""Stage `find_new`: whether there is anything that the version in production has not been made from."""
