"""Stage `out_of_fold`: trains a student without one fold of the seeds and asks it about that fold."""
