"""The examples for CI systems: every command in them is one that there is, with flags that it takes."""

import re
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from llm2llm.pipelines.cli import main as cli

EXAMPLES = sorted((Path(str(resources.files("llm2llm.pipelines"))) / "ci").glob("*.yaml"))


def scripts(value: Any) -> list[str]:
    """The command lines of all jobs."""
    found: list[str] = []
    for job in (value.get("jobs") or value).values():
        if isinstance(job, dict):
            found += [step["run"] for step in job.get("steps", []) if "run" in step]
            found += job.get("script", [])
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_command_of_an_example_parses(example: Path) -> None:
    lines = scripts(yaml.safe_load(example.read_text()))
    ours = [shlex.split(line)[1:] for line in lines if line.startswith("llm2llm ")]
    assert [words[0] for words in ours] == ["preflight", "plan", "submit", "submit", "schedule"]
    for words in ours:
        command: click.Command = cli.cli
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        assert command.make_context(str(command.name), words).params["config"] == "llm2llm.yaml"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_no_example_has_a_secret_on_a_command_line(example: Path) -> None:
    for line in scripts(yaml.safe_load(example.read_text())):
        assert not re.search(r"secrets\.|\$\{?KFP_TOKEN\b", line)


def test_there_is_an_example_for_each() -> None:
    assert [path.stem for path in EXAMPLES] == ["github-actions", "gitlab-ci"]
