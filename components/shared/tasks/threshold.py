"""A threshold for one label, as a guardrail needs it: chosen on validation, told on every split.

The student flags a row when the label's probability is at least the threshold. It is the lowest that flags at most the
allowed share of the validation rows that do not have the label, so no other with that false-positive rate finds more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.base.statistics import wilson_interval
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.tasks.task import Task


class ThresholdSettings(Settings):
    """A label to flag rows by."""

    label: str
    """One of the task's labels, such as `unsafe`; it is held against all others together."""
    max_false_positive_rate: float = Field(0.01, ge=0, lt=1)
    """The share of the rows with another label that may be flagged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flagged:
    """What a threshold comes to on some rows."""

    label: str
    threshold: float
    """Flag a row when the label's probability is at least this; above 1: no row can be flagged."""
    positives: int
    """Rows with the label."""
    found: int
    """How many of them are flagged."""
    negatives: int
    false_alarms: int
    """Rows with another label, and how many of them are flagged."""

    @property
    def recall(self) -> float | None:
        """The share of the rows with the label that is flagged; None where there are none."""
        return self.found / self.positives if self.positives else None

    @property
    def false_positive_rate(self) -> float | None:
        """The share of the rows with another label that is flagged; None where there are none."""
        return self.false_alarms / self.negatives if self.negatives else None


def check_threshold(task: Task, settings: ThresholdSettings | None, mode: str) -> None:
    """Refuses a threshold for which there are no probabilities.

    Raises:
        ValueError: Names the key and the fix.
    """
    if settings is None:
        return
    if not task.labels:
        raise ValueError(f"threshold: for tasks with labels, and task {task.name!r} has none; remove threshold")
    if settings.label not in task.labels:
        raise ValueError(f"threshold.label: {settings.label!r} is none of the labels {task.labels}")
    if mode != "score":
        raise ValueError("threshold: answers have a probability with mode 'score' only; set mode: score")


def probabilities(
    label: str, rows: Sequence[Example], predictions: Sequence[Prediction]
) -> tuple[list[float], list[float]]:
    """(of rows with the label, of the others): the probability that the student gives the label. A row that could not
    be asked has 0. Of answers without a `flag_probability`, which older files have, there are two labels."""
    right = {row.id: row.answer for row in rows}
    found: tuple[list[float], list[float]] = ([], [])
    for one in predictions:
        sure = one.confidence
        probability = one.flag_probability
        if probability is None:
            probability = 0.0 if sure is None else sure if one.parsed == label else 1 - sure
        found[right[one.example_id] != label].append(probability)
    return found


def choose_threshold(negatives: Sequence[float], positives: Sequence[float], most: float) -> float:
    """The lowest threshold that at most the share `most` of the negatives reaches, halfway to the next row above; 0
    where all may.

    Raises:
        ValueError: There are no negatives to choose by.
    """
    if not negatives:
        raise ValueError("no rows without the label to choose a threshold by")
    ordered = sorted(negatives, reverse=True)
    # The least bit more, as 0.29 * 100 is 28.999999999999996.
    allowed = int(most * len(ordered) + 1e-9)
    if allowed >= len(ordered):
        return 0.0
    below = ordered[allowed]
    above = min((one for one in [*negatives, *positives] if one > below), default=None)
    return (below + above) / 2 if above is not None and (below + above) / 2 > below else below + 1e-9


def flagged(label: str, threshold: float, positives: Sequence[float], negatives: Sequence[float]) -> Flagged:
    """What a threshold comes to."""
    return Flagged(
        label=label,
        threshold=threshold,
        positives=len(positives),
        found=sum(one >= threshold for one in positives),
        negatives=len(negatives),
        false_alarms=sum(one >= threshold for one in negatives),
    )


def in_words(found: Flagged) -> str:
    """The figures, with the 95% Wilson interval of the recall."""
    low, high = wilson_interval(found.found, found.positives)
    recall = "" if found.recall is None else f"{found.recall:.1%} of {found.positives:,} {found.label} rows flagged "
    interval = "" if found.recall is None else f"({low:.1%} to {high:.1%}), "
    return f"{recall}{interval}{found.false_alarms:,} of {found.negatives:,} others too"
