"""Rows of files as programs leave them: JSON Lines, JSON, CSV, TSV, Parquet, Arrow, folders of `save_to_disk`.

.jsonl .ndjson .json    JSON Lines, a list, `{"data": [...]}`, an object of columns, pretty-printed objects; whatever
                        the suffix says
.csv .tsv               with commas, semicolons, tabs or bars; Excel's `sep=` line, empty columns and rows
.parquet .arrow .feather .ipc
a folder                what `datasets` saves with `save_to_disk`; `folder#test` for a split
.gz .zst .bz2 .xz       any of the files above, compressed

Text is UTF-8, UTF-16 by its byte order mark, or what `encoding` says; see `base.text.decode_text`.
"""

import bz2
import csv
import dataclasses
import gzip
import io
import json
import lzma
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.text import decode_text
from llm2llm.components.shared.data.jsonl import json_lines, json_objects, parse_json
from llm2llm.components.shared.ingest.columns import MAX_TEXT
from llm2llm.components.shared.ingest.csv_cells import plain_row
from llm2llm.components.shared.ingest.suffixes import SUFFIXES, check_suffix, suffixes_of

Rows = Iterator[tuple[str, dict[str, Any]]]
"""(place, row); a place is `file:line` or `file:row`, as a person would look it up."""

_DELIMITERS = ",;\t|"
_KINDS_OF_CHAT = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "prompt", "completion")
_SHORTENED = (pa.types.is_float16, pa.types.is_float32)


@dataclass
class Source:
    """A file to read, and what a person should know about how it was read."""

    path: Path
    name: str
    """What places and errors call it."""
    encoding: str = "auto"
    labels: Sequence[str] | None = None
    """Class indices become names where the names are these; None: always."""
    split: str = ""
    """Of a folder with several."""
    unpacked: bool = False
    """Whether `path` is what was in the compressed file that `name` names."""
    notes: list[str] = field(default_factory=list)


def read_file(source: Source) -> Rows:
    """Every row of a file or a saved folder, in order.

    Raises:
        UserError: Missing, of an unknown kind, damaged, or not as its format demands; names the file and the row.
    """
    if source.path.is_dir():
        yield from _saved_rows(source)
        return
    if not source.path.exists():
        raise UserError(f"{source.name}: no such file")
    try:
        suffix, compression = _kind(source)
        with _uncompressed(source, compression) as opened:
            yield from _READERS[_kind(opened)[0] if compression else suffix](opened)
    except OSError as problem:
        raise UserError(f"cannot read {source.name}: {problem.strerror or problem}") from problem


_MAGIC = {
    b"PAR1": (".parquet", ""),
    b"ARROW1": (".arrow", ""),
    b"\x1f\x8b": ("", ".gz"),
    b"\x28\xb5\x2f\xfd": ("", ".zst"),
    b"BZh": ("", ".bz2"),
    b"\xfd7zXZ\0": ("", ".xz"),
}

_LFS = b"version https://git-lfs"


