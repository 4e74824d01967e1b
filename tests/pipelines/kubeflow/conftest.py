"""Fixtures of the cluster's tests: a Kubeflow on the loopback, the real metadata store, a real run to compare with."""

from tests.support.cluster import kfp_server, nothing_of_this_machine, run
from tests.support.kubeflow.fixtures import real_backend, real_metadata, real_run, real_workflow, store

__all__ = [
    "kfp_server",
    "nothing_of_this_machine",
    "real_backend",
    "real_metadata",
    "real_run",
    "real_workflow",
    "run",
    "store",
]
