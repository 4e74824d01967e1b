"""Running a compiled pipeline on Kubeflow Pipelines: what it costs there."""
