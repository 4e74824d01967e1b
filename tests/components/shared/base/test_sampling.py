"""Draws: exact, fair, and the same on every machine."""

import hashlib
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.sampling import fold_of, largest_remainder, seeded_key


def make(answers: list[str]) -> dict[str, str]:
    return {f"row {number}": answer for number, answer in enumerate(answers)}


seed_lists = st.lists(st.sampled_from(["red", "green", "blue"]), max_size=40).map(make)


@given(seed_lists, st.integers(1, 8), st.integers(0, 5), st.randoms(use_true_random=False))
def test_folds(seeds: dict[str, str], folds: int, random_seed: int, random: Random) -> None:
    dealt = fold_of(seeds, folds, random_seed)
    assert set(dealt) == set(seeds)
    assert set(dealt.values()) <= set(range(folds))
    for answer in (None, "red", "green", "blue"):
        members = [row for row, its_answer in seeds.items() if answer in (None, its_answer)]
        sizes = Counter(dealt[row] for row in members)
        assert max(sizes.values(), default=0) - min(sizes[fold] for fold in range(folds)) <= 1
    shuffled = list(seeds.items())
    random.shuffle(shuffled)
    assert fold_of(dict(shuffled), folds, random_seed) == dealt


def test_another_random_seed_deals_otherwise() -> None:
    seeds = make(["red", "green"] * 10)
    assert fold_of(seeds, 5, 0) != fold_of(seeds, 5, 1)


def test_another_random_seed_deals_free_answers_otherwise() -> None:
    """Each row has an answer of its own, so that the order of the answers is the order of the rows."""
    seeds = make([f"answer {number}" for number in range(20)])
    dealt = {tuple(sorted(fold_of(seeds, 2, random_seed).items())) for random_seed in range(10)}
    assert len(dealt) == 10


def test_the_folds_of_a_random_seed_never_change() -> None:
    dealt = fold_of(make(["red"] * 4), 2, 0)
    assert dealt == {"row 0": 0, "row 1": 0, "row 2": 1, "row 3": 1}


weights = st.dictionaries(st.text("abcdef", min_size=1), st.floats(0.01, 100), min_size=1, max_size=6)


@given(weights, st.integers(0, 50))
def test_shares_are_exact_and_as_near_as_whole_numbers_can_be(weights: dict[str, float], count: int) -> None:
    shares = largest_remainder(weights, count)
    assert sum(shares.values()) == count
    assert list(shares) == list(weights)
    total = sum(weights.values())
    for name, share in shares.items():
        assert abs(share - count * weights[name] / total) < 1
    assert all(shares[one] <= shares[other] for one in shares for other in shares if weights[one] < weights[other])


@given(st.dictionaries(st.text("abcdef", min_size=1), st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_shares_keep_to_limits(sizes: dict[str, int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(sizes.values())))
    at_least = 1 if count >= len(sizes) else 0
    shares = largest_remainder(sizes, count, at_least=at_least, at_most=sizes)
    assert sum(shares.values()) == count
    assert all(at_least <= shares[name] <= sizes[name] for name in sizes)


def test_of_equal_remainders_the_first_by_name() -> None:
    assert largest_remainder({"b": 1, "a": 1, "c": 1}, 4) == {"b": 1, "a": 2, "c": 1}


@pytest.mark.parametrize("limits", [{"at_least": 2}, {"at_most": {"a": 1, "b": 1}}])
def test_what_cannot_be_dealt_out_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot deal out 3"):
        largest_remainder({"a": 1, "b": 1}, 3, **limits)


def test_an_order_of_chance_never_changes() -> None:
    assert seeded_key(3, "validation", "id").hex() == hashlib.sha256(b"3:validation:id").hexdigest()
