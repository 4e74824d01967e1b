"""Single objects, local and remote alike; the package's docstring shows them all."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from llm2llm.components.shared.storage import local, s3
from llm2llm.components.shared.storage.errors import not_there
from llm2llm.components.shared.storage.uris import parse, parse_object

Uri = str | os.PathLike[str]


class Stored(NamedTuple):
    """One object, as a listing tells of it."""

    uri: str
    size: int
    """In bytes."""
    modified: float
    """When it was written, in seconds since 1970, by the clock of who stores it."""


def read_bytes(uri: Uri, start: int | None = None, end: int | None = None) -> bytes:
    """What is stored, or a part of it.

    Args:
        uri: The object.
        start, end: Offsets in bytes, neither negative; like `data[start:end]`, so past the end there is nothing.

    Raises:
        NotThere: Nothing is stored under this name.
        UserError: It cannot be read.
    """
    start = start or 0
    assert min(start, end or 0) >= 0, f"offsets count from the front: {start}, {end}"
    place = parse_object(uri)
    if isinstance(place, Path):
        return local.read_bytes(place, start, end)
    return s3.read_bytes(place, start, end)


def write_bytes(uri: Uri, data: bytes) -> None:
    """Stores an object, whole or not at all, in place of what was there.

    Raises:
        UserError: It cannot be written.
    """
    place = parse_object(uri)
    if isinstance(place, Path):
        local.write_bytes(place, data)
    else:
        s3.write_bytes(place, data)


def create_bytes(uri: Uri, data: bytes) -> bool:
    """Stores an object, whole, only if nothing is there: exactly one of many writers gets True.

    Returns:
        False when something is there already; it stays as it is.

    Raises:
        UserError: It cannot be written. When a server fails in the middle of it, the object may be there all the same.
    """
    place = parse_object(uri)
    return local.create_bytes(place, data) if isinstance(place, Path) else s3.create_bytes(place, data)


def exists(uri: Uri) -> bool:
    """Whether an object is there; a folder is none.

    Raises:
        UserError: It cannot be told: no permission, no bucket, no server.
    """
    place = parse_object(uri)
    return local.size(place) is not None if isinstance(place, Path) else s3.size(place) is not None


def size(uri: Uri) -> int:
    """The size of an object in bytes.

    Raises:
        NotThere: Nothing is stored under this name.
        UserError: It cannot be told.
    """
    place = parse_object(uri)
    found = local.size(place) if isinstance(place, Path) else s3.size(place)
    if found is None:
        raise not_there(place)
    return found


def delete(uri: Uri) -> None:
    """Removes an object; one that is not there is no error.

    Raises:
        UserError: It cannot be removed.
    """
    place = parse_object(uri)
    if isinstance(place, Path):
        local.delete(place)
    else:
        s3.delete(place)


def list_uris(prefix: Uri) -> Iterator[str]:
    """The URI of every object in a folder and the folders in it, sorted by the bytes of their names.

    Args:
        prefix: A folder; one that is not there has nothing in it. `s3://bucket/a` lists `a/b`, but not `ab`.

    Raises:
        UserError: It cannot be listed.
    """
    place = parse(prefix)
    if isinstance(place, Path):
        folder = os.fspath(prefix).rstrip("/")
        return (f"{folder}/{name}" for name, _ in local.names(place))
    return (f"{place}/{name}" for name, _ in s3.names(place))


def list_objects(prefix: Uri) -> Iterator[Stored]:
    """Like `list_uris`, with sizes and times.

    Raises:
        UserError: It cannot be listed.
    """
    place = parse(prefix)
    if isinstance(place, Path):
        folder = os.fspath(prefix).rstrip("/")
        for name, size in local.names(place):
            # Another process may have removed it since.
            with suppress(FileNotFoundError):
                yield Stored(f"{folder}/{name}", size, (place / name).stat().st_mtime)
    else:
        yield from (Stored(f"{place}/{name}", found.size, found.modified) for name, found in s3.listed(place))
