"""k-center and facility location choose what their greedy rule says, on sparse and dense vectors alike."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.similarity import diversity
from llm2llm.components.shared.similarity.diversity import (
    facility_location,
    k_center,
    k_center_of,
    most_alike,
    tf_idf,
)

TEXTS = st.lists(st.text("abc ", max_size=6), min_size=1, max_size=12)


def test_k_center_takes_the_farthest_next() -> None:
    texts = ["a b", "a b c", "x y", "a x", "p q"]
    assert k_center(texts, 3) == [0, 2, 4]
    assert k_center(texts, 9) == [0, 2, 4, 3, 1]
    assert k_center(texts, 2, centres=1) == [2, 4]
    assert k_center(texts, 0) == []
    assert k_center(["", "", "..."], 2) == [0, 1], "texts without words are alike"


@given(st.lists(st.text("ab ", max_size=6), min_size=1, max_size=12), st.integers(1, 12))
def test_k_center_is_the_greedy_choice(texts: list[str], count: int) -> None:
    vectors = tf_idf(texts).toarray()
    far = 1 - vectors @ vectors.T
    places = k_center(texts, count)
    assert len(set(places)) == len(places) == min(count, len(texts))
    for step in range(1, len(places)):
        nearest = far[:, places[:step]].min(axis=1)
        rest = [i for i in range(len(texts)) if i not in places[:step]]
        assert nearest[places[step]] >= nearest[rest].max() - 1e-9


def test_tf_idf_is_that_of_scikit_learn() -> None:
    """TfidfVectorizer(token_pattern=r"\\w+").fit_transform(["a b b", "b c"]), columns a, b, c."""
    expected = [[0.5749618, 0.8181804, 0.0], [0.0, 0.5797387, 0.8148025]]
    assert tf_idf(["a b b", "b c"]).toarray() == pytest.approx(np.array(expected), abs=1e-6)


def covered(vectors: np.ndarray, centres: int, chosen: list[int], weights: list[float]) -> float:
    """What facility location maximises."""
    there = [*range(centres), *chosen]
    if not there:
        return 0.0
    cosines = np.maximum(vectors[centres:] @ vectors[there].T, 0)
    return float(np.asarray(weights[centres:]) @ cosines.max(axis=1))


@given(TEXTS, st.integers(1, 12), st.integers(0, 3), st.lists(st.floats(0.1, 5), min_size=12, max_size=12))
def test_facility_location_is_the_greedy_choice(texts: list[str], count: int, centres: int, weights) -> None:
    centres = min(centres, len(texts))
    dense = tf_idf(texts).toarray()
    weights = weights[: len(texts)]
    places = facility_location(tf_idf(texts), count, centres, weights)
    assert len(set(places)) == len(places) == min(count, len(texts) - centres)
    assert all(place >= centres for place in places)
    for step, place in enumerate(places):
        rest = [i for i in range(centres, len(texts)) if i not in places[:step]]
        values = {i: covered(dense, centres, [*places[:step], i], weights) for i in rest}
        assert values[place] >= max(values.values()) - 1e-9
    assert places == facility_location(dense, count, centres, weights), "dense vectors are chosen alike"


@given(TEXTS, st.integers(1, 4))
def test_facility_location_covers_nearly_as_much_as_the_best_choice(texts: list[str], count: int) -> None:
    dense, weights = tf_idf(texts).toarray(), [1.0] * len(texts)
    count = min(count, len(texts))
    best = max(covered(dense, 0, list(some), weights) for some in combinations(range(len(texts)), count))
    found = covered(dense, 0, facility_location(dense, count), weights)
    assert found >= (1 - 1 / np.e) * best - 1e-9


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{a} {b} {a}{b}" for a in "abcde" for b in "vwxyz"]
    whole = facility_location(tf_idf(texts), 7, 9)
    monkeypatch.setattr(diversity, "BLOCK", 4)
    assert facility_location(tf_idf(texts), 7, 9) == whole


def test_facility_location_takes_what_stands_for_many_and_k_center_what_is_far() -> None:
    texts = ["play a song", "play a song now", "please play a song", "zebra", "rain today", "rain today again"]
    vectors = tf_idf(texts)
    assert texts[facility_location(vectors, 1)[0]].startswith("play a song")
    assert "zebra" not in [texts[place] for place in facility_location(vectors, 2)]
    assert "zebra" in [texts[place] for place in k_center_of(vectors, 3)]


def test_weights_say_what_matters_more() -> None:
    vectors = tf_idf(["play a song", "play a song now", "zebra", "rain"])
    assert facility_location(vectors, 1, 0, [1, 1, 9, 1]) == [2]
    assert k_center_of(vectors, 2, 0, [9, 1, 1, 8]) == [0, 3]
    assert k_center_of(vectors, 2, 0) == [0, 2]


def test_the_most_alike_is_told_with_its_cosine() -> None:
    vectors = tf_idf(["play a song", "rain", "play a tune"])
    score, place = most_alike(vectors, 2, [0, 1])
    assert place == 0
    assert 0 < score < 1
