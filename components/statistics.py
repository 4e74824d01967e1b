"""Statistics that decisions and reports stand on."""

from math import sqrt

Z_95 = 1.959963984540054  # the 97.5% quantile of the standard normal distribution


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
