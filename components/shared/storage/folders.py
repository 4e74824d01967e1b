"""Folders that a reader sees whole or not at all: a manifest of sizes and hashes, written last, checked on reading.

    {"version": 1, "files": {"config.json": {"size": 570, "sha256": "9f86d0..."}, ...}}      MANIFEST.json

A folder can hold more than its manifest lists, such as what a broken upload left; readers do not see that. The parts of
a large file whose upload was killed are no object yet: a lifecycle rule (AbortIncompleteMultipartUpload) removes them.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.storage import local, s3
from llm2llm.components.shared.storage.errors import NotThere, not_there
from llm2llm.components.shared.storage.objects import Uri, delete, read_bytes, write_bytes
from llm2llm.components.shared.storage.uris import Place, join, parse

MANIFEST = "MANIFEST.json"
PART = 1 << 26
"""Bytes that are read at once to hold a file against its hash."""
_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the manifest says about one file."""

    size: int
    """In bytes."""
    sha256: str
    """64 hexadecimal digits."""


Manifest = dict[str, FileEntry]
"""By the file's name within the folder, with slashes; sorted."""


def upload_folder(folder: str | os.PathLike[str], uri: Uri, move: bool = False) -> Manifest:
    """Stores a folder's files, many at once, large ones in parts; a reader sees all of them or no folder.

    A folder that is there already is taken down first, and what it had more is removed. One writer at a time: of two
    who store different files under one URI at once, readers may find a folder that they refuse.

    Args:
        folder: On this machine. Links to files are followed; a MANIFEST.json at its top is not stored.
        uri: Where to: a folder of its own.
        move: Whether a local place may take the files away: they are renamed where both are on one disk.

    Returns:
        The manifest, as readers will check it.

    Raises:
        UserError: No such folder, something in it that is no file, or it cannot be stored; then no folder is there.
    """
    source, place = Path(folder), parse(uri)
    names = _files(source)
    if isinstance(place, Path):
        with atomic_folder(place) as partial:
            (_move if move else _copy)(source, partial, names)
            manifest = _hashed(partial, names)
            (partial / MANIFEST).write_bytes(_to_json(manifest))
        return manifest
    before = _take_down(uri)
    with ThreadPoolExecutor(1) as beside:
        hashing = beside.submit(_hashed, source, names)
        try:
            s3.upload_files({place.within(name): source / name for name in names})
            manifest = hashing.result()
        except OSError as problem:
            raise UserError(f"cannot read {source}: {problem.strerror or problem}") from problem
    for name in before.keys() - manifest.keys():
        delete(join(uri, name))
    write_bytes(join(uri, MANIFEST), _to_json(manifest))
    return manifest


def download_folder(
    uri: Uri,
    folder: str | os.PathLike[str],
    manifest: bool = True,
    wanted: Callable[[str], bool] | None = None,
) -> None:
    """Fetches a folder, many files at once, large ones in ranges; `folder` appears whole or stays as it is.

    Args:
        uri: What `upload_folder` stored.
        folder: On this machine. It then holds the files of the manifest, and nothing else.
        manifest: Whether there must be one. False fetches every object, as another tool left them: then only their
            number of bytes is checked, against the list of what is there.
        wanted: Says of a file's name whether to fetch it; None: all.

    Raises:
        NotThere: There is no such folder, or its upload never ended.
        UserError: A file that is missing, truncated or changed, named; no space; no permission.
    """
    place, target = parse(uri), Path(folder)
    entries = read_manifest(uri) if manifest else _unchecked(place)
    if wanted is not None:
        entries = {name: entry for name, entry in entries.items() if wanted(name)}
    with atomic_folder(target) as partial:
        for parent in sorted({(partial / name).parent for name in entries}):
            parent.mkdir(parents=True, exist_ok=True)
        if isinstance(place, Path):
            for name in entries:
                if not (place / name).is_file():
                    raise _damaged(join(uri, name), "is missing")
            _copy(place, partial, entries)
            _each(lambda name: _check(uri, partial, name, entries[name]), entries)
            return
        with s3.transfers() as transfers:
            under_way = {name: transfers.download(*place.within(name), os.fspath(partial / name)) for name in entries}

            def arrived(name: str) -> None:
                try:
                    with s3.problems(place.within(name)):
                        under_way[name].result()
                except NotThere:
                    raise _damaged(join(uri, name), "is missing") from None
                _check(uri, partial, name, entries[name])

            _each(arrived, entries)


def check_folder(uri: Uri) -> None:
    """Checks a local folder against its manifest, file by file.

    Raises:
        NotThere: There is no such folder, or its upload never ended.
        UserError: A file that is missing, truncated or changed, named.
    """
    place, entries = parse(uri), read_manifest(uri)
    assert isinstance(place, Path), "what a server holds is checked as it is fetched"
    for name in entries:
        if not (place / name).is_file():
            raise _damaged(join(uri, name), "is missing")
    _each(lambda name: _check(uri, place, name, entries[name]), entries)


def read_manifest(uri: Uri) -> Manifest:
    """The manifest of a folder that `upload_folder` stored.

    Raises:
        NotThere: There is no such folder, or its upload never ended.
        UserError: It cannot be read, is none of ours, or names a file outside the folder.
    """
    try:
        data = read_bytes(join(uri, MANIFEST))
    except NotThere:
        raise _no_folder(uri) from None
    return parse_manifest(data, join(uri, MANIFEST))


