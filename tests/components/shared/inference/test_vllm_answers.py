"""vLLM's engine answers as transformers does: the same prompts, the same greedy answers, the same likelihoods."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.inference.predict import predict_share
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.inference.vllm_answers import ask_vllm
from llm2llm.components.shared.models.vllm import PYTHON_VARIABLE, vllm_is_here
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.training.settings import FineTuneSettings
from tests.support.vllm_server import vllm_environment, vllm_python

MEASURED = ("loss", "label_probability", "margin", "el2n", "confidence")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, vllm_python())
    for name, value in vllm_environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def unsure_student(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Example], colours: Task, quick: FineTuneSettings
) -> Path:
    """A student that has learnt the colours in part: it is wrong often, and its probabilities are far from 0 and 1.

    Its heads are 32 wide, the least that vLLM's CPU build takes.
    """
    from llm2llm.components.shared.training.fine_tune import fine_tune

    folder = tmp_path_factory.mktemp("unsure") / "student"
    folder.mkdir()
    wide = quick.scratch.model_copy(update={"hidden_size": 64})
    settings = quick.model_copy(update={"epochs": 6.0, "learning_rate": 2e-3, "scratch": wide})
    fine_tune(rows, colours, "scratch", settings, 0, folder)
    return folder


@pytest.fixture(scope="session")
def adapter_student(
    tmp_path_factory: pytest.TempPathFactory,
    other_rows: list[Example],
    colours: Task,
    unsure_student: Path,
    quick_lora: FineTuneSettings,
) -> Path:
    """An adapter that turns what its base has learnt into something else: who leaves it out is found out."""
    from llm2llm.components.shared.training.fine_tune import fine_tune

    folder = tmp_path_factory.mktemp("adapter") / "student"
    folder.mkdir()
    fine_tune(other_rows, colours, str(unsure_student), quick_lora, 0, folder)
    assert (folder / "adapter_config.json").is_file()
    return folder


def many(rows: list[Example], example: Callable[..., Example]) -> list[Example]:
    """72 rows of other lengths than the 24."""
    endings = ["", " today", " as it was, and as it will be"]
    return [example(row.question + ending, row.answer) for row in rows for ending in endings]


def assert_same(ours: list[Prediction], theirs: list[Prediction]) -> None:
    """Equal, but for the last digits of what was measured."""
    for one, other in zip(ours, theirs, strict=True):
        for name in MEASURED:
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=2e-4), (one.example_id, name)
    blank: dict[str, Any] = dict.fromkeys(MEASURED)
    assert [replace(p, **blank) for p in ours] == [replace(p, **blank) for p in theirs]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("name", ["unsure_student", "adapter_student"])
def test_both_backends_give_the_same_answers_in_fp32(
    name: str, request: pytest.FixtureRequest, rows: list[Example], colours: Task, example: Callable[..., Example]
) -> None:
    student: Path = request.getfixturevalue(name)
    asked = many(rows, example)
    splits: Any = {"seeds": asked[:40], "test": asked[40:]}
    settings = AnswerSettings(hardness=True)
    ours, _ = predict_share(student, splits, 0, None, colours, settings)
    theirs, figures = predict_share(student, splits, 0, None, colours, settings.model_copy(update={"backend": "vllm"}))
    assert len({p.completion for p in ours}) > 1, "something to differ in"
    assert_same(ours, theirs)
    assert all(figures[key] > 0 for key in ("import_seconds", "load_seconds", "first_token_seconds", "rows_per_second"))


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
def test_both_backends_score_alike_and_samples_depend_on_the_row(
    unsure_student: Path, rows: list[Example], colours: Task
) -> None:
    splits: Any = {"seeds": rows}
    scored = AnswerSettings(mode="score")
    ours, _ = predict_share(unsure_student, splits, 0, None, colours, scored)
    theirs, _ = predict_share(unsure_student, splits, 0, None, colours, scored.model_copy(update={"backend": "vllm"}))
    assert_same(ours, theirs)

    drawn = AnswerSettings(backend="vllm", samples=6, temperature=2.0)
    whole, _ = predict_share(unsure_student, splits, 0, None, colours, drawn)
    part, _ = predict_share(unsure_student, {"seeds": rows[10:][::-1]}, 0, None, colours, drawn)
    by_id = {p.example_id: p for p in whole}
    assert part == [by_id[p.example_id] for p in part]
    assert {p.samples for p in whole} == {6}
    assert any(0 < p.samples_correct < 6 for p in whole), "something is drawn"


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
def test_a_student_is_held_to_the_schema(unsure_student: Path, rows: list[Example]) -> None:
    """One that has never seen JSON writes nothing but what fits, and not a blank that the task does not write."""
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green", "blue"]}, "is_nice": {"type": "boolean"}},
        "required": ["colour"],
    }
    task = Task(name="colours", form="json", answer_schema=schema, max_new_tokens=32)
    asked = [replace(row, answer=f'{{"colour": "{row.answer}"}}') for row in rows]
    held = AnswerSettings(backend="vllm")
    written, _ = predict_share(unsure_student, {"test": asked}, 0, None, task, held)
    fits = FORMS["json"].fits
    assert fits is not None
    for one in written:
        assert one.parsed is not None
        assert fits(task, one.parsed)
        assert one.completion == one.parsed
    free, _ = predict_share(
        unsure_student, {"test": asked}, 0, None, task, held.model_copy(update={"constrain": False})
    )
    assert all(one.parsed is None for one in free)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
def test_a_student_that_vllm_cannot_load_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(UserError, match=r"evaluate\.backend 'vllm': cannot load .*"):
        ask_vllm(tmp_path, [{"prompt": [1], "limit": 1, "temperature": 0.0, "seed": 0}], [], [2], 1, False)


ASK = """
import sys
from pathlib import Path
from llm2llm.components.shared.inference.vllm_answers import ask_vllm
prompts = [{"prompt": [5] * 50, "limit": 60, "temperature": 1.0, "seed": n} for n in range(20000)]
ask_vllm(Path(sys.argv[1]), prompts, [], [2], 1, False)
"""


def workers() -> list[int]:
    """The processes of the module, by their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"inference.vllm_answers" in command or b"VLLM::" in command:
            found.append(int(process.name))
    return found


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
def test_vllm_ends_when_the_stage_is_killed(unsure_student: Path, tmp_path: Path) -> None:
    before = set(workers())
    with (tmp_path / "log").open("wb") as log:
        stage = subprocess.Popen([sys.executable, "-c", ASK, str(unsure_student)], stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while not any(b"EngineCore" in cmdline(pid) for pid in set(workers()) - before):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
        assert stage.poll() is None, (tmp_path / "log").read_text()[-2000:]
        time.sleep(0.5)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    while set(workers()) - before:
        assert time.monotonic() < deadline, "vLLM goes on without the stage"
        time.sleep(0.5)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_without_vllm_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    if vllm_is_here():
        pytest.skip("this Python has vLLM")
    with pytest.raises(UserError, match=r"no vLLM in this Python; .*LLM2LLM_VLLM_PYTHON.*backend: transformers"):
        ask_vllm(tmp_path, [], [([1], [2])], [2], 1, False)


def test_without_a_gpu_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As vLLM's build for GPUs reports it; the packages of its own name say nothing more here."""
    package = tmp_path / "packages" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("class LLM: ...")
    (package / "platforms.py").write_text(
        "class current_platform:\n    is_cpu = staticmethod(bool)\n    is_unspecified = staticmethod(lambda: True)"
    )
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with pytest.raises(UserError, match=r"vLLM sees no GPU here: give the stage one \(placement\)"):
        ask_vllm(tmp_path, [], [([1], [2])], [2], 1, False)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"use_dora": true, "r": 8}', "DoRA"),
        ('{"modules_to_save": ["lm_head"], "r": 8}', "whole layers"),
        ('{"r": 8, "rank_pattern": {"q_proj": 1024}}', "rank 1024"),
        ('{"r": 8, "target_modules": ["q_proj", "lm_head"]}', "output layer"),
        ('{"r": 8, "target_modules": ".*proj"}', "output layer"),
    ],
)
def test_an_adapter_that_vllm_cannot_serve_is_refused(
    config: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(UserError, match=rf"{said}.*backend: transformers"):
        ask_vllm(tmp_path, [], [([1], [2])], [2], 1, False)


def test_every_measured_number_is_compared() -> None:
    floats = {field.name for field in fields(Prediction) if "float" in str(field.type)}
    assert floats == {*MEASURED, "base_loss", "early_loss", "judge_usd", "judge_score", "flag_probability"}
