"""`evaluate` from artifacts to artifacts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm2llm.components.problems import UserError
from llm2llm.components.rows.artifacts import Artifact, MetricsArtifact, read_optional, write_artifact, write_metrics
from llm2llm.components.rows.kinds import Example, Score, Split
from llm2llm.components.stage import stage
from llm2llm.components.students.settings import TRAINING_FILE, AnswerSettings
from llm2llm.components.tasks import load_task


def run(
    *,
    model: Artifact,
    seeds_set: Artifact,
    validation_set: Artifact | None,
    test_set: Artifact | None,
    task: Mapping[str, Any],
    previous_history: Artifact | None,
    iteration: int,
    settings: Mapping[str, Any],
    predictions: Artifact,
    history: Artifact,
    metrics: MetricsArtifact,
) -> None:
    """See the component."""
    outputs = {"predictions": predictions, "history": history, "metrics": metrics}
    with stage("evaluate", iteration, outputs=outputs):
        checked = AnswerSettings.load(settings, "evaluate")
        splits: dict[Split, list[Example]] = {
            "seeds": read_optional(seeds_set, "examples", Example),
            "validation": read_optional(validation_set, "examples", Example),
            "test": read_optional(test_set, "examples", Example),
        }
        past = read_optional(previous_history, "scores", Score)
        from llm2llm.components.evaluate.evaluate import evaluate, sample_figures

        rows, scores = evaluate(
            Path(model.path), splits, past, iteration, _training_rows(Path(model.path)), load_task(task), checked
        )
        write_artifact(predictions, "predictions", rows)
        write_artifact(history, "scores", scores)
        now = [score for score in scores if score.iteration == iteration]
        write_metrics(
            metrics,
            {
                f"{score.split}_{name}": round(value, 4)
                for score in now
                for name, value in (
                    ("accuracy", score.accuracy),
                    ("low", score.low),
                    ("high", score.high),
                    ("unparseable", score.unparseable),
                )
            }
            | {name: round(value, 4) for name, value in sample_figures(rows).items()},
        )


def _training_rows(model: Path) -> int:
    """How many rows a student was trained on; 0 for a model that `train` did not save."""
    file = model / TRAINING_FILE
    if not model.is_dir():
        raise UserError(f"student {model}: no such folder")
    if not file.is_file():
        return 0
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["rows"])
    except (ValueError, KeyError, TypeError) as problem:
        raise UserError(f"{file}: not written by llm2llm ({problem})") from None
