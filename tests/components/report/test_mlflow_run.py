"""A finished run is one run of an MLflow tracking server, also when it is logged again."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.report import mlflow_run
from llm2llm.components.report.component import report as stage
from llm2llm.components.report.mlflow_run import check_server, log_finished, log_run, params_of
from llm2llm.components.report.summary import summarise
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.registry.versions import version_uri
from llm2llm.components.shared.storage import upload_folder
from llm2llm.pipelines.config import load_config
from tests.support.builders import decision, example, journal_artifact, outputs_of, rows_artifact, score
from tests.support.mlflow_server import MlflowServer, tracking
from tests.support.verdicts import verdict

__all__ = ["tracking"]

SEEDS = [example(f"seed {n}") for n in range(4)]
SCORES = [score(n, split, 2 + n, 4, rows=4 + n) for n in (0, 1) for split in ("seeds", "validation", "test")]
DECISIONS = [decision(0, 0, go_on=True), decision(1, 0, best=1)]
CONFIG: dict[str, Any] = load_config("quickstart", ["report.mlflow_experiment=tickets"]).model_dump(mode="json")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_run.time, "sleep", lambda seconds: None)


def logged(folder: Path, run: str = "run-7", **changed: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "report.html").write_text("<p>ö</p>")
    (folder / "student" / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "student" / "model.safetensors").write_bytes(bytes(70_000))
    (folder / "student" / "sub" / "a b.json").write_text("{}")
    summary = summarise(SEEDS, SCORES, [], DECISIONS, [], [])
    return log_run("tickets", run, {**CONFIG, **changed}, summary, {"best_iteration": 1.0, "training_rows": 5.0},
                   {"report.html": folder / "report.html"}, folder / "student")  # fmt: skip


def test_it_has_params_metrics_by_iteration_report_and_model(tracking: MlflowServer, tmp_path: Path) -> None:
    assert logged(tmp_path) == "mlflow: logged as run run1 of experiment tickets, with 3 files"
    (run,) = tracking.runs.values()
    assert run["info"]["status"] == "FINISHED"
    assert run["params"]["train.learning_rate"] == "0.001"
    assert run["params"]["student"] == "scratch"
    by_name = {(key, step): value for key, value, _, step in run["metrics"]}
    assert [by_name["validation_accuracy", step] for step in (0, 1)] == [0.5, 0.75]
    assert [by_name["training_rows", step] for step in (0, 1)] == [4, 5]
    assert by_name["best_iteration", 1] == 1
    assert by_name["test_accuracy_low", 1] < 0.75 < by_name["test_accuracy_high", 1]
    assert (run["tags"]["llm2llm.run"], run["tags"]["mlflow.runName"]) == ("run-7", "quickstart")
    assert "mlflow.note.content" in run["tags"]
    assert set(run["files"]) == {"report.html", "model/model.safetensors", "model/sub/a b.json"}
    assert run["files"]["report.html"] == "<p>ö</p>".encode()
    assert len(run["files"]["model/model.safetensors"]) == 70_000
    assert "authorization" not in tracking.headers


def test_logged_again_it_is_the_same_run_and_nothing_is_sent(tracking: MlflowServer, tmp_path: Path) -> None:
    logged(tmp_path)
    before = len(tracking.requests)
    assert logged(tmp_path) == "mlflow: run run1 has been logged before"
    assert not [one for one in tracking.requests[before:] if "log-batch" in one or "PUT" in one]
    logged(tmp_path, "run-8")
    assert [run["tags"]["llm2llm.run"] for run in tracking.runs.values()] == ["run-7", "run-8"]
    assert list(tracking.experiments) == ["tickets"]


def test_a_log_that_was_cut_off_at_any_request_is_completed_without_a_second_run(
    tracking: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_run, "TRIES", 1)
    logged(tmp_path / "whole", "whole")
    (whole,) = tracking.runs.values()
    number = len(tracking.requests)
    for cut in range(1, number):  # the experiment is there by now: a request less
        start = len(tracking.requests)
        tracking.broken = {start + cut}
        said = logged(tmp_path / "whole", f"cut {cut}")
        if "not logged" not in said:
            continue
        assert "the server answered 503" in said
        assert "logged as run" in logged(tmp_path / "whole", f"cut {cut}")
        (run,) = [one for one in tracking.runs.values() if one["tags"]["llm2llm.run"] == f"cut {cut}"]
        assert {(key, step) for key, _, _, step in run["metrics"]} == {(k, s) for k, _, _, s in whole["metrics"]}
        assert len(run["metrics"]) == len(whole["metrics"]), "no metric stands twice"
        assert (run["params"], run["files"]) == (whole["params"], whole["files"])
    assert len(tracking.runs) >= number - 2


def test_a_busy_server_is_asked_again_and_one_that_is_away_fails_nothing(
    tracking: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.broken = {1, 2, 5}
    assert "logged as run run1" in logged(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert logged(tmp_path, "other").startswith("mlflow: not logged: no answer from the server")
    for address in ("", "file:///tmp/x", "sqlite:///x.db", "http://[", "databricks"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert "holds no address" in logged(tmp_path, "other")
        with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
            check_server("tickets")
        check_server("")


def test_credentials_go_into_the_header_alone(
    tracking: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    assert "s3cret" not in logged(tmp_path)
    assert tracking.headers["authorization"] == "Basic bWU6czNjcmV0"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    logged(tmp_path, "next")
    assert tracking.headers["authorization"] == "Bearer t0ken"
    assert "s3cret" not in json.dumps([run["params"] for run in tracking.runs.values()])


def test_a_server_that_keeps_no_artifacts_itself_gets_no_files(tracking: MlflowServer, tmp_path: Path) -> None:
    tracking.scheme = "s3"
    assert "with no files" in logged(tmp_path)
    assert tracking.runs["run1"]["files"] == {}
    assert tracking.runs["run1"]["metrics"]


def test_names_and_long_texts_are_what_the_api_takes() -> None:
    found = params_of({"a": {"b[0]": "x" * 9_000, "c": [1, "ö"]}, "images": {"cpu": "i"}, "lineage": {}})
    assert found.keys() == {"a.b_0_", "a.c"}
    assert len(found["a.b_0_"]) == 500
    assert found["a.c"] == '[1, "ö"]'


def test_the_stage_logs_the_last_report_of_a_run_alone(
    tracking: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "run-9")
    config = LocalArtifact(str(tmp_path / "config.json"))
    Path(config.path).write_text(json.dumps(CONFIG))

    def ran(name: str, decisions: list[Any]) -> None:
        stage.python_func(
            config=config,
            training_set=rows_artifact(tmp_path, f"{name}.parquet", "examples", SEEDS),
            journal=journal_artifact(
                tmp_path, name=name, decisions=decisions, scores=[s for s in SCORES if s.iteration < len(decisions)]
            ),
            iteration=len(decisions) - 1,
            **outputs_of("report", tmp_path / f"out {name}"),
        )

    ran("first", DECISIONS[:1])
    assert tracking.requests == []
    ran("last", DECISIONS)
    (run,) = tracking.runs.values()
    assert run["tags"]["llm2llm.run"] == "run-9"
    assert set(run["files"]) == {"report.html", "report.md", "summary.json", "manifest.json"}
    assert "mlflow: logged as run run1" in capsys.readouterr().out


def test_the_student_in_production_is_uploaded_where_the_run_has_a_registry(
    tracking: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "run-9")
    registry = str(tmp_path / "registry")
    student = tmp_path / "student"
    student.mkdir()
    (student / "model.safetensors").write_bytes(b"weights")
    decided = {**verdict("promoted"), "iteration": 1}
    config = {**CONFIG, "promote": {**CONFIG["promote"], "registry": registry}}
    summary = summarise(SEEDS, SCORES, [], DECISIONS, [], [], promotion=decided)
    log_finished(config, summary, {}, decided)
    assert "mlflow: not logged" in capsys.readouterr().out, "the version is not there"
    assert tracking.runs == {}
    upload_folder(student, version_uri(registry, decided["candidate"]["version"]))
    log_finished(config, summary, {}, decided)
    (run,) = tracking.runs.values()
    assert run["files"]["model/model.safetensors"] == b"weights"
    assert run["tags"]["llm2llm.promotion"] == "promoted"
    log_finished(config, summary, {}, {**decided, "outcome": "kept"})
    without = {**config, "report": {**config["report"], "mlflow_model": False}}
    monkeypatch.setenv(RUN_VARIABLE, "run-10")
    log_finished(without, summary, {}, decided)
    assert [one["files"].keys() for one in tracking.runs.values()] == [run["files"].keys(), set()]
