"""A training that is killed at any step and begun again ends with the weights of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llm2llm.components.out_of_fold.out_of_fold import out_of_fold
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.storage import list_uris
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training import checkpoints as checkpoints_module
from llm2llm.components.shared.training import fine_tune as fine_tune_module
from llm2llm.components.shared.training import torchrun as launch
from llm2llm.components.shared.training.checkpoints import checkpoints_uri
from llm2llm.components.shared.training.job_folder import TrainingJob, write_job
from llm2llm.components.shared.training.scratch import build_student
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.training_log import TrainingLog
from llm2llm.components.train.train import train

pytestmark = pytest.mark.slow

KILL = """
import os, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from llm2llm.components.shared.storage import list_uris
from llm2llm.components.shared.training import fine_tune as module
from llm2llm.components.shared.training.job_folder import read_job

folder, output, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
job = read_job(folder)

class Kill(module.ShowProgress):
    def on_step_end(self, args, state, control, **others):
        if state.global_step == step:
            while not any(uri.endswith("MANIFEST.json") for uri in list_uris(job.settings.checkpoint_uri)):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

module.ShowProgress = Kill
"""

KILLED = f"""{KILL}
from llm2llm.components.train.train import train
train(job.training_set, job.task, job.student, None, job.settings, job.random_seed, output)
"""

KILLED_FOLD = f"""{KILL}
from llm2llm.components.out_of_fold.out_of_fold import out_of_fold
from llm2llm.components.shared.inference.settings import AnswerSettings
out_of_fold(job.training_set, job.task, job.student, job.settings, AnswerSettings(), 1, 3, 0, job.random_seed)
"""

VARIANTS = {
    "full": {"gradient_accumulation": 2, "record_losses": True},
    "packed": {"packing": True, "batch_size": 1, "class_weights": "balanced"},
    # Dropout and noise: the random generators go on where they were.
    "lora with dropout": {"method": "lora", "lora_dropout": 0.2, "learning_rate": 1e-2, "neftune_alpha": 5.0},
    "hft": {"method": "hft"},
}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def settings_of(quick: FineTuneSettings, place: str, **changes: object) -> FineTuneSettings:
    return quick.model_copy(update={"epochs": 4.0, "checkpoint_uri": place, "checkpoint_steps": 2, **changes})


def killed_and_begun_again(
    tmp_path: Path, rows: list[Example], task: Task, student: str, settings: FineTuneSettings
) -> tuple[TrainingLog, TrainingLog]:
    """Trains undisturbed, then again with a kill at a random step and a retry; (logs of the first and the retry)."""
    off = settings.model_copy(update={"checkpoint_steps": 0, "checkpoint_minutes": 0})
    undisturbed = train(rows, task, student, None, off, 0, tmp_path / "undisturbed")
    step = random.SystemRandom().randrange(3, undisturbed.steps)
    write_job(str(tmp_path / "job"), TrainingJob(rows, task, student, settings, 0))
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "job", tmp_path / "model", str(step)])
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    again = train(rows, task, student, None, settings, 0, tmp_path / "model")
    assert 0 < again.resumed_from_step <= step, f"killed at {step}"
    before, after = files(tmp_path / "undisturbed"), files(tmp_path / "model")
    assert before.keys() == after.keys()
    different = [name for name in before if before[name] != after[name]]
    assert different == [], f"killed at step {step}, went on from {again.resumed_from_step}"
    assert list(list_uris(settings.checkpoint_uri)) == [], "the checkpoints of a saved student are removed"
    return undisturbed, again


@pytest.mark.skipif(torch.cuda.is_available(), reason="to the last bit on a CPU only")
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_at_a_random_step(
    variant: str, tmp_path: Path, rows: list[Example], colours: Task, tiny_student: Path, quick: FineTuneSettings
) -> None:
    settings = settings_of(quick, str(tmp_path / "place"), **VARIANTS[variant])
    undisturbed, again = killed_and_begun_again(tmp_path, rows, colours, str(tiny_student), settings)
    assert again.loss_curve == undisturbed.loss_curve
    assert again.tokens == undisturbed.tokens
    assert again.share_timed < undisturbed.share_timed == 1.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="to the last bit on a CPU only")
def test_a_fold_goes_on_where_it_was_killed(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(quick, str(tmp_path / "place"))

    def fold(settings: FineTuneSettings) -> list[Prediction]:
        return out_of_fold(rows, colours, "scratch", settings, AnswerSettings(), 1, 3, 0, 0)

    undisturbed = fold(settings.model_copy(update={"checkpoint_steps": 0, "checkpoint_minutes": 0}))
    step = random.SystemRandom().randrange(3, 16)
    write_job(str(tmp_path / "job"), TrainingJob(rows, colours, "scratch", settings, 0))
    command = [sys.executable, "-c", KILLED_FOLD, tmp_path / "job", tmp_path / "none", str(step)]
    ended = subprocess.run(command, timeout=120)  # it waits for a checkpoint
    assert ended.returncode == -signal.SIGKILL
    capsys.readouterr()
    assert fold(settings) == undisturbed, f"killed at step {step}"
    assert "train: goes on from the checkpoint of step" in capsys.readouterr().out
    assert list(list_uris(settings.checkpoint_uri)) == []


@pytest.mark.s3
@pytest.mark.skipif(torch.cuda.is_available(), reason="to the last bit on a CPU only")
def test_killed_with_checkpoints_on_a_real_server(
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    quick: FineTuneSettings,
    s3_server: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3_server.use(monkeypatch)  # type: ignore[attr-defined]
    place = f"s3://{s3_server.bucket()}/checkpoints"  # type: ignore[attr-defined]
    killed_and_begun_again(tmp_path, rows, colours, "scratch", settings_of(quick, place))


def test_a_checkpoint_holds_no_code(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a resumed training loads, it loads as tensors; the Trainer's pickled arguments are not even there."""
    settings = settings_of(quick, str(tmp_path / "place"), max_steps=5)
    monkeypatch.setattr("llm2llm.components.shared.training.checkpoints.remove_checkpoints", lambda uri: None)
    train(rows, colours, "scratch", None, settings, 0, tmp_path / "model")
    names = {Path(uri).name for uri in list_uris(str(tmp_path / "place"))}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "progress.json"} <= names
    assert "training_args.bin" not in names

    loaded, load = [], torch.load

    def watched(path: object, *rest: object, **keywords: object) -> object:
        loaded.append(Path(str(path)).name)
        assert keywords.get("weights_only") is True, f"{path} is loaded as a pickle"
        return load(path, *rest, **keywords)

    monkeypatch.setattr(torch, "load", watched)
    again = train(rows, colours, "scratch", None, settings, 0, tmp_path / "again")
    assert again.resumed_from_step in (2, 4)  # the last one is dropped where the first was still being stored
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= set(loaded)
    assert files(tmp_path / "again") == files(tmp_path / "model")


