"""`report` from artifacts to artifacts."""

import json
from collections.abc import Mapping
from typing import Any

from llm2llm.components.report.answers import count_answers
from llm2llm.components.report.promotion import read_promotion
from llm2llm.components.report.report import render_html, render_markdown
from llm2llm.components.report.summary import summarise
from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import (
    Artifact,
    MetricsArtifact,
    read_config,
    read_optional,
    write_metrics,
)
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import (
    Call,
    Decision,
    Example,
    Prediction,
    Reject,
    Score,
    Split,
    StudentError,
)
from llm2llm.components.shared.leakage.final_check import final_check
from llm2llm.components.shared.leakage.settings import LeakSettings
from llm2llm.components.shared.lineage.manifest import extend_manifest, manifest_text, read_run_manifest
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import Task, load_task


def run(
    *,
    config: Artifact,
    training_set: Artifact,
    history: Artifact,
    errors: Artifact,
    decisions: Artifact,
    rejects: Artifact | None,
    calls: Artifact | None,
    validation_set: Artifact | None = None,
    test_set: Artifact | None = None,
    predictions: Artifact | None = None,
    training_metrics: Artifact | None = None,
    promotion: Artifact | None = None,
    previous_manifest: Artifact | None = None,
    iteration: int,
    html: Artifact,
    markdown: Artifact,
    summary: Artifact,
    metrics: MetricsArtifact,
    manifest: Artifact,
) -> None:
    """See the component."""
    outputs = {"html": html, "markdown": markdown, "summary": summary, "metrics": metrics, "manifest": manifest}
    # Without what train measured: it holds times, and two equal runs leave equal records.
    inputs = {
        "config": config,
        "training_set": training_set,
        "history": history,
        "errors": errors,
        "decisions": decisions,
        "rejects": rejects,
        "calls": calls,
        "validation_set": validation_set,
        "test_set": test_set,
        "predictions": predictions,
        "promotion": promotion,
        "previous_manifest": previous_manifest,
    }
    with stage_lifecycle("report", iteration=iteration, inputs=inputs, outputs=outputs):
        settings = read_config(config)
        training = read_rows(training_set.path, "examples", Example)
        all_errors = read_rows(errors.path, "errors", StudentError)
        all_rejects = read_optional(rejects, "rejects", Reject)
        scores = read_rows(history.path, "scores", Score)
        all_decisions = read_rows(decisions.path, "decisions", Decision)
        verdict = None if promotion is None else read_promotion(promotion.path, iteration)
        splits: dict[Split, list[Example]] = {"seeds": [row for row in training if not row.generated]}
        if validation_set is not None:
            splits["validation"] = read_rows(validation_set.path, "examples", Example)
        if test_set is not None:
            splits["test"] = read_rows(test_set.path, "examples", Example)
        numbers = summarise(
            training,
            scores,
            all_errors,
            all_decisions,
            all_rejects,
            read_optional(calls, "calls", Call),
            _leakage(settings, training, splits),
            _answers(settings, predictions, splits, scores),
            verdict,
            None if training_metrics is None else _training(training_metrics.path),
        )
        write_text(html.path, render_html(settings, numbers, training, all_errors, all_rejects))
        write_text(markdown.path, render_markdown(settings, numbers, all_rejects))
        # ASCII only: a row's text may hold half a surrogate pair, which UTF-8 cannot.
        write_text(summary.path, json.dumps(numbers, indent=2, sort_keys=True) + "\n")
        summary.metadata.update({"kind": "summary", "schema_version": numbers["schema_version"]})
        write_metrics(metrics, _metrics(numbers))
        before = None if previous_manifest is None else read_run_manifest(previous_manifest.path)
        extended = extend_manifest(before, settings, inputs, all_decisions, verdict, iteration)
        write_text(manifest.path, manifest_text(extended))
        manifest.metadata.update({"kind": "manifest", "schema_version": extended["schema_version"]})


def _leakage(
    config: dict[str, Any], training_set: list[Example], splits: Mapping[Split, list[Example]]
) -> dict[str, Any] | None:
    """What the last check of the training set finds; None when there is nothing to hold it against."""
    if not splits.keys() & {"validation", "test"}:
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


def _answers(
    config: dict[str, Any],
    predictions: Artifact | None,
    splits: Mapping[Split, list[Example]],
    scores: list[Score],
) -> dict[str, Any] | None:
    if predictions is None:
        return None
    task = _task(config)
    has_labels = task is not None and task.form in ("classification", "multiple_choice")
    return count_answers(read_rows(predictions.path, "predictions", Prediction), splits, scores, has_labels)


def _training(path: str) -> dict[str, int]:
    """The counts of rows among what `train` measured: its times differ from run to run, and a report does not."""
    try:
        with open(path, encoding="utf-8") as file:
            measured = json.load(file)
        return {
            key: int(measured[key]) for key in ("training_rows", "rows_too_long", "rows_truncated", "rows_replayed")
        }
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UserError(f"report: {path}: not the metrics of a training ({problem})") from None


def _task(config: dict[str, Any]) -> Task | None:
    """The task, where the config names one that can be loaded by itself."""
    task = config.get("task")
    return load_task(task) if isinstance(task, str | dict) else None


def _metrics(numbers: dict[str, Any]) -> dict[str, float]:
    last = numbers["iterations"][-1]
    looked = [one["errors"] for one in numbers["iterations"] if one["errors"] is not None]
    (best,) = [one for one in numbers["iterations"] if one["iteration"] == numbers["best_iteration"]]
    accuracies = {f"best_{split}_accuracy": round(score["value"], 4) for split, score in best["accuracy"].items()}
    return {
        "iterations": len(numbers["iterations"]),
        "best_iteration": numbers["best_iteration"],
        **accuracies,
        "training_rows": last["training_rows"],
        **({"errors_left": looked[-1]} if looked else {}),
        "rows_kept": numbers["rows"]["kept"],
        "rows_rejected": numbers["rows"]["rejected"]["total"],
        "teacher_calls": numbers["teacher_calls"]["total"],
        "teacher_calls_failed": numbers["teacher_calls"]["failed"],
        **({"judge_calls": numbers["judge_calls"]["total"]} if numbers["judge_calls"] else {}),
    }
