"""Stage `promote`: the best student of the run enters the registry if it beats the version in production."""
