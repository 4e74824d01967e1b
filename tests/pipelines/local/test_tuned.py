"""A run that tries settings first: the loop trains with the chosen ones, under this process and as a pipeline."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import Runner, run_local
from tests.support.small_run import events, finished

GRID = (
    "max_iterations=1",
    "train.learning_rate=2e-5",
    "train.epochs=1",
    "tune.learning_rate=[1.0e-7, 0.003]",
)


def run(config: Path, output: Path, *overrides: str, runner: Runner = "process") -> dict[str, Any]:
    return run_local(load_config(str(config), (*GRID, *overrides), resolve=True), output, runner)


@pytest.mark.slow
def test_every_training_of_the_loop_has_the_chosen_settings(small_config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = run(small_config, output, "filter_errors.selection=out_of_fold", "filter_errors.folds=2", "tune.folds=2")
    tuning = summary["tuning"]
    chosen = tuning["chosen"]["learning_rate"]
    assert [one["settings"] for one in tuning["trials"]] == [{"learning_rate": 1e-7}, {"learning_rate": 0.003}]
    assert (tuning["split"], tuning["folds"], [one["n"] for one in tuning["trials"]]) == ("seeds", 2, [24, 24])
    best = max(tuning["trials"], key=lambda one: one["accuracy"]["value"])
    assert best["settings"]["learning_rate"] == chosen
    for iteration in (0, 1):
        model = finished(output)["train", iteration]["model"]
        assert json.loads((model / "training.json").read_text())["settings"]["learning_rate"] == chosen
    for stage in ("train-0", "out_of_fold-0-0", "controls-1", "controls-0"):
        done = output / "artifacts" / stage / "done.json"
        if done.is_file():
            handed = json.loads(json.loads(done.read_text())["inputs"]["settings"])
            assert handed["train"]["learning_rate"] == chosen, stage
    assert "Settings that were tried" in (output / "report.html").read_text()
    before = len(events(output))
    assert (
        run(small_config, output, "filter_errors.selection=out_of_fold", "filter_errors.folds=2", "tune.folds=2")[
            "tuning"
        ]
        == tuning
    )
    assert len(events(output)) == before, "nothing is tried again"


@pytest.mark.slow
def test_the_compiled_pipeline_does_the_same_on_kfps_local_runner(small_config: Path, tmp_path: Path) -> None:
    by_process = run(small_config, tmp_path / "process")
    by_kfp = run(small_config, tmp_path / "kfp", runner="subprocess")
    assert by_kfp["tuning"] == by_process["tuning"]
    trained = [
        json.loads((finished(tmp_path / name)["train", 0]["model"] / "training.json").read_text())["settings"]
        for name in ("process", "kfp")
    ]
    assert [one["learning_rate"] for one in trained] == [by_process["tuning"]["chosen"]["learning_rate"]] * 2


def test_kfps_local_runner_refuses_tuned_folds(small_config: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use --runner process"):
        run(small_config, tmp_path / "out", "filter_errors.selection=out_of_fold", runner="subprocess")
    assert not (tmp_path / "out").exists()
