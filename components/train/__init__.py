"""Stage `train`: fine-tune the student on the current training set."""
