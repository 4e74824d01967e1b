"""`llm2llm submit --wait` on what a real Kubeflow answers: states that stand still, failures that it does not name."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm2llm.components.shared.storage import join, write_bytes
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.kubeflow import follow
from llm2llm.pipelines.kubeflow.run_root import RunRoot, error_of, run_folder
from llm2llm.pipelines.kubeflow.submit import compile_upload
from llm2llm.pipelines.kubeflow.workflow import failures, parse_workflow
from tests.support.cluster import Run
from tests.support.kfp_server import KfpServer, Step
from tests.support.kfp_workflow import workflow_of
from tests.support.rgw import S3Server
from tests.support.storage import no_server, place
from tests.support.summaries import summary

__all__ = ["no_server", "place"]

DONE = "SUCCEEDED"
PREPARED = {"configure": DONE, "prepare": DONE}
STAGES = ["train", "evaluate", "filter-errors", "report", "teacher-augment", "dedupe", "train-2"]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the Workflow and the artifacts comes at once."""
    for name in ("QUIET_SECONDS", "LOOK_SECONDS", "LOOK_AGAIN_SECONDS"):
        monkeypatch.setattr(follow, name, 0.0)


def one_after_another(last: Step) -> list[Step]:
    """A script in which each stage ends before the next begins, with a step in which nothing changes after each."""
    steps: list[Step] = [("RUNNING", dict(PREPARED))]
    done = dict(PREPARED)
    for stage in STAGES:
        steps += [("RUNNING", {**done, stage: "RUNNING"})] * 2
        done[stage] = DONE
        steps += [("RUNNING", dict(done))] * 2
    return [*steps, last]


SUCCESS: Step = ("SUCCEEDED", {**PREPARED, **dict.fromkeys(STAGES, DONE)})


def said(out: str) -> list[str]:
    """`stage what` of each line that begins with a time."""
    return [" ".join(line.split()[1:]).partition(" after")[0] for line in out.splitlines() if line[2:3] == ":"]


def leave(root: Path, run_id: str, task: str, output: str, content: str) -> None:
    folder = root / "quickstart" / run_id / task / "e1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / output).write_text(content)


def while_playing(server: KfpServer, act: Callable[[str, int], None]) -> None:
    """Calls `act` with the run's id and the step whenever the run's script goes on."""
    original = server._play

    def play(run: dict[str, object]) -> None:
        original(run)
        act(str(run["run_id"]), int(str(run["step"])))

    server._play = play


