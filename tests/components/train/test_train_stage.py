"""The stage `train`: what it leaves, and what it says of itself."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.throughput import check_loggers, loss_curve
from llm2llm.components.train.component import train
from tests.support.builders import outputs_of, rows_artifact


@pytest.mark.slow
def test_the_stage_mixes_general_rows_in_and_measures(
    tmp_path: Path, rows: list[Example], other_rows: list[Example], small_training: dict[str, Any]
) -> None:
    outputs = outputs_of("train", tmp_path)
    train.python_func(
        training_set=rows_artifact(tmp_path, "training_set", "examples", rows),
        replay_set=rows_artifact(tmp_path, "replay_set", "examples", other_rows),
        settings=settings_text(small_training),
        iteration=2,
        **outputs,
    )
    assert outputs["model"].metadata["kind"] == "model"
    shown = outputs["metrics"].metadata
    assert (shown["training_rows"], shown["rows_replayed"], shown["steps"]) == (36, 12, 9)
    assert shown["tokens_per_second"] > 0
    assert shown["peak_memory_mib"] > 100
    assert (shown["devices"], shown["resumed_from_step"], shown["checkpoints_failed"]) == (1, 0, 0)
    log = json.loads((tmp_path / "model" / "training.json").read_text())
    assert log["iteration"] == 2
    assert log["settings"]["learning_rate"] == 1e-3
    assert len(log["data_sha256"]) == 64
    assert {"torch", "transformers", "llm2llm"} <= log["versions"].keys()
    assert not {"seconds", "peak_memory", "checkpoints"} & log.keys(), "equal trainings leave equal folders"
    assert "checkpoint_uri" not in log["settings"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"train": {"start_from": "previous"}},
            "error: train.start_from: 'previous' needs a pipeline that was compiled",
        ),
        (
            {"train": {"validation_loss": True}},
            "error: train.validation_loss: true needs a pipeline that was compiled with it",
        ),
        ({"train": {"epoch": 1}}, "error: settings.train.epoch: unknown key; did you mean 'epochs'?"),
        ({"student": ""}, "error: settings.student: String should have at least 1 character (got '')"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_loaded(
    tmp_path: Path, rows: list[Example], colours: Task, capsys: pytest.CaptureFixture[str], changed: Any, said: str
) -> None:
    settings = {"task": colours.model_dump(mode="json"), "student": "nowhere/to/be/found", **changed}
    with pytest.raises(SystemExit) as caught:
        train.python_func(
            training_set=rows_artifact(tmp_path, "training_set", "examples", rows),
            settings=settings_text(settings),
            iteration=1,
            **outputs_of("train", tmp_path / "out"),
        )
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(said)
    assert not (tmp_path / "out").exists()


def test_a_logger_that_could_not_log_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"train.report_to: 'wandb' needs the package wandb, which is not installed"):
        check_loggers(FineTuneSettings(report_to=["wandb"]))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    with pytest.raises(UserError, match="set the environment variable TENSORBOARD_LOGGING_DIR"):
        check_loggers(FineTuneSettings(report_to=["tensorboard"]))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "/logs")
    check_loggers(FineTuneSettings(report_to=["tensorboard", "mlflow"]))
    check_loggers(FineTuneSettings())


def test_a_loss_curve_has_about_a_hundred_points_and_every_loss_in_it() -> None:
    class State:
        max_steps = 1050
        log_history = [{"step": step, "loss": float(step)} for step in range(1, 1051)] + [{"train_runtime": 1.0}]

    curve = loss_curve(State)
    assert len(curve) == 105
    assert curve[0] == (10, 5.5)
    assert curve[-1] == (1050, 1045.5)


def test_fsdp_shares_out_no_4_bit_base() -> None:
    with pytest.raises(UserError, match="sharding: 'fsdp' does not share out a base in 4 bits"):
        FineTuneSettings.load({"method": "qlora", "sharding": "fsdp"}, "train")
