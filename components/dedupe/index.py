"""The index of a training set: what is needed of its rows to find near copies of them, kept from iteration to
iteration.

It is one Parquet file with a row for each training row: a digest of the row's text, and its sketch. A row is known by
the digest, so whatever training set the index is used with, only rows that it knows are taken from it.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from llm2llm.components.shared.base.atomic import atomic_file
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.leakage.firewall import compared_text
from llm2llm.components.shared.similarity import text_of
from llm2llm.components.shared.similarity.sketches import BITS, SEED, Sketches, minhash_version, sketch

VERSION = 2  # raise it when words, sketches or the file change
METADATA_KEY = b"llm2llm"
DIGEST = 16


@dataclass(frozen=True)
class Index:
    """Sketches of rows, with the digests of the rows' texts."""

    digests: list[bytes]
    sketches: Sketches
    masked: bool
    """Whether of rows without their numbers."""
    bands: tuple[int, int]

    def take(self, places: Sequence[int]) -> "Index":
        """The index of some of the rows."""
        return Index(
            [self.digests[place] for place in places], self.sketches.take(list(places)), self.masked, self.bands
        )

    def joined(self, other: "Index") -> "Index":
        """The index of these rows and then of others."""
        sketches = Sketches.joined([self.sketches, other.sketches])
        return Index([*self.digests, *other.digests], sketches, self.masked, self.bands)


def index_of(
    rows: Sequence[Example], masked: bool, bands: tuple[int, int], previous: Index | None = None
) -> tuple[Index, int]:
    """(index, reused): the index of rows, in their order, and how many of them were taken from `previous`."""
    digests = [_digest(row) for row in rows]
    known: dict[bytes, int] = {}
    if previous is not None and (previous.masked, previous.bands) == (masked, bands):
        known = {digest: place for place, digest in enumerate(previous.digests)}
    new = [place for place, digest in enumerate(digests) if digest not in known]
    made = sketch((compared_text(rows[place], masked) for place in new), bands)
    if previous is None or not known:
        return Index(digests, made, masked, bands), 0
    # Behind the sketches of `previous` stand the new ones.
    place_of = {place: len(previous.digests) + n for n, place in enumerate(new)}
    order = [place_of[place] if place in place_of else known[digest] for place, digest in enumerate(digests)]
    both = Sketches.joined([previous.sketches, made])
    return Index(digests, both.take(order), masked, bands), len(rows) - len(new)


def _digest(row: Example) -> bytes:
    return hashlib.blake2b(text_of(row).encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()


def write_index(path: str | os.PathLike[str], index: Index) -> None:
    """Writes an index; a reader sees the whole file or none. The same rows give the same bytes.

    Raises:
        UserError: The folder is missing, read-only or full.
    """
    sketches = index.sketches
    table = pa.table(
        {
            "digest": _column(np.frombuffer(b"".join(index.digests), dtype=np.uint8), DIGEST),
            "length": _column(sketches.lengths, 4),
            "bits": _column(sketches.bits, BITS // 8),
            **({"bands": _column(sketches.bands, 8 * index.bands[0])} if index.bands[0] else {}),
        }
    )
    label = {"kind": "index", "version": VERSION, "seed": SEED, "masked": index.masked, "bands": list(index.bands)}
    label["minhash"] = minhash_version(index.bands)
    label["checksum"] = _checksum(table)
    with atomic_file(path) as partial:
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(label)}), partial)


def read_index(path: str | os.PathLike[str]) -> Index | str:
    """An index that `write_index` wrote, or in a few words why it cannot be used."""
    try:
        table = pq.ParquetFile(path).read()
        label = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError):
        return "it is not a whole file"
    if not isinstance(label, dict) or label.get("kind") != "index":
        return "it is no index"
    if (label.get("version"), label.get("seed")) != (VERSION, SEED):
        return f"it is of version {label.get('version')}, this llm2llm makes version {VERSION}"
    if label.get("checksum") != _checksum(table):
        return "its content has changed"
    if label["minhash"] != minhash_version(tuple(label["bands"])):
        return f"its MinHash is of version {label['minhash']}"
    digests = _numbers(table, "digest", np.uint8).tobytes()
    bands, rows = label["bands"]
    sketches = Sketches(
        lengths=_numbers(table, "length", np.uint32),
        bits=_numbers(table, "bits", np.uint64).reshape(len(table), BITS // 64),
        bands=_numbers(table, "bands", np.uint64).reshape(len(table), bands),
    )
    each = [digests[i : i + DIGEST] for i in range(0, len(digests), DIGEST)]
    return Index(each, sketches, label["masked"], (bands, rows))


def _checksum(table: Any) -> str:
    checksum = hashlib.blake2b(digest_size=16)
    for name in table.schema.names:
        checksum.update(name.encode())
        checksum.update(_numbers(table, name, np.uint8).tobytes())
    return checksum.hexdigest()


def _column(values: NDArray[Any], width: int) -> Any:
    """A column of `width` bytes for each row, little-endian."""
    flat = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).view(np.uint8).reshape(-1)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(flat) // width, [None, pa.py_buffer(flat)])


def _numbers(table: Any, name: str, dtype: Any) -> NDArray[Any]:
    """A column's values one after the other, as numbers; none for a column that is not there."""
    parts = [np.empty(0, np.uint8)]
    for chunk in table.column(name).chunks if name in table.schema.names else ():
        width = chunk.type.byte_width
        every = np.frombuffer(chunk.buffers()[1], np.uint8)
        parts.append(every[chunk.offset * width : (chunk.offset + len(chunk)) * width])
    values: NDArray[Any] = np.concatenate(parts).view(np.dtype(dtype).newbyteorder("<")).astype(dtype)
    return values
