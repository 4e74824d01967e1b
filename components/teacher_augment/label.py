"""Labels for rows that have none: a teacher, several solutions of one, or a committee of teachers answers each.

rows without answers -> blind solutions -> enough of them agree -> rows with answer, confidence and who labelled
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, content_id
from llm2llm.components.shared.ingest.examples import LABELLED
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.replies import Problem
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.until_usable import CallLog, OpenTeacher, QueryResult
from llm2llm.components.teacher_augment.verify import Solution, solve


@dataclass(frozen=True)
class Labelled:
    """What became of rows that were to be labelled."""

    rows: list[Example]
    """With their answer; `confidence` is the share of the solutions that have it."""
    left_out: Counter[str]
    """How many rows got no label, by reason: `disagrees`, `over_budget`, `call_failed` and others."""


def label_rows(
    rows: Sequence[Example], task: Task, settings: TeacherAugmentSettings, teachers: Sequence[OpenTeacher]
) -> Labelled:
    """Labels rows.

    Each of several teachers answers a row once, and the answer is taken that at least `agree` of them give, or where
    that is not set more than half. A single teacher answers once; with `verify: resolve` it answers
    `verification.samples` times, and `min_agreement` of its answers must be the same.

    Args:
        rows: Questions; their answers are not looked at.
        task: What an answer is.
        settings: `agree`, `verify`, `verification`, `attempts`.
        teachers: Who answers; within the budget, and out of the ledger where it has the answer.

    Raises:
        UserError: A task whose rows have choices of their own, which a bare question lacks.
    """
    if FORMS[task.form].has_choices and any(not row.choices for row in rows):
        raise UserError(f"label: task {task.name!r} is of form {task.form!r}, and a bare question has no choices")
    resolve = settings.verify == "resolve" and len(teachers) == 1
    samples = settings.verification.samples if resolve else 1
    asked = [teacher for teacher in teachers for _ in range(samples)]
    needed = settings.agree or len(asked) // 2 + 1
    if resolve:
        needed = max(1, -int(-settings.verification.min_agreement * samples + 1e-9))
    log = CallLog(iteration=0, strategy="label", attempts=settings.attempts)
    context = Context([], [], [], task, settings, 0, 0, teachers, log)
    solved = solve(context, rows, [asked] * len(rows), settings.verification.temperature if resolve else None)
    labelled = [_labelled(task, row, told, needed) for row, told in zip(rows, solved, strict=True)]
    return Labelled(
        [row for row in labelled if isinstance(row, Example)],
        Counter(problem.reason for problem in labelled if isinstance(problem, Problem)),
    )


def _labelled(task: Task, row: Example, told: Sequence[QueryResult[Solution]], needed: int) -> Example | Problem:
    solutions = [(one, one.value) for one in told if one.value is not None]
    votes = [sum(tasks.matches(task, other[0], solution[0]) for _, other in solutions) for _, solution in solutions]
    if not votes or max(votes) < needed:
        problems = [one.problem for one in told if one.problem is not None]
        if problems and len(solutions) < needed:
            return problems[0]
        return Problem("disagrees", f"{max(votes, default=0)} of {len(told)} answers agree, and {needed} must")
    answer, rationale = solutions[votes.index(max(votes))][1]
    voters = [one for one, solution in solutions if tasks.matches(task, solution[0], answer)]
    who = ", ".join(sorted({one.teacher.name for one in voters}))
    keys = ", ".join(dict.fromkeys(one.call.key for one in voters if one.call is not None))
    return replace(
        row,
        id=content_id(row.question, row.choices, rationale, answer),
        answer=answer,
        rationale=rationale,
        confidence=max(votes) / len(told),
        checks=[f"{LABELLED} by {who}, {max(votes)} of {len(told)} agree; {row.source}; ledger {keys}"],
    )
