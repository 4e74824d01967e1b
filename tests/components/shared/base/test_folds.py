"""Folds: every seed in one, balanced, the same on every machine."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.folds import fold_of
from llm2llm.components.shared.data.schemas import Example, content_id


def make(answers: list[str]) -> list[Example]:
    return [
        Example(id=content_id(f"question {i}", [], None, answer), question=f"question {i}", answer=answer)
        for i, answer in enumerate(answers)
    ]


seed_lists = st.lists(st.sampled_from(["red", "green", "blue"]), max_size=40).map(make)


@given(seed_lists, st.integers(1, 8), st.integers(0, 5), st.randoms(use_true_random=False))
def test_folds(seeds: list[Example], folds: int, random_seed: int, random: object) -> None:
    dealt = fold_of(seeds, folds, random_seed)
    assert set(dealt) == {seed.id for seed in seeds}
    assert set(dealt.values()) <= set(range(folds))
    for answer in (None, "red", "green", "blue"):
        members = [seed for seed in seeds if answer in (None, seed.answer)]
        sizes = Counter(dealt[seed.id] for seed in members)
        assert max(sizes.values(), default=0) - min(sizes[fold] for fold in range(folds)) <= 1
    shuffled = list(seeds)
    random.shuffle(shuffled)
    assert fold_of(shuffled, folds, random_seed) == dealt


def test_another_random_seed_deals_otherwise() -> None:
    seeds = make(["red", "green"] * 10)
    assert fold_of(seeds, 5, 0) != fold_of(seeds, 5, 1)


def test_the_folds_of_a_random_seed_never_change() -> None:
    dealt = fold_of(make(["red"] * 4), 2, 0)
    assert [dealt[seed.id] for seed in make(["red"] * 4)] == [0, 1, 0, 1]
