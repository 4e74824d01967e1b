"""Fixtures of the cluster's tests: a Kubeflow on the loopback, and nothing of whoever runs the tests."""

from tests.support.cluster import kfp_server, nothing_of_this_machine, run
from tests.support.students import rows, tiny_student

__all__ = ["kfp_server", "nothing_of_this_machine", "rows", "run", "tiny_student"]
