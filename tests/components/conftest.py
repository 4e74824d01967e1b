"""Fixtures of the stages and what they share: tiny students."""

from tests.support.students import (
    other_rows,
    quick,
    quick_lora,
    rows,
    small_training,
    taught_student,
    tiny_student,
    tokenizer,
)

__all__ = ["other_rows", "quick", "quick_lora", "rows", "small_training", "taught_student", "tiny_student", "tokenizer"]
