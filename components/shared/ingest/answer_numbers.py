"""Decides whether a whole number in an answer column is an index of labels or choices, or a text. Never guesses.

A column of 0 and 1 counts from 0. A column of 1 and 2 may count from 1, or from 0 with the first label missing; such
rows are refused with the question which is meant. So is the answer 2 to the choices 2, 4, 6 and 8.
"""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Literal

from llm2llm.components.shared.tasks import FORMS, Columns, Task
from llm2llm.components.shared.tasks.options import number_in, option_of, text_of_value

AnswerNumbers = Literal["auto", "text", "from_zero", "from_one"]

_SET = "set task.columns.answer_numbers to from_zero, from_one or text"


def has_choices(task: Task) -> bool:
    """Whether each row of a task has choices of its own."""
    return FORMS[task.form].has_choices


def takes_several(task: Task) -> bool:
    """Whether a row may have several right answers: where they are free texts."""
    return FORMS[task.form].has_free_text


def holds_json(task: Task) -> bool:
    """Whether an answer is an object or a list, which a cell may hold as it is."""
    return FORMS[task.form].holds_json


def offers_tools(task: Task) -> bool:
    """Whether each row of a task has tools of its own."""
    return FORMS[task.form].check_tools is not None and task.columns.tools is not None


def kind_of(task: Task, columns: Columns) -> AnswerNumbers:
    """What whole numbers are in an answer column: as the columns say; text where labels are numbers themselves."""
    kind = columns.answer_numbers
    return "text" if kind == "auto" and any(number_in(label) is not None for label in task.labels) else kind


def whole_number(value: object) -> int | None:
    """The whole number that a cell holds, as a number or as text (`2`, `2.0`); None for any other."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        return None
    text = text_of_value(value)
    if not re.fullmatch(r"-?\d{1,6}(?:\.0+)?", text):
        return None
    return int(text.partition(".")[0])


def is_place(value: object, options: Sequence[str]) -> bool:
    """Whether a cell holds a number that is none of the options, so that it can only be a place."""
    numeric_labels = any(number_in(option) is not None for option in options)
    return whole_number(value) is not None and not numeric_labels


def counts_from(answers: Iterable[tuple[object, Sequence[str]]]) -> int | None:
    """What a column counts from: 0 where it holds a 0; None where it holds no places, or nothing tells.

    Args:
        answers: Each cell with its options: the labels, or the choices of its row.
    """
    places = {whole_number(value) for value, options in answers if is_place(value, options)}
    return 0 if 0 in places else None


def resolve(value: object, options: Sequence[str], kind: AnswerNumbers, first: int | None) -> str | None:
    """The option that a whole number stands for; None where the cell holds none, or the number is text.

    Args:
        value: The cell.
        options: The labels, or the choices of the row.
        kind: As of `kind_of`.
        first: As `counts_from` found for the column; used for `auto` only.

    Raises:
        ValueError: Out of range, or nothing tells which option is meant.
    """
    number = whole_number(value)
    if number is None or kind == "text":
        return None
    if kind != "auto":
        return _at(number, options, 0 if kind == "from_zero" else 1)
    if is_place(value, options):
        if first is not None:
            return _at(number, options, first)
        readings = {start: options[number - start] for start in (0, 1) if 0 <= number - start < len(options)}
        if not readings:
            raise ValueError(f"the answer {text_of_value(value)!r} is not in {_shown(options)}, nor a place in it")
        meant = " or ".join(f"{option!r}, counted from {start}" for start, option in readings.items())
        raise ValueError(f"the answer {number} may be {meant}: no row with a 0 tells what numbers count from; {_SET}")
    text = option_of(value, options)
    if text is None:
        return None
    places = [number - first] if first is not None else [number, number - 1]
    others = {place for place in places if 0 <= place < len(options)} - {text}
    if others:
        raise ValueError(
            f"the answer {number} may be the text {options[text]!r} or a place, of {options[min(others)]!r}; {_SET}"
        )
    return options[text]


def _at(number: int, options: Sequence[str], first: int) -> str:
    if not 0 <= number - first < len(options):
        last = len(options) - 1 + first
        raise ValueError(
            f"the answer {number} is no place in {_shown(options)}, counted from {first}: {first} to {last}; "
            "task.columns.answer_numbers says what numbers are"
        )
    return options[number - first]


def _shown(options: Sequence[str]) -> list[str]:
    return list(options) if len(options) <= 20 else [*options[:20], "..."]
