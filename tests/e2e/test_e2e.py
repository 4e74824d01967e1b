"""The end-to-end run against the stand-in for Kubeflow, as far as that goes: pods are words there."""

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from llm2llm.pipelines.config import ImageSettings, from_parameters
from llm2llm.pipelines.kubeflow.workflow import parse_workflow
from tests.e2e import place
from tests.e2e.checks import TEXTS
from tests.e2e.compare import compare_hashes, compare_scores
from tests.e2e.place import FAIL, LOOK, OK
from tests.e2e.run import main
from tests.e2e.table import size_table, stage_rows, taken_over
from tests.support.cluster import kfp_server, nothing_of_this_machine
from tests.support.kfp_server import KfpServer, Step
from tests.support.kfp_workflow import workflow_of
from tests.support.made_run import make_run
from tests.support.summaries import summary

__all__ = ["kfp_server", "nothing_of_this_machine"]

DONE = "SUCCEEDED"
BEFORE = {"configure": DONE, "prepare": DONE}
SCRIPT: list[Step] = [
    ("PENDING", {}),
    ("RUNNING", {**BEFORE, "train": "RUNNING"}),
    ("RUNNING", {**BEFORE, "train": "RUNNING"}),
    ("SUCCEEDED", {**BEFORE, "train": DONE, "report": DONE}),
]