def _kind(source: Source) -> tuple[str, str]:
    """(kind of file, compression), each as a suffix: as the file's first bytes say, else as its name does.

    Raises:
        UserError: A workbook, an archive, a web page, a pointer of Git LFS, or a kind that is not known.
    """
    suffix, compression = suffixes_of(source.name)
    with open(source.path, "rb") as file:
        start = file.read(1 << 16)
    if start.startswith(b"PK\x03\x04"):
        raise UserError(f"{source.name}: a workbook or an archive; save the sheet as CSV UTF-8, or unpack the files")
    if start.startswith(_LFS):
        raise UserError(f"{source.name}: a pointer of Git LFS instead of the rows; run `git lfs pull` in its folder")
    if start[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise UserError(f"{source.name}: a web page, not a file of rows; give the address of the file itself")
    for magic, (kind, packed) in _MAGIC.items():
        if start.startswith(magic):
            if packed and source.unpacked:
                raise UserError(f"{source.name}: is compressed twice; unpack it once")
            return kind or suffix, packed
    if compression and not source.unpacked:
        return suffix, compression
    if suffix in (".csv", ".tsv") or suffix not in SUFFIXES:
        first = start.decode("utf-8-sig", "replace").lstrip()
        if _is_object(first.split("\n", 1)[0]) or (suffix not in SUFFIXES and first[:1] in ("{", "[")):
            return ".jsonl", ""
    check_suffix(source.name)
    return suffix, ""


@contextmanager
def _uncompressed(source: Source, compression: str) -> Iterator[Source]:
    if not compression:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="llm2llm-") as folder:
        path = Path(folder) / "rows"
        try:
            with _opened(source.path, compression) as packed, open(path, "wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, pa.ArrowException, OSError) as problem:
            raise UserError(f"{source.name}: not a whole {compression} file ({problem})") from None
        opened = dataclasses.replace(source, path=path, unpacked=True)
        yield opened


def _opened(path: Path, compression: str) -> Any:
    if compression == ".zst":
        return pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers[compression](path, "rb")


# Text


def _text(source: Source, western: bool) -> str:
    """A file's text. JSON is Unicode; CSV may be of an 8-bit encoding, which is noted."""
    content = source.path.read_bytes()
    try:
        text, codec = decode_text(content, source.encoding)
    except LookupError:
        raise UserError(
            f"prepare.encoding: {source.encoding!r} is no encoding that Python knows, such as utf-8, cp1252 or gb18030"
        ) from None
    except UnicodeDecodeError as problem:
        codec = "UTF-8" if source.encoding == "auto" else source.encoding
        number = content.count(b"\n", 0, problem.start) + 1
        raise UserError(
            f"{source.name}:{number}: not {codec} text; save the file as UTF-8, or set prepare.encoding"
        ) from None
    if codec in ("cp1252", "mac-roman") and source.encoding == "auto":
        if not western:
            number = content.count(b"\n", 0, _first_bad_byte(content)) + 1
            raise UserError(f"{source.name}:{number}: not UTF-8 text; save the file as UTF-8, or set prepare.encoding")
        source.notes.append(f"read as {codec}; where characters look wrong, set prepare.encoding")
    return text


def _first_bad_byte(content: bytes) -> int:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as problem:
        return problem.start
    return 0


# JSON


def _json_rows(source: Source) -> Rows:
    text = _text(source, western=False)
    try:
        value = parse_json(text, names_once=True)
    except ValueError as problem:
        first = next((line for line in text.splitlines() if line.strip()), "")
        if _is_object(first):
            yield from _line_rows(source, text)
            return
        rows = json_objects(text)
        if not rows:
            raise UserError(f"{source.name}: not JSON: {problem}") from None
        yield from ((f"{source.name}:{line}", row) for line, row in rows)
        return
    for number, row in enumerate(_rows_of(value, source.name), start=1):
        if not isinstance(row, dict):
            raise UserError(f"{source.name}:{number}: expected a JSON object, got {type(row).__name__}")
        yield f"{source.name}:{number}", row


def _jsonl_rows(source: Source) -> Rows:
    with open(source.path, "rb") as file:
        start = file.read(1 << 16)
    first = next((line for line in start.decode("utf-8-sig", "replace").splitlines() if line.strip()), "")
    if source.encoding == "auto" and b"\0" not in start[:100] and not first.lstrip().startswith("["):
        pretty = first.strip() == "{"
        if not pretty:
            for number, row in json_lines(source.path, source.name):
                yield f"{source.name}:{number}", row
            return
    if first and not _is_object(first):
        yield from _json_rows(source)  # a list, or objects over several lines, in a file called .jsonl
    else:
        yield from _line_rows(source, _text(source, western=False))


def _line_rows(source: Source, text: str) -> Rows:
    for number, row in json_lines(io.BytesIO(text.encode("utf-8", "surrogatepass")), source.name):
        yield f"{source.name}:{number}", row


def _is_object(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return line.lstrip().startswith("{") and line.rstrip().endswith("}")


def _rows_of(value: Any, name: str) -> list[Any]:
    """The rows in a JSON value, in any of the shapes that exporters write."""
    if isinstance(value, dict) and value:
        inner = list(value.values())
        lists = {key: one for key, one in value.items() if isinstance(one, list)}
        rows = [one for key, one in lists.items() if key not in _KINDS_OF_CHAT and _are_objects(one)]
        if len(lists) == 1 and (rows or lists == {key: [] for key in lists}):
            return next(iter(lists.values()))
        if len(rows) > 1:
            raise UserError(f"{name}: has rows under {', '.join(map(repr, lists))}; give a file for each")
        if len(value) > 1 and len(lists) == len(value) and len({len(one) for one in inner}) == 1 and not rows:
            return [dict(zip(value, cells, strict=True)) for cells in zip(*inner, strict=True)]
        if len(value) > 1 and all(isinstance(one, dict) for one in inner):  # pandas: {column: {index: cell}}
            keys = list(inner[0])
            if (
                keys
                and all(list(one) == keys for one in inner)
                and not any(isinstance(cell, dict) for cell in inner[0].values())
            ):
                return [{column: cells[key] for column, cells in value.items()} for key in keys]
        return [value]
    if not isinstance(value, list):
        raise UserError(f"{name}: expected a JSON list of objects, got {type(value).__name__}")
    return value


def _are_objects(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(one, dict) for one in value)


# CSV


def _csv_rows(source: Source) -> Rows:
    text = _text(source, western=True)
    skipped = 0
    delimiter = ""
    if match := re.match(r'"?sep=(.)"?[ ]*(\r\n|\r|\n)', text):  # Excel's own line
        delimiter, text, skipped = match[1], text[match.end() :], 1
    delimiter = delimiter or _delimiter(text)
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT + 1))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter, skipinitialspace=True)
    header: list[str] = []
    blank = 0
    try:
        for cells in reader:
            place = f"{source.name}:{reader.line_num + skipped}"
            if not any(cell.strip() for cell in cells):
                blank += bool(cells)
            elif not header:
                header = [name.strip() for name in cells]
                named = [name for name in header if name]
                if twice := [name for name in named if named.count(name) > 1]:
                    raise UserError(f"{place}: two columns are called {twice[0]!r}")
            else:
                yield place, plain_row(_csv_row(cells, header, place))
    except csv.Error as problem:
        raise UserError(f"{source.name}:{reader.line_num + skipped}: not CSV: {problem}") from None
    if blank:
        source.notes.append(f"passed over {blank} rows without any text")