def test_other_rows_or_settings_find_nothing(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(quick, str(tmp_path / "place"), max_steps=3)
    monkeypatch.setattr("llm2llm.components.shared.training.checkpoints.remove_checkpoints", lambda uri: None)
    train(rows, colours, "scratch", None, settings, 0, tmp_path / "model")
    assert list(list_uris(str(tmp_path / "place")))
    assert train(rows[1:], colours, "scratch", None, settings, 0, tmp_path / "a").resumed_from_step == 0
    assert train(rows, colours, "scratch", None, settings, 1, tmp_path / "b").resumed_from_step == 0


def test_early_losses_are_those_of_the_first_epochs_end_also_when_taken_up_there(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(quick, str(tmp_path / "place"), epochs=2.0, checkpoint_steps=6, record_losses=True)
    monkeypatch.setattr("llm2llm.components.shared.training.checkpoints.remove_checkpoints", lambda uri: None)
    whole = train(rows, colours, "scratch", None, settings, 0, tmp_path / "model")
    again = train(rows, colours, "scratch", None, settings, 0, tmp_path / "again")
    assert (whole.steps, again.resumed_from_step) == (12, 6)
    assert files(tmp_path / "again") == files(tmp_path / "model")


def test_a_full_place_does_not_stop_the_training(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(quick, "/dev/full/checkpoints", max_steps=5)
    log = train(rows, colours, "scratch", None, settings, 0, tmp_path / "model")
    assert log.steps == 5
    assert (log.checkpoints, log.checkpoints_failed > 0) == (0, True)
    assert "; the training goes on: cannot write /dev/full" in capsys.readouterr().out


def test_an_unreachable_place_is_refused_when_a_training_begins(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1",
                        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "r"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="cannot be reached"):
        train(rows, colours, "scratch", None, settings_of(quick, "s3://bucket/c"), 0, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="processes on a CPU")
@pytest.mark.parametrize(
    "changes",
    [{"method": "lora", "lora_dropout": 0.2}, {"sharding": "fsdp"}, {"method": "lora", "sharding": "fsdp"}],
    ids=["ddp", "fsdp", "lora, fsdp"],
)
def test_one_of_two_processes_is_killed(
    changes: dict[str, object],
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    quick: FineTuneSettings,
) -> None:
    from tests.components.shared.training.test_several_devices import alive, workers

    settings = settings_of(quick, str(tmp_path / "place"), gpus=2, epochs=10.0, **changes)
    off = settings.model_copy(update={"checkpoint_steps": 0, "checkpoint_minutes": 0})
    undisturbed = train(rows, colours, str(tiny_student), None, off, 0, tmp_path / "undisturbed")
    job = TrainingJob(rows, colours, str(tiny_student), settings, 0)
    write_job(str(tmp_path / "job"), job)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "job"), str(tmp_path / "model"), "-1"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    uri = checkpoints_uri(job)
    assert uri is not None
    while not any(name.endswith("MANIFEST.json") for name in list_uris(uri)):
        assert process.poll() is None
        time.sleep(0.02)
    started = workers(process.pid)
    os.kill(started[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, "no user's mistake, so a retry may help"
    assert "a process ended without a word" in said or "Connection" in said
    assert not (tmp_path / "model").exists()
    assert not any(map(alive, started))
    again = train(rows, colours, str(tiny_student), None, settings, 0, tmp_path / "model")
    assert again.resumed_from_step > 0
    assert again.loss_curve == undisturbed.loss_curve
    assert files(tmp_path / "model") == files(tmp_path / "undisturbed")


def test_out_of_memory_recomputes_then_halves_the_rows_and_goes_on_from_a_checkpoint(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than two rows at once "do not fit" from the fifth step on."""
    settings = settings_of(quick, str(tmp_path / "place"), batch_size=8, epochs=3.0)
    off = settings.model_copy(update={"checkpoint_steps": 0, "checkpoint_minutes": 0})
    undisturbed = train(rows, colours, "scratch", None, off, 0, tmp_path / "undisturbed")
    compute_loss = fine_tune_module.StudentTrainer.compute_loss

    def tight(self: object, model: object, inputs: dict[str, torch.Tensor], *rest: object, **others: object) -> object:
        if self.state.global_step >= 4 and len(inputs["input_ids"]) > 2:  # type: ignore[attr-defined]
            self._checkpoints.wait()  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return compute_loss(self, model, inputs, *rest, **others)

    monkeypatch.setattr(fine_tune_module.StudentTrainer, "compute_loss", tight)
    log = train(rows, colours, "scratch", None, settings, 0, tmp_path / "model")
    assert (log.rows_in_one_pass, log.resumed_from_step, log.steps) == (2, 4, undisturbed.steps)
    assert (undisturbed.activation_checkpointing, log.activation_checkpointing) == (False, True)
    for (step, loss), (_, other) in zip(undisturbed.loss_curve, log.loss_curve, strict=True):
        assert other == pytest.approx(loss, abs=1e-4), f"step {step}: the same rows in every step"


def test_activation_checkpointing_comes_before_fewer_rows(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What "fits" once activations are computed again keeps its rows at once, and has the same losses."""
    plain = train(rows, colours, "scratch", None, quick, 0, tmp_path / "plain")
    compute_loss = fine_tune_module.StudentTrainer.compute_loss

    def tight(self: object, model: object, inputs: dict[str, torch.Tensor], *rest: object, **others: object) -> object:
        if not model.is_gradient_checkpointing:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return compute_loss(self, model, inputs, *rest, **others)

    monkeypatch.setattr(fine_tune_module.StudentTrainer, "compute_loss", tight)
    log = train(rows, colours, "scratch", None, quick, 0, tmp_path / "model")
    assert (log.rows_in_one_pass, log.activation_checkpointing) == (plain.rows_in_one_pass, True)
    assert [loss for _, loss in log.loss_curve] == pytest.approx([loss for _, loss in plain.loss_curve], abs=1e-4)


def test_no_memory_for_one_row(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def never(self: object, model: object, inputs: dict[str, torch.Tensor], *rest: object, **others: object) -> None:
        tried.append((len(inputs["input_ids"]), model.is_gradient_checkpointing))  # type: ignore[attr-defined]
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(fine_tune_module.StudentTrainer, "compute_loss", never)
    with pytest.raises(UserError, match=r"with one row at once and activation checkpointing \(CUDA out of memory"):
        launch.train_on_devices(TrainingJob(rows, colours, "scratch", quick, 0), tmp_path)
    assert tried == [(4, False), (4, True), (2, True), (1, True)]
    assert list(tmp_path.iterdir()) == []


def test_the_disks_are_looked_at_before_a_training(
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    quick: FineTuneSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = settings_of(quick, str(tmp_path / "place"), max_steps=2, checkpoint_steps=1)
    free = [1000]
    monkeypatch.setattr(checkpoints_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[0]))
    with pytest.raises(UserError, match=r"no room for the student, the disk is full: .* MiB are needed on"):
        train(rows, colours, "scratch", None, settings, 0, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    weights = 4 * sum(one.numel() for one in load_model_of(rows, colours, settings).parameters())
    free[0] = weights + 1
    log = train(rows, colours, "scratch", None, settings, 0, tmp_path / "model")
    assert (log.steps, log.checkpoints) == (2, 0)
    assert "train: no checkpoints are kept, as there is no room for two: " in capsys.readouterr().out
    free[0] = 7 * weights  # the student, and twice its weights and two moments
    assert train(rows, colours, "scratch", None, settings, 0, tmp_path / "again").checkpoints == 1


def load_model_of(rows: list[Example], task: Task, settings: FineTuneSettings) -> torch.nn.Module:
    model: torch.nn.Module = build_student(rows, task, settings.scratch, 0)[0]
    return model
