"""From candidates to the next training set: what copies, and what would leak, stays out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.rows.kinds import Example, Reject
from llm2llm.components.similarity import question_key, rouge_l
from llm2llm.components.tasks.words import folded

CHUNK = 1_000  # candidates compared at once: bounds the memory of the similarity matrix


@dataclass(frozen=True)
class Neighbour:
    """The row that a candidate collides with."""

    reason: str
    row: Example
    score: float


def dedupe(
    candidates: Sequence[Example],
    training_set: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    settings: DedupeSettings,
    iteration: int,
) -> tuple[list[Example], list[Reject]]:
    """The next training set and the rejects, each with its reason and neighbour.

    A candidate is rejected when it equals, up to case, white space and outer punctuation, or nearly copies by ROUGE-L
    a validation or test row (`in_validation`, `in_test`), a training row, or a candidate that was kept (`copy`,
    `near_copy`). The question and the choices are compared, not the answer. Of a group of candidates that copy one
    another the one with the smallest id is kept, so the order in which they come changes nothing.

    Args:
        candidates: What the teacher wrote.
        training_set: The rows of the training set so far; all of them stay.
        validation: Protected: nothing like it gets in.
        test: Protected likewise.
        settings: See `DedupeSettings`.
        iteration: The iteration whose training set this is.
    """
    ordered = sorted(candidates, key=lambda row: row.id)
    groups = [
        ("in_test", settings.leak, sorted(test, key=lambda row: row.id)),
        ("in_validation", settings.leak, sorted(validation, key=lambda row: row.id)),
        ("near_copy", settings.near_copy, sorted(training_set, key=lambda row: row.id)),
    ]
    kept: list[Example] = []
    rejects: list[Reject] = []
    for start in range(0, len(ordered), CHUNK):
        chunk = ordered[start : start + CHUNK]
        collisions = [_nearest_in(chunk, rows, threshold, reason) for reason, threshold, rows in groups]
        # Those kept from earlier chunks, and, row by row below, from this one.
        collisions.append(_nearest_in(chunk, kept, settings.near_copy, "near_copy"))
        among = rouge_l([text_of(row) for row in chunk], [text_of(row) for row in chunk])
        kept_here: list[int] = []
        place_of: dict[str, int] = {}
        for i, row in enumerate(chunk):
            found = next((column[i] for column in collisions if column[i] is not None), None)
            if found is None and kept_here:
                nearest = place_of.get(question_key(row), kept_here[int(np.argmax(among[i, kept_here]))])
                found = _collision(row, chunk[nearest], float(among[i, nearest]), settings.near_copy, "near_copy")
            if found is None:
                kept_here.append(i)
                place_of[question_key(row)] = i
            else:
                rejects.append(_reject(row, found, iteration))
        kept += [chunk[i] for i in kept_here]
    # A check against no rows is none.
    passed = [*["not in test"] * bool(test), *["not in validation"] * bool(validation), "no near copy"]
    new = [replace(row, iteration=iteration, checks=[*row.checks, *passed]) for row in kept]
    return sorted([*training_set, *new], key=lambda row: (row.iteration, row.id)), rejects


def text_of(row: Example) -> str:
    """What of a row is compared: the question and the choices, whose order does not matter."""
    return "\n".join([row.question, *sorted(row.choices, key=folded)])


def _nearest_in(
    candidates: Sequence[Example], rows: Sequence[Example], threshold: float, reason: str
) -> list[Neighbour | None]:
    """For each candidate the row that it collides with, if any: an equal one first, else the nearest."""
    if not rows:
        return [None] * len(candidates)
    equal: dict[str, Example] = {}
    for row in rows:
        equal.setdefault(question_key(row), row)
    scores = rouge_l([text_of(row) for row in candidates], [text_of(row) for row in rows])
    nearest = np.argmax(scores, axis=1)
    found = []
    for i, candidate in enumerate(candidates):
        same = equal.get(question_key(candidate))
        row, score = (same, 1.0) if same else (rows[nearest[i]], float(scores[i, nearest[i]]))
        found.append(_collision(candidate, row, score, threshold, reason))
    return found


def _collision(candidate: Example, row: Example, score: float, threshold: float, reason: str) -> Neighbour | None:
    same = question_key(candidate) == question_key(row)
    if not same and score < threshold:
        return None
    if reason == "near_copy" and same:
        reason = "copy"
    return Neighbour(reason=reason, row=row, score=1.0 if same else score)


def _reject(row: Example, neighbour: Neighbour, iteration: int) -> Reject:
    return Reject(
        iteration=iteration,
        stage="dedupe",
        reason=neighbour.reason,
        detail=f"ROUGE-L {neighbour.score:.3f}",
        score=neighbour.score,
        neighbour_id=neighbour.row.id,
        neighbour=text_of(neighbour.row),
        id=row.id,
        question=row.question,
        choices=row.choices,
        rationale=row.rationale,
        answer=row.answer,
        parent_id=row.parent_id,
        strategy=row.strategy,
        teacher=row.teacher,
        call_key=row.call_key,
    )
