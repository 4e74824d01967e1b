"""Atomic file and folder writes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llm2llm.components.shared.base.errors import CONNECTION_ERRORS, cannot_write


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a partial file's path to write to, and renames it to `path` when the block ends well.

    Raises:
        UserError: For an OSError in the block: full disk, read-only folder. Nothing is left behind.
        Exception: What else ends the block, a connection that breaks included. Nothing is left behind.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    except CONNECTION_ERRORS:
        raise
    except OSError as problem:
        raise cannot_write(target, problem) from problem
    finally:
        with suppress(OSError):  # renamed by now, or never made
            partial.unlink()


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Like `atomic_file`, for a folder: a fresh one that takes the place of `path` when the block ends well."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    replaced = target.with_name(f"{partial.name}.old")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        # A retry of the stage finds what the attempt before it left here. Removed under its own name, it would be
        # there in part for a moment, or for good when this process is killed.
        if target.exists():
            os.replace(target, replaced)
        os.replace(partial, target)
    except CONNECTION_ERRORS:
        raise
    except OSError as problem:
        raise cannot_write(target, problem) from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
