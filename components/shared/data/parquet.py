"""Reading and writing rows as Parquet files that name their kind and schema version.

write_rows(path, "examples", rows)     whole or not at all
read_rows(path, "examples", Example)   refuses another kind, naming both; JSON lines are read as well
"""

import dataclasses
import json
import os
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from llm2llm.components.shared.base.atomic import atomic_file
from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.data.jsonl import is_text, json_lines
from llm2llm.components.shared.data.schemas import KINDS, PARQUET_MAGIC, VERSION, Example, content_id

R = TypeVar("R")

METADATA_KEY = b"llm2llm"
NOTES_KEY = b"llm2llm.notes"
SHOWN_FILES = 5
ROW_GROUP = 10_000
"""Rows that can be read without the others: `why` looks for a few among very many."""


def schema(kind: str) -> pa.Schema:
    """The Arrow schema of a kind, with the kind and schema version in its metadata."""
    return columns_of(KINDS[kind]).with_metadata({METADATA_KEY: json.dumps({"kind": kind, "version": VERSION})})


def columns_of(row_type: type[Any]) -> pa.Schema:
    """The Arrow schema of a dataclass of rows: texts, numbers, truth values, lists of texts, any of them or None."""
    hints = typing.get_type_hints(row_type)
    return pa.schema([pa.field(f.name, *_arrow_type(hints[f.name])) for f in dataclasses.fields(row_type)])


def _arrow_type(hint: Any) -> tuple[pa.DataType, bool]:
    """The Arrow type of a dataclass field and whether it may be null."""
    nullable = False
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = [option for option in typing.get_args(hint) if option is not type(None)]
        nullable = True
    if typing.get_origin(hint) is typing.Literal:
        hint = str
    if hint in (list[str], list[float]):
        element = pa.string() if hint == list[str] else pa.float64()
        return pa.list_(pa.field("element", element, nullable=False)), nullable
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[hint], nullable


def write_rows(
    path: str | os.PathLike[str], kind: str, rows: Iterable[Any], notes: Mapping[str, Any] | None = None
) -> None:
    """Writes rows of a kind; a reader sees the whole file or none.

    Args:
        path: Where to.
        kind: A key of `KINDS`.
        rows: Of that kind.
        notes: A few values about all of the rows, as JSON, which `read_notes` gives back.

    Raises:
        UserError: The folder is missing, read-only or full.
        ValueError: A value that is none of its field's `Literal`, such as a reason that nobody knows.
    """
    table_schema = schema(kind)
    if notes:
        table_schema = table_schema.with_metadata({**table_schema.metadata, NOTES_KEY: json.dumps(notes)})
    names = table_schema.names
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in rows:
        for name in names:
            columns[name].append(getattr(row, name))
    for name, hint in typing.get_type_hints(KINDS[kind]).items():
        if typing.get_origin(hint) is typing.Literal and (strange := set(columns[name]) - set(typing.get_args(hint))):
            raise ValueError(f"{kind}: {name} {min(strange)!r} is none of {', '.join(typing.get_args(hint))}")
    table = pa.table(columns, schema=table_schema)
    with atomic_file(path) as partial:
        pq.write_table(table, partial, row_group_size=ROW_GROUP)


def read_rows(path: str | os.PathLike[str], kind: str, row_type: type[R]) -> list[R]:
    """Reads every row of a file that must be of `kind`.

    Args:
        path: A Parquet file that `write_rows` wrote, or JSON lines with the fields of the kind. In JSON lines, fields
            that have a default may be left out, and so may an example's `id`.
        kind: A key of `KINDS`.
        row_type: `KINDS[kind]`, repeated for the type checker.

    Raises:
        UserError: No such file, another kind or version, not Parquet of ours, a line with a wrong or unknown field.
    """
    assert KINDS[kind] is row_type, f"{kind} rows are {KINDS[kind].__name__}"
    try:
        with open(path, "rb") as file:
            is_parquet = file.read(4) == PARQUET_MAGIC
    except FileNotFoundError:
        raise UserError(f"{os.fspath(path)}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{os.fspath(path)}: is a folder; give a file of {kind!r} rows{_row_files(path)}") from None
    except OSError as problem:
        raise UserError(f"cannot read {os.fspath(path)}: {problem.strerror}") from problem
    return _read_parquet(path, kind, row_type) if is_parquet else _read_json_lines(path, kind, row_type)


def _row_files(folder: str | os.PathLike[str]) -> str:
    """`, such as ...`: some files of rows in a folder, or nothing."""
    found = []
    for file in sorted(Path(folder).rglob("*")):
        if file.is_file() and os.access(file, os.R_OK):
            with open(file, "rb") as content:
                if content.read(4) == PARQUET_MAGIC:
                    found.append(os.fspath(file))
        if len(found) == SHOWN_FILES:
            break
    return f", such as {', '.join(found)}" if found else ""


