"""`report` from artifacts to artifacts."""

import json
from typing import Any

from llm2llm.components.leakage.final_check import final_check
from llm2llm.components.leakage.settings import LeakSettings
from llm2llm.components.problems import UserError
from llm2llm.components.report.report import render_html, render_markdown
from llm2llm.components.report.summary import summarise
from llm2llm.components.rows.artifacts import Artifact, MetricsArtifact, read_optional, write_metrics
from llm2llm.components.rows.files import read_rows
from llm2llm.components.rows.kinds import Call, Decision, Example, Reject, Score, StudentError
from llm2llm.components.stage import stage
from llm2llm.components.tasks import load_task
from llm2llm.components.whole import write_text


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
    iteration: int,
    html: Artifact,
    markdown: Artifact,
    summary: Artifact,
    metrics: MetricsArtifact,
) -> None:
    """See the component."""
    outputs = {"html": html, "markdown": markdown, "summary": summary, "metrics": metrics}
    with stage("report", iteration, outputs=outputs):
        settings = _read_config(config.path)
        training = read_rows(training_set.path, "examples", Example)
        all_errors = read_rows(errors.path, "errors", StudentError)
        all_rejects = read_optional(rejects, "rejects", Reject)
        numbers = summarise(
            training,
            read_rows(history.path, "scores", Score),
            all_errors,
            read_rows(decisions.path, "decisions", Decision),
            all_rejects,
            read_optional(calls, "calls", Call),
            _leakage(settings, training, validation_set, test_set),
        )
        write_text(html.path, render_html(settings, numbers, training, all_errors, all_rejects))
        write_text(markdown.path, render_markdown(settings, numbers, all_rejects))
        # ASCII only: a row's text may hold half a surrogate pair, which UTF-8 cannot.
        write_text(summary.path, json.dumps(numbers, indent=2, sort_keys=True) + "\n")
        summary.metadata.update({"kind": "summary", "schema_version": numbers["schema_version"]})
        write_metrics(metrics, _metrics(numbers))


def _leakage(
    config: dict[str, Any], training_set: list[Example], validation: Artifact | None, test: Artifact | None
) -> dict[str, Any] | None:
    """What the last check of the training set finds; None when there is nothing to hold it against."""
    if validation is None and test is None:
        return None
    task = config.get("task")
    found = final_check(
        training_set,
        read_optional(validation, "examples", Example),
        read_optional(test, "examples", Example),
        load_task(task).form if isinstance(task, str | dict) else None,
        LeakSettings.model_validate((config.get("dedupe") or {}).get("leak", {})),
    )
    ids = sorted({match["id"] for match in found["matches"]})
    return {
        "checked": found["rows"],
        "against": {"validation": found["validation"], "test": found["test"]},
        "matches": len(ids),
        "ids": ids,
    }


def _read_config(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}") from problem
    except ValueError as problem:
        raise UserError(f"{path}: the config is not JSON: {problem}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: the config must be a JSON object, not {type(config).__name__}")
    return config


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
    }
