"""The rows that users bring: files of JSON lines, JSON, CSV or Parquet, Hugging Face dataset names, shipped data.

tickets.jsonl   tickets.json   tickets.csv   tickets.parquet
s3://bucket/tickets.jsonl            a file in object storage; see `components.storage` for server and credentials
openai/gsm8k:main#train              a dataset on the Hugging Face hub: name[:config][@revision][#split]
builtin:support_tickets/seeds.jsonl  data that comes with llm2llm
"""

import csv
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.data.jsonl import is_text, json_lines, parse_json
from llm2llm.components.shared.data.schemas import Example, content_id
from llm2llm.components.shared.tasks import FORMS, Columns, Task

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
BUILTIN = "builtin:"
REMOTE = ("s3://", "minio://")
MAX_TEXT = 1_000_000  # characters in one field; a longer one is a file read with the wrong delimiter or quoting


def is_file_source(source: str) -> bool:
    """Whether a source names a file, here or in object storage, rather than a dataset on the hub."""
    return source.startswith((BUILTIN, *REMOTE, "/", "./", "../", "~")) or source.lower().endswith(SUFFIXES)


def builtin_path(name: str) -> Path:
    """Where the shipped file `builtin:NAME` lies.

    Raises:
        UserError: There is none of that name.
    """
    root = Path(str(resources.files("llm2llm.components"))).resolve() / "builtin"
    path = (root / name.removeprefix(BUILTIN)).resolve()
    if not path.is_file() or root not in path.parents:
        known = sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())
        raise UserError(f"{name}: no such shipped file; there are {', '.join(known)}")
    return path


def source_path(source: str) -> Path:
    """The local path of a file source."""
    return builtin_path(source) if source.startswith(BUILTIN) else Path(os.path.expanduser(source))


@contextmanager
def source_file(source: str) -> Iterator[Path]:
    """A file source as a file on this machine, for as long as the block lasts; it keeps its name.

    Raises:
        UserError: It is in object storage, and cannot be fetched: nothing under this name, no bucket, no permission; or
            its name is no valid text, which no row could keep as its source.
    """
    if not is_text(source):
        raise UserError(f"{source!a}: the file's name is not UTF-8 text; rename the file")
    if not source.startswith(REMOTE):
        yield source_path(source)
        return
    # boto3 takes a while, and few sources need it.
    from llm2llm.components.shared import storage

    content = storage.read_bytes(source)
    with tempfile.TemporaryDirectory(prefix="llm2llm-") as folder:
        path = Path(folder) / source.rpartition("/")[2]
        path.write_bytes(content)
        yield path


def read_examples(source: str, task: Task, columns: Columns | None = None) -> list[Example]:
    """A user's rows as examples of a task, in the order of the source, every one checked.

    Args:
        source: A file or dataset name; see the module's own docstring.
        task: Says what a valid answer is.
        columns: Where question and answer are; default: the task's own mapping.

    Raises:
        UserError: Names the source, the row and the column of what is missing, empty or wrong; also for a source
            without any row, and for an id of the user's own that stands twice.
    """
    columns = columns or task.columns
    examples: list[Example] = []
    place_of_id: dict[str, str] = {}
    for place, row in _records(source, task.labels):
        example = _example(place, row, task, columns)
        if example.source_id is not None:
            if example.source_id in place_of_id:
                raise UserError(
                    f"{place}: id {example.source_id!r} (column {columns.id!r}) stands in "
                    f"{place_of_id[example.source_id]} already; ids must be unique"
                )
            place_of_id[example.source_id] = place
        examples.append(example)
    if not examples:
        raise UserError(f"{source}: no rows")
    return examples


def _example(place: str, row: dict[str, Any], task: Task, columns: Columns) -> Example:
    question = _text(place, row, columns.question)
    choices = _choices(place, row, columns) if FORMS[task.form].has_choices else []
    rationale = None
    if columns.rationale is not None:
        rationale = _text(place, row, columns.rationale)
    answer = _text(place, row, columns.answer)
    given = row[columns.answer]
    # A form with choices tells a number, which is an index, from a text of digits, which may be a choice.
    is_index = FORMS[task.form].has_choices and isinstance(given, (int, float))
    try:
        answer, rationale = tasks.normalise(task, given if is_index else answer, choices, rationale)
    except ValueError as problem:
        raise UserError(f"{place}: {problem} (column {columns.answer!r})") from None
    return Example(
        id=content_id(question, choices, rationale, answer),
        question=question,
        choices=choices,
        rationale=rationale,
        answer=answer,
        skills=[] if columns.skills is None else _list(place, row, columns.skills),
        source=place,
        source_id=None if columns.id is None else _text(place, row, columns.id),
    )


