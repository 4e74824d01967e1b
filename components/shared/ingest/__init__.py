"""A user's rows: files and data sets read, mapped to columns, checked."""
