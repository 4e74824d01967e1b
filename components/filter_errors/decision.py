"""The one decision of the loop: go on or stop, and the reason in words that the report shows."""

from collections.abc import Sequence

from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import mcnemar_p
from llm2llm.components.shared.data.schemas import Prediction, Reject, Score


def decide(
    name: str,
    errors: int | None,
    others: Sequence[str],
    history: Sequence[Score],
    rejects: Sequence[Reject],
    validation: Sequence[Prediction],
    reference: Sequence[Prediction],
    iteration: int,
    max_iterations: int,
    settings: FilterErrorsSettings,
) -> tuple[bool, str]:
    """Whether another iteration follows, and why.

    Args:
        name: The selection.
        errors: How many seeds there are to write from; None where nobody looked, at the limit.
        others: What became of seeds that are not among them, in words.
        history: All scores so far.
        rejects: All rejects so far; those of this iteration say whether the teacher's budget is spent.
        validation: This iteration's answers on validation.
        reference: The answers on validation that were to be beaten, of an earlier iteration; empty: not known, and
            accuracies are compared as they are.
        iteration: The one just evaluated.
        max_iterations: The last that may run.
        settings: `patience` and `patience_level`.
    """
    also = "".join(f"; {words}" for words in others)
    if errors == 0:
        return False, f"no errors left on the seeds{also}"
    if errors is None or iteration >= max_iterations:
        return False, f"iteration limit {max_iterations} reached"
    if unpaid := sum(reject.iteration == iteration and reject.reason == "over_budget" for reject in rejects):
        return False, f"the teacher's budget is spent: {unpaid} rows of iteration {iteration} were not written"
    if settings.patience:
        if not reference:
            best = best_iteration(history)
            if iteration - best >= settings.patience:
                return False, f"validation has not improved since iteration {best} (patience {settings.patience})"
        elif (gone := iteration - reference[0].iteration) >= settings.patience and not is_better(
            validation, reference, settings.patience_level
        ):
            return False, (
                f"validation is not better than in iteration {reference[0].iteration} beyond noise "
                f"({_share(validation)} against {_share(reference)}, McNemar p = {_p(validation, reference):.2g}), "
                f"{gone} iterations later (patience {settings.patience})"
            )
    if name in ("wrong", "out_of_fold"):
        return True, f"{errors} {'seed still needs' if errors == 1 else 'seeds still need'} help{also}"
    return True, f"{errors} seed{'s' * (errors != 1)} chosen ({name}){also}"


def is_better(validation: Sequence[Prediction], reference: Sequence[Prediction], level: float) -> bool:
    """Whether more answers are right than in the reference, and the difference is no noise by McNemar's exact test.

    Raises:
        UserError: The two are not of the same rows.
    """
    p = _p(validation, reference)
    return _right(validation) > _right(reference) and p < level


def best_iteration(history: Sequence[Score]) -> int:
    """The iteration with the highest validation accuracy, the earliest of equals. Test scores are never looked at.

    Raises:
        UserError: A history without validation scores.
    """
    scores = [score for score in history if score.split == "validation"]
    if not scores:
        raise UserError("filter_errors: the history has no validation scores to decide by")
    return min(scores, key=lambda score: (-score.accuracy, score.iteration)).iteration


def _p(validation: Sequence[Prediction], reference: Sequence[Prediction]) -> float:
    now = {row.example_id: row.outcome == "correct" for row in validation}
    then = {row.example_id: row.outcome == "correct" for row in reference}
    if now.keys() != then.keys():
        raise UserError(
            f"filter_errors: {len(now)} answers on validation cannot be paired with the {len(then)} of iteration "
            f"{reference[0].iteration}: they must be of the same rows"
        )
    return mcnemar_p([then[row] for row in sorted(now)], [now[row] for row in sorted(now)])


def _right(rows: Sequence[Prediction]) -> int:
    return sum(row.outcome == "correct" for row in rows)


def _share(rows: Sequence[Prediction]) -> str:
    return f"{_right(rows) / len(rows):.1%}"
