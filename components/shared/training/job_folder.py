"""A training job as a folder: inputs and outputs of worker processes, on this machine or on other nodes.

    JOB/input/      job.json (task, student, settings, seeds of chance), training_set.parquet, and where there are such
                    seeds, replay and validation.parquet, student/ (a student in a folder, where the job goes to a
                    server)
    JOB/model/      the student: safetensors, tokenizer, training.json
    JOB/result.json what was measured; or why there is no model
    JOB/followed    of a job on several nodes: when the stage that waits for it was last there
    JOB/abandoned   last heartbeat, written when workers give up

A job is local or `s3://`. Input and model are folders that a reader sees whole or not at all.
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NoReturn

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.parquet import read_rows, write_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.storage import (
    NotThere,
    create_bytes,
    delete,
    download_folder,
    is_remote,
    join,
    read_bytes,
    upload_folder,
    write_bytes,
)
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.training_log import TrainingLog, read_log

INPUT, MODEL, RESULT, FOLLOWED, ABANDONED = "input", "model", "result.json", "followed", "abandoned"
DESCRIPTION, STUDENT = "job.json", "student"
ROWS = ("training_set", "seeds", "replay", "validation")

Failure = Literal["user_error", "out_of_memory", "error"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Token ids of a question, its right completion and a wrong one."""

    id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """The arguments of `fine_tune`, but for where to save."""

    training_set: list[Example]
    task: Task
    student: str
    settings: FineTuneSettings
    random_seed: int
    seeds: list[Example] | None = None
    replay: list[Example] | None = None
    iteration: int = 0
    checkpoints: str | None = None
    rows_in_one_pass: int | None = None
    recompute: bool = False
    validation: list[Example] | None = None
    weights: dict[str, float] | None = None
    pairs: list[Pair] | None = None
    """Of a preference step, which is trained in the place of `training_set`; the student is then one that `fine_tune`
    saved."""
    distils: bool = False
    """Whether it is the distillation after such a step."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no model."""

    kind: Failure
    message: str


def write_job(uri: str, job: TrainingJob) -> None:
    """Stores a job, in place of one that was there.

    Args:
        uri: A folder of the job's own, local or `s3://`.
        job: A student in a local folder is copied into a job that goes to a server.

    Raises:
        UserError: It cannot be stored.
    """
    with TemporaryDirectory(prefix="llm2llm-job-") as scratch:
        folder = Path(scratch)
        for name in ROWS:
            if (rows := getattr(job, name)) is not None:
                write_rows(folder / f"{name}.parquet", "examples", rows)
        student, local = job.student, Path(job.student).expanduser()
        copied = is_remote(uri) and local.is_dir()
        if copied:
            shutil.copytree(local, folder / STUDENT)
        elif local.is_dir():
            student = str(local.resolve())
        description = {
            "task": job.task.model_dump(mode="json"),
            "student": STUDENT if copied else student,
            "student_is_inside": copied,
            "settings": job.settings.model_dump(mode="json"),
            "random_seed": job.random_seed,
            "iteration": job.iteration,
            "checkpoints": job.checkpoints,
            "rows_in_one_pass": job.rows_in_one_pass,
            "recompute": job.recompute,
            "weights": job.weights,
            "distils": job.distils,
            "pairs": None if job.pairs is None else [dataclasses.asdict(pair) for pair in job.pairs],
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        delete(join(uri, RESULT))
        upload_folder(folder, join(uri, INPUT))


def fetch_job(uri: str, folder: Path) -> Path:
    """Where on this machine a job's input is: in the folder of a local job, or in `folder`, into which a remote one is
    downloaded.

    Raises:
        NotThere: There is no job.
        UserError: It cannot be read.
    """
    if not is_remote(uri):
        return Path(uri)
    download_folder(join(uri, INPUT), folder / INPUT)
    return folder


def read_job(folder: Path) -> TrainingJob:
    """The job in a folder that `fetch_job` gave. Its student may lie in there: keep the folder for as long.

    Raises:
        NotThere: There is no job.
        UserError: It cannot be read.
    """
    place = folder / INPUT
    if not (place / DESCRIPTION).is_file():
        raise NotThere(f"{folder}: there is no training job: check the name")
    values = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))

    def rows(name: str) -> list[Example] | None:
        path = place / f"{name}.parquet"
        return read_rows(path, "examples", Example) if path.is_file() else None

    training_set = rows("training_set")
    assert training_set is not None, f"{folder}: a job has a training set"
    return TrainingJob(
        training_set=training_set,
        task=Task.load(values["task"], "task"),
        student=str(place / STUDENT) if values["student_is_inside"] else values["student"],
        settings=FineTuneSettings.load(values["settings"], "train"),
        random_seed=values["random_seed"],
        seeds=rows("seeds"),
        replay=rows("replay"),
        iteration=values["iteration"],
        checkpoints=values["checkpoints"],
        rows_in_one_pass=values["rows_in_one_pass"],
        recompute=values["recompute"],
        validation=rows("validation"),
        weights=values["weights"],
        distils=values["distils"],
        pairs=None if values["pairs"] is None else [Pair(**pair) for pair in values["pairs"]],
    )


