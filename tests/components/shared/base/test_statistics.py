"""The Wilson interval, the paired comparisons of two students, pass@k, calibration."""

from itertools import combinations
from math import comb, isclose, sqrt
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llm2llm.components.shared.base.statistics import (
    Z_95,
    Mean,
    best_of_p,
    calibration_error,
    holm,
    mcnemar_p,
    paired_difference,
    pass_at_k,
    reliability_bins,
    t_interval,
    wilson_interval,
)


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


def outcomes(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Paired outcomes with these counts."""
    first = [True] * both + [True] * only_first + [False] * only_second + [False] * neither
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


cells = st.integers(0, 30)


class TestMcNemar:
    @pytest.mark.parametrize(
        ("only_first", "only_second", "p"),
        [(0, 0, 1.0), (0, 1, 1.0), (0, 5, 2 / 32), (0, 6, 2 / 64), (5, 5, 1.0), (1, 9, 22 / 1024)],
    )
    def test_known_values(self, only_first: int, only_second: int, p: float) -> None:
        assert mcnemar_p(*outcomes(40, only_first, only_second, 7)) == pytest.approx(p)

    @given(cells, cells, cells, cells)
    def test_is_twice_the_binomial_tail(self, both: int, only_first: int, only_second: int, neither: int) -> None:
        differ = only_first + only_second
        tail = sum(comb(differ, i) for i in range(min(only_first, only_second) + 1)) / 2**differ
        first, second = outcomes(both, only_first, only_second, neither)
        assert mcnemar_p(first, second) == pytest.approx(min(1.0, 2 * tail))
        assert mcnemar_p(second, first) == pytest.approx(mcnemar_p(first, second))

    def test_holds_its_level_where_nothing_differs(self) -> None:
        """Of 500 pairs of equally good students at most 5% are told apart."""
        rng = np.random.default_rng(0)
        draws = rng.random((500, 2, 100)) < 0.7
        assert fmean(mcnemar_p(list(one), list(other)) < 0.05 for one, other in draws) <= 0.05

    def test_looks_one_way_where_it_is_told_to(self) -> None:
        before, after = [True] * 5 + [False], [False] * 5 + [True]
        assert mcnemar_p(before, after, "worse") == pytest.approx(7 / 64)
        assert mcnemar_p(after, before, "worse") == pytest.approx(63 / 64)

    def test_other_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="paired outcomes must be of the same rows, got 2 and 1"):
            mcnemar_p([True, False], [True])


class TestPairedDifference:
    @given(cells, cells, cells, st.integers(1, 30))
    def test_is_the_difference_of_the_accuracies_in_its_interval(self, both, only_first, only_second, neither) -> None:
        first, second = outcomes(both, only_first, only_second, neither)
        found = paired_difference(first, second, resamples=500)
        assert found.value == pytest.approx(fmean(second) - fmean(first))
        assert -1 <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= 1
        assert paired_difference(first, second, resamples=500) == found
        assert paired_difference(second, first, resamples=500).value == pytest.approx(-found.value)

    def test_is_that_of_drawing_rows(self) -> None:
        """Against a bootstrap that draws row by row."""
        first, second = outcomes(50, 8, 20, 22)
        rng = np.random.default_rng(1)
        rows = np.array(second, float) - np.array(first, float)
        drawn = rows[rng.integers(0, 100, size=(20_000, 100))].mean(axis=1)
        found = paired_difference(first, second)
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.011)

    def test_covers_the_true_difference(self) -> None:
        """Of 200 comparisons on 200 rows about 95% hold the difference that the outcomes were drawn with."""
        rng = np.random.default_rng(2)
        held = 0
        for _ in range(200):
            kinds = rng.choice(4, size=200, p=[0.5, 0.1, 0.2, 0.2])
            found = paired_difference(list(kinds <= 1), list((kinds == 0) | (kinds == 2)), resamples=1000)
            held += found.low <= 0.1 <= found.high
        assert held >= 0.92 * 200

    def test_nothing_to_compare_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no rows"):
            paired_difference([], [])


class TestPassAtK:
    @given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
    def test_is_the_share_of_draws_with_a_right_answer(self, drawn: tuple[int, int, int]) -> None:
        n, correct, k = drawn
        answers = [True] * correct + [False] * (n - correct)
        assert pass_at_k(n, correct, k) == pytest.approx(fmean(any(few) for few in combinations(answers, k)))

    def test_one_draw_is_the_accuracy(self) -> None:
        assert pass_at_k(200, 50, 1) == pytest.approx(0.25)
        assert pass_at_k(10_000, 9_999, 1) == pytest.approx(0.9999)

    @pytest.mark.parametrize(("n", "correct", "k"), [(5, 6, 1), (5, -1, 1), (5, 2, 6), (5, 2, 0), (0, 0, 1)])
    def test_impossible_counts_are_refused(self, n: int, correct: int, k: int) -> None:
        with pytest.raises(ValueError, match="must be in"):
            pass_at_k(n, correct, k)


sure = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


class TestCalibration:
    def test_by_hand(self) -> None:
        """Two bins: 0.2 and 0.4 with one of two right, 0.9 and 0.7 with one of two right."""
        confidences, correct = [0.2, 0.4, 0.9, 0.7], [True, False, True, False]
        low, high = reliability_bins(confidences, correct, 2)
        assert (low.low, low.high, low.n, low.accuracy) == (0.0, 0.5, 2, 0.5)
        assert (low.confidence, high.confidence) == pytest.approx((0.3, 0.8))
        assert calibration_error(confidences, correct, 2) == pytest.approx((2 * 0.2 + 2 * 0.3) / 4)

    @given(sure, st.integers(1, 20))
    def test_is_that_of_the_authors_code(self, answers: list[tuple[float, bool]], bins: int) -> None:
        """temperature_scaling.py of Guo et al., but for a confidence of 0, which it leaves out of every bin."""
        confidences = np.array([max(confidence, 1e-12) for confidence, _ in answers])
        accuracies = np.array([right for _, right in answers], dtype=float)
        expected = 0.0
        for place in range(bins):
            inside = (confidences > place / bins) & (confidences <= (place + 1) / bins)
            if inside.any():
                expected += abs(confidences[inside].mean() - accuracies[inside].mean()) * inside.mean()
        found = calibration_error([confidence for confidence, _ in answers], [right for _, right in answers], bins)
        assert found == pytest.approx(expected, abs=1e-9)
        assert 0 <= found <= 1

    @given(sure, st.integers(1, 20))
    def test_each_answer_is_in_the_bin_of_its_confidence(self, answers: list[tuple[float, bool]], bins: int) -> None:
        found = reliability_bins([confidence for confidence, _ in answers], [right for _, right in answers], bins)
        assert sum(one.n for one in found) == len(answers)
        for one in found:
            inside = [c for c, _ in answers if one.low < c <= one.high or (c == 0 and one.low == 0)]
            assert one.n == len(inside)

    def test_a_student_that_is_always_sure_is_off_by_its_errors(self) -> None:
        assert calibration_error([1.0] * 10, [True] * 7 + [False] * 3) == pytest.approx(0.3)

    def test_nonsense_is_refused(self) -> None:
        with pytest.raises(ValueError, match="same rows"):
            calibration_error([0.5], [True, False])
        with pytest.raises(ValueError, match="no answers"):
            calibration_error([], [])
        with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
            reliability_bins([1.5], [True])
        with pytest.raises(ValueError, match="at least 1"):
            reliability_bins([0.5], [True], 0)


def test_a_t_interval_is_scipys_and_of_one_value_nothing_is_known() -> None:
    values = [0.7, 0.9, 0.5, 0.65]
    found = t_interval(values, level=0.9)
    expected = stats.t.interval(0.9, 3, loc=fmean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.value, found.n) == (pytest.approx(fmean(values)), 4)
    assert t_interval([0.5]) == Mean(0.5, None, None, 1)
    with pytest.raises(ValueError, match="no values"):
        t_interval([])


class TestSeveralTests:
    def test_holm_by_hand(self) -> None:
        """statsmodels.stats.multitest.multipletests(p, method="holm")"""
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert holm([0.9, 0.8]) == [1.0, 1.0]
        assert holm([]) == []

    def test_the_best_of_one_is_mcnemars_mid_p(self) -> None:
        # 14 rows differ, 11 to 3: P(more than 11) + P(11) / 2, twice.
        first, second = measured([0] * 11 + [1] * 3 + [1] * 40), measured([1] * 11 + [0] * 3 + [1] * 40)
        mid = 2 * (sum(comb(14, k) for k in range(12, 15)) + comb(14, 11) / 2) / 2**14
        assert best_of_p(first, [second], swaps=40_000) == pytest.approx(mid, abs=0.004)
        assert best_of_p(second, [first]) == 1.0

    def test_the_best_of_several_must_gain_more_than_one_and_less_than_by_bonferroni(self) -> None:
        random = np.random.default_rng(0)
        first = measured([0] * 12 + [1] * 4 + [1] * 84)
        students = [measured([1] * 12 + [0] * 4 + [1] * 84)]
        alone = best_of_p(first, students)
        # The others share half of what tells the first from the best, so they are no four new chances.
        for _ in range(4):
            right = np.array([1] * 6 + [0] * 6 + [0] * 2 + [1] * 86)
            right[random.choice(100, 6, replace=False)] = 0
            students.append(measured(right))
        assert alone < best_of_p(first, students) < 5 * alone

    def test_students_alike_in_all_answers_are_one(self) -> None:
        first, second = measured([0] * 8 + [1] * 20), measured([1] * 7 + [0] * 1 + [1] * 20)
        assert best_of_p(first, [second] * 9) == best_of_p(first, [second])
        assert best_of_p(first, [first]) == 1.0

    def test_nothing_or_others_to_compare_are_refused(self) -> None:
        for students in ([], [measured([1])]):
            with pytest.raises(ValueError, match="at least one student, of the same rows"):
                best_of_p(measured([1, 0]), students)


def measured(right: object) -> np.ndarray:
    column = np.asarray(right, dtype=float)
    return np.stack([column, np.ones(len(column))], axis=1)
