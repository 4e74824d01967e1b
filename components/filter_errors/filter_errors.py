"""From predictions to errors, and the one decision of the loop."""

from collections.abc import Sequence

from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.problems import UserError
from llm2llm.components.rows.kinds import Decision, Example, Prediction, Score, StudentError


def filter_errors(
    seeds: Sequence[Example],
    predictions: Sequence[Prediction] | None,
    history: Sequence[Score],
    iteration: int,
    max_iterations: int,
    settings: FilterErrorsSettings,
) -> tuple[list[StudentError], Decision]:
    """Finds the seeds that the student needs help with and decides whether another iteration follows.

    Errors are looked for among the seeds only, never among generated rows: errors on those drift away from the task
    (Lee et al. 2024). Unparseable answers are errors.

    Args:
        seeds: The seed examples.
        predictions: For the selection `wrong`, what the student answered; for `out_of_fold`, what the students of all
            folds answered, every seed exactly once. Predictions of other splits are passed over. None at the iteration
            limit only, where errors are of no more use.
        history: All scores so far, this iteration's included.
        iteration: The one just evaluated, from 0.
        max_iterations: The last iteration that may run.
        settings: See `FilterErrorsSettings`.

    Returns:
        The errors, sorted by example id, and the decision.

    Raises:
        UserError: Predictions that do not cover the seeds, or of another iteration; a history without validation.
    """
    assert predictions is not None or iteration >= max_iterations, "only the last iteration needs no predictions"
    errors = None if predictions is None else _find(seeds, predictions, iteration)
    go_on, reason = _decide(None if errors is None else len(errors), history, iteration, max_iterations, settings)
    decision = Decision(
        iteration=iteration,
        selection=settings.selection,
        errors=None if errors is None else len(errors),
        go_on=go_on,
        reason=reason,
        best_iteration=best_iteration(history),
    )
    return errors or [], decision


def _find(seeds: Sequence[Example], predictions: Sequence[Prediction], iteration: int) -> list[StudentError]:
    by_id = {seed.id: seed for seed in seeds}
    on_seeds = sorted((p for p in predictions if p.split == "seeds"), key=lambda p: p.example_id)
    asked = [p.example_id for p in on_seeds]
    if len(set(asked)) < len(asked) or set(asked) != set(by_id):
        raise UserError(
            f"filter_errors: {len(asked)} predictions for {len(by_id)} seeds, of which {len(set(asked) & set(by_id))} "
            "match: the predictions must cover every seed exactly once"
        )
    if others := {p.iteration for p in on_seeds} - {iteration}:
        raise UserError(f"filter_errors: the predictions are of iteration {min(others)}, expected {iteration}")
    return [_error(by_id[p.example_id], p) for p in on_seeds if p.outcome != "correct"]


def _error(seed: Example, prediction: Prediction) -> StudentError:
    return StudentError(
        iteration=prediction.iteration,
        example_id=seed.id,
        question=seed.question,
        choices=seed.choices,
        rationale=seed.rationale,
        answer=seed.answer,
        completion=prediction.completion,
        parsed=prediction.parsed,
        outcome=prediction.outcome,
        fold=prediction.fold,
    )


def _decide(
    errors: int | None, history: Sequence[Score], iteration: int, max_iterations: int, settings: FilterErrorsSettings
) -> tuple[bool, str]:
    """Whether to go on, and the reason in words that the report shows."""
    if errors == 0:
        return False, "no errors left on the seeds"
    if errors is None or iteration >= max_iterations:
        return False, f"iteration limit {max_iterations} reached"
    best = best_iteration(history)
    if settings.patience and iteration - best >= settings.patience:
        return False, f"validation has not improved since iteration {best} (patience {settings.patience})"
    return True, f"{errors} seeds still need help"


def best_iteration(history: Sequence[Score]) -> int:
    """The iteration with the highest validation accuracy, the earliest of equals. Test scores are never looked at.

    Raises:
        UserError: A history without validation scores.
    """
    scores = [score for score in history if score.split == "validation"]
    if not scores:
        raise UserError("filter_errors: the history has no validation scores to decide by")
    return min(scores, key=lambda score: (-score.accuracy, score.iteration)).iteration
