"""The numbers of a run, each counted from rows.

`summary.json`, schema version 3:

    schema_version      3
    iterations          for each iteration so far, in order:
        iteration       from 0
        training_rows   rows that its student was trained on
        steps           optimiser steps of that training; 0: not known
        validation_losses   the mean loss on validation at the end of each epoch; empty where it was not measured
        errors          seeds that its selection found to need help; null where it did not look (see `Decision.errors`)
        suspects        seeds set apart because their label is likely wrong
        retired         seeds that are no longer written from
        accuracy        for each of `seeds`, `validation`, `test` that was asked:
            value       share of right answers, in [0, 1]
            low, high   its 95% Wilson interval
            n           answers
            unparseable answers that could not be read; they count as wrong
            calibration_error   the expected calibration error, in [0, 1]; null where no answer has a confidence
            macro_f1, balanced_accuracy     in [0, 1]; null where answers are no labels or choices
            decides     the metric that decisions go by: name, value, low, high (95% bootstrap); null where it is the
                        accuracy
            gain        against iteration 0 on the same rows; null in iteration 0, or without a comparison:
                value       accuracy less that of iteration 0
                low, high   its 95% paired bootstrap interval
                p           of McNemar's exact test, two-sided
        go_on           whether another iteration follows
        reason          why or why not
    best_iteration      by the metric that decides, on validation; the earliest of equals
    tuning              settings of the training that were tried before the loop; null where none were
        chosen          the keys of `train` that were tried, with the values that the loop trains with
        reason          why these
        split, folds    what was asked: validation, or with folds the seeds
        metric          what the choice goes by
        trials          for each in the order in which it was tried:
            settings    keys of `train` and their values
            chosen      whether the loop trains with them
            failed      why there is no student; else empty
            n, unparseable, accuracy (value, low, high), decides: as above
            behind      how much more accurate the chosen one is on the same rows: value, low, high (95% paired
                        bootstrap interval), p; null for the chosen one and for one that failed
    controls            what the delivered student is held against. For each control:
        name            `steps`: the seeds alone, for as many optimiser steps; there once the loop has ended.
                        `majority`: the most frequent label of the seeds, always. `untrained`: the student before any
                        training. `few_shot`: the same with seeds in its prompt. `teacher`: the teacher on validation
        steps           optimiser steps of its training; 0: it was not trained
        shots           seeds in its prompt
        accuracy        for validation and test: value, low, high, n, unparseable, as above
        gain            for each of them the delivered student's accuracy less the control's on the same rows: value,
                        low, high, p, as above
    threshold           how rows are flagged by a label (evaluate.threshold), by the best iteration's student; null
                        without one
        label, value    flag a row when the label's probability is at least the value, which validation has chosen
        splits          for validation and test: recall and false_positive_rate, each of k of n with its 95% interval
                        (value, low, high, k, n), null where there are no such rows
    delivered           what the student of the best iteration answers; null for a task without labels or choices
        iteration
        splits          for each split that was asked:
            n           answers
            confusion   right, given (null: none could be read), n: how many rows with one right answer were given which
            always      the label that is given to every question, where there is but one; else null
    rows
        seeds           user's rows in the training set
        generated       kept + rejected: every row that was asked of the teacher
        kept            generated rows in the training set
        rejected
            total       generated rows that were dropped
            by_reason   how many for each reason
        left_out        rows of the seeds and the pool that `prepare` left out, as they match protected rows
    by_iteration        for each iteration after 0: iteration, generated, kept, rejected
    teacher_calls
        total, answered, failed
        input_tokens    as the endpoint reported them, summed; null when it reported none
        output_tokens   likewise
        usd             the price of the tokens, whoever paid it; null when no price is known
        unpriced        calls with tokens whose price is not known, and so not in `usd`
        by_iteration, by_strategy, by_purpose, by_teacher: lists of the same sums
        per_kept_row    tokens and usd for each generated row in the training set
        per_point       split, points, tokens and usd: what each point of accuracy cost by which the best iteration is
                        ahead of iteration 0; null without a gain
    judge_calls         what the judge answered in evaluation and for the folds; null where none was asked. What
                        `promote` has judged anew is in that stage's log
        total           answers
        input_tokens, output_tokens, usd: as above, and null where they are not known of every answer
        unpriced        all of them, where `usd` is null
        by_iteration    a list of the same sums
    answers             what the last student answered; null where the report was given no predictions
        iteration
        splits          for each split that was asked:
            n           answers
            truncated   answers that hit the token limit before they ended
            confusion   right, given (null: none could be read), n: how many rows with one right answer were given
                        which; null where answers are free, or the rows were not given
            reliability from, to, n, confidence (mean), accuracy, low, high (95% Wilson): for each range of confidences
                        that has answers; null where no answer has a confidence
            fields      null where answers have no fields, or the rows were not given
                read    answers that are JSON
                fit     those of them that fit the schema
                scores  field, kind (both empty: all fields together), right, wrong, missing: parts of answers;
                        precision, recall, f1 (null where there is nothing to count)
    promotion           the verdict of `promote` as it wrote it; null where nothing is promoted
    training            what the last training did with its rows
        training_rows   rows trained on, without those left out
        rows_too_long   rows left out, as they have more tokens than `train.max_length` or the student's context
        rows_truncated  rows whose prompt was cut to fit
        rows_replayed   general rows mixed in
    leakage             the last check of the training set against the rows that must stay unseen; null without any
        checked         rows of the training set
        against         validation, test: how many rows of each
        matches         rows of the training set that match one of them
        ids             theirs, sorted

It holds no times, so the same rows give the same file.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.report.controls import count_controls, count_delivered
from llm2llm.components.report.cost import judge_costs, teacher_costs
from llm2llm.components.report.tuning import count_trials
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import wilson_interval
from llm2llm.components.shared.data.schemas import (
    SPLITS,
    Call,
    Confusion,
    Control,
    Decision,
    Example,
    Reject,
    Score,
    StudentError,
    Trial,
)

SCHEMA_VERSION = 3


TRAINING = ("training_rows", "rows_too_long", "rows_truncated", "rows_replayed")


def summarise(
    training_set: Sequence[Example],
    history: Sequence[Score],
    errors: Sequence[StudentError],
    decisions: Sequence[Decision],
    rejects: Sequence[Reject],
    calls: Sequence[Call],
    leakage: Mapping[str, Any] | None = None,
    answers: Mapping[str, Any] | None = None,
    promotion: Mapping[str, Any] | None = None,
    controls: Sequence[Control] = (),
    confusions: Sequence[Confusion] = (),
    trials: Sequence[Trial] = (),
) -> dict[str, Any]:
    """The summary of all iterations so far.

    Args:
        training_set: Of the last iteration.
        history: All scores so far.
        errors: All errors so far; only counted, to check the decisions against them.
        decisions: All decisions so far.
        rejects: All rejects so far.
        calls: All teacher calls so far.
        leakage: What the last check found; None when there was nothing to check against.
        answers: As `count_answers` counts them; None without predictions.
        promotion: What `promote` decided; None where nothing is promoted.
        controls: Of the journal, and those that need no student.
        confusions: All so far.
        trials: Of the settings of the training.

    Raises:
        UserError: Rows that contradict one another, such as an iteration with scores and no decision.
    """
    _check(history, errors, decisions)
    scores = {(score.iteration, score.split): score for score in history}
    kept = Counter(row.iteration for row in training_set if row.generated)
    generated_rejects = [row for row in rejects if row.stage != "prepare"]
    rejected = Counter(row.iteration for row in generated_rejects)
    after_first = {decision.iteration for decision in decisions if decision.iteration > 0}
    iterations = [
        {
            "iteration": decision.iteration,
            "training_rows": next(s.training_rows for s in history if s.iteration == decision.iteration),
            "steps": next(s.steps for s in history if s.iteration == decision.iteration),
            "validation_losses": next(
                (
                    one.validation_losses
                    for one in history
                    if (one.iteration, one.split) == (decision.iteration, "validation")
                ),
                [],
            ),
            "errors": decision.errors,
            "suspects": decision.suspects,
            "retired": decision.retired,
            "accuracy": {
                split: _accuracy(scores[decision.iteration, split])
                for split in SPLITS
                if (decision.iteration, split) in scores
            },
            "go_on": decision.go_on,
            "reason": decision.reason,
        }
        for decision in _ordered(decisions)
    ]
    best = _ordered(decisions)[-1].best_iteration
    return {
        "schema_version": SCHEMA_VERSION,
        "iterations": iterations,
        "best_iteration": best,
        "tuning": count_trials(trials),
        "controls": count_controls(controls, history, best),
        "threshold": _threshold([score for score in history if score.iteration == best]),
        "delivered": count_delivered(confusions, best),
        "rows": {
            "seeds": sum(not row.generated for row in training_set),
            "generated": kept.total() + rejected.total(),
            "kept": kept.total(),
            "rejected": {
                "total": rejected.total(),
                "by_reason": dict(sorted(Counter(row.reason for row in generated_rejects).items())),
            },
            "left_out": len(rejects) - len(generated_rejects),
        },
        "by_iteration": [
            {
                "iteration": iteration,
                "generated": kept[iteration] + rejected[iteration],
                "kept": kept[iteration],
                "rejected": rejected[iteration],
            }
            for iteration in sorted(after_first | kept.keys() | rejected.keys())
        ],
        "teacher_calls": teacher_costs(calls, kept.total(), iterations, best),
        "judge_calls": judge_costs(history, decisions, controls, trials),
        "answers": None if answers is None else dict(answers),
        "promotion": None if promotion is None else dict(promotion),
        "training": {key: getattr(max(history, key=lambda score: score.iteration), key) for key in TRAINING},
        "leakage": None if leakage is None else dict(leakage),
    }


def _check(history: Sequence[Score], errors: Sequence[StudentError], decisions: Sequence[Decision]) -> None:
    """A report whose parts contradict one another would be worse than none."""
    scored = {score.iteration for score in history}
    decided = {decision.iteration for decision in decisions}
    if not decided or scored != decided:
        raise UserError(
            f"report: the history has the iterations {sorted(scored)} and the decisions {sorted(decided)}; "
            "give the outputs of the same evaluate and filter_errors"
        )
    if len(decided) < len(decisions) or len({(score.iteration, score.split) for score in history}) < len(history):
        raise UserError("report: an iteration stands twice in the history or the decisions")
    found = Counter(error.iteration for error in errors if not error.suspect)
    for decision in _ordered(decisions):
        if found[decision.iteration] != (decision.errors or 0):
            raise UserError(
                f"report: the decision of iteration {decision.iteration} counts {decision.errors} errors and the "
                f"errors of that iteration are {found[decision.iteration]}; give the outputs of the same filter_errors"
            )
        if decision.best_iteration not in decided:
            raise UserError(
                f"report: the decision of iteration {decision.iteration} names {decision.best_iteration} the best "
                f"iteration, and the decisions are of {sorted(decided)}"
            )


def _ordered(decisions: Sequence[Decision]) -> list[Decision]:
    return sorted(decisions, key=lambda decision: decision.iteration)


def _threshold(scores: Sequence[Score]) -> dict[str, Any] | None:
    """The part `threshold` of the summary, from the best iteration's scores."""
    flagged = [score for score in scores if score.flag_threshold is not None]
    if not flagged:
        return None
    return {
        "label": flagged[0].flag_label,
        "value": flagged[0].flag_threshold,
        "splits": {
            score.split: {
                "recall": _share(score.flag_found, score.flag_positives),
                "false_positive_rate": _share(score.flag_false_alarms, score.flag_negatives),
            }
            for score in flagged
        },
    }


def _share(k: int, n: int) -> dict[str, Any] | None:
    if n == 0:
        return None
    low, high = wilson_interval(k, n)
    return {"value": k / n, "low": low, "high": high, "k": k, "n": n}


def _accuracy(score: Score) -> dict[str, Any]:
    return {
        "value": score.accuracy,
        "low": score.low,
        "high": score.high,
        "n": score.n,
        "unparseable": score.unparseable,
        "calibration_error": score.calibration_error,
        "macro_f1": score.macro_f1,
        "balanced_accuracy": score.balanced_accuracy,
        "decides": None
        if score.value is None
        else {"name": score.metric, "value": score.value, "low": score.value_low, "high": score.value_high},
        "gain": None
        if score.gain is None
        else {"value": score.gain, "low": score.gain_low, "high": score.gain_high, "p": score.gain_p},
    }
