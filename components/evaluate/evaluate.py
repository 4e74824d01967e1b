"""From a student and examples to graded predictions and the history of scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from llm2llm.components.problems import UserError
from llm2llm.components.rows.kinds import SPLITS, Example, Prediction, Score, Split
from llm2llm.components.statistics import wilson_interval
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
    return predictions, [*history, *scores]


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