def _csv_row(cells: list[str], header: list[str], place: str) -> dict[str, str]:
    """A row by the names of the header. A column without a name is left out, at the end also when it is missing."""
    extra, missing = cells[len(header) :], header[len(cells) :]
    if any(cell.strip() for cell in extra) or any(missing):
        raise UserError(f"{place}: the row has {len(cells)} cells, the header {len(header)}")
    return {name: cell for name, cell in zip(header, cells, strict=False) if name}


def _delimiter(text: str) -> str:
    """The delimiter that gives the header several columns and the first rows as many: a comma, if that may be."""
    start = text[: 1 << 20]
    found = {}
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(start, newline=""), delimiter=delimiter, skipinitialspace=True)
        widths = []
        try:
            for cells, _ in zip(reader, range(20), strict=False):
                if any(cell.strip() for cell in cells):
                    widths.append(len(cells))
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            found[delimiter] = sum(width == widths[0] for width in widths) / len(widths)
    return max(found, key=lambda delimiter: found[delimiter]) if found else ","


# Parquet and Arrow


def _parquet_rows(source: Source) -> Rows:
    try:
        file = pq.ParquetFile(source.path)
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise UserError(f"{source.name}: not a whole Parquet file ({problem})") from None
    yield from _table_rows(source, "Parquet", file.schema_arrow, file.iter_batches(), 0)


