"""The loop as a Kubeflow pipeline: compiled, placed, submitted, scheduled."""
