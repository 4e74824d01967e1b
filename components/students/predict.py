"""Answers, graded: what `evaluate` and `out_of_fold` have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from llm2llm.components import tasks
from llm2llm.components.rows.kinds import SPLITS, Example, Prediction, Split
from llm2llm.components.students.answer import answer
from llm2llm.components.students.settings import AnswerSettings
from llm2llm.components.tasks import Task


def predict(
    student: Path,
    splits: Mapping[Split, Sequence[Example]],
    iteration: int,
    fold: int | None,
    task: Task,
    settings: AnswerSettings,
) -> list[Prediction]:
    """The graded answers to every example, sorted by split and example id."""
    asked = [(split, example) for split in SPLITS for example in splits.get(split, [])]
    answers = answer(student, [example for _, example in asked], task, settings)
    predictions = []
    for (split, example), given in zip(asked, answers, strict=True):
        parsed, outcome = tasks.grade(task, given.completion, example.answer)
        predictions.append(
            Prediction(
                example_id=example.id,
                split=split,
                iteration=iteration,
                fold=fold,
                completion=given.completion,
                parsed=parsed,
                outcome=outcome,
                truncated=given.truncated,
            )
        )
    return sorted(predictions, key=lambda p: (SPLITS.index(p.split), p.example_id))
