"""The tiny students of the other room."""

from tests.students.conftest import other_rows, quick, quick_lora, rows, taught_student, tiny_student

__all__ = ["other_rows", "quick", "quick_lora", "rows", "taught_student", "tiny_student"]