def test_states_that_are_no_longer_told_are_read_from_the_workflow(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = one_after_another(SUCCESS)
    kfp_server.frozen_after = 12
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 0
    assert out.count("Kubeflow no longer tells the states of this run's tasks") == 1
    assert "read from its Workflow" in out
    after = said(out.partition("no longer tells")[2])
    assert "teacher_augment 1 runs" in after
    assert "train 1 done" in after


def test_states_that_are_told_are_not_looked_for_elsewhere(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = one_after_another(SUCCESS)
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 0
    assert "no longer tells" not in out
    assert [line for line in said(out) if line.startswith("train")] == [
        "train 0 runs", "train 0 done", "train 1 runs", "train 1 done",
    ]  # fmt: skip


def test_without_the_workflow_the_artifacts_are_followed(kfp_server: KfpServer, run: Run, tmp_path: Path) -> None:
    kfp_server.script = one_after_another(SUCCESS)
    kfp_server.frozen_after, kfp_server.tells_workflow = 3, False

    def act(run_id: str, step: int) -> None:
        for task in STAGES[: max(0, step // 4)]:
            leave(tmp_path, run_id, task, "output", "x")
        leave(tmp_path, run_id, "evaluate-2", "executor-logs-0", "no output: it goes on, or failed")

    while_playing(kfp_server, act)
    root = ("--pipeline-root", str(tmp_path))
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait", *root)
    assert code == 0
    assert out.count("no longer tells") == 1
    assert f"is looked for in {tmp_path}/quickstart/" in out
    after = said(out.partition("no longer tells")[2])
    left = ("train 0", "evaluate 0", "filter_errors 0", "report 0", "teacher_augment 1", "dedupe 1", "train 1")
    assert sorted(after) == sorted(f"{stage} done" for stage in left)


def test_where_nothing_tells_the_states_the_run_is_still_heard_of(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "HEARTBEAT_SECONDS", 0.0)
    kfp_server.script = one_after_another(SUCCESS)
    kfp_server.frozen_after, kfp_server.tells_workflow = 4, False
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 0
    assert "the run goes on (RUNNING), nothing new for 0s; last: train 0" in " ".join(out.split())
    assert out.count("have not changed for long") == 1
    assert "give --pipeline-root" in out


def failed(task: str) -> list[Step]:
    return [("RUNNING", dict(PREPARED)), ("FAILED", {**PREPARED, task: "FAILED"})]


def test_a_driver_that_fails_is_named_with_what_it_said(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = failed("filter-errors-driver")
    kfp_server.logs["filter-errors-driver"] = (
        "I1128 19:02:10.1   1 main.go:99] started\n"
        'F1128 19:02:11.123456       1 main.go:86] KFP driver: driver.Container(pipelineName="quickstart") failed: no '
        'execution found for type="system.ContainerExecution", name=""\n'
    )
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 1
    assert "the run failed in the driver of filter_errors 0: KFP driver: " in out
    assert 'no execution found for type="system.ContainerExecution"' in out


def test_a_driver_of_a_condition_is_named_as_a_person_knows_it(kfp_server: KfpServer, run: Run) -> None:
    groups = compile_upload(load_config("quickstart")).groups
    key = next(key for key, name in groups.items() if name == "iteration 2")
    kfp_server.script = failed(f"{key}-driver")
    kfp_server.tells_workflow = False
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 1
    assert "the run failed in the driver of iteration 2; the logs are at" in out


FORBIDDEN = 'pods "q-1" is forbidden: error looking up service account kubeflow/none: serviceaccount "none" not found'


@pytest.mark.parametrize("tells_workflow", [True, False])
def test_a_service_account_that_does_not_exist_is_said_so_or_where_to_look(
    tells_workflow: bool, kfp_server: KfpServer, run: Run
) -> None:
    kfp_server.script = [("PENDING", {}), ("FAILED", {"root-driver": "FAILED"})]
    kfp_server.messages["root-driver"] = FORBIDDEN
    kfp_server.tells_workflow = tells_workflow
    account = ("--service-account", "none")
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait", *account)
    assert code == 1
    assert (FORBIDDEN in out) == tells_workflow
    if tells_workflow:
        assert "kubectl --namespace kubeflow get serviceaccounts" in out
    else:
        (run_id,) = kfp_server.runs
        assert "kubectl --namespace kubeflow get serviceaccount none" in out
        assert f"kubectl --namespace kubeflow get workflows --selector pipeline/runid={run_id}" in out


EVENT = {"event": "failed", "stage": "prepare", "iteration": None, "fold": None,
         "user_error": "tickets.jsonl: row 7 has no column 'queue'"}  # fmt: skip
LOG = (
    f"reading\n@llm2llm {json.dumps(EVENT)}\nerror: tickets.jsonl: row 7 has no column 'queue'\nF1128 x.go:1] exit 2\n"
)


@pytest.mark.parametrize("name", ["executor-logs", "executor-logs-1"])
def test_the_stages_own_error_is_shown_from_the_store(
    name: str, kfp_server: KfpServer, run: Run, tmp_path: Path
) -> None:
    kfp_server.script = [("RUNNING", {"configure": DONE}), ("FAILED", {"configure": DONE, "prepare": "FAILED"})]
    while_playing(kfp_server, lambda run_id, step: leave(tmp_path, run_id, "prepare", name, LOG))
    root = ("--pipeline-root", str(tmp_path))
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait", *root)
    assert code == 1
    assert "the run failed in prepare: tickets.jsonl: row 7 has no column 'queue'; the logs are at" in out


def test_the_stages_own_error_is_shown_from_its_pods_log_where_the_store_cannot_be_read(
    kfp_server: KfpServer, run: Run
) -> None:
    kfp_server.script = failed("train")
    kfp_server.logs["train"] = LOG
    kfp_server.messages["train"] = "main: Error (exit code 2)"
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 1
    assert "the run failed in train 0: tickets.jsonl: row 7 has no column 'queue'; the logs are at" in out


def test_what_only_kubernetes_knows_is_said_too(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = failed("train")
    kfp_server.messages["train"] = "OOMKilled (exit code 137)"
    assert "failed in train 0: OOMKilled" in run("submit", "quickstart", "--host", kfp_server.url, "--wait")[1]


def test_a_run_that_is_terminated_is_exit_code_3(kfp_server: KfpServer, run: Run) -> None:
    """As seen: CANCELING, then FAILED, with both in the history."""
    kfp_server.script = [("RUNNING", dict(PREPARED))]
    again = kfp_server._route

    def terminate(run_id: str, step: int) -> None:
        if step == 2:
            again("POST", f"/runs/{run_id}:terminate", {}, b"", {})

    while_playing(kfp_server, terminate)
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    (ended,) = kfp_server.runs.values()
    assert [one["state"] for one in ended["state_history"]] == ["RUNNING", "CANCELING", "FAILED"]
    assert code == 3
    assert "the run was terminated: http" in out


@pytest.mark.parametrize(
    ("history", "seen", "terminated"),
    [
        (["RUNNING", "CANCELING", "FAILED"], ["RUNNING", "FAILED"], True),
        (["RUNNING", "FAILED"], ["RUNNING", "CANCELING", "FAILED"], True),
        (["RUNNING", "CANCELING", "FAILED", "PENDING", "RUNNING", "FAILED"], ["RUNNING", "FAILED"], False),
        (["RUNNING", "FAILED"], ["RUNNING", "FAILED"], False),
        ([], [], False),
    ],
)
def test_a_run_was_terminated_when_canceling_was_its_last_state(
    history: list[str], seen: list[str], terminated: bool
) -> None:
    ended = SimpleNamespace(state="FAILED", state_history=[SimpleNamespace(state=state) for state in history])
    assert follow.was_terminated(ended, seen) == terminated


def test_a_run_that_found_nothing_new_says_so(kfp_server: KfpServer, run: Run, tmp_path: Path) -> None:
    kfp_server.script = [("RUNNING", dict(PREPARED)), ("SUCCEEDED", {**PREPARED, "detect-changes": DONE})]
    new = ("--set", "promote.only_if_new=true", "--set", "promote.registry=s3://bucket/registry")
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait", *new)
    assert code == 0
    assert "nothing was new" in out
    assert "no student was trained" in out
    assert "the last report" not in out
    while_playing(
        kfp_server,
        lambda run_id, step: leave(
            tmp_path, run_id, "detect-changes", "notes", "nothing new since v3: the same seeds\n"
        ),
    )
    root = ("--pipeline-root", str(tmp_path))
    out = run("submit", "quickstart", "--host", kfp_server.url, "--wait", *new, *root)[1]
    assert "nothing new since v3: the same seeds" in out


def test_the_table_comes_from_the_root_that_the_server_chose(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No --pipeline-root: the Workflow names the run's own; its address is read as the bucket that it is."""
    kfp_server.script = one_after_another(SUCCESS)
    kfp_server.artifacts = "minio://mlpipeline/v2/artifacts"
    asked = []

    def read(root: RunRoot) -> dict[str, object] | None:
        asked.append(root.folder)
        return summary(2)

    monkeypatch.setattr(RunRoot, "summary", read)
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    (run_id,) = kfp_server.runs
    assert code == 0
    assert asked == [f"s3://mlpipeline/v2/artifacts/quickstart/{run_id}"]
    assert "61.0% (55.0% to 67.0%)" in out


def test_where_the_table_cannot_be_read_it_is_said_where_it_is(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = one_after_another(SUCCESS)
    kfp_server.artifacts = "gs://models/runs"
    out = run("submit", "quickstart", "--host", kfp_server.url, "--wait")[1]
    (run_id,) = kfp_server.runs
    assert f"the table is in the last report of the run, under gs://models/runs/quickstart/{run_id} (" in out
    assert "gs:// is not known here" in out


def test_the_root_that_was_given_may_name_a_region(tmp_path: Path) -> None:
    assert run_folder("s3://b/p/?region=eu-1", "q", "r") == "s3://b/p/q/r"
    assert run_folder("", "q", "r") == ""
    assert RunRoot(str(tmp_path / "none")).summary() is None


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (LOG, "tickets.jsonl: row 7 has no column 'queue'"),
        ('@llm2llm {"event": "failed", "error": "KeyError: 7"}\n', "KeyError: 7"),
        ("@llm2llm {broken\nerror: no such file\n", "no such file"),
        ("Traceback\n  File x\nValueError: bad\n", "ValueError: bad"),
        ("all is well\n", ""),
        ("error: \x1b[31mred\x1b[0m\n", "[31mred[0m"),
        ("", ""),
    ],
)
def test_why_a_stage_failed_is_what_it_says_itself(log: str, error: str) -> None:
    assert error_of(log) == error


def test_a_try_that_another_made_good_is_no_failure() -> None:
    fields = workflow_of("r", {"prepare": DONE, "train": "FAILED"}, "FAILED", messages={"train": "OOMKilled"})
    (node,) = failures(parse_workflow(json.dumps(fields), "r"))
    assert node.path.endswith("train(0).executor(0)")
    assert node.message == "OOMKilled"
    for one in fields["status"]["nodes"].values():
        if one["displayName"] == "train":
            one["phase"] = "Succeeded"
    assert failures(parse_workflow(json.dumps(fields), "r")) == []


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"metadata": {}}'])
def test_a_workflow_that_is_none_is_refused_quietly(broken: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse_workflow(broken, "r")


def test_what_a_run_has_left_is_read_on_a_disk_and_on_a_server(place: str) -> None:
    for path, content in {
        "train/e1/model/weights": b"w",
        "train-2/e1/executor-logs-0": b"error: first try",
        "train-2/e2/executor-logs-1": b"error: second try",
        "report/e1/summary": json.dumps(summary(1)).encode(),
        "report-2/e1/summary": json.dumps(summary(2)).encode(),
        "detect-changes/e1/notes": b"nothing new",
    }.items():
        write_bytes(join(place, path), content)
    root = RunRoot(place.replace("s3://", "minio://"))
    assert root.finished() == {"train", "report", "report-2", "detect-changes"}
    assert error_of(root.log("train-2")) == "second try"
    assert root.log("train") == root.text("train", "notes") == ""
    assert root.text("detect-changes", "notes") == "nothing new"
    assert root.summary() == summary(2)
    assert root.problem == ""


@pytest.mark.s3
def test_the_table_is_read_from_the_servers_own_bucket_without_being_told_where(
    kfp_server: KfpServer, run: Run, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.use(monkeypatch)
    kfp_server.script = one_after_another(SUCCESS)
    bucket = s3_server.bucket()
    kfp_server.artifacts = f"minio://{bucket}/v2/artifacts"
    while_playing(
        kfp_server,
        lambda run_id, step: write_bytes(
            f"s3://{bucket}/v2/artifacts/quickstart/{run_id}/report/e1/summary", json.dumps(summary(1)).encode()
        ),
    )
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 0
    assert "61.0% (55.0% to 67.0%)" in out


def test_a_store_that_lets_nobody_in_is_said_with_where_the_table_is(
    kfp_server: KfpServer, run: Run, no_server: None
) -> None:
    kfp_server.script = one_after_another(SUCCESS)
    kfp_server.artifacts = "s3://bucket/v2/artifacts"
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 0
    assert "the table is in the last report of the run, under s3://bucket/v2/artifacts/quickstart/" in out
    assert "credentials" in out
