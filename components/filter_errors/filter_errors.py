"""Predictions to errors, and the loop's decision to go on or stop.

answers    of the student on its seeds, or of the folds' students
set apart  suspected labels, rows that the teacher has failed on again and again
select     in order of preference (selections)
cap        the least alike, or the hardest
decide     go on or stop (decision)
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm2llm.components.filter_errors.decision import best_iteration, decide, is_better, on_validation
from llm2llm.components.filter_errors.selections import SELECTIONS, Chosen, fails, select, tier
from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.filter_errors.suspects import find_suspects
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import LOOKED_AT, Decision, Example, Prediction, Reject, Score, StudentError
from llm2llm.components.shared.inference.difficulty import difficulty, share_solved
from llm2llm.components.shared.judge.cost import total
from llm2llm.components.shared.similarity.diversity import k_center
from llm2llm.components.shared.tasks.forms.metrics import Metric


@dataclass(frozen=True)
class Filtered:
    """What an iteration leaves behind."""

    errors: list[StudentError]
    """The rows to write from and, marked as such, the suspects; sorted by example id."""
    decision: Decision


def filter_errors(
    seeds: Sequence[Example],
    predictions: Sequence[Prediction],
    history: Sequence[Score],
    iteration: int,
    max_iterations: int,
    settings: FilterErrorsSettings,
    *,
    fold_predictions: Sequence[Prediction] | None = None,
    past_errors: Sequence[StudentError] = (),
    past_decisions: Sequence[Decision] = (),
    rejects: Sequence[Reject] = (),
    training_set: Sequence[Example] = (),
    labels: Sequence[str] = (),
    metric: Metric | None = None,
    random_seed: int = 0,
) -> Filtered:
    """Finds the seeds that the student needs help with and decides whether another iteration follows.

    Errors are looked for among the seeds only, and not among generated rows, unless `generated_rows` asks for that
    comparison: errors on those drift away from the task (Lee et al. 2024).

    Args:
        seeds: The seed examples; with `generated_rows` all rows of the training set.
        predictions: What the student answered: every seed exactly once, and validation.
        history: All scores so far, this iteration's included.
        iteration: The one just evaluated, from 0.
        max_iterations: The last iteration that may run.
        settings: See `FilterErrorsSettings`.
        fold_predictions: What the students of all folds answered, every seed exactly once. `out_of_fold` needs them
            but at the iteration limit; `auto` uses them when the student knows its seeds; None or empty: there are
            none.
        past_errors: The errors of the iterations before.
        past_decisions: Those of the iterations before; the last names the iteration that is to be beaten.
        rejects: The rejects of all iterations so far.
        training_set: What the student was trained on: with the rejects it says for which seeds nothing was kept.
        labels: The label set of a label task.
        metric: What patience and the best iteration go by; None: the accuracy.
        random_seed: Decides the draws of `skills` and `random`.

    Raises:
        UserError: Predictions that do not cover the seeds, of another iteration, or without what the selection ranks
            by; a history without validation.
    """
    by_id = {seed.id: seed for seed in seeds}
    known = share_solved(history, iteration)
    name, answered = _answers(predictions, fold_predictions, known, iteration >= max_iterations, settings)
    chosen: list[Chosen] = []
    suspects: list[Prediction] = []
    retired: set[str] = set()
    others: list[str] = []
    if answered is not None:
        answered = _on_seeds(by_id, answered, iteration)
        if settings.suspects == "set_apart":
            found = find_suspects(answered, by_id, past_errors, labels, settings.suspect_after)
            suspects = [row for row in answered if row.example_id in found]
        retired = _retired(rejects, training_set, settings.retire_after) & by_id.keys()
        apart = {row.example_id for row in suspects} | retired
        usable = [row for row in answered if row.example_id not in apart]
        chosen = select(name, usable, by_id, settings, labels, f"{random_seed}:{iteration}")
        kept = _cap(chosen, by_id, settings)
        others = _others(name, usable, suspects, retired, len(chosen), kept, known, settings)
        chosen = kept
    # Of a student that knows its seeds by heart the folds show the errors, and after the last iteration there are none.
    by_folds = settings.waits_for_known_seeds and known > settings.auto_above and not fold_predictions
    unknown = answered is None or (not chosen and by_folds and iteration >= max_iterations)
    count = None if unknown else len(chosen)
    best = best_iteration(history)
    reference = past_decisions[-1].reference_iteration if past_decisions else None
    go_on, reason = decide(
        name, count, others, history, rejects, reference, iteration, max_iterations, settings, metric
    )
    errors = [_error(by_id[row.answered.example_id], row.answered, row.hardness) for row in chosen]
    errors += [_error(by_id[row.example_id], row, None, suspect=True) for row in suspects]
    # Without the reference of earlier iterations this one's answers are to be beaten only if it is the best.
    beaten = best == iteration
    if reference is not None:
        beaten = is_better(
            on_validation(history, iteration), on_validation(history, reference), settings.patience_level, metric
        )
    decision = Decision(
        iteration=iteration,
        selection=name,
        errors=count,
        suspects=len(suspects),
        retired=len(retired),
        go_on=go_on,
        reason=reason,
        best_iteration=best,
        reference_iteration=iteration if beaten else reference,
        **total(fold_predictions or []),
    )
    return Filtered(sorted(errors, key=lambda error: error.example_id), decision)


def _answers(
    predictions: Sequence[Prediction],
    fold_predictions: Sequence[Prediction] | None,
    known: float,
    at_limit: bool,
    settings: FilterErrorsSettings,
) -> tuple[str, Sequence[Prediction] | None]:
    """Which selection is at work, and the answers that it looks at; None where there are none, at the limit."""
    selection = settings.looked_at
    if selection.needs_folds:
        if not fold_predictions and not at_limit:
            raise UserError(f"filter_errors.selection: {settings.selection!r} needs the predictions of all folds")
        return settings.selection, fold_predictions or None
    if selection.stands_for is not None:
        own, of_folds = selection.stands_for
        by_heart = bool(fold_predictions) and known > settings.auto_above
        name = settings.selection if settings.chosen_selection.control_of else of_folds if by_heart else own
        return name, fold_predictions if by_heart else predictions
    return settings.selection, predictions


def _on_seeds(by_id: Mapping[str, Example], predictions: Sequence[Prediction], iteration: int) -> list[Prediction]:
    """The predictions for the seeds, sorted by id, every seed exactly once."""
    on_seeds = sorted((p for p in predictions if p.split in LOOKED_AT), key=lambda p: p.example_id)
    asked = [p.example_id for p in on_seeds]
    if generated := sum(row.generated for row in by_id.values()):
        found = sum(p.split == "generated" for p in on_seeds)
        if found != generated:
            raise UserError(
                f"filter_errors.generated_rows: {found} predictions for {generated} generated rows: evaluate must be "
                "given the training set; in a pipeline that is fixed when it is compiled"
            )
    if len(set(asked)) < len(asked) or set(asked) != set(by_id):
        raise UserError(
            f"filter_errors: {len(asked)} predictions for {len(by_id)} seeds, of which {len(set(asked) & set(by_id))} "
            "match: the predictions must cover every seed exactly once"
        )
    if strange := {p.iteration for p in on_seeds} - {iteration}:
        raise UserError(f"filter_errors: the predictions are of iteration {min(strange)}, expected {iteration}")
    return on_seeds


def _retired(rejects: Sequence[Reject], training_set: Sequence[Example], after: int) -> set[str]:
    """The parents for which nothing was kept in `after` iterations or more.

    Nothing was kept in an iteration when it left rejects of the parent but no training row; without the training set
    that cannot be told. Rows that were not written for want of money, or were not needed, are no failure of the
    teacher's.
    """
    if not after or not training_set:
        return set()
    kept = {(row.written_from, row.iteration) for row in training_set if row.generated}
    failed: dict[str, set[int]] = defaultdict(set)
    for reject in rejects:
        tried = reject.parent_id is not None and reject.reason not in ("over_budget", "covered")
        if tried and (reject.written_from, reject.iteration) not in kept:
            failed[str(reject.written_from)].add(reject.iteration)
    return {parent for parent, iterations in failed.items() if len(iterations) >= after}


def _cap(chosen: Sequence[Chosen], seeds: Mapping[str, Example], settings: FilterErrorsSettings) -> list[Chosen]:
    """At most `max_errors` of the chosen; with `diversity`, of each tier in turn the rows least like those before."""
    cap = settings.max_errors
    if not cap or len(chosen) <= cap:
        return list(chosen)
    if settings.cap_by == "hardness":
        return list(chosen[:cap])
    kept: list[Chosen] = []
    for level in range(3):
        candidates = [row for row in chosen if tier(row.answered) == level]
        if len(candidates) > cap - len(kept):
            rows = [seeds[row.answered.example_id] for row in [*kept, *candidates]]
            texts = ["\n".join([row.question, *row.choices]) for row in rows]
            places = k_center(texts, cap - len(kept), len(kept))
            candidates = [candidates[place - len(kept)] for place in places]
        kept += candidates
    return kept


def _others(
    name: str,
    usable: Sequence[Prediction],
    suspects: Sequence[Prediction],
    retired: set[str],
    wanted: int,
    kept: Sequence[Chosen],
    known: float,
    settings: FilterErrorsSettings,
) -> list[str]:
    """What a person should know beside the number of errors."""
    others = []
    if generated := sum(row.answered.split == "generated" for row in kept):
        others.append(f"{generated} of them generated rows")
    if flaky := sum(difficulty(row.answered) == "flaky" for row in kept):
        others.append(f"{flaky} of them flaky")
    if len(kept) < wanted:
        others.append(f"the {settings.max_errors} chosen of {wanted} by {settings.cap_by}")
    unreadable = sum(difficulty(row) == "format_only" and not fails(row, settings) for row in usable)
    if unreadable:
        others.append(
            f"{unreadable} more give no answer that can be read (filter_errors.format_only: write takes them too)"
        )
    if suspects:
        others.append(f"{len(suspects)} set apart, as their labels may be wrong")
    if retired:
        others.append(f"{len(retired)} retired, as the teacher failed on them {settings.retire_after} times")
    selection = SELECTIONS[name]
    if selection.are_failures and not selection.needs_folds and known > settings.auto_above:
        others.append(
            f"the student solves {known:.1%} of its seeds: filter_errors.selection: out_of_fold would show what it has "
            "only learnt by heart"
        )
    return others


def _error(seed: Example, answered: Prediction, hardness: float | None, suspect: bool = False) -> StudentError:
    return StudentError(
        iteration=answered.iteration,
        example_id=seed.id,
        question=seed.question,
        choices=seed.choices,
        rationale=seed.rationale,
        answer=seed.answer,
        completion=answered.completion,
        parsed=answered.parsed,
        outcome=answered.outcome,
        fold=answered.fold,
        difficulty=difficulty(answered),
        hardness=hardness,
        suspect=suspect,
    )
