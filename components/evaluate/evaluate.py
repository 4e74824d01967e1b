"""Graded predictions to scores, comparisons and a confusion matrix; `shared.inference.predict` asks the student."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import get_args

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import (
    bootstrapped,
    calibration_error,
    mcnemar_p,
    paired_difference,
    pass_at_k,
    wilson_interval,
)
from llm2llm.components.shared.data.schemas import (
    ASKED,
    SPLITS,
    Confusion,
    Difficulty,
    Example,
    Prediction,
    Score,
    Split,
)
from llm2llm.components.shared.inference.difficulty import difficulty
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.judge.cost import total
from llm2llm.components.shared.tasks import FORMS, Task, field_scores, row_score
from llm2llm.components.shared.tasks.forms.metrics import CLASS_METRICS
from llm2llm.components.shared.tasks.measured import always_given, matrix, measured, metric_of
from llm2llm.components.shared.tasks.threshold import (
    Flagged,
    check_threshold,
    choose_threshold,
    flagged,
    in_words,
    probabilities,
)

LABELS_SHOWN = 20
"""Figures of single labels that Kubeflow is handed: precision and recall of ten."""
NO_LABEL = "(no label)"
"""The column of a confusion matrix for answers that could not be read, or that are none of the labels."""


def evaluate(
    student: Path,
    splits: Mapping[Split, Sequence[Example]],
    history: Sequence[Score],
    iteration: int,
    training_rows: int,
    task: Task,
    settings: AnswerSettings,
) -> tuple[list[Prediction], list[Score]]:
    """Asks and grades every example of every split in one pass over the model.

    Args:
        student: A folder that `train` saved.
        splits: What to ask; an empty split is passed over.
        history: The scores of the iterations before.
        iteration: Which iteration the student is of.
        training_rows: How many rows it was trained on.
        task: Reads and grades.
        settings: See `AnswerSettings`.

    Returns:
        The predictions, sorted by split and example id, and a score for each split.

    Raises:
        UserError: Nothing to ask, or a history that has this iteration already.
    """
    check_asked(splits, history, iteration)
    from llm2llm.components.shared.inference.predict import predict

    predictions = predict(student, splits, iteration, None, task, settings)
    scores = scored(history, predictions, {"training_rows": training_rows})
    return predictions, [with_metrics(score, task, splits, predictions) for score in scores]


def check_asked(splits: Mapping[Split, Sequence[Example]], history: Sequence[Score], iteration: int) -> None:
    """Refuses, before a student is loaded, what cannot be evaluated.

    Raises:
        UserError: Nothing to ask, or a history that has this iteration already.
    """
    if not any(splits.values()):
        raise UserError("evaluate: seeds, validation and test are all empty")
    if any(score.iteration >= iteration for score in history):
        raise UserError(f"evaluate: the history given to iteration {iteration} has scores of that iteration or later")


def merged(
    shards: Sequence[Sequence[Prediction]], splits: Mapping[Split, Sequence[Example]], iteration: int
) -> list[Prediction]:
    """The predictions of all shards as one, sorted by split and example id.

    Raises:
        UserError: A row was answered by no shard or more often than it stands in its split, or a prediction is of
            another iteration or of a row that nobody asked.
    """
    predictions = [prediction for shard in shards for prediction in shard]
    if others := {p.iteration for p in predictions} - {iteration}:
        raise UserError(f"evaluate: shard_predictions of iteration {min(others)}, and this is iteration {iteration}")
    wanted = Counter((split, example.id) for split in ASKED for example in splits.get(split, []))
    found = Counter((p.split, p.example_id) for p in predictions)
    for what, rows in (("are missing", wanted - found), ("are there twice, or were not asked", found - wanted)):
        if rows:
            split, row = min(rows, key=lambda place: (ASKED.index(place[0]), place[1]))
            raise UserError(
                f"evaluate: {rows.total()} of {wanted.total()} rows {what} in the predictions of {len(shards)} shards, "
                f"such as {split} row {row}; give the predictions of every shard of one run, each once"
            )
    return sorted(predictions, key=lambda p: (ASKED.index(p.split), p.example_id))


def scored(history: Sequence[Score], predictions: Sequence[Prediction], training: Mapping[str, int]) -> list[Score]:
    """A score for each split that was answered, with its gain over iteration 0 where that is in the history.

    Args:
        history: The scores of the iterations before.
        predictions: Of this iteration.
        training: What became of the rows in training, as `training_counts` gives it.

    Raises:
        UserError: The score of iteration 0 is of other rows.
    """
    first = {score.split: score for score in history if score.iteration == 0}
    scores = []
    for split in SPLITS:
        now = [p for p in predictions if p.split == split]
        score = score_split(now, training)
        if score is None:
            continue
        if split in first:
            score = compared(score, first[split], now)
        scores.append(score)
        print(
            f"evaluate: {split} {score.accuracy:.1%} ({score.low:.1%} to {score.high:.1%}), "
            f"{score.correct} of {score.n} correct, {score.unparseable} unparseable"
            + ("" if score.calibration_error is None else f", calibration error {score.calibration_error:.3f}")
            + (
                ""
                if score.gain is None
                else f", {score.gain:+.1%} ({score.gain_low:+.1%} to {score.gain_high:+.1%}) since iteration 0"
            ),
            flush=True,
        )
    if generated := [p for p in predictions if p.split == "generated"]:
        right = sum(p.outcome == "correct" for p in generated)
        print(f"evaluate: {right} of {len(generated)} generated rows correct", flush=True)
    if sampled := sample_figures(predictions):
        print("evaluate: " + ", ".join(f"{name} {value:.1%}" for name, value in sampled.items()), flush=True)
    return scores


def with_metrics(
    score: Score, task: Task, splits: Mapping[Split, Sequence[Example]], predictions: Sequence[Prediction]
) -> Score:
    """The score with the figure of the metric that decides, and with those of labels where the form has classes."""
    now = [one for one in predictions if one.split == score.split]
    rows = splits[score.split]
    score = replace(score, metric=task.metric)
    if FORMS[task.form].has_classes:
        found = {
            name: float(one.value(matrix(one, measured(task, one, rows, now)).sum(axis=0)))
            for name, one in CLASS_METRICS.items()
        }
        score = replace(score, macro_f1=found["macro_f1"], balanced_accuracy=found["balanced_accuracy"])
        print(
            f"evaluate: {score.split} " + ", ".join(f"{name} {value:.1%}" for name, value in found.items()), flush=True
        )
    if (metric := metric_of(task)) is None:
        return score
    measures = measured(task, metric, rows, now)
    figure = bootstrapped(matrix(metric, measures), value=metric.value)
    kept = [number for one in measures.values() for number in one] if score.split == "validation" else []
    return replace(score, value=figure.value, value_low=figure.low, value_high=figure.high, measures=kept)


def thresholds(
    settings: AnswerSettings,
    task: Task,
    splits: Mapping[Split, Sequence[Example]],
    predictions: Sequence[Prediction],
) -> dict[Split, Flagged]:
    """What the threshold that is chosen on validation comes to on validation and test; empty where none is wanted, or
    validation has no row to choose it by.

    Raises:
        UserError: The task or the mode has no such probabilities.
    """
    wanted = settings.threshold
    if wanted is None:
        return {}
    try:
        check_threshold(task, wanted, settings.mode)
    except ValueError as problem:
        raise UserError(f"evaluate.{problem}") from None
    found: dict[Split, Flagged] = {}
    threshold: float | None = None
    for split in ("validation", "test"):
        now = [one for one in predictions if one.split == split]
        positives, negatives = probabilities(wanted.label, splits.get(split, []), now)
        if threshold is None and negatives:
            threshold = choose_threshold(negatives, positives, wanted.max_false_positive_rate)
        if threshold is None or not now:
            break
        found[split] = flagged(wanted.label, threshold, positives, negatives)
        print(f"evaluate: {split} at the threshold {threshold:.4f}: {in_words(found[split])}", flush=True)
    return found


def with_flags(score: Score, found: Mapping[Split, Flagged]) -> Score:
    """The score with what the threshold comes to on its split, as `thresholds` found it."""
    one = found.get(score.split)
    if one is None:
        return score
    return replace(
        score,
        flag_label=one.label,
        flag_threshold=one.threshold,
        flag_positives=one.positives,
        flag_found=one.found,
        flag_negatives=one.negatives,
        flag_false_alarms=one.false_alarms,
    )


def threshold_figures(found: Mapping[Split, Flagged]) -> dict[str, float]:
    """What Kubeflow shows of it: `threshold`, `<split>_recall_at_threshold`, `<split>_false_positive_rate`."""
    figures: dict[str, float] = {}
    for split, one in found.items():
        figures["threshold"] = one.threshold
        for name, value in (("recall_at_threshold", one.recall), ("false_positive_rate", one.false_positive_rate)):
            if value is not None:
                figures[f"{split}_{name}"] = value
    return {name: round(value, 6) for name, value in figures.items()}


def label_figures(
    confusion: tuple[list[str], list[list[int]]] | None,
) -> dict[str, float]:
    """`precision_<label>` and `recall_<label>` of a confusion matrix as `confusion_of` gives it: of the answers with a
    label, the share that is right, and of the rows with it, the share that was found. A label that nobody gave has no
    precision, and one without rows no recall."""
    if confusion is None:
        return {}
    categories, cells = confusion
    figures = {}
    for number, label in enumerate(categories):
        if label == NO_LABEL:
            continue
        for name, rows in (("precision", sum(row[number] for row in cells)), ("recall", sum(cells[number]))):
            if rows:
                figures[f"{name}_{label}"] = cells[number][number] / rows
    return figures


def score_figures(scores: Sequence[Score], predictions: Sequence[Prediction]) -> dict[str, float]:
    """What Kubeflow shows of an evaluation: `<split>_accuracy`, `_low`, `_high` and the like, and `sample_figures`."""
    figures = {
        f"{score.split}_{name}": round(value, 4)
        for score in scores
        for name, value in (
            ("accuracy", score.accuracy),
            ("low", score.low),
            ("high", score.high),
            ("unparseable", score.unparseable),
            ("calibration_error", score.calibration_error),
            ("gain", score.gain),
            ("macro_f1", score.macro_f1),
            ("balanced_accuracy", score.balanced_accuracy),
            (score.metric, score.value),
        )
        if value is not None
    }
    return figures | {name: round(value, 4) for name, value in sample_figures(predictions).items()}


def field_figures(
    task: Task, splits: Mapping[Split, Sequence[Example]], predictions: Sequence[Prediction]
) -> dict[str, float]:
    """What the parts of the first answers come to, where answers have fields: for each split the shares
    `<split>_valid_json` and `<split>_fits_schema`, the micro-averaged `<split>_precision`, `_recall` and `_f1` of all
    fields, `<split>_row_score`, the mean over the rows, and `<split>_f1_<field>`; see `tasks.field_scores`."""
    form = FORMS[task.form]
    if form.field_counts is None:
        return {}
    figures: dict[str, float] = {}
    for split in SPLITS:
        right = {example.id: example.answer for example in splits.get(split, [])}
        rows = [(p.parsed, right[p.example_id]) for p in predictions if p.split == split]
        if not rows:
            continue
        read = [parsed for parsed, _ in rows if parsed is not None]
        figures[f"{split}_valid_json"] = len(read) / len(rows)
        figures[f"{split}_fits_schema"] = sum(form.fits is None or form.fits(task, one) for one in read) / len(rows)
        figures[f"{split}_row_score"] = fmean(row_score(task, parsed, answer) for parsed, answer in rows)
        for score in field_scores(task, rows):
            values = {"precision": score.precision, "recall": score.recall, "f1": score.f1}
            if not score.field:
                figures |= {f"{split}_{name}": value for name, value in values.items() if value is not None}
            elif not score.kind and score.f1 is not None:
                figures[f"{split}_f1_{score.field}"] = score.f1
    return {name: round(value, 4) for name, value in figures.items()}


def sample_figures(predictions: Sequence[Prediction]) -> dict[str, float]:
    """What several answers to each seed come to; empty where there is one answer to each.

    Returns:
        `seeds_pass_at_1`, `seeds_pass_at_<k>` and the shares `seeds_solved`, `seeds_flaky`, `seeds_unsolved` and
        `seeds_format_only` (see `Difficulty`), which add up to 1.
    """
    drawn = [p for p in predictions if p.split == "seeds" and p.samples > 1]
    if not drawn:
        return {}
    counts = Counter(difficulty(p) for p in drawn)
    k = min(p.samples for p in drawn)
    figures = {
        f"seeds_pass_at_{few}": fmean(pass_at_k(p.samples, p.samples_correct, few) for p in drawn) for few in (1, k)
    }
    shares: dict[str, float] = {f"seeds_{name}": counts[name] / len(drawn) for name in get_args(Difficulty)}
    return figures | shares


def score_split(predictions: Sequence[Prediction], training: Mapping[str, int]) -> Score | None:
    """The counts of one split's predictions; None for no predictions."""
    if not predictions:
        return None
    n = len(predictions)
    correct = sum(p.outcome == "correct" for p in predictions)
    low, high = wilson_interval(correct, n)
    confidences = [p.confidence for p in predictions if p.confidence is not None]
    were_right = [p.outcome == "correct" for p in predictions if p.confidence is not None]
    return Score(
        iteration=predictions[0].iteration,
        split=predictions[0].split,
        n=n,
        correct=correct,
        unparseable=sum(p.outcome == "unparseable" for p in predictions),
        accuracy=correct / n,
        low=low,
        high=high,
        **training,
        correct_ids=sorted(p.example_id for p in predictions if p.outcome == "correct"),
        metric="accuracy",
        measures=[],
        validation_losses=[],
        flag_label="",
        calibration_error=calibration_error(confidences, were_right) if confidences else None,
        **total(predictions),
    )


