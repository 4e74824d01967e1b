"""Rows made examples of a task: question, answer, choices and rationale found, checked and put in the task's terms."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.thoughts import without_thoughts
from llm2llm.components.shared.data.schemas import Example, content_id
from llm2llm.components.shared.ingest.answer_numbers import (
    counts_from,
    has_choices,
    holds_json,
    kind_of,
    offers_tools,
    resolve,
    takes_several,
)
from llm2llm.components.shared.ingest.columns import (
    cell,
    choice_cells,
    has_column,
    is_empty,
    keyed_choice,
    list_cell,
    question_cell,
    text_cell,
    tool_cells,
)
from llm2llm.components.shared.ingest.formats import read_row
from llm2llm.components.shared.tasks import Columns, Task

SHOWN_PLACES = 3


@dataclass
class RawRows:
    """A source as it was read, before its cells are checked."""

    source: str
    format: str
    rows: list[tuple[str, dict[str, Any]]]
    """(place, row)."""
    notes: list[str] = field(default_factory=list)
    """What a person should know about how it was read."""


def first_place(sources: Sequence[RawRows], task: Task, columns: Columns, unanswered: bool = False) -> int | None:
    """What the whole numbers in the answer column of several sources count from, as `counts_from` tells."""
    if not (task.labels or has_choices(task)) or kind_of(task, columns) != "auto":
        return None
    found: list[tuple[object, Sequence[str]]] = []
    for raw in (one for one in sources if one.format != "examples"):
        for _, row in raw.rows:
            try:
                answer, options, keys = _answer_of(row, raw.format, task, columns, unanswered)
            except ValueError:
                continue  # reported when the row is made an example
            if unanswered and is_empty(answer):
                continue
            if keyed_choice(answer, list(options), keys) is None:
                found.append((answer, options))
    return counts_from(found)


def _answer_of(
    row: dict[str, Any], row_format: str, task: Task, columns: Columns, unanswered: bool
) -> tuple[Any, Sequence[str], list[str]]:
    """(the answer as it stands, the labels or choices, the row's own keys of the choices)."""
    if row_format == "columns":
        answer = cell(row, columns.answer)
    else:
        answer = read_row(row, row_format, unanswered, tasks.answers_with_calls(task)).answer
    answer = _without_thoughts(answer)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not has_choices(task):
        return answer, task.labels, []
    choices, keys = choice_cells(row, columns)
    return answer, choices, keys


def _without_thoughts(given: Any) -> Any:
    """A right answer without the thoughts that some rows have before it, as a student's own answer is graded; as it is
    where it is nothing but thoughts, or no text."""
    return (without_thoughts(given) if isinstance(given, str) else given) or given


OWN = Columns(question="question", answer="answer", answer_numbers="text", choices="choices")
"""The columns of rows that llm2llm wrote."""


def to_examples(
    raw: RawRows, task: Task, columns: Columns, first: int | None, unanswered: bool = False
) -> list[Example]:
    """Rows as examples; `first` as of `first_place`, the rest as `read_examples`."""
    if raw.format == "examples":
        return [_own(place, row, task) for place, row in raw.rows]
    examples: list[Example] = []
    wrong: dict[str, str] = {}
    place_of_id: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for place, row in raw.rows:
        try:
            example, missing = _example(place, row, raw.format, task, columns, first, unanswered)
        except ValueError as problem:
            wrong[place] = str(problem)
            continue
        left_out.update(missing)
        if example.source_id is not None:
            if example.source_id in place_of_id:
                raise UserError(
                    f"{place}: id {example.source_id!r} (column {columns.id!r}) stands in "
                    f"{place_of_id[example.source_id]} already; ids must be unique"
                )
            place_of_id[example.source_id] = place
        examples.append(example)
    if wrong:
        (place, reason), *others = wrong.items()
        more = _more([other for other, _ in others]) if len(wrong) < len(raw.rows) else "; so it is in every row"
        raise UserError(f"{place}: {reason}{more if others else ''}")
    raw.notes += [f"in {left_out[what]} rows, {told} left out" for what, told in _LEFT_OUT.items() if left_out[what]]
    return examples


_LEFT_OUT = {
    "after": "turns behind the assistant's last are",
    "after call": "turns behind the assistant's last call are",
    "beside": "what the assistant says beside its calls is",
    "thoughts": "the thoughts before the answer are",
}
"""What a person is told of what rows hold and examples do not."""


def _more(places: Sequence[str]) -> str:
    """How many other rows are wrong as well, and where the first of them are."""
    rows = "one more row is" if len(places) == 1 else f"{len(places):,} more rows are"
    return f"; {rows} wrong: {', '.join(places[:SHOWN_PLACES])}{', ...' * (len(places) > SHOWN_PLACES)}"


def _example(
    place: str, row: dict[str, Any], row_format: str, task: Task, columns: Columns, first: int | None,
    unanswered: bool = False,
) -> tuple[Example, list[str]]:  # fmt: skip
    """The example in a row, and what of the row is left out: keys of `_LEFT_OUT`."""
    left_out = []
    if unanswered:  # such rows may also lack what is known of an answer, and the user's own id
        may_lack = ((name, getattr(columns, name)) for name in ("rationale", "skills", "id"))
        columns = columns.model_copy(update={name: None for name, at in may_lack if at and not has_column(row, at)})
    column = columns.answer
    if row_format == "columns":
        question = question_cell(row, columns.question)
        given = cell(row, columns.answer) if not unanswered or has_column(row, columns.answer) else None
    else:
        content = read_row(row, row_format, unanswered, tasks.answers_with_calls(task))
        if content.after:
            left_out.append("after call" if tasks.answers_with_calls(task) else "after")
        if content.beside:
            left_out.append("beside")
        column = row_format
        question, given = text_cell(content.question, row_format), content.answer
    answer = _without_thoughts(given)
    if answer != given:
        left_out.append("thoughts")
    choices, keys = choice_cells(row, columns) if has_choices(task) else ([], [])
    tools = tool_cells(row, columns.tools) if columns.tools is not None and offers_tools(task) else []
    if unanswered and (is_empty(answer) or answer == []):
        answers, rationale = [""], None
    else:
        answers, rationale = _answers(answer, row, row_format, column, task, columns, choices, keys, first)
        try:
            tasks.check_tools(task, answers[0], tools)
        except ValueError as problem:
            raise ValueError(f"{problem} (column {column!r})") from None
    return Example(
        id=content_id(question, choices, rationale, answers[0], tools),
        question=question,
        choices=choices,
        rationale=rationale,
        answer=answers[0],
        tools=tools,
        also_right=answers[1:],
        skills=[] if columns.skills is None else list_cell(row, columns.skills),
        source=place,
        source_id=None if columns.id is None else text_cell(cell(row, columns.id), columns.id),
    ), left_out


def _answers(
    given: Any, row: dict[str, Any], row_format: str, column: str, task: Task, columns: Columns, choices: list[str],
    keys: list[str], first: int | None,
) -> tuple[list[str], str | None]:  # fmt: skip
    """(the right answers, the first one's rationale), in the form's own terms."""
    rationale = None if columns.rationale is None else text_cell(cell(row, columns.rationale), columns.rationale)
    several = isinstance(given, list) and given and not holds_json(task)
    accepted = [_accepted(one, row_format, column, task, columns, choices, keys, rationale, first)
                for one in (given if several else [given])]  # fmt: skip
    answers = list(dict.fromkeys(answer for answer, _ in accepted))
    if len(answers) > 1 and not takes_several(task):
        raise ValueError(f"{len(answers)} right answers, {answers}; form {task.form!r} takes one (column {column!r})")
    return answers, accepted[0][1]


REVIEW = "review:"
"""What the check of a row that a person has looked at begins with (`llm2llm review import`)."""
LABELLED = "labelled:"
"""What the check of a row that a teacher has labelled begins with (`llm2llm label`)."""


def _own(place: str, row: dict[str, Any], task: Task) -> Example:
    """A row that llm2llm wrote, with the columns that it has always; of its lineage what `REVIEW` and `LABELLED`
    say."""
    names = ("rationale", "skills", "tools")
    optional = {name: name for name in names if not is_empty(row.get(name)) and row[name] != []}
    columns = OWN.model_copy(update=optional)
    try:
        example, _ = _example(place, row, "columns", task, columns, None)
        others = list_cell(row, "also_right") if not is_empty(row.get("also_right")) else []
        checks = list_cell(row, "checks") if not is_empty(row.get("checks")) else []
    except ValueError as problem:
        raise UserError(f"{place}: {problem}") from None
    reviewed = [check for check in checks if check.startswith((REVIEW, LABELLED))]
    source_id = None if is_empty(row.get("source_id")) else text_cell(row["source_id"], "source_id")
    return dataclasses.replace(example, also_right=others, checks=reviewed, source_id=source_id)


def _accepted(
    given: Any, row_format: str, column: str, task: Task, columns: Columns, choices: list[str], keys: list[str],
    rationale: str | None, first: int | None,
) -> tuple[str, str | None]:  # fmt: skip
    """(answer, rationale) of one right answer as it stands in a row, in the form's own terms."""
    is_json = holds_json(task) and isinstance(given, (Mapping, list))
    text = given if is_json else text_cell(given, column)
    try:
        found = keyed_choice(given, choices, keys)
        if found is None and (task.labels or choices):
            found = resolve(given, task.labels or choices, kind_of(task, columns), first)
        if found is not None and choices:
            found = chr(ord("A") + choices.index(found))
        return tasks.normalise(task, text if found is None else found, choices, rationale)
    except ValueError as problem:
        raise ValueError(f"{problem} (column {column!r})") from None
