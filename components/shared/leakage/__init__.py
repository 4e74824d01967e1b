"""Decontamination: no row of the seeds, the pool or the training set may match a validation or test row."""