def _text(place: str, row: dict[str, Any], column: str) -> str:
    value = _column(place, row, column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise UserError(f"{place}: column {column!r} is empty")
    if isinstance(value, (dict, list, bytes)):
        raise UserError(f"{place}: column {column!r} holds a {type(value).__name__}, expected text or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if not text:
        raise UserError(f"{place}: column {column!r} is empty")
    if len(text) > MAX_TEXT:
        raise UserError(f"{place}: column {column!r} holds {len(text):,} characters, more than {MAX_TEXT:,}")
    if not is_text(text):
        raise UserError(f"{place}: column {column!r} holds half a surrogate pair, which is no valid text")
    return text


def _choices(place: str, row: dict[str, Any], columns: Columns) -> list[str]:
    if columns.choices is None:
        raise UserError(
            "task.columns.choices: missing; a multiple-choice task needs the column or columns of its choices"
        )
    if isinstance(columns.choices, list):
        return [_text(place, row, column) for column in columns.choices]
    return _list(place, row, columns.choices)


def _list(place: str, row: dict[str, Any], column: str) -> list[str]:
    value = _column(place, row, column)
    if isinstance(value, str) and value.lstrip().startswith("["):  # a CSV cell that holds a JSON list
        try:
            value = parse_json(value)
        except ValueError as problem:
            raise UserError(f"{place}: column {column!r} is no JSON list: {problem}") from None
    if not isinstance(value, list):
        raise UserError(f"{place}: column {column!r} must hold a list, got {type(value).__name__}")
    named = {f"{column}[{index}]": one for index, one in enumerate(value)}
    return [_text(place, named, name) for name in named]


def _column(place: str, row: dict[str, Any], column: str) -> Any:
    if column not in row:
        have = ", ".join(map(repr, row)) or "none"
        raise UserError(
            f"{place}: no column {column!r}{did_you_mean(column, row)}; columns here: {have}. "
            "Set task.columns to say which column holds what"
        )
    return row[column]


def _records(source: str, labels: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of a source; a place is `file:line` or `dataset:row`, as a person would look it up."""
    if not is_file_source(source) and not source_path(source).exists():
        yield from _hub_records(source, labels)
        return
    suffix = Path(source).suffix.lower()
    read = {
        ".jsonl": _jsonl_records,
        ".ndjson": _jsonl_records,
        ".json": _json_records,
        ".csv": _csv_records,
        ".parquet": _parquet_records,
    }.get(suffix)
    if read is None and source.startswith(REMOTE):
        raise _unknown_suffix(source, suffix)  # before anything is fetched
    with source_file(source) as path:
        if path.is_dir():
            raise UserError(f"{source}: is a folder; give a file ({', '.join(SUFFIXES)})")
        if not path.exists():
            raise UserError(f"{source}: no such file")
        if read is None:
            raise _unknown_suffix(source, suffix)
        try:
            yield from read(path)
        except OSError as problem:
            raise UserError(f"cannot read {source}: {problem.strerror or problem}") from problem
        except UnicodeDecodeError:
            raise UserError(f"{_first_bad_line(path)}: not UTF-8 text; save the file as UTF-8") from None


def _unknown_suffix(source: str, suffix: str) -> UserError:
    return UserError(f"{source}: unknown kind of file {suffix!r}; rows come as {', '.join(SUFFIXES)}")


def _first_bad_line(path: Path) -> str:
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as problem:
        number = content.count(b"\n", 0, problem.start) + 1
        return f"{path.name}:{number}"
    return path.name


def _jsonl_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in json_lines(path, path.name):
        yield f"{path.name}:{number}", row


def _json_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        value = parse_json(path.read_text(encoding="utf-8-sig"), names_once=True)
    except UnicodeDecodeError:
        raise
    except ValueError as problem:
        raise UserError(f"{path.name}: not JSON: {problem}") from None
    if isinstance(value, dict):  # {"data": [...]}, as many exporters write
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise UserError(f"{path.name}: expected a JSON list of objects, got {type(value).__name__}")
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path.name}:{number}: expected a JSON object, got {type(row).__name__}")
        yield f"{path.name}:{number}", row


def _csv_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT + 1))
        reader = csv.reader(file, strict=True)
        header: list[str] = []
        try:
            for cells in reader:
                place = f"{path.name}:{reader.line_num}"
                if not header:
                    header = cells
                    if twice := [name for name in header if header.count(name) > 1]:
                        raise UserError(f"{place}: two columns are called {twice[0]!r}")
                    if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), "")):
                        raise UserError(f"{place}: columns are separated by {other!r}; save the file with commas")
                elif cells:
                    if len(cells) != len(header):
                        raise UserError(f"{place}: the row has {len(cells)} cells, the header {len(header)}")
                    yield place, dict(zip(header, cells, strict=True))
        except csv.Error as problem:
            raise UserError(f"{path.name}:{reader.line_num}: not CSV: {problem}") from None


def _parquet_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{path.name}: two columns are called {twice[0]!r}")
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path.name}:{number}", row
    except pa.ArrowException as problem:
        raise UserError(f"{path.name}: not a whole Parquet file ({problem})") from None
    except (ValueError, OverflowError) as problem:
        # Text that is not UTF-8, a date after the year 9999, a time in nanoseconds where pandas is not installed.
        raise UserError(f"{path.name}: holds a value that cannot be read, after row {number} ({problem})") from None


def _hub_records(source: str, labels: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a dataset on the hub. Its own code is never run: `datasets` reads data files only.

    Class indices become class names where the names are the task's labels, whose order may be another. Other indices
    stay what they are: indices into the task's labels.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{source}: no such file, and reading it as a Hugging Face dataset needs the package datasets "
            "(pip install 'llm2llm[train]')"
        ) from None
    name, _, split = source.partition("#")
    name, _, revision = name.partition("@")
    name, _, config = name.partition(":")
    try:
        data = datasets.load_dataset(name, config or None, split=split or "train", revision=revision or None)
    except Exception as problem:  # whatever the hub client raises, the user's fix is the name or the network
        first_line = str(problem).strip().split("\n", 1)[0]
        raise UserError(
            f"{source}: no such file, and not readable as a Hugging Face dataset name[:config][@revision][#split]: "
            f"{type(problem).__name__}: {first_line}"
        ) from None
    class_names = {
        column: feature.names
        for column, feature in data.features.items()
        if isinstance(feature, datasets.ClassLabel) and set(feature.names) <= set(labels)
    }
    for number, row in enumerate(data, start=1):
        named = {
            column: names[row[column]] for column, names in class_names.items() if row[column] in range(len(names))
        }
        yield f"{name}:{number}", {**row, **named}
