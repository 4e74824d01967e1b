"""Grades a file of completions: any model's answers to any task."""

import os
from collections import Counter
from string import ascii_uppercase
from typing import Any

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.jsonl import json_lines, write_json_lines
from llm2llm.components.shared.ingest.answer_numbers import (
    counts_from,
    has_choices,
    holds_json,
    kind_of,
    resolve,
    takes_several,
)
from llm2llm.components.shared.tasks import Task


def grade_file(source: str | os.PathLike[str], output: str | os.PathLike[str], task: Task) -> Counter[str]:
    """Adds `correct`, `parsed` and `outcome` to every line of a JSON lines file and counts the outcomes.

    Args:
        source: Lines with `completion` and `answer`; for multiple choice also `choices`, unless the answer is a letter.
            Answers may be as in the task's data set: GSM8K's `rationale #### 18`, a place in the labels
            (`columns.answer_numbers` says what numbers are). For form `text` an answer may be a list of right ones.
        output: The same lines, in the same order, written whole or not at all.
        task: Reads and grades.

    Raises:
        UserError: Names the line and the field of what is missing or no valid answer; no lines; a task for a judge.
    """
    if task.match == "judge":
        raise UserError(
            f"task {task.name!r} has match 'judge': a file of completions is graded by rule only; set task.match to "
            "normalised or exact, or evaluate a student with `llm2llm run`"
        )
    lines = []
    for number, row in json_lines(source):
        where = f"{os.fspath(source)}:{number}"
        for name in ("completion", "answer"):
            if name not in row:
                raise UserError(f"{where}: no field {name!r}; each line needs `completion` and `answer`")
        if not isinstance(row["completion"], str):
            raise UserError(f"{where}: `completion` must be text, got {type(row['completion']).__name__}")
        answers = row["answer"] if takes_several(task) and isinstance(row["answer"], list) else [row["answer"]]
        allowed = (str, dict, list) if holds_json(task) else (str, int, float)
        if bad := [one for one in answers if not isinstance(one, allowed) or isinstance(one, bool)]:
            wanted = "an object, a list or JSON text" if holds_json(task) else "text or a number"
            raise UserError(f"{where}: `answer` must be {wanted}, got {type(bad[0]).__name__}")
        if not answers:
            raise UserError(f"{where}: `answer` is an empty list")
        choices = row.get("choices", list(ascii_uppercase[: task.choice_count or 26]))
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise UserError(f"{where}: `choices` must be a list of texts")
        lines.append((where, row, answers, task.labels or (choices if has_choices(task) else [])))
    first = counts_from((answers[0], options) for _, _, answers, options in lines)
    counts: Counter[str] = Counter()
    graded = []
    for where, row, answers, options in lines:
        try:
            right = [_right_answer(task, one, options, first) for one in answers]
        except ValueError as problem:
            raise UserError(f"{where}: {problem}") from None
        parsed, outcome = tasks.grade(task, row["completion"], right[0], right[1:])
        counts[outcome] += 1
        graded.append({**row, "correct": outcome == "correct", "parsed": parsed, "outcome": outcome})
    if not graded:
        raise UserError(f"{os.fspath(source)}: no rows")
    write_json_lines(output, graded)
    return counts


def _right_answer(task: Task, answer: Any, options: list[str], first: int | None) -> str:
    option = resolve(answer, options, kind_of(task, task.columns), first) if options else None
    if option is not None and has_choices(task):
        option = ascii_uppercase[options.index(option)]
    return tasks.normalise(task, answer if option is None else option, options, None)[0]
