"""From a student and examples to graded predictions and the history of scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import get_args

from llm2llm.components.problems import UserError
from llm2llm.components.rows.kinds import SPLITS, Difficulty, Example, Prediction, Score, Split
from llm2llm.components.statistics import pass_at_k, wilson_interval
from llm2llm.components.students.difficulty import difficulty
from llm2llm.components.students.predict import predict
from llm2llm.components.students.settings import AnswerSettings
from llm2llm.components.tasks import Task


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
        The predictions, sorted by split and example id, and the history with one more score for each split.

    Raises:
        UserError: Nothing to ask, or a history that has this iteration already.
    """
    if not any(splits.values()):
        raise UserError("evaluate: seeds, validation and test are all empty")
    if any(score.iteration >= iteration for score in history):
        raise UserError(f"evaluate: the history given to iteration {iteration} has scores of that iteration or later")
    predictions = predict(student, splits, iteration, None, task, settings)
    scores = [
        score
        for split in SPLITS
        if (score := score_split([p for p in predictions if p.split == split], training_rows)) is not None
    ]
    for score in scores:
        print(
            f"evaluate: {score.split} {score.accuracy:.1%} ({score.low:.1%} to {score.high:.1%}), "
            f"{score.correct} of {score.n} correct, {score.unparseable} unparseable",
            flush=True,
        )
    if sampled := sample_figures(predictions):
        print("evaluate: " + ", ".join(f"{name} {value:.1%}" for name, value in sampled.items()), flush=True)
    return predictions, [*history, *scores]


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


def score_split(predictions: Sequence[Prediction], training_rows: int) -> Score | None:
    """The counts of one split's predictions; None for no predictions."""
    if not predictions:
        return None
    n = len(predictions)
    correct = sum(p.outcome == "correct" for p in predictions)
    low, high = wilson_interval(correct, n)
    return Score(
        iteration=predictions[0].iteration,
        split=predictions[0].split,
        n=n,
        correct=correct,
        unparseable=sum(p.outcome == "unparseable" for p in predictions),
        accuracy=correct / n,
        low=low,
        high=high,
        training_rows=training_rows,
    )
