"""What `report` computes from the run's rows: remaining leaks, confusions, row counts."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.report.answers import count_answers
from llm2llm.components.report.controls import majority
from llm2llm.components.shared.data.schemas import Control, Example, Prediction, Score, Split
from llm2llm.components.shared.leakage.final_check import final_check
from llm2llm.components.shared.leakage.settings import LeakSettings
from llm2llm.components.shared.tasks import FORMS, Task, load_task


def leakage(
    config: dict[str, Any], training_set: list[Example], splits: Mapping[Split, list[Example]]
) -> dict[str, Any] | None:
    """What the last check of the training set finds; None when there is nothing to hold it against."""
    if not (splits.get("validation") or splits.get("test")):
        return None
    task = _task(config)
    found = final_check(
        training_set,
        splits.get("validation", []),
        splits.get("test", []),
        task.form if task else None,
        LeakSettings.model_validate((config.get("dedupe") or {}).get("leak", {})),
    )
    ids = sorted({match["id"] for match in found["matches"]})
    return {
        "checked": found["rows"],
        "against": {"validation": found["validation"], "test": found["test"]},
        "matches": len(ids),
        "ids": ids,
    }


def answers(
    config: dict[str, Any],
    predictions: Sequence[Prediction] | None,
    splits: Mapping[Split, list[Example]],
    scores: Sequence[Score],
) -> dict[str, Any] | None:
    """Confusions and confidence of this iteration's answers; None where they are not given."""
    if predictions is None:
        return None
    task = _task(config)
    has_labels = task is not None and FORMS[task.form].has_classes
    return count_answers(predictions, splits, scores, has_labels, task)


def baselines(
    config: dict[str, Any], splits: Mapping[Split, list[Example]], scores: Sequence[Score], best: int
) -> list[Control]:
    """The controls that need no student: the most frequent label, of tasks with labels or choices."""
    task = _task(config)
    return majority(splits, scores, best) if task is not None and FORMS[task.form].has_classes else []


def _task(config: dict[str, Any]) -> Task | None:
    """The task, where the config names one that can be loaded by itself."""
    task = config.get("task")
    return load_task(task) if isinstance(task, str | dict) else None


def metric_figures(numbers: dict[str, Any]) -> dict[str, float]:
    """What Kubeflow shows of a report, to compare runs by."""
    last = numbers["iterations"][-1]
    looked = [one["errors"] for one in numbers["iterations"] if one["errors"] is not None]
    (best,) = [one for one in numbers["iterations"] if one["iteration"] == numbers["best_iteration"]]
    accuracies = {f"best_{split}_accuracy": round(score["value"], 4) for split, score in best["accuracy"].items()}
    return {
        "iterations": len(numbers["iterations"]),
        "best_iteration": numbers["best_iteration"],
        **accuracies,
        **{
            f"gain_over_{control['name']}_{split}": round(gain["value"], 4)
            for control in numbers["controls"]
            for split, gain in control["gain"].items()
        },
        "training_rows": last["training_rows"],
        **({"errors_left": looked[-1]} if looked else {}),
        "rows_kept": numbers["rows"]["kept"],
        "rows_rejected": numbers["rows"]["rejected"]["total"],
        "teacher_calls": numbers["teacher_calls"]["total"],
        "teacher_calls_failed": numbers["teacher_calls"]["failed"],
        **({"judge_calls": numbers["judge_calls"]["total"]} if numbers["judge_calls"] else {}),
    }