def compared(score: Score, first: Score, now: Sequence[Prediction]) -> Score:
    """The score with its gain over that of iteration 0 for the same rows, by the rows' first answers.

    Raises:
        UserError: They are not for the same rows.
    """
    after = {p.example_id: p.outcome == "correct" for p in now}
    before = set(first.correct_ids)
    if first.n != len(after) or (gone := before - after.keys()):
        raise UserError(
            f"evaluate: the scores of iteration 0 are not for the same {score.split} rows: {first.n} then, "
            f"{len(after)} now" + (f", without {min(gone)}" if first.n == len(after) else "")
        )
    ids = sorted(after)
    pair = [row in before for row in ids], [after[row] for row in ids]
    difference = paired_difference(*pair)
    return replace(
        score,
        gain=difference.value,
        gain_low=difference.low,
        gain_high=difference.high,
        gain_p=mcnemar_p(*pair),
    )


def confusions_of(
    task: Task, splits: Mapping[Split, Sequence[Example]], predictions: Sequence[Prediction]
) -> list[Confusion]:
    """How many rows with one right answer were given which, in every split; for a task without labels or choices only
    of a split to which the student always gives the same answer.

    Args:
        task: Says whether it has such.
        splits: The rows that were asked.
        predictions: Of one iteration; the first answers count.
    """
    if not FORMS[task.form].has_classes:
        of_split = {split: [one for one in predictions if one.split == split] for split in SPLITS}
        predictions = [
            one
            for split, asked in of_split.items()
            if asked and always_given(splits.get(split, []), asked) is not None
            for one in asked
        ]
    right = {(split, row.id): row.answer for split, rows in splits.items() for row in rows}
    cells = Counter(
        (p.iteration, p.split, right[p.split, p.example_id], p.parsed) for p in predictions if p.split in SPLITS
    )
    ordered = sorted(cells.items(), key=lambda one: (SPLITS.index(one[0][1]), one[0][2], one[0][3] or ""))
    return [
        Confusion(iteration=iteration, split=split, right=answer, given=given, n=n)
        for (iteration, split, answer, given), n in ordered
    ]


