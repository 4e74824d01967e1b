"""Statistics that decisions and reports stand on."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, fsum, sqrt

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


def mcnemar_p(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The two-sided p-value of McNemar's exact test: could two students be equally good, given these paired outcomes?

    Only rows on which they differ count; under the null hypothesis each is a fair coin (McNemar 1947; exact binomial
    form, as in Dietterich, "Approximate statistical tests for comparing supervised classification learning
    algorithms", 1998). Without such a row the p-value is 1.

    Args:
        first: Whether the first student was right, row by row.
        second: The same of the second student, for the same rows in the same order.

    Raises:
        ValueError: The two are not of the same length.
    """
    from scipy.stats import binomtest

    _check_paired(first, second)
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    differ = only_first + only_second
    return float(binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0


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
