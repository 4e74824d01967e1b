"""Metrics: what makes one student better than another. `task.metric` names the one that decides.

accuracy            the share of right answers
macro_f1            the F1 of each label, averaged: a rare label counts as much as a common one
balanced_accuracy   the share of right answers to each label's rows, averaged
judge_score         a judge's score of each answer, averaged

A metric measures each answer by a few numbers, and makes its figure of their sums over rows. So one bootstrap and one
permutation test fit all of them (`shared/base/statistics.py`). Averages are over the labels that rows have, as in
scikit-learn's `f1_score(average="macro", labels=those, zero_division=0)` and `balanced_accuracy_score`.

A form with a figure of its own says so in `Form.metrics`; a score in [0, 1] for each row is
`Metric(about=..., measure=lambda task, answer, parsed, right: [score, 1.0])`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.base.statistics import share_right

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm2llm.components.shared.tasks.task import Task


def as_they_are(measures: "NDArray[Any]") -> "NDArray[Any]":
    """Measures that can be summed as they are."""
    return measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How answers are measured."""

    about: str
    """What it is, in a few words, for the help."""
    measure: Callable[["Task", str, str | None, bool], list[float]]
    """(task, right answer, parsed answer, whether it was graded right) -> what is kept of one answer: as many numbers
    for each."""
    value: Callable[["NDArray[Any]"], "NDArray[Any]"] = share_right
    """From sums over rows, in the last axis, to the figure, in [0, 1]; more is better. Unless said otherwise, the first
    sum by the second."""
    spread: Callable[["NDArray[Any]"], "NDArray[Any]"] = as_they_are
    """From (rows, measures) to (rows, what `value` needs the sums of)."""
    by_judge: bool = False
    """Whether the judge gives each answer a score, which then stands in the place of right or wrong."""


def _right(task: "Task", answer: str, parsed: str | None, right: bool) -> list[float]:
    return [float(right), 1.0]


def _classes(task: "Task", answer: str, parsed: str | None, right: bool) -> list[float]:
    from llm2llm.components.shared.tasks.forms import FORMS

    classes = FORMS[task.form].classes
    assert classes is not None, "only forms with classes have this metric"
    place = {name: float(number) for number, name in enumerate(classes(task, 26))}
    return [place[answer], -1.0 if parsed is None else place.get(parsed, -1.0)]


def _by_class(measures: "NDArray[Any]") -> "NDArray[Any]":
    """For each class: whether the answer is rightly it, whether it was given, whether it is right."""
    import numpy as np

    numbers = np.arange(int(measures[:, 0].max()) + 1)
    is_right, is_given = measures[:, :1] == numbers, measures[:, 1:] == numbers
    return np.concatenate([is_right & is_given, is_given, is_right], axis=1).astype(np.float64)


def _over_classes(sums: "NDArray[Any]", of_each: Callable[..., "NDArray[Any]"]) -> "NDArray[Any]":
    import numpy as np

    found, given, there = np.split(sums, 3, axis=-1)
    each = of_each(found, given, there) * (there > 0)
    averaged: NDArray[Any] = each.sum(axis=-1) / np.maximum((there > 0).sum(axis=-1), 1)
    return averaged


def _macro_f1(sums: "NDArray[Any]") -> "NDArray[Any]":
    import numpy as np

    return _over_classes(sums, lambda found, given, there: 2 * found / np.maximum(given + there, 1))


def _balanced_accuracy(sums: "NDArray[Any]") -> "NDArray[Any]":
    import numpy as np

    return _over_classes(sums, lambda found, given, there: found / np.maximum(there, 1))


ACCURACY = Metric(about="the share of right answers", measure=_right)
JUDGE_SCORE = Metric(
    about="a judge's score of each answer in [0, 1], averaged, for match: judge", measure=_right, by_judge=True
)
CLASS_METRICS = {
    "macro_f1": Metric(
        about="the F1 of each label, averaged, for labels and choices",
        measure=_classes,
        value=_macro_f1,
        spread=_by_class,
    ),
    "balanced_accuracy": Metric(
        about="the share of right answers to each label's rows, averaged, for labels and choices",
        measure=_classes,
        value=_balanced_accuracy,
        spread=_by_class,
    ),
}
