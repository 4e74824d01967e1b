"""Stage `tune`: settings of the training, tried on the seeds before the loop."""
