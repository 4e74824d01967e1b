"""`llm2llm sweep --submit` through the real kfp.Client, against a server of our own."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.pipelines.kubeflow.run_root import RunRoot
from tests.support.cluster import Run
from tests.support.kfp_server import KfpServer
from tests.support.sweeps import run_summary

DONE = [("RUNNING", {"prepare": "RUNNING"}), ("SUCCEEDED", {"prepare": "SUCCEEDED"})]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    values = {
        "name": "mine",
        "configs": ["quickstart"],
        "set": {"max_iterations": 1, "prepare.seed_count": 48},
        "arms": {"random": {"teacher_augment.strategy": "random"}, "errors": {}},
        "seeds": {"data": [0, 1], "training": [5]},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def summaries(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: RunRoot) -> dict[str, Any]:
        assert root.folder.startswith("s3://bucket/runs/quickstart/")
        return run_summary([0.2, 0.6])

    monkeypatch.setattr(RunRoot, "summary", read)


def submitted(run: Run, sweep: Path, server: KfpServer, *others: str) -> tuple[int, str, str]:
    output = str(sweep.parent / "out")
    root = ("--pipeline-root", "s3://bucket/runs")
    return run("sweep", str(sweep), "--output", output, "--submit", "--host", server.url, *root, *others)


def test_every_point_is_a_run_and_the_table_is_of_their_summaries(
    kfp_server: KfpServer, run: Run, sweep: Path, summaries: None
) -> None:
    kfp_server.script = DONE
    code, out, err = submitted(run, sweep, kfp_server)
    assert (code, err) == (0, "")
    assert len(kfp_server.runs) == 4
    assert len(kfp_server.versions) == 2, "one for each arm: random seeds are parameters"
    names = {one["display_name"] for one in kfp_server.runs.values()}
    assert {name.rsplit("-", 1)[0] for name in names} == {
        f"mine quickstart/{arm}/d{seed}-t5" for arm in ("random", "errors") for seed in (0, 1)
    }
    seeds = [one["runtime_config"]["parameters"] for one in kfp_server.runs.values()]
    assert {one["loop_random_seed"] for one in seeds} == {5}
    assert sum('"random_seed":1' in str(one["settings"]).replace(" ", "") for one in seeds) == 2
    assert "60.0 ± 0.0" in out
    assert submitted(run, sweep, kfp_server)[0] == 0
    assert len(kfp_server.runs) == 4, "what has finished is not run again"


def test_a_sweep_that_was_interrupted_takes_over_the_runs_that_it_started(
    kfp_server: KfpServer, run: Run, sweep: Path, summaries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp_server.script = DONE
    kfp_server.fault("GET", "/runs/", status=403)
    code, _, err = submitted(run, sweep, kfp_server)
    assert code == 2
    assert "error:" in err
    assert len(kfp_server.runs) == 4
    code, out, _ = submitted(run, sweep, kfp_server)
    assert code == 0
    assert len(kfp_server.runs) == 4
    assert out.count("there     ") == 4


def test_a_failed_run_is_told_and_started_anew_by_the_next_sweep(
    kfp_server: KfpServer, run: Run, sweep: Path, summaries: None
) -> None:
    kfp_server.script = [("FAILED", {"prepare": "FAILED"})]
    code, _, err = submitted(run, sweep, kfp_server)
    assert code == 1
    assert "quickstart random data 0 training 5: the run ended as FAILED; http" in err
    kfp_server.script = DONE
    assert submitted(run, sweep, kfp_server)[0] == 0
    assert len(kfp_server.runs) == 8


def test_limits_points_bounds_the_runs_at_once(kfp_server: KfpServer, run: Run, sweep: Path, summaries: None) -> None:
    sweep.write_text(sweep.read_text() + "limits: {points: 1}\n")
    kfp_server.script = DONE
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, sum(one.get("state") not in ("SUCCEEDED",) for one in kfp_server.runs.values()))

    kfp_server.after_request = look
    assert submitted(run, sweep, kfp_server)[0] == 0
    assert most == 1


def test_files_of_this_machine_are_refused_before_anything_is_sent(
    kfp_server: KfpServer, run: Run, sweep: Path
) -> None:
    values = yaml.safe_load(sweep.read_text())
    (sweep.parent / "seeds.jsonl").write_text("{}")
    values["set"]["data.seeds"] = str(sweep.parent / "seeds.jsonl")
    sweep.write_text(yaml.safe_dump(values))
    code, _, err = submitted(run, sweep, kfp_server)
    assert code == 2
    assert "data.seeds" in err
    assert kfp_server.runs == {}


def test_flags_of_a_cluster_need_submit(run: Run, sweep: Path) -> None:
    code, _, err = run("sweep", str(sweep), "--output", "x", "--host", "http://localhost:1")
    assert (code, "only with --submit" in err) == (2, True)
