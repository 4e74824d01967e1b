"""Terminals of any encoding, and standard output that takes nothing: output, or one message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "llm2llm.pipelines"]


def call(*arguments: str, output: str | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **environment}
    if output is None:
        return subprocess.run([*COMMAND, *arguments], capture_output=True, env=environment)
    with open(output, "wb") as stream:
        return subprocess.run([*COMMAND, *arguments], stdout=stream, stderr=subprocess.PIPE, env=environment)


@pytest.mark.parametrize("encoding", ["latin-1", "iso8859-9", "utf-8"])
def test_any_terminal_shows_any_row(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "ışık.yaml").write_text("ışık → 光: 1\n", encoding="utf-8")
    done = call("plan", str(tmp_path / "ışık.yaml"), PYTHONIOENCODING=encoding, LC_ALL="tr_TR.UTF-8")
    said = done.stderr.decode(encoding)
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert ("光" in said) == (encoding == "utf-8")
    assert ("\\u5149" in said) == (encoding != "utf-8")


def test_a_full_output_is_one_message() -> None:
    for arguments in (["config", "quickstart"], ["--help"]):
        done = call(*arguments, output="/dev/full")
        assert (done.returncode, done.stderr.decode()) == (
            2, "error: cannot write to standard output: No space left on device\n"
        )  # fmt: skip


def test_a_stage_says_its_events_in_any_encoding(tmp_path: Path) -> None:
    """What `llm2llm run` reads of a stage is JSON, also where the terminal lacks the characters of a message."""
    (tmp_path / "seeds.jsonl").write_text('{"question": "a", "answer": "😀"}\n', encoding="utf-8")
    source = str(tmp_path / "seeds.jsonl")
    settings = f"{{task: {{name: t, form: classification, labels: [a, b]}}, data: {{seeds: {source}}}}}"
    output = str(tmp_path / "out")
    done = call("stage", "prepare", "--settings", settings, "--output", output, PYTHONIOENCODING="latin-1")
    said = done.stdout.decode("latin-1").splitlines()
    events = [json.loads(line.removeprefix("@llm2llm ")) for line in said if line.startswith("@llm2llm ")]
    assert done.returncode == 2, done.stderr
    assert "😀" in events[-1]["user_error"]
    assert "\\U0001f600" in done.stderr.decode("latin-1")
