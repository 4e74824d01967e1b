"""`llm2llm submit` through the real kfp.Client, against a server of our own."""

import io
import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llm2llm.pipelines.config import load_config, to_parameters
from llm2llm.pipelines.kubeflow import client as cluster
from llm2llm.pipelines.kubeflow.follow import follow
from llm2llm.pipelines.kubeflow.submit import compile_upload, start, upload
from tests.support.cluster import Run
from tests.support.kfp_server import LOGIN_PAGE, KfpServer, Step
from tests.support.summaries import summary

EPOCHS = next(name for name in to_parameters(load_config("quickstart")) if name.endswith("epochs"))
"""A parameter of the form."""
CANARY = "canary-token-e7a1c9"
DONE = "SUCCEEDED"
FIRST: list[Step] = [
    ("PENDING", {}),
    ("RUNNING", {"configure": DONE, "prepare": "RUNNING"}),
    ("RUNNING", {"configure": DONE, "prepare": DONE, "train": "RUNNING"}),
]
TRAINED = {"configure": DONE, "prepare": DONE, "train": DONE}
SUCCESS: list[Step] = [
    *FIRST,
    ("RUNNING", {**TRAINED, "evaluate": "RUNNING", "out-of-fold": "RUNNING"}),
    ("SUCCEEDED", {**TRAINED, "evaluate": DONE, "out-of-fold": DONE, "train-2": DONE, "report-2": DONE}),
]


