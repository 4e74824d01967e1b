"""The columns of a user's rows that are neither read nor made: kept beside a student's answers, so that they can be
joined with what they came from."""

import base64
import dataclasses
import datetime
import json
import math
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from llm2llm.components.shared.data.jsonl import is_text
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.columns import is_empty, text_cell
from llm2llm.components.shared.ingest.examples import RawRows
from llm2llm.components.shared.ingest.formats import columns_read
from llm2llm.components.shared.tasks import Columns

ID = "id"


def other_columns(raw: RawRows, columns: Columns, taken: Collection[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """(for each row the other columns, all of the same names in the order in which they are met; names that are left
    out as they are taken).

    Args:
        raw: Rows of any format.
        columns: The task's own mapping.
        taken: The names of the columns that are made.
    """
    read = columns_read(raw.format, columns)
    if columns.id is None and raw.format != "examples":
        read |= {ID}  # kept as `source_id`, see `with_own_ids`
    met = list(dict.fromkeys(name for _, row in raw.rows for name in row if name not in read))
    names = [name for name in met if name not in taken]
    rows = [{_named(name): row.get(name) for name in names} for _, row in raw.rows]
    return rows, [name for name in met if name in taken]


def _named(name: str) -> str:
    return name if is_text(name) else ascii(name)[1:-1]


def with_own_ids(rows: Sequence[Example], raw: RawRows, columns: Columns) -> list[Example]:
    """The rows with what a column `id` of the user's says as their `source_id`, where the task names no such column."""
    if columns.id is not None or raw.format == "examples":
        return list(rows)
    given = [row.get(ID) for _, row in raw.rows]
    return [
        one
        if is_empty(own) or isinstance(own, Mapping | list | bytes)
        else dataclasses.replace(one, source_id=_id(own))
        for one, own in zip(rows, given, strict=True)
    ]


def _id(value: Any) -> str:
    try:
        return text_cell(value, ID)
    except ValueError:  # no text, or half a surrogate pair
        return ascii(value)


def arrow_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[pa.Field], list[dict[str, Any]]]:
    """(the Arrow type of each column, the rows): a column of values of several types is one of JSON texts."""
    fields, found = [], [dict(row) for row in rows]
    for name in found[0] if found else ():
        values = [row[name] for row in found]
        try:
            kind = pa.array(values).type
        except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError):
            kind = pa.string()
            for row in found:
                if row[name] is not None:
                    row[name] = json_text(row[name])
        fields.append(pa.field(name, pa.string() if pa.types.is_null(kind) else kind))
    return fields, found


def json_text(value: Any) -> str:
    """The JSON text of a cell; see `json_value`."""
    text = json.dumps(json_value(value), ensure_ascii=False)
    return text if is_text(text) else json.dumps(json_value(value))


def json_value(value: Any) -> Any:
    """A cell as JSON has it: dates and times as ISO 8601 texts, bytes in base64, no number as null."""
    if isinstance(value, Mapping):
        return {str(name): json_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        exact = value.is_finite() and Decimal(repr(float(value))) == value
        return (float(value) if exact else str(value)) if value.is_finite() else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | bool) else str(value)
