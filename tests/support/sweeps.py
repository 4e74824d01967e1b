"""A sweep of made-up points, and the summaries of their runs."""

from collections.abc import Sequence
from typing import Any

from llm2llm.pipelines.sweep.points import Point
from llm2llm.pipelines.sweep.settings import SweepSettings


def sweep_of(names: Sequence[str] = ("random", "wrong"), **values: Any) -> SweepSettings:
    """A sweep over one config, with other settings as keywords."""
    given = {"name": "made", "configs": ["quickstart"], "arms": {name: {} for name in names}, **values}
    return SweepSettings.load(given, "made.yaml")


def point_of(arm: str, data_seed: int = 0, training_seed: int = 0, config: str = "tickets") -> Point:
    """A point whose config is never loaded."""
    key = f"{config}/{arm}/d{data_seed}-t{training_seed}-00000000"
    return Point(config, arm, data_seed, training_seed, "quickstart", (), key)


def run_summary(accuracy: Sequence[float], added: int = 10, best: int | None = None, **others: Any) -> dict[str, Any]:
    """What a run with these accuracies on test leaves; `added` rows in each iteration, on 50 seeds."""
    iterations = [
        {
            "iteration": i,
            "training_rows": 50 + added * i,
            "accuracy": {"validation": {"value": value / 2}, "test": {"value": value}},
        }
        for i, value in enumerate(accuracy)
    ]
    kept = added * (len(accuracy) - 1)
    return {
        "iterations": iterations,
        "best_iteration": len(accuracy) - 1 if best is None else best,
        "rows": {"generated": kept + 1, "kept": kept},
        "teacher_calls": {"total": 7, "usd": 0.25, "input_tokens": 100, "output_tokens": 20},
        "seconds_by_stage": {"train": 3.0, "evaluate": 1.5},
        **others,
    }
