"""Chooses the rows to write from, and how many rows from each."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from llm2llm.components.shared.data.schemas import Example, StudentError
from llm2llm.components.teacher_augment.replies import Request

if TYPE_CHECKING:  # the settings look strategies up, which use this
    from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings


def requests(
    errors: Sequence[StudentError],
    training_set: Sequence[Example],
    settings: "TeacherAugmentSettings",
    iteration: int,
    random_seed: int,
) -> list[Request]:
    """The requests of one iteration, sorted by the parent's id; no errors, no requests.

    Args:
        errors: The errors to help with; suspects, whose label may be wrong, are passed over.
        training_set: Holds what the errors are of. Parents that are drawn are drawn from its seeds.
        settings: `strategy`, how many rows to write, and `verification.student_unsure`.
        iteration: Makes the draws of one iteration differ from the next.
        random_seed: Makes them repeatable.
    """
    errors = doubtful([error for error in errors if not error.suspect], settings.verification.student_unsure)
    if not errors:
        return []
    rng = random.Random(f"{random_seed}:{iteration}:{settings.strategy}")
    by_id = {row.id: row for row in training_set}
    error_by_id = {error.example_id: error for error in errors}
    if settings.chosen_strategy.draws_parents:
        # With as many rows as errors would have given; a seed is drawn twice only when there are not enough.
        pool = sorted(row.id for row in training_set if not row.generated)
        parents = [row for _ in range(0, len(error_by_id), len(pool)) for row in rng.sample(pool, len(pool))]
        parents = parents[: len(error_by_id)]
    else:
        parents = sorted(error_by_id)
    counts = _counts(parents, settings, rng)
    return [
        Request(parent=by_id[parent], error=error_by_id.get(parent), count=count)
        for parent, count in sorted(counts.items())
        if count
    ]


def _counts(parents: list[str], settings: "TeacherAugmentSettings", rng: random.Random) -> dict[str, int]:
    """How many rows to write from each parent; a parent that stands twice gets twice as many."""
    if not settings.rows_per_iteration:
        return {parent: times * settings.examples_per_error for parent, times in Counter(parents).items()}
    # Spread evenly; who gets the odd ones is drawn.
    shuffled = rng.sample(parents, len(parents))
    counts = dict.fromkeys(shuffled, 0)
    for number in range(settings.rows_per_iteration):
        counts[shuffled[number % len(shuffled)]] += 1
    return counts


def doubtful(errors: Sequence[StudentError], share: float) -> list[StudentError]:
    """The share of the errors that the student is least sure of: the student's side of the two-sided gate.

    What is known of the student's doubt is what the selection ranked the errors by, their `hardness`, and whether
    several answers to one were the same. Where nothing is known, all errors stay. Errors that were all answered
    rightly, or rightly but for the form, hold no doubt.
    """
    if share >= 1:
        return list(errors)
    unsure = [error for error in errors if error.difficulty in ("unsolved", "flaky")]
    if any(error.hardness is None for error in unsure):
        return unsure
    ranked = sorted(unsure, key=lambda error: (-(error.hardness or 0.0), error.example_id))
    return ranked[: math.ceil(share * len(errors))]


def in_parts(request: Request, most: int) -> list[Request]:
    """A request as several of at most `most` rows each, as even as can be."""
    number = math.ceil(request.count / most)
    return [replace(request, count=(request.count + part) // number, number=part) for part in range(number)]
