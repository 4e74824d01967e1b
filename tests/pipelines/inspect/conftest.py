"""A place on this machine, and one on a server; the command line."""

from tests.support.command_line import run
from tests.support.storage import place

__all__ = ["place", "run"]
