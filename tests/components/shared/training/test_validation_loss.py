"""The loss on validation is measured at the ends of the epochs, and changes nothing."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.likelihood import losses
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.models.student_folder import validation_losses
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.checkpoint_callbacks import SaveCheckpoints
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.torchrun import train_on_devices
from llm2llm.components.shared.training.training_log import TrainingLog
from llm2llm.components.train.train import figures

pytestmark = pytest.mark.slow


@pytest.fixture
def short(quick: FineTuneSettings) -> FineTuneSettings:
    return quick.model_copy(update={"epochs": 2.0, "validation_loss": True})


def fine_tuned(
    folder: Path, rows: list[Example], task: Task, student: Path, settings: FineTuneSettings, **more: Any
) -> TrainingLog:
    folder.mkdir()
    return fine_tune(rows, task, str(student), settings, 0, folder, **more)


def test_it_is_that_of_the_student_after_each_epoch_and_no_weight_changes(
    tmp_path: Path, rows: list[Example], colours: Task, tiny_student: Path, short: FineTuneSettings
) -> None:
    train, held_out = rows[:16], rows[16:]
    steady = short.model_copy(update={"scheduler": "constant", "warmup": 0.0})
    log = fine_tuned(tmp_path / "with", train, colours, tiny_student, steady, validation=held_out)
    assert [step for step, _ in log.validation_losses] == [4, 8]
    for epochs, (_, loss) in enumerate(log.validation_losses, 1):
        plain = steady.model_copy(update={"epochs": float(epochs), "validation_loss": False})
        folder = tmp_path / f"after {epochs}"
        assert fine_tuned(folder, train, colours, tiny_student, plain, validation=held_out).validation_losses == []
        found = losses(load_model(folder), load_tokenizer(folder), held_out, colours, 4)
        assert loss == pytest.approx(sum(found) / len(found), abs=1e-4)
    assert (tmp_path / "with/model.safetensors").read_bytes() == (tmp_path / "after 2/model.safetensors").read_bytes()
    assert validation_losses(tmp_path / "with") == [loss for _, loss in log.validation_losses]
    assert json.loads((tmp_path / "with/training.json").read_text())["loss_curve"]
    shown = figures(log)
    assert shown["last_validation_loss"] == log.validation_losses[-1][1]
    assert shown["lowest_validation_loss"] == min(loss for _, loss in log.validation_losses)


def test_a_training_that_ends_within_an_epoch_is_measured_at_its_end_and_long_rows_are_left_out(
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    short: FineTuneSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = dataclasses.replace(rows[0], id="long", question="red " * 80)
    settings = short.model_copy(update={"max_steps": 9})
    log = fine_tuned(tmp_path / "student", rows, colours, tiny_student, settings, validation=[*rows[:3], long])
    assert [step for step, _ in log.validation_losses] == [6, 9]
    assert "1 of 4 validation rows have more than 64 tokens" in capsys.readouterr().out


def test_two_processes_measure_what_one_does(
    tmp_path: Path, rows: list[Example], colours: Task, tiny_student: Path, short: FineTuneSettings
) -> None:
    """Each a part of the rows."""
    found = []
    for gpus in (1, 2):
        folder = tmp_path / str(gpus)
        folder.mkdir()
        settings = short.model_copy(update={"gpus": gpus})
        job = TrainingJob(rows, colours, str(tiny_student), settings, 0, validation=rows[:7])
        found.append(train_on_devices(job, folder).validation_losses)
    assert [step for step, _ in found[0]] == [step for step, _ in found[1]] == [6, 12]
    for (_, one), (_, other) in zip(*found, strict=True):
        assert other == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize("cut_off_after", [6, 8])
def test_a_resumed_training_has_every_epochs_loss(
    cut_off_after: int,
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    short: FineTuneSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut off right after the checkpoint of an epoch's last step, before its loss is measured, and within an epoch."""
    settings = short.model_copy(update={"epochs": 3.0, "checkpoint_steps": cut_off_after})
    whole = fine_tuned(tmp_path / "whole", rows, colours, tiny_student, settings, validation=rows[:5])
    asked: dict[str, Any] = {"validation": rows[:5], "checkpoints": str(tmp_path / "checkpoints")}
    stored = SaveCheckpoints.on_save

    def cut_off(self: SaveCheckpoints, *args: Any, **more: Any) -> None:
        stored(self, *args, **more)
        self._checkpoints.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(SaveCheckpoints, "on_save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(tmp_path / "cut off", rows, colours, tiny_student, settings, **asked)
    monkeypatch.undo()
    again = fine_tuned(tmp_path / "again", rows, colours, tiny_student, settings, **asked)
    assert again.resumed_from_step == cut_off_after
    assert again.validation_losses == whole.validation_losses
    assert all(one < other for (one, _), (other, _) in itertools.pairwise(again.validation_losses))
