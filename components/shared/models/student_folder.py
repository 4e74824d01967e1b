"""What `train` leaves in a student's folder beside weights and tokenizer, and how it is read."""

import json
import shutil
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.tasks import Task

TRAINING_FILE = "training.json"
"""What `train` leaves in a model's folder about how it was trained."""

LOSSES_FILE = "seed_losses.json"
"""What `train` leaves there with `record_losses`: `{"base": {example id: loss}, "early": {example id: loss}}`."""

TASK = "task"
"""The key of `training.json` that holds the task with its prompt."""

CLASSIFIES = "ForSequenceClassification"
"""What the architecture of a classifier is called at the end."""

COUNTS = ("training_rows", "rows_too_long", "rows_truncated", "rows_replayed", "steps")
"""What a `Score` says of the training, beside its own counts."""


def head_in(student: Path) -> str:
    """What a student in a folder ends in, by its config: `classifier` or `language_model`."""
    try:
        named = json.loads((student / "config.json").read_text(encoding="utf-8")).get("architectures")
    except (OSError, ValueError, AttributeError):  # an adapter has none; loading says what is wrong with others
        return "language_model"
    return "classifier" if any(str(name).endswith(CLASSIFIES) for name in named or []) else "language_model"


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


def validation_losses(student: Path) -> list[float]:
    """The mean loss on validation at the end of each epoch, as `training_counts` reads the log; none where it was not
    measured."""
    file = student / TRAINING_FILE
    if not file.is_file():
        return []
    return [float(loss) for _, loss in json.loads(file.read_text(encoding="utf-8")).get("validation_losses", [])]


def read_task(student: Path) -> Task | None:
    """The task that a student was trained on; None for a model that `train` did not save, or did in an older version.

    Raises:
        UserError: A log that is none, or of a task that this llm2llm does not know.
    """
    file = student / TRAINING_FILE
    if not file.is_file():
        return None
    try:
        described = json.loads(file.read_text(encoding="utf-8")).get(TASK)
    except (ValueError, AttributeError) as problem:
        raise UserError(f"{file}: not written by llm2llm ({problem})") from None
    return None if described is None else Task.load(described, f"{file}: {TASK}")


def carry_over(student: Path, output: Path, steps: int, **added: Any) -> None:
    """Puts what a supervised step left beside its student beside the student of a further step.

    Args:
        student: The folder that the further step began with.
        output: That of its student.
        steps: How many optimiser steps it took; they are added.
        added: What else its log says of it.
    """
    values = json.loads((student / TRAINING_FILE).read_text(encoding="utf-8"))
    values |= {**added, "steps": values["steps"] + steps}
    (output / TRAINING_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    if (student / LOSSES_FILE).is_file():
        shutil.copy(student / LOSSES_FILE, output / LOSSES_FILE)


def save_losses(folder: Path, base: dict[str, float], early: dict[str, float]) -> None:
    """Leaves the losses of a training's seeds, by example id, beside the model."""
    values = {"base": dict(sorted(base.items())), "early": dict(sorted(early.items()))}
    (folder / LOSSES_FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_losses(student: Path) -> tuple[dict[str, float], dict[str, float]]:
    """(loss under the base model, loss after the first epoch) by example id; empty for a student without a record.

    Raises:
        UserError: A file that is not a record of losses.
    """
    file = student / LOSSES_FILE
    if not file.is_file():
        return {}, {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        base, early = ({str(row): float(loss) for row, loss in values[name].items()} for name in ("base", "early"))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UserError(f"{file}: not written by llm2llm ({problem})") from None
    return base, early
