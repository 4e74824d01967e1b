"""Counts over the last student's answers: confusion, confidence, truncation."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import reliability_bins, wilson_interval
from llm2llm.components.shared.data.schemas import SPLITS, Example, Prediction, Score, Split
from llm2llm.components.shared.tasks import FORMS, Task, field_scores

SHORT_LABEL = 8
"""Characters of a label that fit over a column."""


def count_answers(
    predictions: Sequence[Prediction],
    examples: Mapping[Split, Sequence[Example]],
    history: Sequence[Score],
    has_labels: bool,
    task: Task | None = None,
) -> dict[str, Any]:
    """The part `answers` of the summary.

    Args:
        predictions: Of the last iteration, all splits.
        examples: The rows that were asked, by split; without those of a split, its answers are in no confusion.
        history: All scores so far.
        has_labels: Whether an answer is one of a few labels or letters, so that one can be taken for another.
        task: What the answers are of, for those that have fields; None: nothing is said of fields.

    Raises:
        UserError: The predictions are not those that the scores were counted from, or of other examples.
    """
    last = max((score.iteration for score in history), default=0)
    by_split: dict[Split, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_split[prediction.split].append(prediction)
    _check(predictions, by_split, [score for score in history if score.iteration == last], last)
    splits: dict[str, Any] = {}
    for split in SPLITS:
        answers = sorted(by_split[split], key=lambda one: one.example_id)
        if not answers:
            continue
        right = _right_answers(answers, examples[split], split) if has_labels and split in examples else None
        splits[split] = {
            "n": len(answers),
            "truncated": sum(one.truncated for one in answers),
            "confusion": None if right is None else _confusion(answers, right),
            "reliability": _reliability(answers),
            "fields": None if task is None or split not in examples else _fields(task, answers, examples[split], split),
        }
    return {"iteration": last, "splits": splits}


def _check(
    predictions: Sequence[Prediction],
    by_split: Mapping[Split, Sequence[Prediction]],
    scores: Sequence[Score],
    iteration: int,
) -> None:
    if others := {one.iteration for one in predictions} - {iteration}:
        raise UserError(
            f"report: the predictions are of iteration {min(others)} and the scores end with iteration {iteration}; "
            "give the outputs of the same evaluate"
        )
    counted = {score.split: (score.n, score.correct) for score in scores}
    found = {
        split: (len(answers), sum(one.outcome == "correct" for one in answers)) for split, answers in by_split.items()
    }
    for split in SPLITS:
        if counted.get(split) != found.get(split):
            raise UserError(
                f"report: (answers, right ones) on {split} are {counted.get(split)} by the scores of iteration "
                f"{iteration} and {found.get(split)} by its predictions; give the outputs of the same evaluate"
            )


def _right_answers(answers: Sequence[Prediction], examples: Sequence[Example], split: Split) -> dict[str, str]:
    right = {example.id: example.answer for example in examples}
    if missing := sorted({one.example_id for one in answers} - right.keys()):
        raise UserError(
            f"report: {len(missing)} predictions on {split} are of rows that it does not hold, as {missing[0]}; give "
            f"the {split} rows that evaluate was given"
        )
    return right


def _confusion(answers: Sequence[Prediction], right: Mapping[str, str]) -> list[dict[str, Any]]:
    """How many rows with one right answer were given which; given null: none could be read."""
    cells = Counter((right[one.example_id], one.parsed) for one in answers)
    ordered = sorted(cells.items(), key=lambda cell: (cell[0][0], cell[0][1] is None, cell[0][1] or ""))
    return [{"right": answer, "given": given, "n": n} for (answer, given), n in ordered]


def _fields(
    task: Task, answers: Sequence[Prediction], examples: Sequence[Example], split: Split
) -> dict[str, Any] | None:
    """Fields of answers, scored; None where answers have none."""
    form = FORMS[task.form]
    if form.field_counts is None:
        return None
    right = _right_answers(answers, examples, split)
    read = [one.parsed for one in answers if one.parsed is not None]
    scores = field_scores(task, ((one.parsed, right[one.example_id]) for one in answers))
    return {
        "read": len(read),
        "fit": sum(form.fits is None or form.fits(task, one) for one in read),
        "scores": [dataclasses.asdict(score) for score in scores],
    }


def _reliability(answers: Sequence[Prediction]) -> list[dict[str, Any]] | None:
    """Confidence against accuracy, for each range that has answers; None where no answer has a confidence."""
    sure = [(one.confidence, one.outcome == "correct") for one in answers if one.confidence is not None]
    if not sure:
        return None
    held = [one for one in reliability_bins([value for value, _ in sure], [right for _, right in sure]) if one.n]
    bins = []
    for one in held:
        low, high = wilson_interval(round(one.accuracy * one.n), one.n)
        accuracy = {"accuracy": one.accuracy, "low": low, "high": high}
        bins.append({"from": one.low, "to": one.high, "n": one.n, "confidence": one.confidence, **accuracy})
    return bins


def confusion_table(confusion: Sequence[Mapping[str, Any]], most: int) -> dict[str, Any] | None:
    """A confusion as a matrix for the eye; None with more than `most` labels.

    Returns:
        `numbered`: whether labels are so long that numbers should stand over the columns; `labels`; `unread`: whether
        any answer could not be read, which is then the last column; `rows`: for each label its `n` and its `cells`,
        each with `n`, `kind` (`right`, `wrong` or `none`) and `shade`, from 0 for no rows to 4 for most of the label's.
    """
    labels = sorted({cell["right"] for cell in confusion} | {cell["given"] for cell in confusion} - {None})
    if len(labels) > most:
        return None
    counts = {(cell["right"], cell["given"]): cell["n"] for cell in confusion}
    unread = any(cell["given"] is None for cell in confusion)
    given = [*labels, *([None] if unread else [])]
    rows = []
    for right in labels:
        total = sum(counts.get((right, answer), 0) for answer in given)
        cells = []
        for answer in given:
            n = counts.get((right, answer), 0)
            kind = "none" if n == 0 else "right" if answer == right else "wrong"
            cells.append({"n": n, "kind": kind, "shade": -(-4 * n // total) if total else 0})
        rows.append({"label": right, "n": total, "cells": cells})
    return {
        "numbered": any(len(label) > SHORT_LABEL for label in labels),
        "labels": labels,
        "unread": unread,
        "rows": rows,
    }


def most_confused(confusion: Sequence[Mapping[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The labels that are most often taken for another one: `right`, `given`, `n`, and `of` how many rows."""
    totals: Counter[str] = Counter()
    for cell in confusion:
        totals[cell["right"]] += cell["n"]
    wrong = [cell for cell in confusion if cell["given"] is not None and cell["given"] != cell["right"]]
    wrong.sort(key=lambda cell: (-cell["n"], cell["right"], cell["given"]))
    return [{**cell, "of": totals[cell["right"]]} for cell in wrong[:limit]]


def label_scores(confusion: Sequence[Mapping[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The labels that rows have with the lowest F1, lowest first: `label`, `n` (rows), `precision` (of the answers with
    it, the share that is right; None where nobody gave it), `recall` (of its rows, the share that was found), `f1`."""
    right, given = Counter[str](), Counter[str | None]()
    found: Counter[str] = Counter()
    for cell in confusion:
        right[cell["right"]] += cell["n"]
        given[cell["given"]] += cell["n"]
        found[cell["right"]] += cell["n"] if cell["given"] == cell["right"] else 0
    scores = [
        {
            "label": label,
            "n": n,
            "precision": found[label] / given[label] if given[label] else None,
            "recall": found[label] / n,
            "f1": 2 * found[label] / (n + given[label]),
        }
        for label, n in right.items()
    ]
    return sorted(scores, key=lambda one: (one["f1"], one["label"]))[:limit]