def verify_folder(uri: Uri) -> Manifest:
    """Reads every file of a folder again, a few at once and in parts, and holds it against its hash; nothing is kept.

    Returns:
        The manifest.

    Raises:
        NotThere: There is no such folder, or its upload never ended.
        UserError: The first file by name that is missing, truncated or changed; no permission.
    """
    entries = read_manifest(uri)

    def damage(name: str) -> UserError | None:
        place, digest, length = join(uri, name), hashlib.sha256(), 0
        try:
            while data := read_bytes(place, length, length + PART):
                digest.update(data)
                length += len(data)
                if len(data) < PART:
                    break
        except NotThere:
            return _damaged(place, "is missing")
        return _difference(place, length, digest.hexdigest(), entries[name])

    if found := next(filter(None, _each(damage, sorted(entries))), None):
        raise found
    return entries


def delete_folder(uri: Uri) -> None:
    """Removes a folder and all below it; the manifest goes first, so that no reader finds a part of it.

    Raises:
        UserError: It cannot be removed, or the URI is a whole bucket.
    """
    place = parse(uri)
    if isinstance(place, Path):
        delete(place / MANIFEST)
        try:
            shutil.rmtree(place)
        except FileNotFoundError:
            pass
        except OSError as problem:
            raise UserError(f"cannot remove {place}: {problem.strerror}") from problem
        return
    if not place.key:
        raise UserError(f"{place}: a whole bucket is not removed here: name a folder in it")
    s3.delete(place.within(MANIFEST))
    _each(lambda name: s3.delete(place.within(name)), [name for name, _ in s3.names(place)])


def _files(folder: Path) -> list[str]:
    """The names of the files in a folder to store."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name one that is there")
    for at, folders, files in os.walk(folder):
        for name in folders:
            if os.path.islink(os.path.join(at, name)):
                raise UserError(f"{at}/{name} is a link to a folder, which is not followed: put a real folder there")
        for name in files:
            if not os.path.isfile(os.path.join(at, name)):
                raise UserError(f"{at}/{name} is no file, or a link to one that is gone: remove it")
    names = [name for name, _ in local.names(folder) if name != MANIFEST]
    for name in names:
        if not name.isprintable():
            raise UserError(f"{folder}: {name!r} holds characters that cannot be shown: rename it")
    return names


def _unchecked(place: Place) -> Manifest:
    found = local.names(place) if isinstance(place, Path) else s3.names(place)
    entries = {name: FileEntry(size, "") for name, size in found}
    if not entries:
        raise not_there(place)
    for name in entries:
        refuse_outside(name, str(place))
    return entries


def _take_down(uri: Uri) -> Manifest:
    """Removes the manifest, if there is one, and returns what it said."""
    try:
        data = read_bytes(join(uri, MANIFEST))
    except NotThere:
        return {}
    delete(join(uri, MANIFEST))
    try:
        return parse_manifest(data, join(uri, MANIFEST))
    except UserError:
        # Something else was called MANIFEST.json; what it meant is not ours to remove.
        return {}


def _check(uri: Uri, folder: Path, name: str, entry: FileEntry) -> None:
    arrived = (folder / name).stat().st_size
    same_size = arrived == entry.size and bool(entry.sha256)
    if found := _difference(join(uri, name), arrived, _sha256(folder / name) if same_size else entry.sha256, entry):
        raise found


def _difference(uri: str, arrived: int, sha256: str, entry: FileEntry) -> UserError | None:
    if arrived != entry.size:
        what = "truncated" if arrived < entry.size else "changed"
        return _damaged(uri, f"was {what}: {arrived:,} bytes instead of {entry.size:,}")
    if sha256 != entry.sha256:
        return _damaged(uri, "was changed (its SHA-256 is another)")
    return None


def _damaged(uri: str, what: str) -> UserError:
    return UserError(f"{uri} {what} since its folder was stored: store the folder again")


def _no_folder(uri: Uri) -> NotThere:
    return NotThere(
        f"{os.fspath(uri)}: there is no whole folder here ({MANIFEST} is missing): check the name, or store the folder "
        "again if its upload was cut off"
    )


def _hashed(folder: Path, names: Iterable[str]) -> Manifest:
    names = list(names)
    entries = _each(lambda name: FileEntry((folder / name).stat().st_size, _sha256(folder / name)), names)
    return dict(zip(names, entries, strict=True))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    def copy(name: str) -> None:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)

    _each(copy, names)


def _move(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source / name, target / name)


def _each(do: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
    """The results of `do` for each name, a few at once; the first error stops those that have not begun."""
    pool = ThreadPoolExecutor(s3.WORKERS)
    try:
        return list(pool.map(do, names))
    finally:
        pool.shutdown(cancel_futures=True)


def _to_json(manifest: Mapping[str, FileEntry]) -> bytes:
    content = {"version": _VERSION, "files": {name: asdict(entry) for name, entry in sorted(manifest.items())}}
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in these bytes.

    Raises:
        UserError: It is none, of another version, or names a file outside the folder; `where` says which.
    """
    try:
        content = json.loads(data)
        version, files = content["version"], content["files"]
        entries = {name: FileEntry(int(fields["size"]), fields["sha256"]) for name, fields in files.items()}
        if not all(_SHA256.fullmatch(entry.sha256) for entry in entries.values()):
            raise ValueError("no SHA-256")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{where} is no manifest of a stored folder: store the folder again") from None
    if version != _VERSION:
        raise UserError(f"{where} has version {version}, this llm2llm reads {_VERSION}: use the llm2llm that wrote it")
    for name in entries:
        refuse_outside(name, where)
    return entries


def refuse_outside(name: str, where: str) -> None:
    """Raises a UserError for a name, read from `where`, that would leave the folder it is looked for in."""
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError(
            f"{where}: {name!r} is no name of a file within the folder: whoever wrote that is not to be trusted"
        )
