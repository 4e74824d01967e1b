"""Fixtures of the pipelines' tests: a whole run that takes half a minute."""

from tests.support.small_run import small_config

__all__ = ["small_config"]
