"""The lineage record inside an artifact, and the content hash that leaves it out.

    folder         `lineage.json` in it
    Parquet file   the key `llm2llm.lineage` of its footer
    JSON object    its key `lineage`
    others         none: HTML, Markdown, JSON lines

The content hash of what holds a record ignores the record: the same rows have the same hash, whichever version of a
library wrote them. So a record can name the hash of the very file that it is in.

    folder         the hash of the folder (`hashing`) without `lineage.json`, and of a journal without `spent.json`
    Parquet file   SHA-256 of all bytes before the footer, then of canonical JSON of what the footer says of them:
                   columns, groups of rows, and the keys other than the record and Arrow's copy of the columns
    JSON object    SHA-256 of the object without `lineage`, as canonical JSON
    others, and files without a record      SHA-256 of all bytes
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from llm2llm.components.shared.base.atomic import atomic_file, write_text
from llm2llm.components.shared.base.hashing import files_of, hash_of, hash_of_bytes, hash_of_entries, hash_of_files
from llm2llm.components.shared.data.artifacts import LINEAGE, SPENT
from llm2llm.components.shared.data.schemas import PARQUET_MAGIC

if TYPE_CHECKING:
    import pyarrow.parquet as pq

FOLDER_FILE = "lineage.json"
_BESIDE = (FOLDER_FILE, SPENT)
"""Files of a folder that are not its content: what a run has paid is less when the ledger had the answers."""
FOOTER_KEY = b"llm2llm.lineage"
VERSION = 2

_NOT_CONTENT = (FOOTER_KEY, b"ARROW:schema")
_PIECE = 1 << 20

Format = Literal["folder", "parquet", "json"]


def read_embedded(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The record in a file or folder; None where there is none, or nothing at all."""
    place = Path(path)
    try:
        if place.is_dir():
            file = place / FOLDER_FILE
            return _record(json.loads(file.read_bytes())) if file.is_file() else None
        with open(place, "rb") as opened:
            return _record_in(opened)
    except (OSError, ValueError):
        return None


def can_hold(path: str | os.PathLike[str]) -> bool:
    """Whether a record can be put into what is there."""
    return _format_of(Path(path)) is not None


