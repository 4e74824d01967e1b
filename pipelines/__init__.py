"""The loop as a Kubeflow pipeline (`pipeline`), its config (`config`), where it runs (`local`), commands (`cli`)."""
