"""The firewall: no row of the seeds, the pool or the training set matches a validation or test row."""
