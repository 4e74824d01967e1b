"""Fixtures of storage."""

from tests.support.storage import no_server, place

__all__ = ["no_server", "place"]