def test_a_run_is_followed_stage_by_stage_and_its_success_is_exit_code_0(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = SUCCESS
    code, out, err = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert (code, err) == (0, "")
    (run_id,) = kfp_server.runs
    assert f"{kfp_server.url}/#/runs/details/{run_id}" in out
    said = [line.split(maxsplit=1)[1].split("  ")[0] for line in out.splitlines() if line[2:3] == ":"]
    assert said == ["configure", "prepare", "prepare", "train 0", "train 0", "evaluate 0", "out_of_fold",
                    "evaluate 0", "out_of_fold", "train 1", "report 1"]  # fmt: skip
    assert "driver" not in out
    assert "executor" not in out


def test_the_same_config_is_uploaded_once_and_a_changed_one_is_another_version(kfp_server: KfpServer, run: Run) -> None:
    for _ in range(2):
        assert run("submit", "quickstart", "--host", kfp_server.url)[0] == 0
    assert kfp_server.requests.count("POST /pipelines/upload_version") == 1
    assert run("submit", "quickstart", "--host", kfp_server.url, "--set", "max_iterations=1")[0] == 0
    assert len(kfp_server.pipelines) == 1
    assert len(kfp_server.versions) == 2
    assert len(kfp_server.runs) == 3


def test_the_version_is_the_hash_of_what_is_uploaded_and_data_are_read_anew_in_each_run(
    kfp_server: KfpServer, run: Run
) -> None:
    compiled = compile_upload(load_config("quickstart"))
    assert compiled == compile_upload(load_config("quickstart"))
    run("submit", "quickstart", "--host", kfp_server.url)
    (version,) = kfp_server.versions.values()
    assert version["display_name"] == compiled.version == f"quickstart-{compiled.sha256[:12]}"
    assert version["file"] == compiled.text
    tasks = version["pipeline_spec"]["root"]["dag"]["tasks"]
    assert not tasks["configure"]["cachingOptions"].get("enableCache"), "it looks at the data"
    assert tasks["prepare"]["cachingOptions"]["enableCache"], "its settings say which data they are"
    assert tasks["train"]["cachingOptions"]["enableCache"]


def test_a_failed_run_is_exit_code_1_with_the_stage_and_what_the_server_says(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = [*FIRST, ("FAILED", {"configure": DONE, "prepare": DONE, "train": "FAILED"})]
    kfp_server.error = "OOMKilled"
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 1
    assert "the run failed in train 0: OOMKilled; the logs are at http" in out


@pytest.mark.parametrize("last", ["CANCELED", "FAILED"])
def test_a_terminated_run_is_exit_code_3_whatever_the_server_calls_it(
    last: str, kfp_server: KfpServer, run: Run
) -> None:
    kfp_server.script = [*FIRST, ("CANCELING", {"train": "RUNNING"}), (last, {"train": "FAILED"})]
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 3
    assert "terminated" in out


def test_a_stage_that_is_tried_again_is_said_so(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = [
        *FIRST,
        ("RUNNING", {"train": "FAILED"}),
        ("RUNNING", {"train": "RUNNING"}),
        ("SUCCEEDED", {"train": DONE}),
    ]
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 0
    assert "runs again" in out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_last_line_tells_what_runs_now(kfp_server: KfpServer) -> None:
    kfp_server.script = SUCCESS
    compiled = compile_upload(load_config("quickstart"))
    connected = cluster.connect(kfp_server.url)
    run_id = start(connected, compiled, upload(connected, compiled), "e0")
    screen = Terminal()
    assert follow(connected, compiled, run_id, stream=screen) == 0
    changing = [
        part.partition("  ")[2].strip() for part in screen.getvalue().split("\r\x1b[K") if not part.endswith("\n")
    ]
    assert [part for part in changing if part] == [
        "waiting for a stage to start", "prepare", "train 0", "evaluate 0, out_of_fold",
    ]  # fmt: skip


def test_newer_servers_that_name_tasks_as_a_person_does_are_understood(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = [("RUNNING", {"train 2": "RUNNING"}), ("SUCCEEDED", {"train 2": DONE})]
    assert "train 2" in run("submit", "quickstart", "--host", kfp_server.url, "--wait")[1]


def test_the_table_is_printed_where_the_artifacts_can_be_read(kfp_server: KfpServer, run: Run, tmp_path: Path) -> None:
    kfp_server.script = [("RUNNING", {}), ("SUCCEEDED", {})]
    original = kfp_server._play

    def play(played: dict[str, object]) -> None:
        for task, iterations in (("report", 1), ("report-2", 2)):
            folder = tmp_path / "quickstart" / str(played["run_id"]) / task / "execution"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "summary").write_text(json.dumps(summary(iterations)))
        original(played)

    kfp_server._play = play
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait", "--pipeline-root", str(tmp_path))
    assert code == 0
    assert "iteration  training rows" in out
    assert "1 *" in out
    assert "61.0% (55.0% to 67.0%)" in out


def test_a_time_out_ends_the_waiting_and_not_the_run(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp_server.script = FIRST
    monkeypatch.setattr("llm2llm.pipelines.kubeflow.follow.POLL_SECONDS", 0.3)
    code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait", "--timeout", "1s")
    assert code == 124
    assert "the run goes on: http" in out
    assert not any("terminate" in request for request in kfp_server.requests)


def test_an_interrupt_while_waiting_leaves_the_run_running_and_says_so(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp_server.script = FIRST
    monkeypatch.setattr("llm2llm.pipelines.kubeflow.follow.POLL_SECONDS", 0.1)
    original = kfp_server._play

    def play(played: dict[str, object]) -> None:
        original(played)
        if played["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    kfp_server._play = play
    # A shell that starts a process in the background has it ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, out, _ = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert "the run goes on: http" in out
    assert not any("terminate" in request for request in kfp_server.requests)


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop": "before"}, {"drop": "after"}])
@pytest.mark.parametrize("path", ["/pipelines$", "/upload_version$", "/runs$"])
def test_a_lost_answer_neither_stops_the_submission_nor_makes_anything_twice(
    path: str, fault: dict[str, object], kfp_server: KfpServer, run: Run
) -> None:
    kfp_server.fault("POST", path, **fault)
    code, _, err = run("submit", "quickstart", "--host", kfp_server.url)
    assert (code, err) == (0, "")
    assert (len(kfp_server.pipelines), len(kfp_server.versions), len(kfp_server.runs)) == (1, 1, 1)


@pytest.mark.parametrize("drop", ["before", "after"])
def test_where_the_server_is_gone_before_it_says_whether_the_run_was_started_that_is_said(
    drop: str, kfp_server: KfpServer, run: Run
) -> None:
    kfp_server.fault("POST", "/runs$", drop=drop)
    kfp_server.fault("GET", "/runs$", drop="before", times=99)
    code, _, err = run("submit", "quickstart", "--host", kfp_server.url, "--run-name", "mine")
    assert code == 2
    assert "whether the run 'mine' was started is not known" in err
    assert len(kfp_server.runs) == (drop == "after")


def test_another_submission_that_was_faster_is_no_error(kfp_server: KfpServer, run: Run) -> None:
    """It uploads between our look and our upload: the server answers 409."""
    compiled = compile_upload(load_config("quickstart"))
    looks = 0
    original = kfp_server._page

    def page(model: str, plural: str, items: list[dict[str, object]], query: dict[str, str]) -> object:
        nonlocal looks
        answer = original(model, plural, items, query)
        if plural == "pipeline_versions" and (looks := looks + 1) == 1:
            kfp_server.versions["v"] = {
                "pipeline_id": next(iter(kfp_server.pipelines)), "pipeline_version_id": "v",
                "display_name": compiled.version, "pipeline_spec": next(yaml.safe_load_all(compiled.text)),
            }  # fmt: skip
        return answer

    kfp_server._page = page
    assert run("submit", "quickstart", "--host", kfp_server.url)[0] == 0
    assert list(kfp_server.versions) == ["v"]


def test_a_server_that_fails_now_and_then_while_a_run_is_followed_is_asked_again(
    kfp_server: KfpServer, run: Run
) -> None:
    kfp_server.script = SUCCESS
    kfp_server.fault("GET", "/runs/", status=503, times=9)
    kfp_server.fault("GET", "/runs/", drop="before", times=3, skip=2)
    kfp_server.fault("GET", "/runs/", status=500, times=2, skip=3)
    assert run("submit", "quickstart", "--host", kfp_server.url, "--wait")[0] == 0


def test_a_server_that_is_gone_for_long_ends_the_waiting_and_not_the_run(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2llm.pipelines.kubeflow.follow.OUT_OF_TOUCH_SECONDS", 0.5)
    kfp_server.script = SUCCESS
    kfp_server.fault("GET", "/runs/", status=503, times=10**6, skip=2)
    code, _, err = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 2
    assert "too busy, or not up (503" in err
    assert "the run goes on: http" in err


def test_a_slow_answer_is_waited_for(kfp_server: KfpServer, run: Run) -> None:
    kfp_server.script = SUCCESS
    kfp_server.fault("GET", "/runs/", slow=0.5)
    assert run("submit", "quickstart", "--host", kfp_server.url, "--wait")[0] == 0


def test_a_server_that_never_answers_is_given_up(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "TIMEOUT", (5, 1))
    kfp_server.fault("GET", "/experiments", slow=30, times=99)
    code, _, err = run("submit", "quickstart", "--host", kfp_server.url)
    assert code == 2
    assert "cannot be reached" in err


def test_an_unreachable_host_is_one_message(run: Run) -> None:
    code, out, err = run("submit", "quickstart", "--host", "http://127.0.0.1:9")
    assert (code, out) == (2, "")
    assert err.startswith("error: http://127.0.0.1:9 cannot be reached (connection refused)")
    assert len(err.splitlines()) == 1
    code, _, err = run("submit", "quickstart", "--host", "https://no-such-host.invalid")
    assert code == 2
    assert "cannot be reached" in err


@pytest.mark.parametrize("host", ["ftp://x", "http://", "http://me:secret@h/pipeline", "http://[::1"])
def test_a_host_that_is_none_is_refused(host: str, run: Run) -> None:
    code, _, err = run("submit", "quickstart", "--host", host)
    assert code == 2
    assert err.startswith("error: --host: ")
    assert "secret" not in err


def test_without_a_host_it_says_where_to_give_one(run: Run) -> None:
    code, _, err = run("submit", "quickstart")
    assert code == 2
    assert "--host" in err


def test_tokens_come_from_a_file_an_environment_variable_or_the_pod_in_this_order(
    kfp_server: KfpServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp_server.token = CANARY
    (tmp_path / "right").write_text(f"{CANARY}\n")
    (tmp_path / "wrong").write_text("other")
    monkeypatch.setenv(cluster.TOKEN_PATH_VARIABLE, str(tmp_path / "right"))
    assert run("submit", "quickstart", "--host", kfp_server.url)[0] == 0
    monkeypatch.setenv(cluster.TOKEN_VARIABLE, "other")
    assert run("submit", "quickstart", "--host", kfp_server.url)[0] == 2
    assert run("submit", "quickstart", "--host", kfp_server.url, "--token-file", str(tmp_path / "right"))[0] == 0
    monkeypatch.setenv(cluster.TOKEN_VARIABLE, CANARY)
    assert run("submit", "quickstart", "--host", kfp_server.url)[0] == 0
    assert run("submit", "quickstart", "--host", kfp_server.url, "--token-file", str(tmp_path / "wrong"))[0] == 2


def test_a_token_file_is_read_again_when_it_is_renewed(kfp_server: KfpServer, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    kfp_server.token = "first"
    kfp_server.script = SUCCESS
    original = kfp_server._play

    def play(played: dict[str, object]) -> None:
        original(played)
        kfp_server.token = "second"
        file.write_text("second")

    kfp_server._play = play
    assert run("submit", "quickstart", "--host", kfp_server.url, "--wait", "--token-file", str(file))[0] == 0


def test_a_token_that_expires_while_waiting_ends_the_waiting_and_not_the_run(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cluster.TOKEN_VARIABLE, CANARY)
    kfp_server.token = CANARY
    kfp_server.script = FIRST
    kfp_server.fault("GET", "/runs/", status=401, skip=2)
    code, out, err = run("submit", "quickstart", "--host", kfp_server.url, "--wait")
    assert code == 2
    assert "may have expired" in err
    assert "the run goes on: http" in err
    assert CANARY not in out + err


def test_an_expired_token_is_never_shown_not_even_when_the_server_repeats_it(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cluster.TOKEN_VARIABLE, CANARY)
    kfp_server.token = "the new one"
    code, out, err = run("submit", "quickstart", "--host", kfp_server.url)
    assert code == 2
    assert "the token is that of LLM2LLM_KFP_TOKEN" in err
    assert "Bearer ***" in err
    assert CANARY not in out + err


def test_the_token_is_in_nothing_that_is_sent_or_printed(
    kfp_server: KfpServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cluster.TOKEN_VARIABLE, CANARY)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    kfp_server.token = CANARY
    kfp_server.script = SUCCESS
    code, out, err = run("submit", "quickstart", "--host", kfp_server.url, "--wait", "--set", "placement.profile=gke")
    assert code == 0
    assert CANARY not in out + err + "".join(kfp_server.bodies) + "".join(kfp_server.requests)


def test_what_kfps_context_logs_in_with_is_not_shown_either(kfp_server: KfpServer, run: Run, tmp_path: Path) -> None:
    context = {"namespace": "", "client_authentication_header_name": "authorization",
               "client_authentication_header_value": f"Basic {CANARY}"}  # fmt: skip
    (tmp_path / "context.json").write_text(json.dumps(context))
    kfp_server.token = "other"
    code, out, err = run("submit", "quickstart", "--host", kfp_server.url)
    assert code == 2
    assert "***" in err
    assert CANARY not in out + err


def test_a_server_for_one_user_is_not_told_a_namespace_and_the_user_is_told_so(kfp_server: KfpServer, run: Run) -> None:
    code, _, err = run("submit", "quickstart", "--host", kfp_server.url, "--namespace", "team-a")
    assert code == 0
    assert "team-a" not in "".join(kfp_server.bodies)
    assert err.startswith(f"warning: --namespace team-a: {kfp_server.url} serves one user and ignores it")
    assert run("schedule", "list", "--host", kfp_server.url)[2] == ""


def test_a_token_does_not_travel_in_the_clear(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cluster.TOKEN_VARIABLE, CANARY)
    code, _, err = run("submit", "quickstart", "--host", "http://kubeflow.example.org")
    assert code == 2
    assert "use https://" in err


@pytest.mark.parametrize("content", ["", "two words", "zwölf", None])
def test_a_token_file_that_holds_none_is_refused_before_anything_is_sent(
    content: str | None, kfp_server: KfpServer, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    code, _, err = run("submit", "quickstart", "--host", kfp_server.url, "--token-file", str(file))
    assert code == 2
    assert str(file) in err
    assert not content or content not in err
    assert kfp_server.requests == []


def test_a_certificate_of_ones_own_authority_is_trusted_when_it_is_given(
    kfp_server: KfpServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key),
            "-out", str(certificate)]  # fmt: skip
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    plain = kfp_server.url.replace("http://", "https://")
    assert "no secure connection" in run("submit", "quickstart", "--host", plain)[2]
    kfp_server.encrypt(context)
    code, _, err = run("submit", "quickstart", "--host", kfp_server.url)
    assert code == 2
    assert "is not trusted; give the file" in err
    assert run("submit", "quickstart", "--host", kfp_server.url, "--ca-file", str(certificate))[0] == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert run("submit", "quickstart", "--host", kfp_server.url)[0] == 0
    assert run("submit", "quickstart", "--host", kfp_server.url, "--ca-file", "none.pem")[0] == 2


def test_a_login_page_in_place_of_an_answer_is_recognised(kfp_server: KfpServer, run: Run) -> None:
    kfp_server._route = lambda *arguments: LOGIN_PAGE
    code, _, err = run("submit", "quickstart", "--host", kfp_server.url)
    assert code == 2
    assert "log in" in err


def test_kfps_own_context_is_used(kfp_server: KfpServer, run: Run, tmp_path: Path) -> None:
    kfp_server.multi_user = True
    assert "--namespace" in run("submit", "quickstart", "--host", kfp_server.url)[2]
    (tmp_path / "context.json").write_text('{"namespace": "team-a"}')
    assert run("schedule", "list", "--host", kfp_server.url)[0] == 0
    assert run("submit", "quickstart", "--host", kfp_server.url)[0] == 0
    assert run("submit", "quickstart", "--host", kfp_server.url, "--namespace", "team-b")[0] == 0
    assert any('"namespace": "team-a"' in body for body in kfp_server.bodies)


def test_an_unknown_experiment_is_refused_with_the_nearest_unless_it_is_to_be_made(
    kfp_server: KfpServer, run: Run
) -> None:
    kfp_server.experiments["e1"] = {"experiment_id": "e1", "display_name": "weekly"}
    code, _, err = run("submit", "quickstart", "--host", kfp_server.url, "--experiment", "weekyl")
    assert code == 2
    assert "no experiment 'weekyl'; did you mean 'weekly'?" in err
    assert kfp_server.runs == {}
    arguments = ("submit", "quickstart", "--host", kfp_server.url, "--experiment", "new", "--create-experiment")
    assert run(*arguments)[0] == 0
    assert len(kfp_server.experiments) == 3


def test_a_dry_run_needs_no_server_and_tells_what_would_be_sent(run: Run) -> None:
    code, out, _ = run(
        "submit", "quickstart", "--dry-run", "--parameter", f"{EPOCHS}=2", "--host", "http://127.0.0.1:9"
    )
    assert code == 0
    assert compile_upload(load_config("quickstart")).sha256 in out
    assert f"{EPOCHS}: 2" in out


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ("student_epoch=2", "did you mean 'student_epochs'?"),
        ("student_epochs", "expected name=value"),
        ("student_epochs=-1", "greater than 0"),
        ("loop_max_iterations=9", "more than the 3 that the pipeline was compiled with"),
        ('settings={"train": {"start_from": "previous"}}', "task: missing"),
        ("student_epochs=[", "not YAML"),
        ("data_test=s3://b/{{x}}.jsonl", "which Kubeflow replaces on the way"),
    ],
)
def test_a_parameter_that_the_run_would_choke_on_is_refused_here(parameter: str, says: str, run: Run) -> None:
    code, _, err = run("submit", "quickstart", "--dry-run", "--parameter", parameter)
    assert code == 2
    assert says in err


def test_runs_run_as_the_account_of_the_placement_unless_another_is_named(kfp_server: KfpServer, run: Run) -> None:
    gke = ("submit", "quickstart", "--host", kfp_server.url, "--set", "placement.profile=gke")
    for flags in ((), ("--service-account", "mine"), ("--set", "placement.service_account=")):
        assert run(*gke, *flags)[0] == 0
    assert run("submit", "quickstart", "--host", kfp_server.url)[0] == 0
    accounts = [started.get("service_account") for started in kfp_server.runs.values()]
    assert accounts == ["llm2llm-runs", "mine", None, None]


def test_parameters_reach_the_run(kfp_server: KfpServer, run: Run) -> None:
    given = (
        "--parameter",
        f"{EPOCHS}=2.5",
        "--parameter",
        "teacher_model=007",
        "--service-account",
        "trainer",
        "--run-name",
        "mine",
    )
    assert run("submit", "quickstart", "--host", kfp_server.url, *given)[0] == 0
    (started,) = kfp_server.runs.values()
    # All of them are sent: the UI compares runs by what each was given.
    changed = {EPOCHS: 2.5, "teacher_model": "007"}
    assert started["runtime_config"]["parameters"] == {**to_parameters(load_config("quickstart")), **changed}
    assert (started["service_account"], started["display_name"]) == ("trainer", "mine")


def test_the_help_imports_neither_kfp_nor_kubernetes() -> None:
    program = (
        "import sys; from llm2llm.pipelines.cli import main as cli\n"
        "from llm2llm.pipelines.cli.cluster import COMMANDS\n"
        "for one in COMMANDS: cli.cli.add_command(one)\n"
        "try: cli.main(['submit', '--help'])\n"
        "except SystemExit: pass\n"
        "print({'kfp', 'kubernetes', 'kfp_server_api', 'yaml', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
