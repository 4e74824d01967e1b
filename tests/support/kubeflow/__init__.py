"""A double of Kubeflow Pipelines' backend: driver, launcher and Argo, on the real metadata store."""
