"""Objects as files on this machine."""

import errno
import itertools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError, cannot_write
from llm2llm.components.shared.storage.errors import not_there

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_WRITER, _COUNT = uuid.uuid4().hex, itertools.count()
_PARTIAL = ".partial-"
"""Part of the name of every file that is still being written, as in `whole.py`; they are never listed."""


def read_bytes(path: Path, start: int, end: int | None) -> bytes:
    """See `objects.read_bytes`."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read() if end is None else file.read(max(0, end - start))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise not_there(path) from None
    except OSError as problem:
        raise _cannot_read(path, problem) from problem


def write_bytes(path: Path, data: bytes) -> None:
    """See `objects.write_bytes`."""
    with _partial(path, data) as (folder, partial):
        os.replace(partial, path)
        _sync_folder(folder)


def create_bytes(path: Path, data: bytes) -> bool:
    """See `objects.create_bytes`. A link fails where there is a name already, on network file systems too."""
    with _partial(path, data) as (folder, partial):
        created = True
        try:
            os.link(partial, path)
        except FileExistsError:
            created = False
        except OSError as problem:
            if problem.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise UserError(
                    f"cannot create {path}: its file system has no hard links, without which two writers could both "
                    "believe that they were first: use another folder, or s3://bucket/key"
                ) from None
            raise
        os.unlink(partial)
        _sync_folder(folder)  # also where another writer was first, who may not have come so far
    return created


@contextmanager
def _partial(path: Path, data: bytes) -> Iterator[tuple[str, str]]:
    """(folder, a file in it beside `path` that holds the data), which the block renames or removes.

    Works on texts: a ledger writes hundreds of files a second, and a `Path` for each name costs more than the writing.
    """
    folder, name = os.path.split(path)
    folder = folder or os.curdir
    # Threads of one process write too, so the process's number would not tell two writers apart.
    partial = os.path.join(folder, f".{name}{_PARTIAL}{_WRITER}-{os.getpid()}-{next(_COUNT)}")
    try:
        try:
            file = os.open(partial, _NEW, 0o666)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            file = os.open(partial, _NEW, 0o666)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        finally:
            os.close(file)
        yield folder, partial
    except BaseException as problem:
        with suppress(OSError):  # renamed or removed by now, or never made
            os.unlink(partial)
        if isinstance(problem, OSError):
            raise cannot_write(path, problem) from problem
        raise


def _sync_folder(folder: str) -> None:
    """Has the names in a folder on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def size(path: Path) -> int | None:
    """In bytes; None when there is no such file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError as problem:
        raise _cannot_read(path, problem) from problem


def delete(path: Path) -> None:
    """See `objects.delete`."""
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as problem:
        raise UserError(f"cannot remove {path}: {problem.strerror}") from problem


def names(folder: Path) -> Iterator[tuple[str, int]]:
    """Name within the folder (with slashes) and size of every file below it, sorted by the names' bytes.

    Links to folders are not followed; what is still being written is left out.
    """

    def refuse(problem: OSError) -> None:
        if not isinstance(problem, (FileNotFoundError, NotADirectoryError)):
            raise _cannot_read(folder, problem) from problem

    found = []
    for at, _, files in os.walk(folder, onerror=refuse):
        inside = Path(at).relative_to(folder)
        found += [(inside / name).as_posix() for name in files if not (name.startswith(".") and _PARTIAL in name)]
    for name in sorted(found, key=os.fsencode):
        # Another process may have removed it since.
        with suppress(FileNotFoundError):
            yield name, (folder / name).stat().st_size


def _cannot_read(path: Path, problem: OSError) -> UserError:
    return UserError(f"cannot read {path}: {problem.strerror or problem}")
