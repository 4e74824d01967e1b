"""Two processes on a CPU (gloo) train as one does; what ends one of them comes through."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.parquet import write_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training import torchrun as launch
from llm2llm.components.shared.training.job_folder import TrainingJob, read_result, take_model, write_job
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.torchrun import train_on_devices
from llm2llm.components.shared.training.training_log import TrainingLog

pytestmark = [pytest.mark.slow, pytest.mark.skipif(torch.cuda.is_available(), reason="processes on a CPU")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def trained(
    folder: Path, rows: list[Example], task: Task, student: Path, settings: FineTuneSettings
) -> tuple[TrainingLog, dict[str, torch.Tensor]]:
    folder.mkdir()
    log = train_on_devices(TrainingJob(rows, task, str(student), settings, 0), folder)
    assert not (folder / ".job").exists()
    return log, weights(folder)


VARIANTS = {
    "full": {"batch_size": 4, "gradient_accumulation": 2},
    "last batch is short": {"batch_size": 3, "gradient_accumulation": 6},
    "packed, weighted": {"batch_size": 2, "packing": True, "class_weights": "balanced"},
    "lora": {"method": "lora", "lora_dropout": 0.0, "learning_rate": 1e-2, "batch_size": 4},
    "hft, every token": {"method": "hft", "loss_on": "all", "batch_size": 4},
    "lora, fsdp": {
        "method": "lora",
        "lora_dropout": 0.0,
        "learning_rate": 1e-2,
        "batch_size": 4,
        "sharding": "fsdp",
    },
    "lora, merged, fsdp": {
        "method": "lora",
        "lora_dropout": 0.0,
        "learning_rate": 1e-2,
        "batch_size": 4,
        "sharding": "fsdp",
        "merge": True,
        "record_losses": True,
    },
    "fsdp": {"sharding": "fsdp", "batch_size": 4, "gradient_accumulation": 2, "record_losses": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_have_the_loss_curve_of_one(
    variant: str, tmp_path: Path, rows: list[Example], colours: Task, tiny_student: Path, quick: FineTuneSettings
) -> None:
    settings = quick.model_copy(update={"epochs": 3.0, "gpus": 1, **VARIANTS[variant]})
    uneven = rows[:23]
    one, one_weights = trained(tmp_path / "one", uneven, colours, tiny_student, settings)
    two, two_weights = trained(tmp_path / "two", uneven, colours, tiny_student, settings.model_copy(update={"gpus": 2}))
    assert (one.devices, two.devices) == (1, 2)
    assert (one.steps, one.tokens, one.rows) == (two.steps, two.tokens, two.rows)
    assert [step for step, _ in one.loss_curve] == [step for step, _ in two.loss_curve]
    for (step, loss), (_, other) in zip(one.loss_curve, two.loss_curve, strict=True):
        assert other == pytest.approx(loss, abs=1e-4), f"step {step}"
    assert one_weights.keys() == two_weights.keys()
    for name, tensor in one_weights.items():
        assert torch.allclose(tensor, two_weights[name], atol=1e-3), name
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}
    for path in (tmp_path / "one").glob("*config.json"):
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes(), path.name
    ours = json.loads((tmp_path / "one" / "training.json").read_text())
    theirs = json.loads((tmp_path / "two" / "training.json").read_text())
    assert ours["data_sha256"] == theirs["data_sha256"]


def test_a_users_mistake_comes_through_with_its_message(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings
) -> None:
    settings = quick.model_copy(update={"gpus": 2, "max_length": 16})
    long = [dataclasses.replace(row, question=row.question * 20) for row in rows]
    with pytest.raises(UserError, match="every row has more than 16 tokens"):
        train_on_devices(TrainingJob(long, colours, "scratch", settings, 0), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_student_that_is_not_there(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings
) -> None:
    settings = quick.model_copy(update={"gpus": 2})
    with pytest.raises(UserError, match="student /no/such: no such folder"):
        train_on_devices(TrainingJob(rows, colours, "/no/such", settings, 0), tmp_path)


@pytest.mark.s3
def test_a_job_on_a_server(
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    quick: FineTuneSettings,
    s3_server: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the pods of a TrainJob do it: the student goes there with the job, and comes back with the model."""
    s3_server.use(monkeypatch)
    uri = f"s3://{s3_server.bucket()}/job"
    moved = tmp_path / "student"
    shutil.copytree(tiny_student, moved)
    settings = quick.model_copy(update={"max_steps": 2, "checkpoint_minutes": 0.0})
    write_job(uri, TrainingJob(rows, colours, str(moved), settings, 0, iteration=3))
    shutil.rmtree(moved)
    assert launch._run_workers(2, uri)
    result = read_result(uri)
    assert isinstance(result, TrainingLog)
    assert (result.devices, result.steps) == (2, 2)
    output = tmp_path / "model"
    output.mkdir()
    take_model(uri, output)
    assert weights(output).keys() == weights(tiny_student).keys()
    log = json.loads((output / "training.json").read_text())
    assert log["iteration"] == 3
    assert {"data_sha256", "versions", "loss_curve", "random_seed"} <= log.keys()


