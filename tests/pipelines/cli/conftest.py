"""Fixtures of the command line's tests: the command itself, tiny students, a stand-in for the Hub."""

from tests.support.command_line import run
from tests.support.hub_server import hub, server
from tests.support.students import (
    other_rows,
    quick,
    quick_classifier,
    quick_lora,
    rows,
    taught_classifier,
    taught_student,
    tiny_bert,
    tiny_student,
)

__all__ = ["hub", "other_rows", "quick", "quick_classifier", "quick_lora", "rows", "run", "server", "taught_classifier",
           "taught_student", "tiny_bert", "tiny_student"]  # fmt: skip
