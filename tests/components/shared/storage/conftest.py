"""Fixtures of storage."""

from tests.support.storage import no_server

__all__ = ["no_server"]
