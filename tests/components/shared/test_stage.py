"""`stage_lifecycle`: events for the local run, one line for a user's mistake."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import EXIT_USER_ERROR
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.stage import EVENT, stage_lifecycle


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
    with stage_lifecycle("answer", iteration=0, shard=2):
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
