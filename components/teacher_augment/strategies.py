"""Which seeds to write from, and how many rows from each."""

import random
from collections import Counter
from collections.abc import Sequence

from llm2llm.components.rows.kinds import Example, StudentError
from llm2llm.components.teacher_augment.replies import Request
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings


def requests(
    errors: Sequence[StudentError],
    seeds: Sequence[Example],
    settings: TeacherAugmentSettings,
    iteration: int,
    random_seed: int,
) -> list[Request]:
    """The requests of one iteration, sorted by the parent's id; no errors, no requests.

    Args:
        errors: The errors to help with.
        seeds: All seeds; for `random`, where the parents are drawn from.
        settings: `strategy` and how many rows to write.
        iteration: Makes the draws of one iteration differ from the next.
        random_seed: Makes them repeatable.
    """
    if not errors:
        return []
    rng = random.Random(f"{random_seed}:{iteration}:{settings.strategy}")
    by_id = {seed.id: seed for seed in seeds}
    error_by_id = {error.example_id: error for error in errors}
    if settings.strategy == "random":
        # With as many rows as errors would have given; a seed is drawn twice only when there are not enough.
        pool = sorted(by_id)
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


def _counts(parents: list[str], settings: TeacherAugmentSettings, rng: random.Random) -> dict[str, int]:
    """How many rows to write from each parent; a parent that stands twice gets twice as many."""
    if not settings.rows_per_iteration:
        return {parent: times * settings.examples_per_error for parent, times in Counter(parents).items()}
    # Spread evenly; who gets the odd ones is drawn.
    shuffled = rng.sample(parents, len(parents))
    counts = dict.fromkeys(shuffled, 0)
    for number in range(settings.rows_per_iteration):
        counts[shuffled[number % len(shuffled)]] += 1
    return counts
