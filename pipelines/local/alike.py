"""Stages that several runs begin with alike, as the arms of a sweep do: the first to come runs one, the others take
over what it left.

The place for it is a folder that these runs share:

    KEY/        an artifact folder of `in_process`, whose files are hard links where the file system has them
    KEY.lock    held by the run that is making it; the others wait, as they could only do the same work

A key is a hash of the stage, of all that goes into it, and of the code. So what is taken over is what the run would
have made itself.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.atomic import atomic_folder

SHARED_STAGES = ("prepare", "train", "evaluate", "predict", "out_of_fold")
"""Those that cost time. Not the teacher: runs with random seeds of their own have answers of their own."""


def can_be_shared(stage: str, inputs: Mapping[str, Any]) -> bool:
    """Whether other runs may begin with it too: only what comes before the first generated row."""
    return stage in SHARED_STAGES and inputs.get("iteration", 0) == 0


@contextmanager
def held_place(shared: Path, *known_by: Any) -> Iterator[Path]:
    """The folder for a stage's work, which nobody else makes or reads meanwhile; it is there once the work is done.

    Args:
        shared: What the runs share; made if it is not there.
        known_by: Plain values that say which work it is.
    """
    key = hashlib.sha256(json.dumps(known_by, sort_keys=True).encode()).hexdigest()[:16]
    shared.mkdir(parents=True, exist_ok=True)
    lock = os.open(shared / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield shared / key
    finally:
        os.close(lock)


def take_over(source: Path, target: Path) -> None:
    """Puts one folder's content, whole, in the place of another."""
    with atomic_folder(target) as partial:
        shutil.copytree(source, partial, copy_function=_linked, dirs_exist_ok=True)


def _linked(source: str, target: str) -> str:
    """A hard link, or a copy. No stage writes into what it has finished."""
    try:
        os.link(source, target)
    except OSError:  # the file system has no links
        shutil.copy2(source, target)
    return target
