"""Finding a row's cells: columns by name or by a path into nested ones, several text columns, lists, choices.

>>> cell({"meta": {"label": ["red"]}}, "meta.label.0")
'red'
"""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.text import repair_control_characters
from llm2llm.components.shared.data.jsonl import is_text, parse_json
from llm2llm.components.shared.tasks import Columns
from llm2llm.components.shared.tasks.options import option_of, text_of_value

MAX_TEXT = 1_000_000  # characters in one field; a longer one is a file read with the wrong delimiter or quoting
_ABSENT = object()


def has_column(row: Mapping[str, Any], path: str) -> bool:
    """Whether a row has a cell of this name or path, be it empty."""
    return _find(row, path) is not _ABSENT


def cell(row: Mapping[str, Any], path: str) -> Any:
    """The cell of a name or a path: `meta.label`, `answers.text.0`. A column that is called so itself wins.

    Raises:
        ValueError: No such column; it names those that there are.
    """
    value = _find(row, path)
    if value is not _ABSENT:
        return value
    have = ", ".join(map(repr, row)) or "none"
    first, dot, _ = path.partition(".")
    if dot and first in row:
        inner = _opened(row[first])
        have = ", ".join(map(repr, inner)) if isinstance(inner, Mapping) else type(inner).__name__
        raise ValueError(f"no column {path!r}; {first!r} holds {have}. Set task.columns to say which column holds what")
    raise ValueError(
        f"no column {path!r}{did_you_mean(path, row)}; columns here: {have}. "
        "Set task.columns to say which column holds what"
    )


def _find(row: Mapping[str, Any], path: str) -> Any:
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        value = _opened(value)
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) and part in one for one in value):
            value = [one[part] for one in value]  # {text} of [{text, label}, ...]
        else:
            return _ABSENT
    return value


def _opened(value: Any) -> Any:
    """A cell of CSV that holds a JSON object or list, opened; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, white space."""
    if isinstance(value, float) and math.isnan(value):
        return True
    if isinstance(value, Decimal) and not value.is_finite():
        return True
    return value is None or (isinstance(value, str) and not value.strip())


def text_cell(value: Any, column: str) -> str:
    """A cell's text, without outer white space; TeX commands that JSON's escapes have swallowed are repaired.

    Raises:
        ValueError: Empty, no text or number, too long, or with characters that no text has.
    """
    if is_empty(value):
        raise ValueError(f"column {column!r} is empty")
    if isinstance(value, (Mapping, list, bytes)):
        kind = "dict" if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(f"column {column!r} holds a {kind}, expected text or a number")
    text = text_of_value(value)
    if len(text) > MAX_TEXT:
        raise ValueError(f"column {column!r} holds {len(text):,} characters, more than {MAX_TEXT:,}")
    if not is_text(text):
        raise ValueError(f"column {column!r} holds half a surrogate pair, which is no valid text")
    try:
        text = repair_control_characters(text).strip()
    except ValueError as problem:
        raise ValueError(f"column {column!r} {problem}") from None
    if not text:
        raise ValueError(f"column {column!r} is empty")
    return text


def question_cell(row: Mapping[str, Any], columns: str | list[str]) -> str:
    """The text of the question's column; of several those that are not empty, an empty line between them."""
    if isinstance(columns, str):
        return text_cell(cell(row, columns), columns)
    cells = {column: cell(row, column) for column in columns}
    texts = [text_cell(value, column) for column, value in cells.items() if not is_empty(value)]
    if not texts:
        raise ValueError(f"columns {', '.join(map(repr, columns))} are empty")
    return "\n\n".join(texts)


def list_cell(row: Mapping[str, Any], column: str) -> list[str]:
    """The texts of a column that holds a list, as it is or as JSON text."""
    value = cell(row, column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError as problem:
            raise ValueError(f"column {column!r} is no JSON list: {problem}") from None
    if not isinstance(value, list):
        raise ValueError(f"column {column!r} must hold a list, got {type(value).__name__}")
    return [text_cell(one, f"{column}[{place}]") for place, one in enumerate(value)]


def tool_cells(row: Mapping[str, Any], column: str) -> list[str]:
    """The tools of a row, each as JSON text: functions as OpenAI's API has them, with or without
    `{"type": "function", "function": ...}` around them; fields that are null, as Parquet has them, are left out.

    Raises:
        ValueError: No list, or a tool without a name, or two of one name.
    """
    value = _opened(cell(row, column))
    if not isinstance(value, list):
        raise ValueError(f"column {column!r} must hold a list of tools, got {type(value).__name__}")
    tools: dict[str, str] = {}
    for place, one in enumerate(value):
        tool = _opened(one)
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise ValueError(f"{column}[{place}] must be a tool with a name, as {{name, description, parameters}}")
        if function["name"] in tools:
            raise ValueError(f"{column}[{place}]: there is a tool {function['name']!r} already")
        kept = {"type": "function", "function": _without_nulls(function)}
        tools[function["name"]] = json.dumps(kept, ensure_ascii=False)
    return list(tools.values())


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def choice_cells(row: Mapping[str, Any], columns: Columns) -> tuple[list[str], list[str]]:
    """(choices, the row's own key for each, or none) of a multiple-choice row.

    Keys come with `{"text": [...], "label": [...]}`, `[{"text": ..., "label": ...}]` and `{"A": ..., "B": ...}`.
    """
    named = columns.choices
    if named is None:
        raise UserError(
            "task.columns.choices: missing; a multiple-choice task needs the column or columns of its choices"
        )
    if isinstance(named, list):
        return [text_cell(cell(row, column), column) for column in named], []
    value = _opened(cell(row, named))
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        value = {key: [one.get(key) for one in value] for key in value[0]}
    if isinstance(value, Mapping):
        texts = next((value[key] for key in ("text", "value", "choice", "content") if key in value), None)
        keys = next((value[key] for key in ("label", "key", "letter") if key in value), None)
        if texts is None and len(value) > 1 and all(isinstance(one, str) for one in value.values()):
            keys, texts = list(value), list(value.values())
        if not isinstance(texts, list) or not isinstance(keys, list) or len(texts) != len(keys):
            raise ValueError(f"column {named!r} must hold a list, got dict with {', '.join(map(repr, value))}; "
                             f"a path such as {named}.text may lead to it")  # fmt: skip
        shown = [text_cell(one, f"{named}[{place}]") for place, one in enumerate(texts)]
        return shown, [text_of_value(key) for key in keys]
    choices = list_cell(row, named)
    parent, dot, _ = named.rpartition(".")
    if dot and has_column(row, f"{parent}.label"):
        keys = cell(row, f"{parent}.label")
        if isinstance(keys, list) and len(keys) == len(choices):
            return choices, [text_of_value(key) for key in keys]
    return choices, []


def keyed_choice(answer: Any, choices: list[str], keys: list[str]) -> str | None:
    """The choice whose own key an answer is; None where the row has no keys, or the answer is none of them."""
    place = option_of(answer, keys) if keys else None
    return None if place is None else choices[place]
