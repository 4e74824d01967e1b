"""The journal: what a run has found so far, handed from stage to stage. A folder with a Parquet file for each kind.

    journal/scores.parquet       evaluate: one row for each iteration and split
    journal/errors.parquet       filter_errors: the seeds that the student needed help with
    journal/decisions.parquet    filter_errors: go on or stop, and the reason, one row for each iteration
    journal/controls.parquet     controls: what the delivered student is held against; there once the loop has ended
    journal/trials.parquet       tune: settings of the training that were tried before the loop
    journal/rejects.parquet      prepare, teacher_augment, dedupe: rows that did not enter, and why
    journal/calls.parquet        teacher_augment: every request to a teacher
    journal/confusions.parquet   evaluate: which label or choice was given for which
    journal/spent.json           teacher_augment: what the run has paid so far

Each stage that has something to add reads the journal and leaves it longer, so that it is complete wherever the run
stops. One artifact rather than six: what tasks and conditions are handed is most of what makes a Workflow large.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import SPENT, Artifact
from llm2llm.components.shared.data.parquet import read_rows, write_rows
from llm2llm.components.shared.data.schemas import (
    KINDS,
    VERSION,
    Call,
    Confusion,
    Control,
    Decision,
    Reject,
    Score,
    StudentError,
    Trial,
)


@dataclass(frozen=True)
class Spending:
    """What a run has paid its teacher so far."""

    usd: float = 0.0
    tokens: int = 0
    calls: int = 0


@dataclass(frozen=True)
class Journal:
    """All rows so far, of every iteration."""

    scores: Sequence[Score] = ()
    errors: Sequence[StudentError] = ()
    decisions: Sequence[Decision] = ()
    rejects: Sequence[Reject] = ()
    calls: Sequence[Call] = ()
    controls: Sequence[Control] = ()
    trials: Sequence[Trial] = ()
    confusions: Sequence[Confusion] = ()
    spent: Spending = field(default=Spending())

    def with_more(self, *, spent: Spending | None = None, **rows: Sequence[Any]) -> "Journal":
        """The journal with rows added to the kinds named, such as `with_more(scores=[...])`."""
        longer: dict[str, Any] = {kind: [*getattr(self, kind), *more] for kind, more in rows.items()}
        return replace(self, **longer, spent=spent or self.spent)


FILES = tuple(one.name for one in fields(Journal) if one.name != "spent")


def write_journal(artifact: Artifact, journal: Journal) -> None:
    """Writes every file, an empty one too, and kind, version and number of rows to the artifact's metadata."""
    with atomic_folder(artifact.path) as partial:
        for kind in FILES:
            write_rows(Path(partial) / f"{kind}.parquet", kind, getattr(journal, kind))
        spent = {one.name: getattr(journal.spent, one.name) for one in fields(Spending)}
        (Path(partial) / SPENT).write_text(json.dumps(spent, sort_keys=True) + "\n", encoding="utf-8")
    rows = sum(len(getattr(journal, kind)) for kind in FILES)
    artifact.metadata.update({"kind": "journal", "schema_version": VERSION, "rows": rows})


def read_journal(artifact: Artifact | None) -> Journal:
    """All that the stages before have left; an empty journal for None, and for a kind whose file is not there.

    Raises:
        UserError: No folder, or a file that is damaged or of another kind or version.
    """
    if artifact is None:
        return Journal()
    folder = Path(artifact.path)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; a journal is a folder with scores.parquet, errors.parquet and so on"
        )
    rows: dict[str, Any] = {}
    for kind in FILES:
        file = next((file for end in ("parquet", "jsonl") if (file := folder / f"{kind}.{end}").is_file()), None)
        rows[kind] = [] if file is None else read_rows(file, kind, KINDS[kind])
    return Journal(**rows, spent=_spending(folder / SPENT))


def _spending(path: str | os.PathLike[str]) -> Spending:
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return Spending(usd=float(values["usd"]), tokens=int(values["tokens"]), calls=int(values["calls"]))
    except FileNotFoundError:
        return Spending()
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UserError(f"{path}: does not say what the run has spent: {problem}") from None
