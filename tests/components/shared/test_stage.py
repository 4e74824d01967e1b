"""`stage_lifecycle` and `running_stage`: events for the local run, one line for a user's mistake."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import EXIT_USER_ERROR
from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.artifacts import LocalArtifact, write_artifact
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.lineage.embedded import content_hash
from llm2llm.components.shared.lineage.records import record_of
from llm2llm.components.shared.stage import EVENT, running_stage, stage_lifecycle
from tests.support.builders import artifacts, example


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix(EVENT)) for line in text.splitlines() if line.startswith(EVENT)]


def test_says_that_it_starts_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with stage_lifecycle("train", iteration=2, fold=1, outputs={"model": LocalArtifact("outputs/model")}):
        print("training")
    started, finished = events(capsys.readouterr().out)
    assert started == {"event": "started", "stage": "train", "iteration": 2, "fold": 1}
    assert finished.pop("seconds") >= 0
    assert finished == {
        "event": "finished",
        "stage": "train",
        "iteration": 2,
        "fold": 1,
        "outputs": {"model": "outputs/model"},
        "sha256": {"model": None},
    }


def test_a_shard_is_named_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    with stage_lifecycle("predict", iteration=0, shard=2):
        pass
    said = events(capsys.readouterr().out)
    assert [(one["fold"], one["shard"]) for one in said] == [(None, 2), (None, 2)]


def test_a_users_mistake_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, stage_lifecycle("prepare"):
        raise UserError("seeds.jsonl:3: column 'answer' is empty")
    assert caught.value.code == EXIT_USER_ERROR == 2
    printed = capsys.readouterr()
    assert printed.err == "error: seeds.jsonl:3: column 'answer' is empty\n"
    failed = events(printed.out)[-1]
    assert failed["event"] == "failed"
    assert failed["user_error"] == "seeds.jsonl:3: column 'answer' is empty"


def test_in_a_process_there_is_no_traceback() -> None:
    code = (
        "from llm2llm.components.shared.stage import stage_lifecycle\n"
        "from llm2llm.components.shared.base.errors import UserError\n"
        "with stage_lifecycle('prepare'):\n"
        "    try:\n"
        "        1 / 0\n"
        "    except ZeroDivisionError:\n"
        "        raise UserError('wrong')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: wrong\n")


def test_another_exception_goes_on_and_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), stage_lifecycle("train", iteration=0):
        raise ZeroDivisionError("by zero")
    failed = events(capsys.readouterr().out)[-1]
    assert failed == {"event": "failed", "stage": "train", "iteration": 0, "fold": None,
                      "error": "ZeroDivisionError: by zero"}  # fmt: skip


def test_an_event_is_one_line_whatever_the_message() -> None:
    message = 'two\nlines, "quotes", Ключ, a broken name \udcff'
    code = (
        "from llm2llm.components.shared.stage import stage_lifecycle\n"
        "from llm2llm.components.shared.base.errors import UserError\n"
        f"with stage_lifecycle('prepare'):\n    raise UserError({message!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert events(done.stdout)[-1]["user_error"] == message
    assert done.stderr == 'error: two\nlines, "quotes", Ключ, a broken name \\udcff\n'


def test_sigterm_ends_a_stage_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = (
        "import time\n"
        "from llm2llm.components.shared.stage import stage_lifecycle\n"
        "from llm2llm.components.shared.base.atomic import atomic_file\n"
        f"with stage_lifecycle('train', iteration=1), atomic_file({str(tmp_path / 'model')!r}) as partial:\n"
        "    partial.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    while "writing" not in (line := running.stdout.readline()):
        assert line, "it ended before it was told to"
    running.terminate()
    rest = running.communicate(timeout=30)[0]
    assert running.returncode == 143
    assert events(rest)[-1]["error"] == "terminated"
    assert list(tmp_path.iterdir()) == []


class CopyStage(StageSettings):
    """What the stage of these tests is handed."""

    wanted: int = Field(2, ge=1)
    file: str = ""

    def named_sources(self) -> dict[str, str]:
        return {"extra": self.file} if self.file else {}


def copy(
    training_set: LocalArtifact,
    settings: str,
    model: LocalArtifact,
    metrics: LocalArtifact,
    previous_model: LocalArtifact | None = None,
    iteration: int = 0,
) -> None:
    """A component as they all are, with the outputs of `train`: leaves the first rows of its input."""
    given = locals()
    with running_stage("train", given, CopyStage) as stage:
        write_artifact(model, "examples", read_rows(training_set.path, "examples", Example)[: stage.wanted])
        Path(metrics.path).write_text("{}")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    given: dict[str, Any] = artifacts(tmp_path, "training_set", "model", "metrics")
    write_artifact(given["training_set"], "examples", [example(f"question {i}") for i in range(3)])
    return given


class TestRunningStage:
    def test_says_what_the_component_was_called_with(
        self, inputs: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy(settings=settings_text({"wanted": 1}), iteration=2, **inputs)
        started, finished = events(capsys.readouterr().out)
        assert started == {"event": "started", "stage": "train", "iteration": 2, "fold": None}
        assert finished["outputs"] == {name: inputs[name].path for name in ("model", "metrics")}
        assert finished["sha256"]["model"] == content_hash(inputs["model"].path)

    def test_records_inputs_and_outputs_but_no_settings(self, inputs: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "extra.jsonl").write_text("{}")
        copy(settings=settings_text({"file": str(tmp_path / "extra.jsonl")}), **inputs)
        found = record_of(inputs["model"])
        assert found is not None
        assert (found["stage"], found["iteration"], found["shard"], found["output"]) == ("train", 0, None, "model")
        assert found["outputs"].keys() == {"model"}
        assert found["inputs"].keys() == {"training_set", "extra"}, "an input that was not given is no input"
        assert found["inputs"]["training_set"] == {"sha256": content_hash(inputs["training_set"].path)}
        assert found["inputs"]["extra"]["source"] == "extra.jsonl", "what the settings name is an input, with its hash"
        assert found["inputs"]["extra"]["sha256"] == content_hash(tmp_path / "extra.jsonl")

    def test_a_later_stage_names_the_maker_of_its_input(self, inputs: dict[str, Any], tmp_path: Path) -> None:
        copy(settings="", **inputs)
        later = {**artifacts(tmp_path / "later", "model", "metrics"), "training_set": inputs["training_set"]}
        (tmp_path / "later").mkdir()
        copy(settings="", previous_model=inputs["model"], iteration=1, **later)
        found = record_of(later["model"])
        assert found is not None
        made_by = {"made_by": "train 0", "output": "model", "sha256": content_hash(inputs["model"].path)}
        assert found["inputs"]["previous_model"] == made_by
        assert found["makers"].keys() == {"train 0"}

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ('{"wanted": 0}', "wanted"),
            ('{"wantde": 1}', "did you mean 'wanted'"),
            ('{"wanted": 1, "wanted": 2}', "the key 'wanted' stands twice"),
            ("{", "settings: not JSON"),
            ("[]", "expected a JSON object"),
        ],
    )
    def test_wrong_settings_are_a_users_mistake_and_leave_nothing(
        self, inputs: dict[str, Any], capsys: pytest.CaptureFixture[str], settings: str, words: str
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            copy(settings=settings, **inputs)
        assert ended.value.code == EXIT_USER_ERROR
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1
        assert words in printed.err
        assert [one["event"] for one in events(printed.out)] == ["started", "failed"]
        assert not Path(inputs["model"].path).exists()

    def test_a_damaged_input_ends_it_before_its_body_runs(
        self, inputs: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy(settings="", **inputs)
        damaged = inputs["model"]
        write_artifact(damaged, "examples", [example("another")])
        later = {**artifacts(tmp_path, "metrics"), "model": LocalArtifact(str(tmp_path / "second"))}
        with pytest.raises(SystemExit):
            copy(damaged, settings="", **later)
        assert "is not what" in capsys.readouterr().err
        assert not (tmp_path / "second").exists()
