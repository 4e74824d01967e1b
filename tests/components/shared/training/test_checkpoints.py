"""Checkpoints are whole or absent, few, found by what decides the weights, and never in the way of the training."""

import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.storage import join, list_uris, read_manifest
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training import checkpoints as module
from llm2llm.components.shared.training.checkpoints import Checkpoints, checkpoints_uri, remove_checkpoints, room_for
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "local":
        return str(tmp_path / "place" / "key")
    server = request.getfixturevalue("s3_server")
    server.use(monkeypatch)
    return f"s3://{server.bucket()}/place/key"


def written(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_text(f"weights of {step}" * 100)
    (checkpoint / "trainer_state.json").write_text("{}")
    return checkpoint


def stored(uri: str, folder: Path, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(uri)
    for step in steps:
        checkpoints.store(written(folder, step), step)
        checkpoints.wait()
    return checkpoints


def test_the_two_newest_stay_and_the_newest_is_found(uri: str, tmp_path: Path) -> None:
    checkpoints = stored(uri, tmp_path, 5, 10, 100, 20)
    assert (checkpoints.stored, checkpoints.failed) == (4, 0)
    assert list(tmp_path.glob("checkpoint-*")) == [], "what is stored is gone from the local disk"
    assert {one.rsplit("/", 2)[1] for one in list_uris(uri)} == {"step-00000020", "step-00000100"}
    found = Checkpoints(uri).newest(tmp_path / "found")
    local = Path(uri) / "step-00000100"
    assert found == (tmp_path / "found" / "checkpoint-100" if uri.startswith("s3://") else local), "read in its place"
    assert (found / "weights").read_text() == "weights of 100" * 100
    remove_checkpoints(uri)
    assert list(list_uris(uri)) == []
    assert Checkpoints(uri).newest(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["truncated", "missing", "no manifest", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_and_named(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "key")
    stored(uri, tmp_path, 1, 2)
    newest = tmp_path / "key" / "step-00000002"
    if damage == "truncated":
        os.truncate(newest / "weights", 10)
    elif damage == "missing":
        (newest / "weights").unlink()
    elif damage == "manifest":
        (newest / "MANIFEST.json").write_text("{")
    else:
        (newest / "MANIFEST.json").unlink()
    found = Checkpoints(uri).newest(tmp_path / "found")
    assert found is not None
    assert found == tmp_path / "key" / "step-00000001"
    said = capsys.readouterr().out
    assert "goes on from the checkpoint of step 1" in said
    assert ("step 2 is passed over" in said) == (damage != "no manifest"), "a half one was never there"


def held_upload(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """(begun, go_on): an upload sets the one and waits for the other."""
    begun, go_on = threading.Event(), threading.Event()
    upload = module.upload_folder

    def slow(folder: Path, uri: str, move: bool) -> object:
        begun.set()
        assert go_on.wait(10)
        return upload(folder, uri, move=move)

    monkeypatch.setattr(module, "upload_folder", slow)
    return begun, go_on


def test_one_waits_while_one_is_stored_and_a_newer_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = held_upload(monkeypatch)
    checkpoints = Checkpoints(str(tmp_path / "key"))
    checkpoints.store(written(tmp_path, 1), 1)
    assert begun.wait(10)
    checkpoints.store(written(tmp_path, 2), 2)
    checkpoints.store(written(tmp_path, 3), 3)
    assert not (tmp_path / "key" / "step-00000001").exists(), "the training does not wait"
    assert not (tmp_path / "checkpoint-2").exists()
    go_on.set()
    checkpoints.wait()
    assert sorted(path.name for path in (tmp_path / "key").iterdir()) == ["step-00000001", "step-00000003"]


def test_a_place_on_the_same_disk_takes_a_checkpoint_by_renaming(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, 1)
    of_file = (checkpoint / "weights").stat().st_ino
    checkpoints = Checkpoints(str(tmp_path / "key"))
    checkpoints.store(checkpoint, 1)
    checkpoints.wait()
    assert (tmp_path / "key" / "step-00000001" / "weights").stat().st_ino == of_file
    assert not checkpoint.exists()


def test_two_checkpoints_at_most_are_on_a_disk(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third is never begun while two are there: of those on this machine the newest stays, none waits."""
    checkpoints = stored(uri, tmp_path, 1, 2)
    checkpoints.make_room()
    remote = uri.startswith("s3://")
    left = {one.rsplit("/", 2)[1] for one in list_uris(uri)}
    assert left == ({"step-00000001", "step-00000002"} if remote else {"step-00000002"}), "a server has room"
    begun, go_on = held_upload(monkeypatch)
    checkpoints.store(written(tmp_path, 3), 3)
    assert begun.wait(10)
    checkpoints.store(written(tmp_path, 4), 4)
    threading.Timer(0.1, go_on.set).start()
    checkpoints.make_room()
    assert not (tmp_path / "checkpoint-4").exists(), "the next one takes its place"
    checkpoints.wait()


def test_room_is_counted_by_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(4 << 30, 1 << 30, 3 << 30))
    there, later = tmp_path / "there", tmp_path / "not" / "yet"
    there.mkdir()
    assert room_for([(there, 1 << 30), (later, 2 << 30)]) == ""
    said = room_for([(there, 1 << 30), (later, (2 << 30) + 1)])
    assert said == f"3,072.0 MiB are needed on the disk of {there}, and 3,072.0 are free"


def test_closing_drops_the_one_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = held_upload(monkeypatch)
    checkpoints = Checkpoints(str(tmp_path / "key"))
    checkpoints.store(written(tmp_path, 1), 1)
    assert begun.wait(10)
    checkpoints.store(written(tmp_path, 2), 2)
    threading.Timer(0.2, go_on.set).start()
    checkpoints.close()
    assert [path.name for path in (tmp_path / "key").iterdir()] == ["step-00000001"]
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_place_that_cannot_be_written_is_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    checkpoints = stored(str(tmp_path / "file" / "key"), tmp_path, 1)
    assert (checkpoints.stored, checkpoints.failed) == (0, 1)
    assert "no checkpoint of step 1; the training goes on: " in capsys.readouterr().out
    with checkpoints.tolerated(2):
        raise OSError(28, "No space left on device")
    with checkpoints.tolerated(2):
        torch.save({"weights": torch.zeros(1 << 16)}, "/dev/full")
    assert checkpoints.failed == 3
    with pytest.raises(RuntimeError, match="CUDA out of memory"), checkpoints.tolerated(3):
        raise RuntimeError("CUDA out of memory. Tried to allocate")


def test_a_server_that_cannot_be_reached_is_said_and_counted_and_refused_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1",
                        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "r"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    checkpoints = stored("s3://bucket/key", tmp_path, 1)
    assert checkpoints.failed == 1
    assert "cannot be reached" in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot be reached"):
        checkpoints.newest(tmp_path / "found")


def test_the_place_follows_what_decides_the_weights(
    tmp_path: Path, example: Callable[..., Example], colours: Task
) -> None:
    rows = [example("one", "red"), example("two", "blue")]
    settings = FineTuneSettings(checkpoint_uri=str(tmp_path), checkpoint_steps=5)
    student = tmp_path / "student"
    student.mkdir()
    (student / "model.safetensors").write_text("weights")

    def place(**changes: object) -> str | None:
        job = TrainingJob(rows, colours, str(student), settings, random_seed=0)
        return checkpoints_uri(dataclasses.replace(job, **changes))

    first = place()
    assert first is not None
    assert first.startswith(str(tmp_path) + "/")
    assert place() == first
    moved = tmp_path / "moved"
    student.rename(moved)
    assert place(student=str(moved)) == first, "a retry finds the previous student at another path"
    moved.rename(student)
    # How often, and what is logged where, changes no weight.
    same = settings.model_copy(update={"checkpoint_steps": 7, "checkpoint_minutes": 1.0, "report_to": ["mlflow"]})
    assert place(settings=same) == first
    others = [
        place(training_set=rows[::-1]),
        place(training_set=rows[:1]),
        place(task=colours.model_copy(update={"instruction": "Say it."})),
        place(student="scratch"),
        place(settings=settings.model_copy(update={"learning_rate": 1e-3})),
        place(random_seed=1),
        place(seeds=rows),
        place(replay=rows),
        place(iteration=1),
    ]
    (student / "model.safetensors").write_text("others")
    others.append(place())
    assert len({first, *others}) == 1 + len(others)
    off = settings.model_copy(update={"checkpoint_steps": 0, "checkpoint_minutes": 0})
    assert place(settings=off) is None


def test_without_a_uri_the_place_is_the_users_own(
    tmp_path: Path, example: Callable[..., Example], colours: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    settings = FineTuneSettings(checkpoint_steps=5)
    own = tmp_path / f"llm2llm-checkpoints-{os.getuid()}"
    for key, days in (("old", module.STALE_DAYS + 1), ("young", 1)):
        (own / key / "step-00000001").mkdir(parents=True)
        then = time.time() - days * 86400
        for path in (own / key / "step-00000001", own / key):
            os.utime(path, (then, then))
    own.chmod(0o700)
    job = TrainingJob([example("one", "red")], colours, "scratch", settings, random_seed=0)
    uri = checkpoints_uri(job)
    assert uri is not None
    assert Path(uri).parent == own
    assert [path.name for path in own.iterdir()] == ["young"], "what no retry took up for a week is removed"
    own.chmod(0o777)
    with pytest.raises(UserError, match="not this user's own folder"):
        checkpoints_uri(job)
    shutil.rmtree(own)
    own.write_text("a file")
    with pytest.raises(UserError, match="not this user's own folder"):
        checkpoints_uri(job)


def test_what_is_stored_lists_its_files(uri: str, tmp_path: Path) -> None:
    stored(uri, tmp_path, 1)
    assert set(read_manifest(join(uri, "step-00000001"))) == {"trainer_state.json", "weights"}
