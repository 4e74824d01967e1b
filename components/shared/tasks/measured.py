"""Answers measured by a metric (`forms/metrics.py`)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.tasks.forms import metrics_of
from llm2llm.components.shared.tasks.forms.metrics import Metric
from llm2llm.components.shared.tasks.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray


def metric_of(task: Task) -> Metric | None:
    """The metric that decides; None where it is the accuracy, whose paired tests are exact."""
    return None if task.metric == "accuracy" else metrics_of(task.form)[task.metric]


def measured(
    task: Task, metric: Metric, rows: Sequence[Example], predictions: Sequence[Prediction]
) -> dict[str, list[float]]:
    """What a metric keeps of each answer, by the row's id, sorted.

    Args:
        task: Says what may be answered.
        metric: One of its form.
        rows: At least those that were asked.
        predictions: The answers.
    """
    answers = {row.id: row.answer for row in rows}

    def of_one(one: Prediction) -> list[float]:
        if metric.by_judge and one.judge_score is not None:
            return [one.judge_score, 1.0]
        return metric.measure(task, answers[one.example_id], one.parsed, one.outcome == "correct")

    return {one.example_id: of_one(one) for one in sorted(predictions, key=lambda one: one.example_id)}


def always_given(rows: Sequence[Example], predictions: Sequence[Prediction]) -> str | None:
    """The one answer that is given to every row although several are right; None where there is no such.

    Args:
        rows: At least those that were asked.
        predictions: One for each row.
    """
    right = {row.id: row.answer for row in rows}
    given = {one.parsed for one in predictions}
    several = len({right[one.example_id] for one in predictions}) > 1
    if len(given) > 1 or not several or all(one.outcome == "correct" for one in predictions):
        return None
    return next(iter(given))


def matrix(metric: Metric, measures: Mapping[str, Sequence[float]] | Sequence[Sequence[float]]) -> "NDArray[Any]":
    """What `metric.value` needs of each answer, as (rows, measures)."""
    import numpy as np

    rows = measures.values() if isinstance(measures, Mapping) else measures
    return metric.spread(np.array(list(rows), dtype=np.float64))
