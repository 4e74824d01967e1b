"""Checkpoints. A resumed run ends with the same weights as an uninterrupted one.

    PLACE/KEY/step-00000150/    model or adapter, optimiser, schedule, random generators, losses, order of the rows
    PLACE/KEY/step-00000200/    at most the two newest are kept

KEY is a hash of everything that decides the weights, so that a retry of the same stage finds its checkpoints and
nothing else does. PLACE is `train.checkpoint_uri`, local or `s3://`, or a folder of the user's own below the machine's
temporary one, which outlives a process but not a pod. A checkpoint is written to the local disk by transformers'
Trainer and stored from there by a thread, its manifest last: a reader sees all of it or nothing. A place on the same
disk takes it by renaming, and a resumed training reads it there. At most two are on a disk at once. A place that is
full or cannot be reached does not stop the training; it is said and counted.

The Trainer's files of tensors are read with torch's `weights_only`, which runs no code. Its own arguments, a pickle,
are never stored.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.storage import (
    NotThere,
    content_of,
    delete_folder,
    download_folder,
    is_remote,
    join,
    list_uris,
    upload_folder,
)
from llm2llm.components.shared.storage.folders import MANIFEST, check_folder
from llm2llm.components.shared.training.job_folder import TrainingJob

KEEP = 2
"""How many checkpoints of a training are kept: the newest, and the one before in case that is damaged."""

STALE_DAYS = 7
"""After so long without a retry, what a training that was cut off has left in the temporary folder is removed."""

PROGRESS_FILE = "progress.json"
"""What of a training the Trainer's own files lack."""

_WRITING = re.compile("PytorchStreamWriter|inline_container|iostream|ofstream|cannot be opened")
"""What torch calls a file that it cannot write: it raises no OSError."""

_STEP = re.compile(r"step-(\d{8})")
NO_WEIGHTS = {"checkpoint_uri", "checkpoint_steps", "checkpoint_minutes", "report_to"}
"""Settings that do not change the weights."""


@contextmanager
def checkpointed(job: TrainingJob) -> Iterator[TrainingJob]:
    """The job with a place for its checkpoints, which are removed when the block ends well: no retry will ask for them.

    Raises:
        UserError: See `checkpoints_uri`.
    """
    uri = checkpoints_uri(job)
    yield dataclasses.replace(job, checkpoints=uri)
    if uri:
        remove_checkpoints(uri)


def checkpoints_uri(job: TrainingJob) -> str | None:
    """Where the checkpoints of this training are.

    Returns:
        None when the settings ask for none.

    Raises:
        UserError: The temporary folder is not the user's own.
    """
    settings = job.settings
    if not settings.checkpoint_steps and not settings.checkpoint_minutes:
        return None
    rows = (job.training_set, job.seeds, job.replay, job.validation)
    decides = {
        "rows": [[row.id for row in some] if some is not None else None for some in rows],
        "task": job.task.model_dump(mode="json"),
        "student": _content(job.student),
        "settings": settings.model_dump(mode="json", exclude=NO_WEIGHTS),
        "random_seed": job.random_seed,
        "iteration": job.iteration,
        "weights": job.weights,
        "votes": [[row.votes, row.vote_shares] for row in job.training_set] if settings.soft_labels else None,
        "versions": versions(),
    }
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]
    return join(settings.checkpoint_uri or _temporary_place(), key)


def versions() -> dict[str, str]:
    """The versions of the packages that take part in a training."""
    packages = ("llm2llm", "torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "bitsandbytes")
    found = {}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def data_hash(*rows: Sequence[Example]) -> str:
    """SHA-256 of what the rows say, in their order: an id is a hash of a row's content."""
    return hashlib.sha256(json.dumps([[row.id for row in some] for some in rows]).encode()).hexdigest()


def _content(student: str) -> Any:
    """A student by what is in it, where it is a folder: its path differs from retry to retry."""
    if is_remote(student):
        return content_of(student)
    folder = Path(student).expanduser()
    if not folder.is_dir():
        return student
    paths = sorted(path for path in folder.rglob("*") if path.is_file())

    def entry(path: Path) -> list[str]:
        with open(path, "rb") as file:
            return [path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()]

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(entry, paths))


def _temporary_place() -> str:
    place = Path(tempfile.gettempdir()) / f"llm2llm-checkpoints-{os.getuid()}"
    with suppress(FileExistsError):  # whose it is, and whether it is a folder, is looked at below
        place.mkdir(mode=0o700)
    found = place.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise UserError(
            f"{place} is not this user's own folder: remove it, or set train.checkpoint_uri to a place for checkpoints"
        )
    for training in place.iterdir():
        with suppress(OSError):
            if time.time() - max(path.stat().st_mtime for path in [training, *training.iterdir()]) > STALE_DAYS * 86400:
                shutil.rmtree(training)
    return str(place)


def checkpoint_bytes(model: Any, trains_adapter: bool) -> int:
    """How large a checkpoint is at most: what is saved of the model, and two moments of each weight that is trained."""
    weights = list(model.parameters())
    trained = sum(one.numel() * one.element_size() for one in weights if one.requires_grad)
    saved = trained if trains_adapter else sum(one.numel() * one.element_size() for one in weights)
    return int(saved + 2 * trained)


