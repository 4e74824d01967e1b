"""The one decision of the loop: go on or stop, and the reason in words that the report shows."""

from collections.abc import Sequence

from llm2llm.components.filter_errors.selections import SELECTIONS
from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import best_of_p, mcnemar_p
from llm2llm.components.shared.data.schemas import Reject, Score
from llm2llm.components.shared.tasks.forms.metrics import Metric
from llm2llm.components.shared.tasks.measured import matrix


def decide(
    name: str,
    errors: int | None,
    others: Sequence[str],
    history: Sequence[Score],
    rejects: Sequence[Reject],
    reference: int | None,
    iteration: int,
    max_iterations: int,
    settings: FilterErrorsSettings,
    metric: Metric | None = None,
) -> tuple[bool, str]:
    """Whether another iteration follows, and why.

    Args:
        name: The selection.
        errors: How many rows there are to write from; None where nobody looked, at the limit.
        others: What became of seeds that are not among them, in words.
        history: All scores so far.
        rejects: All rejects so far; those of this iteration say whether the teacher's budget is spent.
        reference: The iteration whose answers on validation were to be beaten; None: not known, and accuracies are
            compared as they are.
        iteration: The one just evaluated.
        max_iterations: The last that may run.
        settings: `patience` and `patience_level`.
        metric: What validation goes by; None: the accuracy.
    """
    also = "".join(f"; {words}" for words in others)
    if errors == 0:
        where = "the seeds and the generated rows" if settings.generated_rows else "the seeds"
        return False, f"no errors left on {where}{also}"
    if errors is None or iteration >= max_iterations:
        return False, f"iteration limit {max_iterations} reached"
    if unpaid := sum(reject.iteration == iteration and reject.reason == "over_budget" for reject in rejects):
        return False, f"the teacher's budget is spent: {unpaid} rows of iteration {iteration} were not written"
    if settings.patience:
        if reference is None:
            best = best_iteration(history)
            if iteration - best >= settings.patience:
                return False, f"validation has not improved since iteration {best} (patience {settings.patience})"
        elif (gone := iteration - reference) >= settings.patience:
            now, then = on_validation(history, iteration), on_validation(history, reference)
            if not is_better(now, then, settings.patience_level, metric):
                by, test = ("", "McNemar") if metric is None else (f"{now.metric} ", "permutation")
                return False, (
                    f"validation is not better than in iteration {reference} beyond noise ({by}{now.decides:.1%} "
                    f"against {then.decides:.1%}, {test} p = {_p(now, then, metric):.2g}), {gone} iterations later "
                    f"(patience {settings.patience})"
                )
    what = "row" if settings.generated_rows else "seed"
    if SELECTIONS[name].are_failures:
        folds = ", by the answers of students trained without them" if SELECTIONS[name].needs_folds else ""
        return True, f"{errors} {what}{' still needs' if errors == 1 else 's still need'} help{folds}{also}"
    return True, f"{errors} {what}{'s' * (errors != 1)} chosen ({name}){also}"


def is_better(now: Score, then: Score, level: float, metric: Metric | None = None) -> bool:
    """Whether the figure that decides is higher than then, and the difference is no noise by McNemar's exact test, or
    by a permutation test for another metric than the accuracy.

    Raises:
        UserError: The two are not of the same rows.
    """
    p = _p(now, then, metric)
    return now.decides > then.decides and p < level


def on_validation(history: Sequence[Score], iteration: int) -> Score:
    """An iteration's score on validation.

    Raises:
        UserError: The history has none.
    """
    for score in history:
        if (score.iteration, score.split) == (iteration, "validation"):
            return score
    raise UserError(f"filter_errors: the history has no validation scores of iteration {iteration} to decide by")


def best_iteration(history: Sequence[Score]) -> int:
    """The iteration with the highest figure on validation, the earliest of equals. Test scores are never looked at.

    Raises:
        UserError: A history without validation scores.
    """
    scores = [score for score in history if score.split == "validation"]
    if not scores:
        raise UserError("filter_errors: the history has no validation scores to decide by")
    return min(scores, key=lambda score: (-score.decides, score.iteration)).iteration


def _p(now: Score, then: Score, metric: Metric | None) -> float:
    if now.n != then.n:
        raise UserError(
            f"filter_errors: {now.n} answers on validation cannot be paired with the {then.n} of iteration "
            f"{then.iteration}: they must be of the same rows"
        )
    if metric is not None:
        first, second = (_rows(score) for score in (then, now))
        return best_of_p(matrix(metric, first), [matrix(metric, second)], metric.value)
    # Rows that neither answers right say nothing about the difference.
    right_now, right_then = set(now.correct_ids), set(then.correct_ids)
    either = sorted(right_now | right_then)
    return mcnemar_p([row in right_then for row in either], [row in right_now for row in either]) if either else 1.0


def _rows(score: Score) -> list[list[float]]:
    """What the metric keeps of each answer of a score.

    Raises:
        UserError: Nothing was kept, as under another metric.
    """
    width, rest = divmod(len(score.measures), score.n)
    if not width or rest:
        raise UserError(
            f"filter_errors: the validation scores of iteration {score.iteration} go by {score.metric} and hold no "
            "measures of the answers: task.metric must be the same in the whole run"
        )
    return [score.measures[start : start + width] for start in range(0, len(score.measures), width)]
