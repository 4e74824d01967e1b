"""A run on this machine is one run of a tracking server, with the student that it leaves."""

from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import run_local
from tests.support.mlflow_server import MlflowServer, tracking

__all__ = ["tracking"]

ASKED = ("max_iterations=1", "report.mlflow_experiment=colours")


@pytest.mark.slow
def test_a_run_is_logged_once_with_report_and_student(
    small_config: Path, tmp_path: Path, tracking: MlflowServer
) -> None:
    config = load_config(str(small_config), ASKED, resolve=True)
    summary = run_local(config, tmp_path / "out", "process")
    (run,) = tracking.runs.values()
    assert run["info"]["status"] == "FINISHED"
    assert {"report.html", "report.md", "summary.json", "manifest.json", "model/model.safetensors"} <= set(run["files"])
    assert run["files"]["model/model.safetensors"] == (tmp_path / "out/student/model.safetensors").read_bytes()
    scores = {step: value for key, value, _, step in run["metrics"] if key == "validation_accuracy"}
    assert scores == {one["iteration"]: one["accuracy"]["validation"]["value"] for one in summary["iterations"]}
    before = len(tracking.requests)
    run_local(config, tmp_path / "out", "process")
    assert len(tracking.runs) == 1
    assert not [one for one in tracking.requests[before:] if "log-batch" in one]


def test_a_run_that_could_not_be_logged_does_not_begin(
    small_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        run_local(load_config(str(small_config), ASKED, resolve=True), tmp_path / "out", "process")
    assert not (tmp_path / "out").exists()
