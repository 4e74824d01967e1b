"""`filter_errors` from artifacts to artifacts."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.filter_errors.filter_errors import filter_errors
from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import Artifact, Inputs, read_optional, write_artifact
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Decision, Example, Prediction, Reject, Score, StudentError
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import load_task


def run(
    *,
    training_set: Artifact,
    predictions: Artifact,
    history: Artifact,
    fold_predictions: Sequence[Artifact] | None,
    previous_errors: Artifact | None,
    previous_decisions: Artifact | None,
    previous_reference: Artifact | None,
    rejects: Artifact | None,
    task: Mapping[str, Any],
    iteration: int,
    max_iterations: int,
    patience: int,
    random_seed: int,
    settings: Mapping[str, Any],
    errors: Artifact,
    decisions: Artifact,
    reference: Artifact,
) -> bool:
    """See the component."""
    outputs = {"errors": errors, "decisions": decisions, "reference": reference}
    inputs: Inputs = {
        "training_set": training_set,
        "predictions": predictions,
        "history": history,
        "fold_predictions": fold_predictions,
        "previous_errors": previous_errors,
        "previous_decisions": previous_decisions,
        "previous_reference": previous_reference,
        "rejects": rejects,
    }
    with stage_lifecycle("filter_errors", iteration=iteration, inputs=inputs, outputs=outputs):
        checked = FilterErrorsSettings.load(settings, "filter_errors", patience=patience)
        uses_folds = checked.selection in ("out_of_fold", "auto")
        needs_folds = checked.selection == "out_of_fold" and iteration < max_iterations
        if (fold_predictions and not uses_folds) or (needs_folds and not fold_predictions):
            raise UserError(
                f"filter_errors.selection: {checked.selection!r} does not fit: 'out_of_fold' needs the predictions of "
                "all folds, 'auto' may have them and the others may not; in a pipeline the selection is fixed when it "
                "is compiled"
            )
        past_errors = read_optional(previous_errors, "errors", StudentError)
        training = read_rows(training_set.path, "examples", Example)
        found = filter_errors(
            [row for row in training if not row.generated],
            read_rows(predictions.path, "predictions", Prediction),
            read_rows(history.path, "scores", Score),
            iteration,
            max_iterations,
            checked,
            fold_predictions=[
                row for fold in fold_predictions or [] for row in read_rows(fold.path, "predictions", Prediction)
            ],
            past_errors=past_errors,
            rejects=read_optional(rejects, "rejects", Reject),
            training_set=training,
            reference=read_optional(previous_reference, "predictions", Prediction),
            labels=load_task(task).labels if task else [],
            random_seed=random_seed,
        )
        decision = found.decision
        write_artifact(errors, "errors", [*past_errors, *found.errors])
        past = read_optional(previous_decisions, "decisions", Decision)
        write_artifact(decisions, "decisions", [*past, decision])
        write_artifact(reference, "predictions", found.reference)
        word = "go on" if decision.go_on else "stop"
        count = "not looked for" if decision.errors is None else f"{decision.errors} errors"
        print(f"filter_errors: {count} ({decision.selection}); {word}: {decision.reason}", flush=True)
        return decision.go_on
