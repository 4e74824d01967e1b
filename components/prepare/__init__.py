"""Stage `prepare`: a user's rows in; seeds, validation, test and pool out, checked, distinct and disjoint."""
