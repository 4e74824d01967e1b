"""Terminals of any encoding, and standard output that takes nothing: output, or one message."""

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
