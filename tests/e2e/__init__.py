"""What a person with a Kubeflow runs: `make e2e HOST=...`; see `manifests/README.md`."""
