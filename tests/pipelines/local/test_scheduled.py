"""A scheduled run: it enters the registry, ends early when nothing is new, and trains again when there is."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import Runner, run_local
from tests.support.small_run import events

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("runner", ["process", "subprocess"])
def test_with_nothing_new_a_run_ends_early_and_green(small_config: Path, tmp_path: Path, runner: Runner) -> None:
    config = load_config(str(small_config), resolve=True)

    def run(name: str, *overrides: str) -> dict[str, Any]:
        given = (
            "max_iterations=1",
            f"promote.registry={tmp_path / 'registry'}",
            "promote.mode=promote",
            "promote.only_if_new=true",
            *overrides,
        )
        return run_local(load_config(str(small_config), given, resolve=True), tmp_path / name, runner)

    first = run("monday")
    assert first["promotion"]["outcome"] == "promoted"
    assert run("tuesday")["nothing_new"].startswith("nothing new since ")
    assert {event["stage"] for event in events(tmp_path / "tuesday")} == {"configure", "prepare", "detect_changes"}

    rows = Path(config.data.seeds).read_text(encoding="utf-8").splitlines()
    new = {**json.loads(rows[0]), "text": "A new text that nobody has seen: a green frog."}
    grown = tmp_path / "grown.jsonl"
    grown.write_text("\n".join([*rows, json.dumps(new)]) + "\n", encoding="utf-8")
    third = run("wednesday", f"data.seeds={grown}")
    assert third["rows"]["seeds"] == first["rows"]["seeds"] + 1
    assert third["promotion"]["outcome"] in ("promoted", "kept")
    assert third["promotion"]["incumbent"]["version"], "it was held against Monday's"
