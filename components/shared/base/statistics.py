"""Intervals and paired tests for decisions and reports."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, fsum, sqrt
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z_95 = 1.959963984540054  # the 97.5% quantile of the standard normal distribution
FEW_ROWS = 50
"""On fewer rows a paired bootstrap interval is too narrow to go by alone: two equally good students that differ on 4 of
10 rows, on the average, get a 95% interval above 0 in 5.5% of the cases, and not in 2.5% (on 50 rows: 2.4%); on one row
it has no width at all. There McNemar's exact test must agree."""


def wilson_interval(correct: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a proportion, in [0, 1]; 95% by default.

    It keeps its coverage near 0 and 1 and for small n, where the normal interval does not (Wilson 1927; Brown, Cai and
    DasGupta, "Interval estimation for a binomial proportion", 2001). With n = 0 nothing is known: (0.0, 1.0).

    Raises:
        ValueError: When `correct` is not in 0..n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"correct must be in 0..{n}, got {correct}")
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    centre = share + z * z / (2 * n)
    spread = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and 1 rounding would put the share itself outside.
    return max(0.0, min(share, (centre - spread) / scale)), min(1.0, max(share, (centre + spread) / scale))


def mcnemar_p(
    first: Sequence[bool], second: Sequence[bool], alternative: Literal["two-sided", "worse"] = "two-sided"
) -> float:
    """The p-value of McNemar's exact test: could two students be equally good, given these paired outcomes?

    Only rows on which they differ count; under the null hypothesis each is a fair coin (McNemar 1947; exact binomial
    form, as in Dietterich, "Approximate statistical tests for comparing supervised classification learning
    algorithms", 1998). Without such a row the p-value is 1.

    Args:
        first: Whether the first student was right, row by row.
        second: The same of the second student, for the same rows in the same order.
        alternative: `worse` looks one way only: whether the second student is worse than the first.

    Raises:
        ValueError: The two are not of the same length.
    """
    from scipy.stats import binomtest

    _check_paired(first, second)
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    differ = only_first + only_second
    way = "greater" if alternative == "worse" else "two-sided"
    return float(binomtest(only_first, differ, 0.5, alternative=way).pvalue) if differ else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted so that those below a level are false for any of them with at most the
    probability of that level, however the tests depend on each other (Holm, "A simple sequentially rejective multiple
    test procedure", 1979)."""
    adjusted = [1.0] * len(p_values)
    so_far = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        so_far = max(so_far, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = so_far
    return adjusted


def share_right(sums: "NDArray[Any]") -> "NDArray[Any]":
    """The accuracy of (right answers, answers) in the last axis."""
    right: NDArray[Any] = sums[..., 0] / sums[..., 1]
    return right


def best_of_p(
    first: "NDArray[Any]",
    students: Sequence["NDArray[Any]"],
    value: Callable[["NDArray[Any]"], "NDArray[Any]"] = share_right,
    random_seed: int = 0,
    swaps: int = 10_000,
) -> float:
    """The two-sided p-value of the best of several students against the first: could none of them be better?

    The best of k is better than the first by luck k times as often as one is, or nearly. So the largest gain is held
    against the largest if nothing but chance told each student from the first: the answers to a row are swapped between
    the first and all the students at once, or not, by a fair coin for each row, which leaves alone how alike the
    students are (approximate randomisation: Noreen 1989; the maximum over all: Westfall and Young, "Resampling-based
    multiple testing", 1993). Bonferroni, which knows nothing of that, would ask for more. Each gain is divided by its
    standard deviation under these swaps, as is usual: the same gain says more of a student that answers fewer rows
    differently. A gain that is reached exactly counts half (mid-p), as gains on few rows are coarse. With one student
    and accuracies, it is McNemar's test.

    Args:
        first: What `value` needs of each answer, as (rows, measures).
        students: The same of each student, for the same rows in the same order.
        value: From the sums of the measures over rows, in the last axis, to a figure of which more is better.
        random_seed: The same seed gives the same p-value.
        swaps: How often to swap.

    Raises:
        ValueError: No students, no rows, or not the same shape.
    """
    import numpy as np

    if not students or not len(first) or any(one.shape != first.shape for one in students):
        raise ValueError(f"at least one student, of the same rows: {first.shape}, {[one.shape for one in students]}")
    differ = np.any([np.any(one != first, axis=1) for one in students], axis=0)
    changes = [(one - first)[differ].astype(np.float64) for one in students]
    own, theirs = first.sum(axis=0), [one.sum(axis=0) for one in students]
    observed = np.array([float(value(one) - value(own)) for one in theirs])
    random = np.random.default_rng(random_seed)
    gains = np.empty((swaps, len(students)))
    # In parts, as rows times swaps can be more than the memory.
    part = max(1, min(swaps, 4_000_000 // max(1, int(differ.sum()))))
    for start in range(0, swaps, part):
        coins = random.integers(0, 2, size=(min(part, swaps - start), int(differ.sum()))).astype(np.float64)
        for number, (change, sums) in enumerate(zip(changes, theirs, strict=True)):
            moved = coins @ change
            gains[start : start + len(coins), number] = value(sums - moved) - value(own + moved)
    spread = gains.std(axis=0)
    spread[spread == 0] = 1.0  # a student that is the first in all answers
    best, reached = (gains / spread).max(axis=1), (observed / spread).max()
    same = np.abs(best - reached) <= 1e-9
    above = float((best[~same] > reached).sum()) + float(same.sum()) / 2
    return min(1.0, 2 * (above + 1) / (swaps + 1))


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two accuracies, in [-1, 1], with its interval."""

    value: float
    low: float
    high: float


def paired_difference(
    first: Sequence[bool],
    second: Sequence[bool],
    random_seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Difference:
    """The second student's accuracy less the first's on the same rows, with its paired bootstrap interval.

    Rows are drawn with replacement, both outcomes of a row together (Efron 1979; percentile interval). A row's outcome
    is one of three (+1, 0, -1), so a resample is one draw from a multinomial distribution, whatever the number of rows.

    Args:
        first: Whether the first student was right, row by row.
        second: The same of the second student, for the same rows in the same order.
        random_seed: The same seed gives the same interval.
        resamples: How often to draw.
        level: How much of the resampled differences the interval holds.

    Raises:
        ValueError: The two are not of the same length, or empty.
    """
    import numpy as np

    _check_paired(first, second)
    n = len(first)
    if n == 0:
        raise ValueError("no rows to compare two students on")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    shares = [only_second / n, only_first / n, (n - only_first - only_second) / n]
    drawn = np.random.default_rng(random_seed).multinomial(n, shares, size=resamples)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [(1 - level) / 2, (1 + level) / 2])
    return Difference((only_second - only_first) / n, float(low), float(high))


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of `n` values with its interval; of fewer than two values no interval is known."""

    value: float
    low: float | None
    high: float | None
    n: int


def t_interval(values: Sequence[float], level: float = 0.95) -> Mean:
    """The mean of independent values with its interval by Student's t (Student 1908).

    Given differences of pairs it is the interval of the paired t test.

    Args:
        values: One for each independent repetition, such as a random seed.
        level: How often intervals made so hold the true mean.

    Raises:
        ValueError: No values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to average")
    mean = fsum(values) / n
    if n == 1:
        return Mean(mean, None, None, 1)
    from scipy.stats import t

    spread = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(t.ppf((1 + level) / 2, n - 1)) * spread
    return Mean(mean, mean - half, mean + half, n)


def bootstrapped(
    first: "NDArray[Any]",
    second: "NDArray[Any] | None" = None,
    value: Callable[["NDArray[Any]"], "NDArray[Any]"] = share_right,
    random_seed: int = 0,
    resamples: int = 2_000,
    level: float = 0.95,
) -> Difference:
    """A figure of one student, or that of a second less that of the first, with its bootstrap interval.

    As `paired_difference`, for any figure that is made of sums over rows.

    Args:
        first: What `value` needs of each answer, as (rows, measures).
        second: The same of a second student, for the same rows in the same order.
        value: From the sums of the measures over rows, in the last axis, to a figure.
        random_seed: The same seed gives the same interval.
        resamples: How often to draw.
        level: How much of the resampled figures the interval holds.

    Raises:
        ValueError: No rows, or not the same shape.
    """
    import numpy as np

    if not len(first) or (second is not None and second.shape != first.shape):
        raise ValueError("no rows to draw from, or others")

    def figure(weights: "NDArray[Any]") -> "NDArray[Any]":
        before = value(weights @ first)
        return before if second is None else value(weights @ second) - before

    random, n = np.random.default_rng(random_seed), len(first)
    part = max(1, min(resamples, 2_000_000 // n))
    drawn = []
    for start in range(0, resamples, part):
        counts = random.multinomial(n, np.full(n, 1 / n), size=min(part, resamples - start))
        drawn.append(figure(counts.astype(np.float64)))
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(figure(np.ones(n))), float(low), float(high))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The probability that at least one of k answers is right, estimated from n answers without bias.

    1 - C(n - correct, k) / C(n, k) (Chen et al., "Evaluating large language models trained on code", 2021, equation 1).
    The plug-in 1 - (1 - correct / n)^k would be too low.

    Raises:
        ValueError: When `correct` is not in 0..n, or k not in 1..n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"correct must be in 0..{n}, got {correct}")
    if not 1 <= k <= n:
        raise ValueError(f"k must be in 1..{n}, got {k}")
    return 1 - comb(n - correct, k) / comb(n, k)


@dataclass(frozen=True, slots=True)
class Bin:
    """The answers whose confidence is in (low, high]; the first bin holds 0 as well."""

    low: float
    high: float
    n: int
    confidence: float
    """The mean confidence of its answers; 0 where there is none."""
    accuracy: float
    """The share of them that is right; 0 where there is none."""


def reliability_bins(confidences: Sequence[float], correct: Sequence[bool], bins: int = 15) -> list[Bin]:
    """What a reliability diagram shows: the accuracy of answers by how sure the student was of them.

    Bins of equal width over [0, 1] (Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017,
    section 2; 15 bins there).

    Raises:
        ValueError: The two are not of the same length, no bins, or a confidence outside [0, 1].
    """
    _check_paired(confidences, correct)
    if bins < 1:
        raise ValueError(f"bins: at least 1, got {bins}")
    if bad := [value for value in confidences if not 0 <= value <= 1]:
        raise ValueError(f"a confidence must be in [0, 1], got {bad[0]}")
    edges = [place / bins for place in range(bins + 1)]
    held: list[list[int]] = [[] for _ in range(bins)]
    for i, value in enumerate(confidences):
        held[bisect_left(edges, value, lo=1) - 1].append(i)
    return [
        Bin(
            low=edges[place],
            high=edges[place + 1],
            n=len(rows),
            confidence=fsum(confidences[i] for i in rows) / len(rows) if rows else 0.0,
            accuracy=sum(correct[i] for i in rows) / len(rows) if rows else 0.0,
        )
        for place, rows in enumerate(held)
    ]


def calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = 15) -> float:
    """The expected calibration error, in [0, 1]: how far accuracy and confidence are apart, over the bins' answers
    (Guo et al. 2017, equation 3). 0 for a student that is right as often as it says.

    Raises:
        ValueError: As `reliability_bins`, or no answers.
    """
    if not confidences:
        raise ValueError("no answers to measure the calibration of")
    held = reliability_bins(confidences, correct, bins)
    return fsum(one.n * abs(one.accuracy - one.confidence) for one in held) / len(confidences)


def _check_paired(first: Sequence[object], second: Sequence[object]) -> None:
    if len(first) != len(second):
        raise ValueError(f"paired outcomes must be of the same rows, got {len(first)} and {len(second)}")
