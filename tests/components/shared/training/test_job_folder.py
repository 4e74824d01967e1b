"""A training as a folder, on a disk and on a real server."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.storage import NotThere, delete
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.job_folder import (
    Failed,
    TrainingJob,
    fetch_job,
    raise_failure,
    read_job,
    read_result,
    take_model,
    write_failure,
    write_job,
    write_result,
)
from llm2llm.components.shared.training.settings import FineTuneSettings, ScratchSettings
from llm2llm.components.shared.training.training_log import TrainingLog

LOG = TrainingLog(
    rows=3, rows_too_long=0, rows_truncated=1, rows_replayed=0, sequences=3, steps=2, tokens=90,
    loss_curve=[(1, 0.5), (2, 0.25)], devices=2, rows_in_one_pass=4, seconds=1.5, gpus=["NVIDIA L4"] * 2,
)  # fmt: skip


@pytest.fixture
def uri(place: str) -> str:
    """The URI of a job that is not there yet."""
    return f"{place}/job"


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_job_comes_back_as_it_was(
    uri: str, student: Path, tmp_path: Path, example: Callable[..., Example], colours: Task
) -> None:
    rows = [example(f"question {i} \u00e9", "red", skills=["s"], confidence=0.5) for i in range(3)]
    settings = FineTuneSettings(epochs=2, batch_size=4, gpus=2, scratch=ScratchSettings(context=64))
    given = TrainingJob(rows, colours, str(student), settings, 7, rows[:1], rows[1:2], 3, "s3://b/c", 2)
    write_job(uri, given)
    job = read_job(fetch_job(uri, tmp_path / "here"))
    assert dataclasses.replace(job, student=str(student)) == given
    assert (Path(job.student) / "config.json").read_text() == "{}"
    assert read_result(uri) is None


def test_a_job_without_seeds_or_replay(
    uri: str, tmp_path: Path, example: Callable[..., Example], colours: Task
) -> None:
    write_job(uri, TrainingJob([example("q", "red")], colours, "org/name", FineTuneSettings(), 0, replay=[]))
    job = read_job(fetch_job(uri, tmp_path / "here"))
    assert (job.seeds, job.replay, job.student) == (None, [], "org/name")


def test_the_student_and_what_was_measured_come_back(uri: str, student: Path, tmp_path: Path) -> None:
    (student / "deeper").mkdir()
    (student / "deeper" / "file").write_text("x")
    write_result(uri, student, LOG)
    assert read_result(uri) == LOG
    output = tmp_path / "output"
    output.mkdir()
    take_model(uri, output)
    assert (output / "deeper" / "file").read_text() == "x"
    assert (output / "config.json").is_file()


def test_the_first_failure_counts(uri: str, example: Callable[..., Example], colours: Task) -> None:
    write_failure(uri, "user_error", "train.gpus: no")
    write_failure(uri, "error", "connection closed by peer")
    assert read_result(uri) == Failed("user_error", "train.gpus: no")
    write_job(uri, TrainingJob([example("q", "red")], colours, "scratch", FineTuneSettings(), 0))
    assert read_result(uri) is None, "written anew, a job has not ended"


def test_a_job_that_is_not_there_or_half_there(
    uri: str, tmp_path: Path, example: Callable[..., Example], colours: Task
) -> None:
    with pytest.raises(NotThere):
        read_job(fetch_job(uri, tmp_path / "here"))
    write_job(uri, TrainingJob([example("q", "red")], colours, "scratch", FineTuneSettings(), 0))
    delete(f"{uri}/input/job.json")
    with pytest.raises(UserError):
        read_job(fetch_job(uri, tmp_path / "again"))


@pytest.mark.parametrize(
    ("kind", "error"), [("user_error", UserError), ("out_of_memory", MemoryError), ("error", RuntimeError)]
)
def test_failures_are_raised_as_what_they_are(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^why$"):
        raise_failure(Failed(kind, "why"))
