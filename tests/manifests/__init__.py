"""Checks of `manifests/` as kustomize renders it."""
