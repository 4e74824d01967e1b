"""Fixtures of the sweeps' tests: a Kubeflow on the loopback."""

from tests.support.cluster import kfp_server, nothing_of_this_machine, run

__all__ = ["kfp_server", "nothing_of_this_machine", "run"]
