"""What a process knows of the run that it is part of."""

import os
import subprocess
import sys

import pytest

from llm2llm.components.shared.base.process import PARENT_VARIABLE, beside_others


def test_knows_whether_it_runs_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    assert not beside_others()
    monkeypatch.setenv(PARENT_VARIABLE, str(os.getpid()))
    assert beside_others()


def test_ends_when_the_run_that_started_it_is_gone() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = (
        "import time\nfrom llm2llm.components.shared.base.process import end_with_parent\n"
        "end_with_parent()\ntime.sleep(60)\n"
    )
    environment = {**os.environ, PARENT_VARIABLE: str(gone.pid)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=30, check=False, capture_output=True)
    assert done.returncode == 143
