"""Chooses the rows that a report shows. The choice depends on the rows alone, so the same run gives the same report."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from llm2llm.components.shared.data.schemas import Example, Reject, StudentError

R = TypeVar("R")

LEAKS = ("in_test", "in_validation")
"""Reasons of rows that match a protected row."""
BEFORE = ": seeds and pool"
"""After the reason of rows that `prepare` left out, before anything was generated."""


@dataclass(frozen=True)
class KeptRow:
    """A generated row beside what it was written from."""

    row: Example
    parent: Example | None
    """None when the training set lacks it."""
    error: StudentError | None
    """What the student of the iteration before answered to the parent, when that was an error."""


@dataclass(frozen=True)
class KeptRows:
    """Some of the generated rows that one iteration added."""

    iteration: int
    total: int
    shown: list[KeptRow]


@dataclass(frozen=True)
class RejectedRows:
    """Some of the rows that were rejected for one reason."""

    reason: str
    total: int
    shown: list[Reject]


def kept_rows(training_set: Sequence[Example], errors: Sequence[StudentError], limit: int) -> list[KeptRows]:
    """Up to `limit` rows of each iteration, from as many parents as possible."""
    by_id = {row.id: row for row in training_set}
    error_of = {(error.iteration, error.example_id): error for error in errors}
    by_iteration: dict[int, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(training_set, key=lambda row: row.id):
        if row.parent_id is not None:
            by_iteration[row.iteration][row.written_from or ""].append(row)
    samples = []
    for iteration, by_parent in sorted(by_iteration.items()):
        families = [by_parent[parent] for parent in sorted(by_parent)]
        # The first row of every parent, then the second of every parent, and so on.
        rounds = [[rows[n] for rows in families if n < len(rows)] for n in range(max(map(len, families)))]
        chosen = spread(rounds[0], limit)
        for more in rounds[1:]:
            chosen += more[: limit - len(chosen)]
        shown = [
            KeptRow(row, by_id.get(row.written_from or ""), error_of.get((iteration - 1, row.written_from or "")))
            for row in chosen
        ]
        samples.append(KeptRows(iteration, sum(map(len, families)), shown))
    return samples


def rejected_rows(rejects: Sequence[Reject], limit: int, leaks: int = 10) -> list[RejectedRows]:
    """Up to `limit` rows for each reason, from its lowest score to its highest; the most frequent reason first.

    Of the rows that leaked, `leaks` are drawn at random instead, by their ids, which are hashes: a person who reads
    them sees how many were caught rightly.
    """
    by_reason: dict[str, list[Reject]] = defaultdict(list)
    for reject in sorted(rejects, key=lambda r: (-1.0 if r.score is None else r.score, r.iteration, r.id)):
        by_reason[reject.reason + (BEFORE if reject.stage == "prepare" else "")].append(reject)
    ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        RejectedRows(
            reason,
            len(rows),
            sorted(rows, key=lambda r: (r.id, r.iteration))[:leaks]
            if reason.removesuffix(BEFORE) in LEAKS
            else spread(rows, limit),
        )
        for reason, rows in ordered
    ]


def last_errors(errors: Sequence[StudentError], iteration: int, limit: int) -> list[StudentError]:
    """Up to `limit` errors of an iteration, suspects left out."""
    found = (e for e in errors if e.iteration == iteration and not e.suspect)
    return spread(sorted(found, key=lambda e: e.example_id), limit)


def suspects_of(errors: Sequence[StudentError], iteration: int) -> list[StudentError]:
    """The seeds of an iteration whose labels are likely wrong, the likeliest first."""
    found = (e for e in errors if e.iteration == iteration and e.suspect)
    return sorted(found, key=lambda e: (-(e.hardness or 0.0), e.example_id))


def spread(rows: Sequence[R], limit: int) -> list[R]:
    """Up to `limit` rows, evenly spaced from the first to the last."""
    if len(rows) <= limit:
        return list(rows)
    if limit == 1:
        return [rows[0]]
    return [rows[i * (len(rows) - 1) // (limit - 1)] for i in range(limit)]
