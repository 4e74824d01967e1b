"""Rows put to a finished student, with the prompt of its task: `llm2llm predict`.

rows, with or without answers -> questions -> replies -> predictions in the order of the rows
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Outcome
from llm2llm.components.shared.inference.predict import answers_in, as_answered, ask_share, flag_probability
from llm2llm.components.shared.inference.settings import AnswerSettings, check_mode
from llm2llm.components.shared.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a student says to a row."""

    id: str
    """The row's content id."""
    source: str
    """`file:line` of the row."""
    source_id: str | None
    """The user's own id, where `task.columns.id` names its column."""
    question: str
    choices: list[str]
    answer: str | None
    """The right answer; None for a row that has none."""
    prediction: str | None
    """The answer that is read out of the completion; None when there is none to read."""
    outcome: Outcome | None
    """None for a row without an answer, and where only a judge could say."""
    completion: str
    truncated: bool
    """Whether the completion hit the token limit before it ended."""
    confidence: float | None
    """Mode `score`: the probability of the prediction among the labels or choices, in [0, 1]."""
    flag_probability: float | None
    """The probability of the label that rows are flagged by (`evaluate.threshold` of the run); None where none is."""
    flagged: bool | None
    """Whether that is at least the threshold that the run has chosen on validation."""


def ask_student(
    student: Path,
    rows: Sequence[Example],
    task: Task,
    settings: AnswerSettings,
    flag_from: float | None = None,
) -> list[Asked]:
    """Asks a student every row once, greedily, or with mode `score` for its likeliest label.

    Args:
        student: A folder that `train` saved, full weights or adapter, or a model's name on the hub.
        rows: Those with an empty answer are asked and not graded.
        task: Prompt and grader. A judge is not asked: of such a task only the right answer's own text is `correct`.
        settings: See `AnswerSettings`; `samples`, `hardness` and `judge` play no part.
        flag_from: From which probability of the label of `settings.threshold` on a row is flagged.

    Returns:
        One for each row, in their order.

    Raises:
        UserError: No rows, a student that cannot be loaded, a mode that the task has not.
    """
    if not rows:
        raise UserError("predict: no rows")
    try:
        check_mode(task, settings)
    except ValueError as problem:
        raise UserError(f"predict: {problem}") from None
    settings = as_answered(student, settings)
    alike = {_key(row): row for row in rows}  # the same question has one answer
    replies, _ = ask_share(student, {"test": list(alike.values())}, task, settings)
    said = {
        _key(question.example): (
            *answers_in(task, question, reply, settings),
            flag_probability(task, question, reply, settings),
        )
        for question, reply in replies
    }
    asked = []
    for row in rows:
        (answer, *_), confidence, flag = said[_key(row)]
        scored = confidence is not None
        prediction = answer.completion if scored else tasks.parse(task, answer.completion)
        asked.append(
            Asked(
                id=row.id,
                source=row.source,
                source_id=row.source_id,
                question=row.question,
                choices=row.choices,
                answer=row.answer or None,
                prediction=prediction,
                outcome=_outcome(task, row, prediction) if row.answer else None,
                completion=answer.completion,
                truncated=answer.truncated,
                confidence=confidence,
                flag_probability=flag,
                flagged=None if flag is None or flag_from is None else flag >= flag_from,
            )
        )
    return asked


def _key(row: Example) -> tuple[str, ...]:
    return row.id, row.question, *row.choices


def _outcome(task: Task, row: Example, prediction: str | None) -> Outcome | None:
    if prediction is None:
        return "unparseable"
    if any(tasks.matches(task, prediction, right) for right in (row.answer, *row.also_right)):
        return "correct"
    return None if task.match == "judge" else "wrong"
