"""Servers of our own on the loopback, and the command line as a process would run it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from llm2llm.pipelines.cli import main as cli
from llm2llm.pipelines.cli.cluster import COMMANDS
from llm2llm.pipelines.config import Config
from llm2llm.pipelines.kubeflow import client as cluster
from llm2llm.pipelines.kubeflow import follow, schedule, submit
from llm2llm.pipelines.kubeflow.compile import Checked, compile_checked
from tests.support.kfp_server import KfpServer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kfp_server() -> Iterator[KfpServer]:
    """A Kubeflow Pipelines server with one experiment, `Default`; at no request may two schedules be enabled."""
    server = KfpServer().start()
    server.experiments["e0"] = {"experiment_id": "e0", "display_name": "Default"}
    yield server
    server.stop()
    assert server.broken == []


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token, context or host of whoever runs the tests; pauses are short."""
    for name in (
        cluster.TOKEN_VARIABLE,
        cluster.HOST_VARIABLE,
        cluster.UI_VARIABLE,
        "KUBERNETES_SERVICE_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    monkeypatch.setenv(cluster.TOKEN_PATH_VARIABLE, str(tmp_path / "no-token"))
    from kfp.client import Client

    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(cluster, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(submit, "compile_checked", _compiled_once)
    # Whether the wait for a quiet minute is right is tested with a clock of its own.
    monkeypatch.setattr(schedule, "seconds_until_quiet", lambda crons, now: 0.0)


_COMPILED: dict[str, tuple[Checked, str]] = {}


def _compiled_once(config: Config, output: Path) -> Checked:
    """`compile_checked`, whose output is the same each time; it takes a second."""
    key = config.model_dump_json()
    if key not in _COMPILED:
        _COMPILED[key] = compile_checked(config, output), output.read_text()
    checked, text = _COMPILED[key]
    output.write_text(text)
    return checked


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line: (exit code, standard output, standard error)."""
    for command in COMMANDS:
        assert isinstance(command, click.Command)
        if command.name not in cli.cli.commands:
            cli.cli.add_command(command)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments])
        sys.stdout.flush()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return call
