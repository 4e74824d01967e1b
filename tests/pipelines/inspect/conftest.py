"""A place on this machine, and one on a server."""

from tests.support.storage import place

__all__ = ["place"]