def _arrow_rows(source: Source, before: int = 0) -> Rows:
    try:
        with pa.memory_map(str(source.path)) as file:
            try:
                opened = pa.ipc.open_file(file)
                batches: Iterable[pa.RecordBatch] = (opened.get_batch(i) for i in range(opened.num_record_batches))
            except pa.ArrowInvalid:
                file.seek(0)
                opened = batches = pa.ipc.open_stream(file)
            yield from _table_rows(source, "Arrow", opened.schema, batches, before)
    except (pa.ArrowException, OSError) as problem:
        raise UserError(f"{source.name}: not a whole Arrow file ({problem})") from None


def _table_rows(source: Source, kind: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], number: int) -> Rows:
    names = schema.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{source.name}: two columns are called {twice[0]!r}")
    converters = {one.name: convert for one in schema if (convert := converter(one.type))}
    classes = _class_names(schema, source.labels)
    try:
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                for column, convert in converters.items():
                    row[column] = convert(row[column])
                yield f"{source.name}:{number}", named_classes(row, classes)
    except pa.ArrowException as problem:
        raise UserError(f"{source.name}: not a whole {kind} file ({problem})") from None
    except (ValueError, OverflowError) as problem:
        # Text that is not UTF-8, a date after the year 9999, a time in nanoseconds where pandas is not installed.
        raise UserError(f"{source.name}: holds a value that cannot be read, after row {number} ({problem})") from None


def converter(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """What makes of a column's values those that a person wrote: 0.1 of the float32 nearest to it, 2.5 of the decimal
    2.5000; None for a type whose values are right."""
    if pa.types.is_dictionary(kind):
        return converter(kind.value_type)
    if any(is_short(kind) for is_short in _SHORTENED):
        short = np.float16 if pa.types.is_float16(kind) else np.float32
        return lambda value: None if value is None else float(str(short(value)))
    if pa.types.is_decimal(kind):
        return lambda value: value.normalize() if isinstance(value, Decimal) else value
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = converter(kind.value_type)
        return inner and (lambda value: None if value is None else [inner(one) for one in value])
    if pa.types.is_struct(kind):
        fields = {one.name: convert for one in kind if (convert := converter(one.type))}
        if fields:
            return lambda value: (
                value and {name: fields[name](one) if name in fields else one for name, one in value.items()}
            )
    return None


def _class_names(schema: pa.Schema, labels: Sequence[str] | None) -> dict[str, list[str]]:
    """The names of class indices, as `datasets` notes them in a file, where they are wanted."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted["info"]["features"]
        found = {column: one["names"] for column, one in features.items() if one.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {column: names for column, names in found.items() if labels is None or set(names) <= set(labels)}


def named_classes(row: dict[str, Any], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row with the names of its classes for their indices."""
    for column, names in classes.items():
        if isinstance(row.get(column), int) and 0 <= row[column] < len(names):
            row[column] = names[row[column]]
    return row


def _saved_rows(source: Source) -> Rows:
    """Rows of a folder that `datasets` saved, read without it."""
    folder = source.path
    if (splits := _json_file(folder / "dataset_dict.json", source)) is not None:
        known = splits.get("splits", [])
        split = source.split or "train"
        if split not in known:
            raise UserError(
                f"{source.name}: no split {split!r}; it has {', '.join(known)}: write {source.name}#{known[0]}"
                if known else f"{source.name}: a saved data set without splits"
            )  # fmt: skip
        folder /= split
    state = _json_file(folder / "state.json", source)
    if state is None:
        raise UserError(
            f"{source.name}: is a folder; give a file ({', '.join(SUFFIXES)}) or a folder of datasets' save_to_disk"
        )
    if state.get("_indices_files"):
        raise UserError(f"{source.name}: holds a selection of rows; save the data set again after flatten_indices()")
    number = 0
    for file in state["_data_files"]:
        part = Source(folder / file["filename"], source.name, labels=source.labels)
        for place, row in _arrow_rows(part, number):
            number += 1
            yield place, row


def _json_file(path: Path, source: Source) -> dict[str, Any] | None:
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise UserError(f"{source.name}: {path.name} cannot be read ({problem})") from None
    return value if isinstance(value, dict) else None


_READERS: dict[str, Callable[[Source], Rows]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
    ".feather": _arrow_rows,
    ".ipc": _arrow_rows,
}
