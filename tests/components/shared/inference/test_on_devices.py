"""Answers of several processes on one machine are those of one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference import on_devices
from llm2llm.components.shared.inference.on_devices import ask_on_devices
from llm2llm.components.shared.inference.predict import predict, predict_share
from llm2llm.components.shared.inference.questions import StudentQuestion
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.tasks import Task

TWO: list[list[StudentQuestion]] = [
    [StudentQuestion("test", Example(id=one, question="", answer=""), [1, 2], limit=2)] for one in "ab"
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [{"batch_size": 3, "samples": 2, "hardness": True, "temperature": 2.0}, {"batch_size": 5, "mode": "score"}],
    ids=["samples and hardness", "score"],
)
def test_any_number_of_processes_gives_the_same(
    rows: list[Example],
    colours: Task,
    taught_student: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # as many threads add up in the same order
    splits: dict[Any, list[Example]] = {"seeds": rows[:8], "validation": rows[8:14], "test": rows[14:20]}
    settings = AnswerSettings(**values)
    alone = predict(taught_student, splits, 0, None, colours, settings)
    capfd.readouterr()
    several, figures = predict_share(taught_student, splits, 0, None, colours, settings.model_copy(update={"gpus": 2}))
    assert several == alone
    assert {"import_seconds", "load_seconds", "rows_per_second"} <= figures.keys()
    said = capfd.readouterr().out
    assert "evaluate, process 1 of 2: " in said
    assert "evaluate, process 2 of 2: " in said


@pytest.mark.slow
def test_a_student_that_cannot_be_loaded_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(UserError, match="its tokenizer cannot be loaded"):
        ask_on_devices(tmp_path, TWO, AnswerSettings(gpus=2))


def test_a_process_that_fails_fails_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_devices, "MODULE", "a_module_that_is_not_there")
    with pytest.raises(RuntimeError, match=r"process [12] of 2 ended with code 1; its own messages are above"):
        ask_on_devices(tmp_path, TWO, AnswerSettings(gpus=2))


def test_each_process_gets_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8f5a")
    seen: list[Any] = []

    def ran(commands: Any, environments: Any) -> list[int]:
        seen.extend(one["CUDA_VISIBLE_DEVICES"] for one in environments)
        return [1] * len(commands)

    monkeypatch.setattr(on_devices, "run_children", ran)
    with pytest.raises(RuntimeError, match="process 1 of 2"):
        ask_on_devices(tmp_path, TWO, AnswerSettings(gpus=2))
    assert seen == ["3", "GPU-8f5a"]
    with pytest.raises(UserError, match=r"evaluate\.gpus: 3 GPUs are asked for, and 2 can be seen here"):
        ask_on_devices(tmp_path, TWO, AnswerSettings(gpus=3))
