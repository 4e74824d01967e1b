"""Fixtures of the stages and what they share: tiny students."""

from tests.support.students import other_rows, quick, quick_lora, rows, taught_student, tiny_student

__all__ = ["other_rows", "quick", "quick_lora", "rows", "taught_student", "tiny_student"]