def confusion_of(
    task: Task, splits: Mapping[Split, Sequence[Example]], predictions: Sequence[Prediction]
) -> tuple[list[str], list[list[int]]] | None:
    """(categories, matrix) of the first answers to validation, or to the seeds where there is no validation.

    Rows of the matrix are right labels and columns what the student answered, both in the order of the categories: the
    labels or letters, and `NO_LABEL`, which is nobody's right answer. None for a task that has neither.

    Raises:
        UserError: The right answer of a row is none of the labels.
    """
    classes = FORMS[task.form].classes
    if classes is None:
        return None
    split: Split = "validation" if splits.get("validation") else "seeds"
    answers = {example.id: example.answer for example in splits.get(split, [])}
    most = max((len(example.choices) for example in splits.get(split, [])), default=0)
    categories = [*classes(task, most), NO_LABEL]
    place = {category: number for number, category in enumerate(categories)}
    matrix = [[0] * len(categories) for _ in categories]
    for prediction in predictions:
        if prediction.split == split:
            if answers[prediction.example_id] not in place:
                raise UserError(
                    f"evaluate: row {prediction.example_id}: the answer {answers[prediction.example_id]!r} is none of "
                    f"the labels {categories[:-1]}"
                )
            given = place.get(prediction.parsed or NO_LABEL, place[NO_LABEL])
            matrix[place[answers[prediction.example_id]]][given] += 1
    return categories, matrix
