"""Which fold a seed is in, the same on every machine."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from llm2llm.components.shared.data.schemas import Example


def fold_of(seeds: Sequence[Example], folds: int, random_seed: int) -> dict[str, int]:
    """The fold (0 to `folds` - 1) of each seed's id: sizes differ by one at most, and so do those of each answer.

    Seeds are dealt out like cards, answer by answer, in the order of a hash of their ids.
    """
    hands: dict[str, list[str]] = defaultdict(list)
    for seed in seeds:
        hands[seed.answer].append(seed.id)
    dealt: dict[str, int] = {}
    for answer in sorted(hands):
        for row in sorted(hands[answer], key=lambda i: hashlib.sha256(f"{random_seed}:{i}".encode()).digest()):
            dealt[row] = len(dealt) % folds
    return dealt
