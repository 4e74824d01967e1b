"""How a run on this machine ended is told once: for each ending, and when it is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry.notify_settings import NotifySettings
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.ending import Ending, ending_told
from llm2llm.pipelines.local.run import run_local
from tests.support.webhook import URL, Webhook

TOLD = "notify.kind=webhook"


def test_without_an_address_nothing_is_run(small_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)
    config = load_config(str(small_config), [TOLD], resolve=True)
    with pytest.raises(UserError, match=rf"notify.url_env: the environment variable {URL} is not set"):
        run_local(config, tmp_path / "out", "process")
    assert not (tmp_path / "out").exists()


def test_an_ending_is_told_once_by_whoever_finds_it_out_first(hook: Webhook, tmp_path: Path) -> None:
    ending = Ending(NotifySettings(kind="webhook"), "colours", "run-7", tmp_path)
    ending.tell("terminated", "by signal 15", in_haste=True)
    with pytest.raises(KeyboardInterrupt), ending_told(ending):
        raise KeyboardInterrupt
    assert [one["reason"] for one in hook.received] == ["by signal 15"]
    again = Ending(NotifySettings(kind="webhook"), "colours", "run-7", tmp_path)
    again.tell("succeeded", "")
    Ending(NotifySettings(kind="webhook"), "colours", "run-7", tmp_path).tell("succeeded", "")
    assert [one["outcome"] for one in hook.received] == ["terminated", "succeeded"]


def test_a_failed_run_is_told_once_with_the_reason(hook: Webhook, small_config: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a pink ball", "colour": "pink"}\n', encoding="utf-8")
    config = load_config(str(small_config), [TOLD, f"data.validation={bad}"], resolve=True)
    with pytest.raises(UserError):
        run_local(config, tmp_path / "out", "process")
    (one,) = hook.received
    assert one["outcome"] == "failed"
    assert "pink" in one["reason"]
    assert all(hook.url not in path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*.*")
               if path.is_file())  # fmt: skip


@pytest.mark.slow
def test_a_good_run_and_one_without_news_are_told_once_each(hook: Webhook, small_config: Path, tmp_path: Path) -> None:
    given = [TOLD, "max_iterations=1", f"promote.registry={tmp_path / 'registry'}", "promote.mode=promote",
             "promote.only_if_new=true"]  # fmt: skip
    config = load_config(str(small_config), given, resolve=True)
    for name in ("monday", "monday", "tuesday", "tuesday"):  # a finished run that is started again is not told again
        run_local(config, tmp_path / name, "process")
    assert [one["outcome"] for one in hook.received] == ["succeeded", "nothing_new"]
    assert set(hook.received[0]["accuracy"]) == {"seeds", "validation", "test"}


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["subprocess", "process"])
def test_a_terminated_run_is_told_once(hook: Webhook, small_config: Path, tmp_path: Path, runner: str) -> None:
    command = [sys.executable, "-m", "llm2llm.pipelines", "run", str(small_config), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--runner", runner, "--set", TOLD],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "prepare" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 143, rest
    assert [one["outcome"] for one in hook.received] == ["terminated"]
    assert "s3cret" not in rest
