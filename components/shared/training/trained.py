"""What a student's folder says about its training."""

import json
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.training.settings import TRAINING_FILE

TRAINING_ROWS = "training_rows"
"""The note beside a shard's predictions that says how many rows the student was trained on."""


def rows_trained_on(student: Path) -> int:
    """How many rows a student was trained on; 0 for a model that `train` did not save.

    Raises:
        UserError: No such folder, or a log that is none.
    """
    file = student / TRAINING_FILE
    if not student.is_dir():
        raise UserError(f"student {student}: no such folder")
    if not file.is_file():
        return 0
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["rows"])
    except (ValueError, KeyError, TypeError) as problem:
        raise UserError(f"{file}: not written by llm2llm ({problem})") from None
