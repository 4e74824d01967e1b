"""Students whose answers to the same rows are alike, as those of real ones are, for tests and figures of the gates.

How hard a row is, is normal; a student answers it right if that and noise of its own stay below what its accuracy
takes (a one-factor probit model). Two students of 85% whose hardnesses correlate by 0.8 differ on 11% of the rows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm


def paired_students(
    random: np.random.Generator,
    rows: int,
    incumbent: float,
    run: Sequence[float],
    between: float = 0.8,
    within: float = 0.9,
) -> NDArray[np.bool_]:
    """Who answers which row right, as (1 + students, rows); the first is the one in production.

    Args:
        random: Draws everything.
        rows: How many.
        incumbent: The true accuracy of the one in production.
        run: The true accuracies of a run's students.
        between: The correlation of the hardnesses under the one in production and under a run's student.
        within: The same of two students of the run; at least `between`.
    """
    common, own = random.normal(size=rows), random.normal(size=rows)
    hardness = [np.sqrt(between) * common + np.sqrt(1 - between) * random.normal(size=rows)]
    for _ in run:
        noise = random.normal(size=rows)
        hardness.append(np.sqrt(between) * common + np.sqrt(within - between) * own + np.sqrt(1 - within) * noise)
    return np.array(hardness) < norm.ppf([incumbent, *run])[:, None]


def known_best_passes(incumbent: NDArray[np.bool_], student: NDArray[np.bool_], level: float) -> bool:
    """Whether one student that nobody had to choose is better by McNemar's exact test (one-sided, mid-p)."""
    lost, won = int((incumbent & ~student).sum()), int((~incumbent & student).sum())
    return bool(binom.sf(won, lost + won, 0.5) + binom.pmf(won, lost + won, 0.5) / 2 < level)
