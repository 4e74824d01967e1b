"""`promote` from artifacts to artifacts."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm2llm.components.promote.publish import check_publishers, publish
from llm2llm.components.promote.verdict import verdict_text
from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.shared.data.artifacts import (
    Artifact,
    Inputs,
    MetricsArtifact,
    read_config,
    read_optional,
    write_metrics,
)
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Call, Decision, Example, Prediction, Score
from llm2llm.components.shared.registry.digests import with_rows
from llm2llm.components.shared.registry.settings import PromoteSettings
from llm2llm.components.shared.registry.versions import registry_uri
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import load_task


def run(
    *,
    model: Artifact,
    predictions: Artifact,
    decisions: Artifact,
    history: Artifact,
    training_set: Artifact,
    validation_set: Artifact,
    config: Artifact,
    task: Mapping[str, Any],
    calls: Artifact | None,
    iteration: int,
    random_seed: int,
    settings: Mapping[str, Any],
    verdict: Artifact,
    metrics: MetricsArtifact,
) -> None:
    """See the component."""
    inputs: Inputs = {
        "model": model,
        "predictions": predictions,
        "decisions": decisions,
        "history": history,
        "training_set": training_set,
        "validation_set": validation_set,
        "config": config,
        "calls": calls,
    }
    with stage_lifecycle(
        "promote", iteration=iteration, inputs=inputs, outputs={"verdict": verdict, "metrics": metrics}
    ):
        checked = PromoteSettings.load(settings, "promote")
        if not checked.registry:
            raise UserError("promote.registry: no registry is set; give a folder or an s3:// prefix")
        check_publishers(checked)
        registry, run_id = registry_uri(checked.registry), _run_id()
        decision = read_rows(decisions.path, "decisions", Decision)[-1]
        if decision.iteration != iteration:
            raise UserError(f"promote: the last decision is of iteration {decision.iteration}, and this is {iteration}")
        from llm2llm.components.promote.promote import decide, keep_candidate, pending

        run_config = with_rows(read_config(config), validation_set)
        training = read_rows(training_set.path, "examples", Example)
        seeds = [row for row in training if not row.generated]
        validation = read_rows(validation_set.path, "examples", Example)
        if not validation:
            raise UserError("promote: there are no validation rows to compare students on; set data.validation")
        candidate = None
        if decision.best_iteration == iteration:
            candidate = keep_candidate(
                registry,
                run_id,
                Path(model.path),
                read_rows(predictions.path, "predictions", Prediction),
                read_rows(history.path, "scores", Score),
                training,
                seeds,
                validation,
                read_optional(calls, "calls", Call),
                run_config,
                iteration,
                random_seed,
            )
        if decision.go_on:
            found, made = pending(registry, run_id, decision, candidate, checked), None
        else:
            found, made = decide(
                registry, run_id, decision, seeds, validation, load_task(task), run_config, checked, random_seed
            )
        write_text(verdict.path, verdict_text(found) + "\n")
        verdict.metadata.update({"kind": "verdict", "schema_version": found["schema_version"]})
        write_metrics(metrics, _metrics(found))
        print(f"promote: {found['outcome'].replace('_', ' ')}: {found['reason']}", flush=True)
        if made:
            publish(registry, made, checked)


def _run_id() -> str:
    run_id = os.environ.get(RUN_VARIABLE, "")
    if not run_id:
        raise UserError(
            f"promote: {RUN_VARIABLE} is not set: give the run an id, the same in all its stages, so that its "
            "candidate is found again"
        )
    return run_id


def _metrics(verdict: Mapping[str, Any]) -> dict[str, float]:
    figures: dict[str, float] = {"promoted": float(verdict["outcome"] == "promoted")}
    for name in ("candidate", "incumbent"):
        if verdict.get(name):
            figures[f"{name}_accuracy"] = round(verdict[name]["accuracy"], 4)
    if comparison := verdict.get("comparison"):
        figures |= {
            f"gain{end}": round(comparison[key], 4) for end, key in (("", "gain"), ("_low", "low"), ("_high", "high"))
        }
        figures["p"] = comparison["p"]
    return figures
