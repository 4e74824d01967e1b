"""`filter_errors` from artifacts to artifacts."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.filter_errors.filter_errors import filter_errors
from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.problems import UserError
from llm2llm.components.rows.artifacts import Artifact, read_optional, write_artifact
from llm2llm.components.rows.files import read_rows
from llm2llm.components.rows.kinds import Decision, Example, Prediction, Score, StudentError
from llm2llm.components.stage import stage


def run(
    *,
    seeds_set: Artifact,
    predictions: Artifact,
    history: Artifact,
    fold_predictions: Sequence[Artifact] | None,
    previous_errors: Artifact | None,
    previous_decisions: Artifact | None,
    iteration: int,
    max_iterations: int,
    patience: int,
    settings: Mapping[str, Any],
    errors: Artifact,
    decisions: Artifact,
) -> bool:
    """See the component."""
    outputs = {"errors": errors, "decisions": decisions}
    with stage("filter_errors", iteration, outputs=outputs):
        checked = FilterErrorsSettings.load(settings, "filter_errors", patience=patience)
        held_out = checked.selection == "out_of_fold"
        at_limit = iteration >= max_iterations
        if bool(fold_predictions) != held_out and not (held_out and at_limit):
            raise UserError(
                f"filter_errors.selection: {checked.selection!r} does not fit: 'out_of_fold' needs the predictions of "
                "all folds and 'wrong' none; in a pipeline the selection is fixed when it is compiled"
            )
        sources = (fold_predictions or []) if held_out else [predictions]
        answered = [row for source in sources for row in read_rows(source.path, "predictions", Prediction)]
        found, decision = filter_errors(
            read_rows(seeds_set.path, "examples", Example),
            answered if sources else None,
            read_rows(history.path, "scores", Score),
            iteration,
            max_iterations,
            checked,
        )
        write_artifact(errors, "errors", [*read_optional(previous_errors, "errors", StudentError), *found])
        past = read_optional(previous_decisions, "decisions", Decision)
        write_artifact(decisions, "decisions", [*past, decision])
        word = "go on" if decision.go_on else "stop"
        count = "not looked for" if decision.errors is None else f"{decision.errors} errors"
        print(f"filter_errors: {count} ({checked.selection}); {word}: {decision.reason}", flush=True)
        return decision.go_on
