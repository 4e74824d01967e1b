"""Stage `prepare`: splits a user's rows into seeds, validation, test and pool, checked, distinct and disjoint."""
