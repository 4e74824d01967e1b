"""`evaluate` from artifacts to artifacts."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.evaluate.evaluate import check_asked, confusion_of, extended, merged, sample_figures
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import (
    Artifact,
    ConfusionArtifact,
    MetricsArtifact,
    read_optional,
    write_artifact,
    write_confusion,
    write_metrics,
)
from llm2llm.components.shared.data.parquet import read_notes, read_rows
from llm2llm.components.shared.data.schemas import Example, Prediction, Score, Split
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import load_task
from llm2llm.components.shared.training.settings import AnswerSettings
from llm2llm.components.shared.training.trained import TRAINING_ROWS, rows_trained_on


def run(
    *,
    model: Artifact | None,
    seeds_set: Artifact,
    validation_set: Artifact | None,
    test_set: Artifact | None,
    shard_predictions: Sequence[Artifact] | None = None,
    first_predictions: Artifact | None = None,
    task: Mapping[str, Any],
    previous_history: Artifact | None,
    iteration: int,
    settings: Mapping[str, Any],
    predictions: Artifact,
    history: Artifact,
    metrics: MetricsArtifact,
    confusion: ConfusionArtifact,
) -> None:
    """See the component."""
    outputs = {"predictions": predictions, "history": history, "metrics": metrics, "confusion": confusion}
    inputs = {
        "model": model,
        "seeds_set": seeds_set,
        "validation_set": validation_set,
        "test_set": test_set,
        "shard_predictions": shard_predictions,
        "first_predictions": first_predictions,
        "previous_history": previous_history,
    }
    with stage_lifecycle("evaluate", iteration=iteration, inputs=inputs, outputs=outputs):
        checked = AnswerSettings.load(settings, "evaluate")
        of_task = load_task(task)
        splits: dict[Split, list[Example]] = {
            "seeds": read_optional(seeds_set, "examples", Example),
            "validation": read_optional(validation_set, "examples", Example),
            "test": read_optional(test_set, "examples", Example),
        }
        past = read_optional(previous_history, "scores", Score)
        first = read_optional(first_predictions, "predictions", Prediction)
        check_asked(splits, past, iteration)
        figures: dict[str, float] = {}
        if shard_predictions:
            shards = [read_rows(one.path, "predictions", Prediction) for one in shard_predictions]
            rows = merged(shards, splits, iteration)
            known = read_notes(shard_predictions[0].path).get(TRAINING_ROWS, 0)
            training_rows = rows_trained_on(Path(model.path)) if model is not None else int(known)
        elif model is not None:
            training_rows = rows_trained_on(Path(model.path))
            started = time.monotonic()
            from llm2llm.components.shared.inference.predict import predict_share

            importing = time.monotonic() - started
            rows, figures = predict_share(Path(model.path), splits, iteration, None, of_task, checked)
            figures["import_seconds"] = importing + figures.get("import_seconds", 0.0)
        else:
            raise UserError("evaluate: neither a model nor shard_predictions; give one of the two")
        scores = extended(past, rows, first, training_rows)
        write_artifact(predictions, "predictions", rows)
        write_artifact(history, "scores", scores)
        write_confusion(confusion, confusion_of(of_task, splits, rows))
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
                    ("calibration_error", score.calibration_error),
                    ("gain", score.gain),
                )
                if value is not None
            }
            | {name: round(value, 4) for name, value in sample_figures(rows).items()},
        )
        # Times are shown and not kept in the file: the same student and rows leave the same files.
        for name, value in figures.items():
            metrics.log_metric(name, round(value, 3))
        if figures:
            print("evaluate: " + json.dumps({name: round(value, 3) for name, value in figures.items()}), flush=True)
