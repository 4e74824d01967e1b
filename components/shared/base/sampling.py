"""Seeded sampling that is the same on every machine: random order, largest-remainder shares, folds."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping


def seeded_key(*parts: object) -> bytes:
    """What rows are sorted by for an order of chance: SHA-256 of the seed, what it is for and the row's id, with colons
    between them. A row more or less changes nothing in the order of the others."""
    return hashlib.sha256(":".join(map(str, parts)).encode()).digest()


def largest_remainder(
    weights: Mapping[str, float], count: int, *, at_least: int = 0, at_most: Mapping[str, int] | None = None
) -> dict[str, int]:
    """`count` dealt out in proportion to the weights: rounded down, and the rest to the largest remainders (Hamilton's
    method), of equal ones to the first by name.

    Args:
        weights: By name, none below 0; where there is something to deal out, their sum is more than 0.
        count: What is dealt out.
        at_least: What each gets.
        at_most: What each can get; nothing for no limit.

    Returns:
        By name, in the order of the weights. The sum is `count`.

    Raises:
        ValueError: The limits leave no way to deal out so many.
    """
    if count == 0:
        return dict.fromkeys(weights, 0)
    if not weights or count < at_least * len(weights) or (at_most is not None and sum(at_most.values()) < count):
        raise ValueError(f"cannot deal out {count} among {len(weights)} with at least {at_least} and at most {at_most}")
    limit = dict.fromkeys(weights, count) if at_most is None else at_most
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    shares = {name: min(limit[name], max(at_least, int(exact[name]))) for name in weights}

    def surplus(name: str) -> tuple[float, str]:
        return shares[name] - exact[name], name

    while sum(shares.values()) < count:
        shares[min((name for name in shares if shares[name] < limit[name]), key=surplus)] += 1
    while sum(shares.values()) > count:
        over = [name for name in shares if shares[name] > at_least]
        shares[max(over, key=lambda name: surplus(name)[0])] -= 1
    return shares


def fold_of(answers: Mapping[str, str], folds: int, random_seed: int) -> dict[str, int]:
    """The fold (0 to `folds` - 1) of each row: sizes differ by one at most, and so do those of each answer.

    Rows are dealt out like cards, answer by answer, in the order of a hash of their ids.

    Args:
        answers: The answer of each row, by the row's id.
        folds: How many.
        random_seed: Another one deals otherwise.
    """
    hands: dict[str, list[str]] = defaultdict(list)
    for row, answer in answers.items():
        hands[answer].append(row)
    dealt: dict[str, int] = {}
    # Not in alphabetical order: where every answer is another text, the seed would decide nothing.
    for answer in sorted(hands, key=lambda answer: seeded_key(random_seed, "fold", answer)):
        for row in sorted(hands[answer], key=lambda row: seeded_key(random_seed, row)):
            dealt[row] = len(dealt) % folds
    return dealt