STAGE = """
import sys
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.train.component import train
train.python_func(training_set=LocalArtifact(sys.argv[1]), settings={settings!r},
                  model=LocalArtifact(sys.argv[2] + "/model"), metrics=LocalArtifact(sys.argv[2] + "/metrics"))
"""


def stage(folder: Path, rows: list[Example], task: Task, epochs: int, settings: dict[str, object]) -> list[str]:
    """The command of a stage `train` on some rows."""
    write_rows(folder / "rows", "examples", rows)
    (folder / "out").mkdir(exist_ok=True)
    sections = {
        "task": task.model_dump(mode="json"),
        "student": "scratch",
        "train": {"epochs": epochs, "learning_rate": 1e-3, **settings},
    }
    text = STAGE.format(settings=settings_text(sections))
    return [sys.executable, "-c", text, str(folder / "rows"), str(folder / "out")]


def workers(parent: int) -> list[int]:
    """The processes that a process has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(pid) for pid in listed.split() if Path(f"/proc/{pid}/cmdline").read_text().find("worker") > 0]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, None), (signal.SIGKILL, -9)])
def test_a_signal_ends_all_processes_and_leaves_nothing(
    number: signal.Signals,
    code: int | None,
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    quick: FineTuneSettings,
) -> None:
    settings = {"gpus": 2, "batch_size": 4, "max_length": 64, "scratch": quick.scratch.model_dump()}
    process = subprocess.Popen(
        stage(tmp_path, rows, colours, 100_000, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("train: ") and "steps/s" in line:
            break
    assert said[-1].startswith("train: "), "".join(said)
    started = workers(process.pid)
    assert len(started) == 2
    process.send_signal(number)
    said += process.stdout.readlines() if number != signal.SIGKILL else []
    process.wait(30)
    if code is None:
        assert process.returncode not in (0, 2), "".join(said)
        assert said[-1] == "KeyboardInterrupt\n"
    else:
        assert process.returncode == code, "".join(said)
    assert "[rank" not in "".join(said), "no traceback of a worker"
    until = time.monotonic() + 10
    while any(map(alive, started)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, started)), "no worker outlives its stage"
    if number != signal.SIGKILL:
        assert list((tmp_path / "out").iterdir()) == []


def test_sharded_weights_that_cannot_be_written_end_the_training_and_leave_nobody_waiting(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings
) -> None:
    settings = {"gpus": 2, "batch_size": 4, "sharding": "fsdp", "checkpoint_steps": 1, "max_length": 64,
                "checkpoint_uri": str(tmp_path / "place"), "scratch": quick.scratch.model_dump()}  # fmt: skip
    done = subprocess.run(
        stage(tmp_path, rows, colours, 1000, settings),
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr.strip().splitlines()[-1]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_a_users_mistake_as_with_one_process(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings
) -> None:
    """Output and temporary files on a disk of 200 KB, as root can mount: it has room for the rows, not the student."""
    large = quick.scratch.model_copy(update={"hidden_size": 128})
    settings = {"gpus": 2, "batch_size": 4, "max_length": 64, "scratch": large.model_dump()}
    command = stage(tmp_path, rows, colours, 1, settings)
    out = tmp_path / "out"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(out)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        there = {**os.environ, "TMPDIR": str(out)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=there)
        left = [path.name for path in out.iterdir() if "model" in path.name or "train" in path.name]
    finally:
        subprocess.run(["umount", str(out)], check=True)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: train: no room for the student, the disk is full: "), done.stderr
    assert f"MiB are needed on the disk of {out}/" in last
    assert left == []


def test_the_stage_says_a_users_mistake_in_one_line(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings
) -> None:
    settings = {"gpus": 2, "batch_size": 3, "scratch": quick.scratch.model_dump()}
    done = subprocess.run(
        stage(tmp_path, rows, colours, 1, settings), capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: train.batch_size 3 * train.gradient_accumulation 1")
    assert "Traceback" not in done.stderr


def _late_in_the_folder_of_all() -> bool:
    from llm2llm.components.shared.training.checkpoint_callbacks import shared_folder
    from llm2llm.components.shared.training.devices import this_process

    here = this_process()
    with shared_folder() as folder:
        if not here.is_main_process:
            time.sleep(1)  # the others have long left the block
        there = folder.is_dir()
    here.destroy_process_group()
    return there and not folder.exists()


def test_the_folder_that_processes_share_is_there_until_the_last_has_left_it() -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    with launch._environment(), launch._signals_restored():
        assert elastic_launch(config, _late_in_the_folder_of_all)() == {0: True, 1: True}
