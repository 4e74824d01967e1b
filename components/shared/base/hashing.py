"""The hash of a file or a folder: the same bytes under the same names have the same hash, wherever they lie.

file     SHA-256 of its bytes
folder   SHA-256 of one line for each file, sorted by name: `<sha256>  <size>  <name>`, the name with slashes
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 8
"""Files of a folder that are hashed at once; the hashing itself does not hold Python's lock."""


def hash_of(path: str | os.PathLike[str]) -> str:
    """The hash of a file or folder as 64 hexadecimal digits; read piece by piece, so of any size.

    Links are followed.

    Raises:
        OSError: Not there, or not readable.
    """
    place = Path(path)
    if not place.is_dir():
        return _hash_of_file(place)
    return hash_of_files(files_of(place))


def files_of(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The files in a folder and in those below it, by their names relative to it, with slashes."""
    return {
        Path(at, name).relative_to(folder).as_posix(): Path(at, name)
        for at, _, names in os.walk(folder, followlinks=True, onerror=_refuse)
        for name in names
    }


def hash_of_files(files: Mapping[str, Path]) -> str:
    """The hash of a folder that holds these files under these names."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="hash") as threads:
        hashes = dict(zip(files, threads.map(_hash_of_file, files.values()), strict=True))
    return hash_of_entries({name: (files[name].stat().st_size, hashes[name]) for name in files})


def hash_of_entries(files: Mapping[str, tuple[int, str]]) -> str:
    """The hash of a folder of which (size in bytes, SHA-256) of every file are known."""
    lines = [f"{sha256}  {size}  {name}\n" for name, (size, sha256) in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def hash_of_bytes(content: bytes) -> str:
    """The hash of a file that holds these bytes."""
    return hashlib.sha256(content).hexdigest()


SOURCE = (".py", ".j2", ".css", ".yaml", ".jsonl", ".md")


def source_hash(*folders: Path) -> str:
    """The first 12 digits of the SHA-256 of the source in some folders: code and what it is delivered with."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in SOURCE and path.name != "README.md":  # pages change nothing that a run does
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def size_of(path: str | os.PathLike[str]) -> int:
    """The bytes of a file, or of all files in a folder."""
    place = Path(path)
    if not place.is_dir():
        return place.stat().st_size
    return sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(place) for name in names)


def _hash_of_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse(problem: OSError) -> None:
    raise problem