@pytest.fixture
def cluster(kfp_server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KfpServer:
    """A Kubeflow whose runs leave what a made run leaves, and the config that they were given."""
    monkeypatch.setattr(place, "POLL_SECONDS", 0.0)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    kfp_server.script, kfp_server.cached = SCRIPT, ("prepare", "train")
    original = kfp_server._create

    def create(kind: str, fields: dict[str, Any]) -> Any:
        made = original(kind, fields)
        if kind == "runs":
            name = next(iter(kfp_server.pipelines.values()))["display_name"]
            folder = tmp_path / "root" / name / made["run_id"]
            make_run(folder, in_cluster=True)
            parameters = fields["runtime_config"]["parameters"]
            config = from_parameters(name, json.loads(json.dumps(parameters)), ImageSettings())
            for path in (folder / "configure").glob("*/config"):
                path.write_text(config.model_dump_json())
            for number, path in enumerate(sorted(folder.glob("report*/*/summary"))):
                path.write_text(json.dumps(summary(number + 1)))
        return made

    kfp_server._create = create
    return kfp_server


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """What `llm2llm run` of the same config has left."""
    folder = make_run(tmp_path / "local")
    (folder / "summary.json").write_text(json.dumps(summary(3)))
    return folder


def flags(cluster: KfpServer, tmp_path: Path, local: Path) -> list[str]:
    return ["--host", cluster.url, "--pipeline-root", str(tmp_path / "root"), "--local", str(local)]


def test_all_checks_pass_and_what_cannot_be_made_is_said(
    cluster: KfpServer, tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(flags(cluster, tmp_path, local))
    out = capsys.readouterr().out
    assert code == 0, out
    end = out[out.rindex("Workflow: ") :]
    found = {line[6:28].strip(): line[:5].strip() for line in end.splitlines()[2:]}
    ok = ("run", "fetch", "scores", "hashes", "again", "cache", "schedule", "schedule deleted", "terminate", "texts")
    assert found == {**dict.fromkeys(ok, "ok"), "pod deleted politely": "skip", "pod deleted by force": "skip"}
    assert "2 stages taken over: prepare, train 0" in out
    assert "there is no kubectl here" in out
    assert "train 0" in out[out.index("stage ") :]
    assert cluster.recurring == {}


def test_texts_that_were_changed_on_the_way_are_found(
    cluster: KfpServer, tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Argo does it: `{{=1+1}}` becomes 2."""
    made = cluster._create

    def create(kind: str, fields: dict[str, Any]) -> Any:
        answer = made(kind, fields)
        for path in (tmp_path / "root").glob("*/*/configure/*/config"):
            path.write_text(path.read_text().replace("{{=1+1}}", "2"))
        return answer

    cluster._create = create
    assert main([*flags(cluster, tmp_path, local), "--only", "texts"]) == 1
    out = capsys.readouterr().out
    assert "fail  texts" in out
    assert "question_cue" not in out.partition("== texts")[2].partition("fail")[2].partition("instruction")[0]
    assert "description: " in out


def test_a_first_run_that_fails_is_a_failure_and_what_needs_it_is_skipped(
    cluster: KfpServer, tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.script = [("RUNNING", dict(BEFORE)), ("FAILED", {**BEFORE, "train": "FAILED"})]
    assert main([*flags(cluster, tmp_path, local), "--only", "run,local,again"]) == 1
    out = capsys.readouterr().out
    assert "fail  run" in out
    assert out.count("the first run did not succeed") == 4  # each is said twice


KUBECTL = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *can-i*) echo yes;; esac
"""


def test_a_pod_is_deleted_politely_and_by_force(
    cluster: KfpServer, tmp_path: Path, local: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text(KUBECTL.format(log=tmp_path / "kubectl.log"))
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    assert shutil.which("kubectl") == str(kubectl)
    assert main([*flags(cluster, tmp_path, local), "--only", "pods"]) == 0
    deleted = [line for line in (tmp_path / "kubectl.log").read_text().splitlines() if " delete pod " in line]
    assert [line.partition("--wait=false")[2].strip() for line in deleted] == ["", "--grace-period=0 --force"]
    assert all("--namespace kubeflow delete pod quickstart-l86vn-system-container-impl-" in line for line in deleted)
    assert "train 0 was tried 1 times" in capsys.readouterr().out


def manifest(**hashes: str) -> dict[str, Any]:
    outputs = {name: {"sha256": value} for name, value in hashes.items()}
    where = {"iteration": None, "fold": None, "outputs": outputs}
    return {"stages": [{"stage": "prepare", **where}, {"stage": "train", **where, "iteration": 0}]}


def test_files_that_are_the_same_everywhere_must_be_the_same() -> None:
    assert compare_hashes(manifest(a="1"), manifest(a="1")).status == OK
    assert compare_hashes(manifest(a="1"), manifest(a="2")).status == FAIL
    assert compare_hashes({}, manifest(a="1")).status == FAIL
    trained = manifest(a="1")
    trained["stages"][1] = {**trained["stages"][1], "outputs": {"a": {"sha256": "3"}}}
    assert compare_hashes(trained, manifest(a="1")).status == LOOK


def test_scores_that_differ_within_their_intervals_are_for_a_person_to_judge() -> None:
    def scored(value: float) -> dict[str, Any]:
        made: dict[str, Any] = summary(2)
        made["iterations"][1]["accuracy"] = {"validation": {"value": value, "low": value - 0.06, "high": value + 0.06}}
        return made

    assert compare_scores(scored(0.61), scored(0.61)).status == OK
    assert compare_scores(scored(0.61), scored(0.63)).status == LOOK
    assert compare_scores(scored(0.61), scored(0.9)).status == FAIL


def test_the_table_counts_pods_tries_and_seconds() -> None:
    tasks = {"prepare": DONE, "train": DONE, "train-2": DONE}
    stages = {"prepare": "prepare", "train": "train 0", "train-2": "train 1"}
    workflow = parse_workflow(json.dumps(workflow_of("r", tasks, DONE, cached=("train",))), "r")
    rows = {row.name: (row.pods, row.tries, row.seconds) for row in stage_rows(workflow, stages)}
    assert rows == {"prepare": (2, 1, 30.0), "train 0": (1, 0, 0.0), "train 1": (2, 1, 30.0)}
    assert taken_over(workflow, stages) == ["train 0"]
    cut_off = parse_workflow(json.dumps(workflow_of("r", {"train": "RUNNING"}, "RUNNING", cached=("train",))), "r")
    assert taken_over(cut_off, stages) == []
    table = size_table(workflow, stages).splitlines()
    assert table[1].split() == ["prepare", "2", "1", "30"]
    assert table[2].split() == ["train", "0", "1", "cached", "0"]
    assert table[-1].startswith("Workflow: ")


def test_the_texts_hold_what_every_hop_would_change() -> None:
    all_of_them = "".join(TEXTS.values())
    for part in (
        "{{workflow.name}}",
        "{{=1+1}}",
        "{{$.inputs",
        "{{task}}",
        "$$",
        "$(",
        '"',
        "'",
        "\n",
        "\\frac",
        "\u2028",
    ):
        assert part in all_of_them
    assert os.linesep in TEXTS["instruction"]