def run_job(job: TrainingJob, output: Path) -> TrainingLog:
    """`fine_tune` with a job's arguments, or `prefer` where it has pairs, `distil` where it says so."""
    if job.pairs is not None:
        from llm2llm.components.shared.training.preference import prefer

        return prefer(job, output)
    if job.distils:
        from llm2llm.components.shared.training.distill import distil

        return distil(job, output)
    from llm2llm.components.shared.training.fine_tune import fine_tune

    return fine_tune(
        job.training_set,
        job.task,
        job.student,
        job.settings,
        job.random_seed,
        output,
        seeds=job.seeds,
        replay=job.replay,
        iteration=job.iteration,
        checkpoints=job.checkpoints,
        rows_in_one_pass=job.rows_in_one_pass,
        recompute=job.recompute,
        validation=job.validation,
        weights=job.weights,
    )


def write_result(uri: str, model: Path, log: TrainingLog) -> None:
    """Stores the student and what `fine_tune` returned; with its result a job has ended.

    Args:
        uri: The job.
        model: The student's folder on this machine. A local job takes it away from there.
        log: What was measured.

    Raises:
        UserError: It cannot be stored.
    """
    if is_remote(uri):
        upload_folder(model, join(uri, MODEL))
    else:
        with atomic_folder(Path(uri) / MODEL) as partial:
            for path in sorted(model.iterdir()):
                shutil.move(path, partial / path.name)
    write_bytes(join(uri, RESULT), json.dumps({"log": dataclasses.asdict(log)}).encode())


def write_failure(uri: str, kind: Failure, message: str) -> None:
    """Stores why there is no model. The first to say so counts: the others fail because that process is gone."""
    create_bytes(join(uri, RESULT), json.dumps({"failed": kind, "message": message}).encode())


def read_result(uri: str) -> TrainingLog | Failed | None:
    """What was measured in a job that has ended well, why it failed, or None while it has not ended."""
    found = _read(join(uri, RESULT))
    if found is None:
        return None
    values = json.loads(found)
    return Failed(values["failed"], values["message"]) if "failed" in values else read_log(values["log"])


def say_followed(uri: str) -> None:
    """Tells the workers of a job that somebody waits for its student.

    Raises:
        UserError: It cannot be stored.
    """
    write_bytes(join(uri, FOLLOWED), datetime.now(UTC).isoformat().encode())


def last_followed(uri: str) -> bytes | None:
    """What `say_followed` said last; None if it never did.

    Raises:
        UserError: It cannot be read.
    """
    return _read(join(uri, FOLLOWED))


def abandon(uri: str, followed: bytes) -> None:
    """Stores that nobody has followed since `followed`: a worker that is started again then ends at once.

    Raises:
        UserError: It cannot be stored.
    """
    write_bytes(join(uri, ABANDONED), followed)


def is_abandoned(uri: str) -> bool:
    """Whether a job was abandoned, and nobody has followed it since.

    Raises:
        UserError: It cannot be read.
    """
    abandoned = _read(join(uri, ABANDONED))
    return abandoned is not None and abandoned == last_followed(uri)


def _read(uri: str) -> bytes | None:
    try:
        return read_bytes(uri)
    except NotThere:
        return None


def take_model(uri: str, output: Path) -> None:
    """Puts a job's student into the empty folder `output`.

    Raises:
        UserError: It is not there, damaged, or cannot be written.
    """
    if not is_remote(uri):
        for path in sorted((Path(uri) / MODEL).iterdir()):
            shutil.move(path, output / path.name)
        return
    with TemporaryDirectory(prefix=".model-", dir=output.parent) as beside:
        download_folder(join(uri, MODEL), Path(beside) / MODEL)
        for path in sorted((Path(beside) / MODEL).iterdir()):
            shutil.move(path, output / path.name)


def raise_failure(failed: Failed) -> NoReturn:
    """Raises in this process what ended a job in another.

    Raises:
        UserError: What the user can mend.
        MemoryError: No memory left on a device.
        RuntimeError: All else.
    """
    if failed.kind == "user_error":
        raise UserError(failed.message)
    if failed.kind == "out_of_memory":
        raise MemoryError(failed.message)
    raise RuntimeError(failed.message)
