"""Telling how a run ended: one message, whose address no text shows."""

import socket

import pytest

from llm2llm.components.notify.exit_task import ending_of, tell
from llm2llm.components.notify.notify import message, send, told
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.shared.registry.nothing_new import take_nothing_new, write_nothing_new
from llm2llm.components.shared.registry.notify_settings import NotifySettings
from tests.support.webhook import URL, Webhook

ENDING = '{"notify": {"kind": "webhook"}}'


@pytest.fixture(autouse=True)
def in_a_run(monkeypatch: pytest.MonkeyPatch, of_no_run: None) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "run-7")
    monkeypatch.delenv("KUBECONFIG", raising=False)


def test_slack_is_sent_a_text_alone_with_its_markup_escaped() -> None:
    assert message("slack", "failed", "colours", "run-7", "a < b & <!channel>\nand more", {"x": 1}) == {
        "text": "llm2llm colours: run run-7 failed: a &lt; b &amp; &lt;!channel&gt; and more"
    }


@pytest.mark.parametrize(
    ("status", "problem"), [(200, ""), (204, ""), (302, "the address answered 302"), (500, "the address answered 500")]
)
def test_a_message_is_sent_once_whatever_the_answer(hook: Webhook, status: int, problem: str) -> None:
    hook.status = status
    assert send(hook.url, {"text": "x"}) == problem
    assert hook.received == [{"text": "x"}]
    assert hook.paths == ["/hook/s3cret"]


@pytest.mark.parametrize("url", ["ftp://host/s3cret", "s3cret", "http://", "http://[s3cret", "http://a b/s3cret"])
def test_no_text_shows_the_address(url: str) -> None:
    problem = send(url, {"text": "x"}, tries=1)
    assert problem
    assert "s3cret" not in problem


def test_an_address_where_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert send(f"http://127.0.0.1:{port}/", {}, tries=2) == "no connection: ConnectionRefusedError"


def test_only_the_endings_that_are_named_are_told(hook: Webhook) -> None:
    settings = NotifySettings(kind="webhook", outcomes=["failed"])
    assert "is not told" in told(settings, hook.url, "succeeded", {})
    assert hook.received == []


@pytest.mark.parametrize(
    ("state", "outcome"), [("COMPLETE", "succeeded"), ("FAILED", "failed"), ("RUNNING", "terminated")]
)
def test_the_exit_task_tells_what_kubeflow_says(hook: Webhook, state: str, outcome: str) -> None:
    line = tell("colours", ENDING, state, "colours-abcde")
    assert "s3cret" not in line
    (one,) = hook.received
    assert (one["outcome"], one["pipeline"], one["run"]) == (outcome, "colours", "run-7")


@pytest.mark.parametrize("state", ["COMPLETE", "RUNNING"])
def test_the_exit_task_learns_from_the_registry_that_nothing_was_new(hook: Webhook, tmp_path: str, state: str) -> None:
    registry = str(tmp_path)
    write_nothing_new(registry, "run-7", "nothing new since v1")
    ending = f'{{"notify": {{"kind": "webhook"}}, "registry": "{registry}"}}'
    tell("colours", ending, state, "")
    (one,) = hook.received
    assert (one["outcome"], one["reason"]) == ("nothing_new", "nothing new since v1")
    assert take_nothing_new(registry, "run-7") == "", "what was told is no longer written down"


def test_without_an_address_the_run_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)
    assert tell("colours", ENDING, "COMPLETE", "w").endswith(f"{URL} is not set")


@pytest.mark.parametrize(
    ("pods", "outcome"),
    [
        ([], "terminated"),
        ([("r.root.a(0)", "1", "Succeeded"), ("r.root.b(0)", "2", "Succeeded")], "succeeded"),
        ([("r.root.a(0)", "1", "Failed"), ("r.root.a(1)", "2", "Succeeded")], "succeeded"),
        ([("r.root.a(0)", "1", "Succeeded"), ("r.root.b(0)", "2", "Failed")], "terminated"),
        ([("r.root.a(0)", "1", "Succeeded"), ("r.root.b(0)", "2", "Running")], "terminated"),
        ([("r.root.a(0)", "1", "Succeeded"), ("r.root.run.onExit.notify-driver(0)", "3", "Running")], "succeeded"),
    ],
)
def test_pods_tell_how_a_run_ended_whose_state_stood_still(pods: list[tuple[str, str, str]], outcome: str) -> None:
    assert ending_of(pods) == outcome