def room_for(needs: Sequence[tuple[str | os.PathLike[str], int]]) -> str:
    """What is missing where some disk has less free than is to be written onto it; empty: nothing.

    Args:
        needs: (a folder, or one that will be made, how many bytes go there).
    """
    by_disk: dict[int, tuple[Path, int]] = {}
    for where, size in needs:
        folder = Path(where).absolute()
        folder = next(one for one in (folder, *folder.parents) if one.exists())
        disk = folder.stat().st_dev
        by_disk[disk] = (by_disk.get(disk, (folder, 0))[0], by_disk.get(disk, (folder, 0))[1] + size)
    for folder, size in by_disk.values():
        if size > (free := shutil.disk_usage(folder).free):
            return f"{size / 2**20:,.1f} MiB are needed on the disk of {folder}, and {free / 2**20:,.1f} are free"
    return ""


def remove_checkpoints(uri: str) -> None:
    """Removes a training's checkpoints. Where that fails it is said."""
    try:
        delete_folder(uri)
    except UserError as problem:
        print(f"train: the checkpoints could not be removed: {problem}", flush=True)


class Checkpoints:
    """The checkpoints of one training: finds the newest whole one, and stores new ones in a thread.

    Args:
        uri: From `checkpoints_uri`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.stored = 0
        self.failed = 0
        """How many could not be written or stored."""
        self._lock = threading.Lock()
        self._waiting: tuple[Path, int] | None = None
        self._thread: threading.Thread | None = None

    def newest(self, folder: Path) -> Path | None:
        """Where on this machine the newest whole checkpoint is, one on a server in `folder`; None when there is none.

        Damaged ones are passed over, and said.

        Raises:
            UserError: The place cannot be read.
        """
        for step in self._steps():
            remote = is_remote(self.uri)
            target = folder / f"checkpoint-{step}" if remote else Path(self._of(step))
            try:
                if remote:
                    download_folder(self._of(step), target)
                else:
                    check_folder(target)
            except UserError as problem:
                if not isinstance(problem, NotThere):
                    self._steps()  # raises where it is the place that cannot be read
                print(f"train: the checkpoint of step {step} is passed over: {problem}", flush=True)
                continue
            print(f"train: goes on from the checkpoint of step {step}", flush=True)
            return target
        return None

    def store(self, folder: Path, step: int) -> None:
        """Stores a checkpoint from the local folder, and then removes that, both in a thread.

        While one is under way the next one waits; a newer one takes its place.
        """
        with self._lock:
            if self._waiting is not None:
                shutil.rmtree(self._waiting[0], ignore_errors=True)
            self._waiting = (folder, step)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="checkpoints")
                self._thread.start()

    def make_room(self) -> None:
        """Before another checkpoint is written: leaves one at most on this machine's disks.

        One that still waits to be stored is dropped, as the new one would take its place. A local place keeps the
        newest.
        """
        with self._lock:
            if self._waiting is not None:
                shutil.rmtree(self._waiting[0], ignore_errors=True)
            self._waiting = None
        if is_remote(self.uri):
            return
        self.wait()
        with suppress(UserError):  # what cannot be removed, the writing of the next one says
            for older in self._steps()[1:]:
                delete_folder(self._of(older))

    @contextmanager
    def tolerated(self, step: int) -> Iterator[None]:
        """Says and counts a failure to write to the local disk, in place of raising it."""
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, SafetensorError) as problem:
            self.say_failed(step, problem)
        except RuntimeError as problem:
            if not _WRITING.search(str(problem)):
                raise
            self.say_failed(step, problem)

    def say_failed(self, step: int, problem: Exception) -> None:
        """Says that a step's checkpoint could not be kept, and why."""
        self.failed += 1
        reason = str(problem).split("\n", 1)[0]
        print(f"train: no checkpoint of step {step}; the training goes on: {reason}", flush=True)

    def wait(self) -> None:
        """Until all that were handed to `store` are stored."""
        while (thread := self._thread) is not None:
            thread.join()

    def close(self, seconds: float | None = 20.0) -> None:
        """Lets the one that is being stored end, for so long at most (None: however long), and drops one that waits."""
        with self._lock:
            if self._waiting is not None:
                shutil.rmtree(self._waiting[0], ignore_errors=True)
            self._waiting = None
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._waiting is None:
                    self._thread = None
                    return
                (folder, step), self._waiting = self._waiting, None
            try:
                upload_folder(folder, self._of(step), move=True)
                self.stored += 1
                for older in self._steps()[KEEP:]:
                    delete_folder(self._of(older))
            except Exception as problem:
                self.say_failed(step, problem)
            shutil.rmtree(folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        """The steps of the checkpoints that have a manifest, newest first."""
        found = (uri.rsplit("/", 2) for uri in list_uris(self.uri) if uri.endswith("/" + MANIFEST))
        return sorted((int(match[1]) for _, name, _ in found if (match := _STEP.fullmatch(name))), reverse=True)

    def _of(self, step: int) -> str:
        return join(self.uri, f"step-{step:08d}")