def embed_record(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Puts a record into a file or folder that can hold one, in place of one that it may hold; whole or not at all.

    Raises:
        UserError: It cannot be written: full disk, read-only folder.
        ValueError: It cannot hold one.
    """
    place = Path(path)
    match _format_of(place):
        case "folder":
            write_text(place / FOLDER_FILE, json.dumps(record, indent=1, sort_keys=True) + "\n")
        case "parquet":
            _embed_in_parquet(place, json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii"))
        case "json":
            value = json.loads(place.read_bytes())
            # ASCII only: a text may hold half a surrogate pair, which UTF-8 cannot.
            write_text(place, json.dumps({**value, LINEAGE: dict(record)}, indent=2) + "\n")
        case _:
            raise ValueError(f"{place}: cannot hold a record")


def content_hash(path: str | os.PathLike[str]) -> str:
    """The content hash of a file or folder, 64 hexadecimal digits.

    Raises:
        OSError: Not there, or not readable.
    """
    place = Path(path)
    if place.is_dir():
        return _hash_of_folder(place)
    with open(place, "rb") as file:
        return _hash_of_recorded(file) if _record_in(file) is not None else hash_of(place)


def content_hash_of_bytes(content: bytes) -> str:
    """The content hash of a file that holds these bytes."""
    file = io.BytesIO(content)
    return _hash_of_recorded(file) if _record_in(file) is not None else hash_of_bytes(content)


def content_hash_once_embedded(path: str | os.PathLike[str]) -> str:
    """The content hash that a file or folder will have when a record has been put into it, if it can hold one.

    Raises:
        OSError: Not there, or not readable.
    """
    place = Path(path)
    match _format_of(place):
        case "folder":
            return _hash_of_folder(place)
        case None:
            return hash_of(place)
        case _:
            with open(place, "rb") as file:
                return _hash_of_recorded(file)


def content_hash_of_entries(files: Mapping[str, tuple[int, str]]) -> str:
    """The content hash of a folder of which (size in bytes, SHA-256) of every file are known."""
    return hash_of_entries({name: entry for name, entry in files.items() if name not in _BESIDE})


def _hash_of_folder(place: Path) -> str:
    return hash_of_files({name: path for name, path in files_of(place).items() if name not in _BESIDE})


def _format_of(place: Path) -> Format | None:
    if place.is_dir():
        return "folder"
    with open(place, "rb") as file:
        if _footer_of(file) is not None:
            return "parquet"
        return "json" if _object_in(file) is not None else None


def _record(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) and value.get("version") == VERSION and "stage" in value else None


def _record_in(file: BinaryIO) -> dict[str, Any] | None:
    if (footer := _footer_of(file)) is not None:
        try:
            return _record(json.loads((footer.metadata or {}).get(FOOTER_KEY, b"null")))
        except ValueError:
            return None
    value = _object_in(file)
    return None if value is None else _record(value.get(LINEAGE))


def _hash_of_recorded(file: BinaryIO) -> str:
    footer = _footer_of(file)
    if footer is None:
        value = {key: one for key, one in (_object_in(file) or {}).items() if key != LINEAGE}
        return hash_of_bytes(_canonical(value))
    digest = hashlib.sha256()
    left = _body_size(file)
    file.seek(0)
    while left > 0 and (piece := file.read(min(_PIECE, left))):
        digest.update(piece)
        left -= len(piece)
    digest.update(_canonical(_described(footer)))
    return digest.hexdigest()


def _described(footer: "pq.FileMetaData") -> dict[str, Any]:
    """What a footer says of the bytes before it, without what depends on who wrote it."""
    schema, groups = footer.schema, [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [schema.column(number) for number in range(len(schema))]
    chunks = [[group.column(number) for number in range(group.num_columns)] for group in groups]
    return {
        "keys": {
            key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for key, value in (footer.metadata or {}).items()
            if key not in _NOT_CONTENT
        },
        "columns": [[c.path, c.physical_type, c.max_definition_level, c.max_repetition_level] for c in columns],
        "groups": [
            [group.num_rows, [[c.data_page_offset, c.total_compressed_size, c.num_values] for c in some]]
            for group, some in zip(groups, chunks, strict=True)
        ],
    }


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _object_in(file: BinaryIO) -> dict[str, Any] | None:
    """The JSON object that is all of a file; None for any other file."""
    file.seek(0)
    if not file.read(_PIECE).lstrip().startswith(b"{"):
        return None
    file.seek(0)
    try:
        value = json.loads(file.read())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _footer_of(file: BinaryIO) -> "pq.FileMetaData | None":
    """The footer of a whole Parquet file; None for any other file."""
    file.seek(0)
    if file.read(len(PARQUET_MAGIC)) != PARQUET_MAGIC:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(pa.PythonFile(file, mode="r")).metadata
    except (pa.ArrowException, OSError):
        return None


def _body_size(file: BinaryIO) -> int:
    """The bytes of a Parquet file before its footer, which ends in its own length, as four bytes, and the magic."""
    end = file.seek(-8, os.SEEK_END)
    return end - int.from_bytes(file.read(4), "little")


def _embed_in_parquet(place: Path, record: bytes) -> None:
    """Writes the file anew with another footer: the bytes of the rows are copied as they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(place, "rb") as file, atomic_file(place) as partial:
        opened = pq.ParquetFile(pa.PythonFile(file, mode="r"))
        keys = {key: value for key, value in (opened.metadata.metadata or {}).items() if key not in _NOT_CONTENT}
        # An empty file with the same columns and one key more; its footer then takes over the groups of rows, whose
        # places in the file stay what they are. So Parquet's `_metadata` files are made.
        empty, footer = io.BytesIO(), io.BytesIO()
        with pq.ParquetWriter(empty, opened.schema_arrow.with_metadata(keys)) as writer:
            writer.add_key_value_metadata({FOOTER_KEY: record})  # as a key of the columns it would be there twice
        extended = pq.read_metadata(pa.BufferReader(empty.getvalue()))
        if opened.metadata.num_row_groups:
            extended.append_row_groups(opened.metadata)
        extended.write_metadata_file(footer)
        left = _body_size(file)
        file.seek(0)
        with open(partial, "wb") as target:
            while left > 0 and (piece := file.read(min(_PIECE, left))):
                target.write(piece)
                left -= len(piece)
            target.write(footer.getvalue()[len(PARQUET_MAGIC) :])
        shutil.copymode(place, partial)
