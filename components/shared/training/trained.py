"""What a student's folder says about its training."""

import json
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.training.settings import TRAINING_FILE

COUNTS = ("training_rows", "rows_too_long", "rows_truncated", "rows_replayed")
"""What a `Score` says of the training, beside its own counts."""


def training_counts(student: Path) -> dict[str, int]:
    """How many rows a student was trained on, and what became of others: `COUNTS`; all 0 for a model that `train` did
    not save.

    Raises:
        UserError: No such folder, or a log that is none.
    """
    file = student / TRAINING_FILE
    if not student.is_dir():
        raise UserError(f"student {student}: no such folder")
    if not file.is_file():
        return dict.fromkeys(COUNTS, 0)
    try:
        log = json.loads(file.read_text(encoding="utf-8"))
        return {"training_rows": int(log["rows"]), **{name: int(log[name]) for name in COUNTS[1:]}}
    except (ValueError, KeyError, TypeError) as problem:
        raise UserError(f"{file}: not written by llm2llm ({problem})") from None
