"""Fixtures of the stages and what they share: tiny students, a stand-in for the Hub."""

from tests.support.hub_server import hub, server
from tests.support.students import (
    other_rows,
    quick,
    quick_classifier,
    quick_lora,
    rows,
    small_training,
    taught_classifier,
    taught_student,
    tiny_bert,
    tiny_student,
    tokenizer,
)

__all__ = [
    "hub",
    "other_rows",
    "quick",
    "quick_classifier",
    "quick_lora",
    "rows",
    "server",
    "small_training",
    "taught_classifier",
    "taught_student",
    "tiny_bert",
    "tiny_student",
    "tokenizer",
]
