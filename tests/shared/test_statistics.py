"""The Wilson interval."""

from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.statistics import Z_95, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # statsmodels.stats.proportion.proportion_confint(correct, n, method="wilson")
        (0, 10, 0.0, 0.277533),
        (1, 10, 0.017876, 0.404150),
        (5, 10, 0.236593, 0.763407),
        (10, 10, 0.722467, 1.0),
        (81, 263, 0.255285, 0.366194),  # Newcombe 1998: 0.2553 to 0.3662
        (15, 148, 0.062386, 0.160506),  # Newcombe 1998: 0.0624 to 0.1605
        (1, 29, 0.006114, 0.171756),  # Newcombe 1998: 0.0061 to 0.1718
    ],
)
def test_known_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=2e-5)


counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_contains_the_share_and_stays_in_bounds(count: tuple[int, int]) -> None:
    correct, n = count
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert low < high


@given(counts)
def test_solves_the_equation_that_defines_it(count: tuple[int, int]) -> None:
    """The ends are the p with |share - p| = z sqrt(p (1 - p) / n), but for the cut at 0 and 1."""
    correct, n = count
    for p in wilson_interval(correct, n):
        assert isclose(abs(correct / n - p), Z_95 * sqrt(p * (1 - p) / n), abs_tol=1e-7)


@given(counts, st.integers(2, 10))
def test_is_narrower_with_more_of_the_same(count: tuple[int, int], times: int) -> None:
    correct, n = count
    low, high = wilson_interval(correct, n)
    more_low, more_high = wilson_interval(correct * times, n * times)
    assert more_high - more_low < high - low


@given(counts)
def test_mirrors(count: tuple[int, int]) -> None:
    correct, n = count
    low, high = wilson_interval(correct, n)
    assert wilson_interval(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_nothing_is_known_without_rows() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_are_refused(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match=rf"correct must be in 0\.\.{n}, got {correct}"):
        wilson_interval(correct, n)