def read_notes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The notes of a file that `write_rows` wrote; empty for any other."""
    try:
        notes = json.loads((pq.read_schema(path).metadata or {}).get(NOTES_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def kind_of(path: str | os.PathLike[str]) -> str:
    """The kind that a Parquet file names.

    Raises:
        UserError: No such file, or none that llm2llm wrote.
    """
    if os.path.isdir(path):
        raise UserError(f"{os.fspath(path)}: is a folder; give one of the Parquet files in it{_row_files(path)}")
    if not os.path.isfile(path):
        raise UserError(f"{os.fspath(path)}: no such file")
    try:
        kind, _ = _kind_and_version(pq.read_schema(path))
    except (pa.ArrowException, OSError) as problem:
        raise UserError(f"{os.fspath(path)}: not a whole Parquet file ({problem})") from None
    if kind not in KINDS:
        raise UserError(f"{os.fspath(path)}: names no kind of rows: it was not written by llm2llm")
    return str(kind)


def _kind_and_version(found: pa.Schema) -> tuple[Any, Any]:
    """What a file's metadata names; (None, None) when llm2llm did not write it."""
    try:
        label = json.loads((found.metadata or {}).get(METADATA_KEY, b"{}"))
    except ValueError:
        return None, None
    return (label.get("kind"), label.get("version")) if isinstance(label, dict) else (None, None)


def _read_parquet(path: str | os.PathLike[str], kind: str, row_type: type[R]) -> list[R]:
    try:
        # ParquetFile, not read_table: an artifact's path may look like a partitioned data set.
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as problem:
        raise UserError(f"{os.fspath(path)}: not a whole Parquet file ({problem})") from problem
    found, version = _kind_and_version(table.schema)
    if found is None:
        raise UserError(
            f"{os.fspath(path)}: expected {kind!r} rows, but the file names no kind: it was not written by llm2llm. "
            "Bring your own rows in through `llm2llm stage prepare`"
        )
    if found != kind:
        raise UserError(f"{os.fspath(path)}: expected {kind!r} rows, found {found!r} rows")
    if version != VERSION:
        raise UserError(
            f"{os.fspath(path)}: {kind!r} rows of schema version {version}, this llm2llm reads version {VERSION}; "
            "make the file again with this version"
        )
    if not _columns_fit(table.schema, kind):
        raise UserError(
            f"{os.fspath(path)}: says that it holds {kind!r} rows, but its columns are others: "
            f"{', '.join(table.schema.names)}"
        )
    return [row_type(**row) for row in table.to_pylist()]


def _columns_fit(found: pa.Schema, kind: str) -> bool:
    """Whether a file's columns are those of the kind; an older file may lack some that have a default."""
    may_lack = with_default(kind)
    wanted = [one for one in schema(kind) if one.name in found.names or one.name not in may_lack]
    return bool(found.equals(pa.schema(wanted)))


def with_default(kind: str) -> set[str]:
    """The columns of a kind that have a default: those that an older file may lack."""
    return {
        f.name
        for f in dataclasses.fields(KINDS[kind])
        if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
    }


def _read_json_lines(path: str | os.PathLike[str], kind: str, row_type: type[R]) -> list[R]:
    adapter = TypeAdapter(row_type)
    known = [f.name for f in dataclasses.fields(KINDS[kind])]
    rows = []
    for number, line in json_lines(path):
        where = f"{os.fspath(path)}:{number}"
        for name in line:
            if name not in known:
                fix = did_you_mean(name, known) or f"; they have {', '.join(known)}"
                raise UserError(f"{where}: unknown field {name!r} for {kind!r} rows{fix}")
            if not is_text(json.dumps(line[name], ensure_ascii=False)):
                raise UserError(f"{where}: field {name!r} holds half a surrogate pair, which is no valid text")
        without_id = row_type is Example and "id" not in line
        try:
            row = adapter.validate_python({"id": "", **line} if without_id else line)
        except ValidationError as error:
            first = error.errors()[0]
            got = "" if first["type"].startswith("missing") else f" (got {first['input']!r})"
            raise UserError(f"{where}: field {'.'.join(map(str, first['loc']))!r}: {first['msg']}{got}") from None
        if without_id:
            assert isinstance(row, Example)
            own = content_id(row.question, row.choices, row.rationale, row.answer, row.tools)
            row = dataclasses.replace(row, id=own)
        rows.append(row)
    return rows
