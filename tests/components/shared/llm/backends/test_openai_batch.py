"""The batch API as a teacher: nothing is sent twice, whenever the process is killed; every request has its answer."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.backends import openai_batch as batch_endpoint
from llm2llm.components.shared.llm.backends import openai_batch_api
from llm2llm.components.shared.llm.budget import SpendTracker, most_input_tokens
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse
from llm2llm.components.shared.llm.settings import Budget, ModelSettings, Price
from tests.support.batch_server import MODEL, Batch, BatchServer, Ending, answered, expired, refused

CANARY = "sk-canary-5f2e9b1c7d"
PRICES = {MODEL: Price(input=1.0, output=2.0)}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setattr(batch_endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(batch_endpoint, "LONGEST_WAIT", 0.05)
    monkeypatch.setenv("CANARY_KEY", CANARY)
    server = BatchServer()
    yield server
    server.close()


def requests(count: int, **fields: Any) -> list[LLMRequest]:
    return [
        LLMRequest(messages=[{"role": "user", "content": f"Row {n}"}], temperature=0.5, max_tokens=64, **fields)
        for n in range(count)
    ]


def settings(server: BatchServer, **values: Any) -> ModelSettings:
    given = {"model": MODEL, "url": server.url, "api_key_env": "CANARY_KEY", "tries": 3, **values}
    return ModelSettings.load(given, "test")


def tracker(ledger: Path, run: str = "run-1", **values: Any) -> SpendTracker:
    return SpendTracker(run=run, ledger=str(ledger), prices=PRICES, **values)


def answers_of(server: BatchServer, tracker: SpendTracker, asked: list[LLMRequest], **values: Any) -> list[LLMResponse]:
    with open_teacher(settings(server, **values), "batch", tracker) as teacher:
        return teacher(asked)


def left(ledger: Path) -> list[str]:
    """What is noted about batches."""
    # A file that begins with a dot is one that a killed process had not finished.
    return sorted(path.name for path in (ledger / "batches").glob("[!.]*"))


def test_every_request_is_sent_once_and_answered_at_half_the_price(server: BatchServer, tmp_path: Path) -> None:
    looks: list[int] = []

    def ends(batch: Batch) -> Ending | None:
        looks.append(batch.looks)
        return Ending([answered(key, f"answer to {key}") for key in reversed(batch.keys)]) if batch.looks > 3 else None

    server.ends = ends
    book = tracker(tmp_path)
    came = answers_of(server, book, requests(5))
    assert [answer.text for answer in came] == [f"answer to {answer.key}" for answer in came]
    assert all(answer.usd == pytest.approx((11 + 2 * 7) / 1e6 / 2) for answer in came)
    assert book.spent.usd == pytest.approx(5 * 25 / 2e6)
    assert (book.spent.tokens, book.spent.calls, book.reserved) == (90, 5, 0)
    assert looks == [1, 2, 3, 4]
    (batch,) = server.batches
    assert batch.lines[0]["body"] == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Row 0"}],
        "temperature": 0.5,
        "max_tokens": 64,
    }
    assert left(tmp_path) == []

    again = tracker(tmp_path, "run-2")
    assert [answer.text for answer in answers_of(server, again, requests(5))] == [answer.text for answer in came]
    assert (again.spent.calls, len(server.batches)) == (0, 1)


def test_the_form_of_an_answer_is_a_schema_or_words_and_data_holds_no_control_tokens(
    server: BatchServer, tmp_path: Path
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    (request,) = requests(1, schema=schema)
    request = LLMRequest(
        messages=[{"role": "user", "content": "x<|im_end|>"}], schema=schema, temperature=0.5, max_tokens=64
    )
    answers_of(server, tracker(tmp_path / "a"), [request])
    answers_of(server, tracker(tmp_path / "b"), [request], structured="words")
    formed, worded = (batch.lines[0]["body"] for batch in server.batches)
    assert formed["response_format"]["json_schema"]["schema"] == schema
    assert formed["messages"][0]["content"] == "x< |im_end|>"
    assert "response_format" not in worded
    assert json.dumps(schema) in worded["messages"][0]["content"]
    at_openai = batch_endpoint._body(request, ModelSettings(model="m"))
    assert "max_tokens" not in at_openai
    assert at_openai["max_completion_tokens"] == 64


START = """
import sys
from pathlib import Path
from llm2llm.components.shared.llm.backends import openai_batch as batch_endpoint
from tests.components.shared.llm.backends import test_openai_batch as t
batch_endpoint.FIRST_WAIT = batch_endpoint.LONGEST_WAIT = 0.05
class Server: url = sys.argv[1]
for answer in t.answers_of(Server, t.tracker(Path(sys.argv[2])), t.requests(int(sys.argv[3]))):
    print(answer.outcome)
"""


def killed(server: BatchServer, ledger: Path, count: int, when: Callable[[], bool], how: signal.Signals) -> str:
    """What a process says that asks the server until `when`, and is then killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, server.url, str(ledger), str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[5])]), "PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 60
    while not when():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == -how
    return said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_killed_while_it_waits_leaves_a_batch_that_the_next_start_collects(
    server: BatchServer, tmp_path: Path, how: signal.Signals
) -> None:
    server.ends = lambda batch: None
    killed(server, tmp_path, 6, lambda: bool(server.batches) and server.batches[0].looks > 1, how)
    assert len(left(tmp_path)) == 2
    server.ends = lambda batch: Ending([answered(key) for key in batch.keys])
    book = tracker(tmp_path)
    # The next start asks for other things as well, and no longer for all of the same.
    came = answers_of(server, book, requests(8)[2:])
    assert [answer.outcome for answer in came] == ["answered"] * 6
    assert [len(batch.lines) for batch in server.batches] == [6, 2]
    assert len(set(server.requested)) == len(server.requested)
    assert book.spent.calls == 6
    assert [answer.outcome for answer in answers_of(server, book, requests(8))] == ["answered"] * 8
    assert len(server.requested) == 8
    assert left(tmp_path) == []


@pytest.mark.parametrize("where", ["/files", "/batches"])
def test_a_process_killed_between_upload_and_the_batchs_id_sends_nothing_twice(
    server: BatchServer, tmp_path: Path, where: str
) -> None:
    """At `/files` the batch has not been made, at `/batches` it has, but its maker does not hear of it."""
    stalled: list[str] = []

    def before(method: str, path: str) -> bool:
        if (method, path) == ("POST", "/files") and where == "/files":
            stalled.append(path)
            time.sleep(60)
        return False

    def after_create(batch: Batch) -> bool:
        stalled.append("/batches")
        time.sleep(2)
        return False

    server.before = before  # type: ignore[assignment]
    if where == "/batches":
        server.after_create = after_create
    killed(server, tmp_path, 4, lambda: bool(stalled), signal.SIGKILL)
    assert len(left(tmp_path)) == 1
    server.before, server.after_create = lambda method, path: False, lambda batch: True
    came = answers_of(server, tracker(tmp_path), requests(4))
    assert [answer.outcome for answer in came] == ["answered"] * 4
    assert [len(batch.lines) for batch in server.batches] == [4]
    assert left(tmp_path) == []


def test_a_batch_whose_creation_was_not_heard_of_is_found_not_made_again(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_endpoint.time, "sleep", lambda seconds: None)
    server.after_create = lambda batch: False
    came = answers_of(server, tracker(tmp_path), requests(3))
    assert [answer.outcome for answer in came] == ["answered"] * 3
    assert len(server.batches) == 1


def test_another_runs_batch_is_waited_for_and_one_that_it_never_sent_is_taken_over(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ends = lambda batch: None
    killed(server, tmp_path, 3, lambda: bool(server.batches) and server.batches[0].looks > 0, signal.SIGKILL)
    server.ends = lambda batch: Ending([answered(key) for key in batch.keys])
    assert [a.outcome for a in answers_of(server, tracker(tmp_path, "run-2"), requests(3))] == ["answered"] * 3
    assert len(server.batches) == 1

    server.before = lambda method, path: time.sleep(60) is None if path == "/files" else False
    killed(server, tmp_path, 9, lambda: len(left(tmp_path)) == 1, signal.SIGKILL)
    server.before = lambda method, path: False
    monkeypatch.setattr(batch_endpoint, "MAKING", 3.0)
    assert [a.outcome for a in answers_of(server, tracker(tmp_path, "run-2"), requests(9))] == ["answered"] * 9
    assert sorted(len(batch.lines) for batch in server.batches) == [3, 6]
    assert left(tmp_path) == []


def test_what_another_run_has_collected_since_the_ledger_was_looked_at_is_not_sent(
    server: BatchServer, tmp_path: Path
) -> None:
    answers_of(server, tracker(tmp_path, "run-2"), requests(3))
    came = batch_endpoint.send(requests(4), settings(server), tracker(tmp_path))
    assert [(answer.outcome, answer.paid) for answer in came] == [("answered", False)] * 3 + [("answered", True)]
    assert [len(batch.lines) for batch in server.batches] == [3, 1]


def test_two_runs_that_send_the_same_at_once_send_one_batch(server: BatchServer, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    server.ends = lambda batch: Ending([answered(key) for key in batch.keys]) if batch.looks > 20 else None
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(answers_of, server, tracker(tmp_path, f"run-{n}"), requests(5)) for n in range(4)]
    assert all(answer.outcome == "answered" for run in runs for answer in run.result())
    assert [len(batch.lines) for batch in server.batches] == [5]


def test_doubled_missing_foreign_and_broken_lines_leave_one_outcome_for_each_request(
    server: BatchServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(batch: Batch) -> Ending:
        first, second, third, fourth, fifth, _ = batch.keys
        good = answered(first, "the first")
        odd = {"custom_id": fifth, "response": {"status_code": 200, "body": {"choices": []}}, "error": None}
        output = [good, answered(first, "the second"), answered("f" * 32), b"{half a li", b"[1]", b"", odd]
        errors = [refused(second, 400, f"no schemas, {CANARY}"), refused(first, 500, "late"), expired(third)]
        return Ending([*output, answered(fourth, "", refusal="I will not")], errors)

    server.ends = ends
    book = tracker(tmp_path)
    by_key = {answer.key: answer for answer in answers_of(server, book, requests(6))}
    first, second, third, fourth, fifth, sixth = (by_key[key] for key in server.batches[0].keys)
    assert (first.outcome, first.text) == ("answered", "the first")
    assert (second.outcome, second.detail) == ("failed", "HTTP 400: no schemas, ***")
    assert (third.outcome, third.detail) == ("failed", "batch_expired: not done within 24 h")
    assert (fourth.outcome, fourth.text, fourth.refusal) == ("answered", "", "I will not")
    assert (fifth.outcome, fifth.detail) == ("failed", "what came is no chat completion")
    assert sixth.outcome == "failed"
    assert "has no result for it" in sixth.detail
    # What was refused or never done costs nothing; what may have been done is booked at its worst.
    worst = most_input_tokens(sixth.request) + 64
    assert book.spent.calls == 4
    assert book.spent.tokens == 2 * 18 + 2 * worst
    assert "passed over 5 lines" in capsys.readouterr().out
    assert left(tmp_path) == []

    # Asked again, only what has no answer is sent.
    server.ends = lambda batch: Ending([answered(key) for key in batch.keys])
    assert [answer.outcome for answer in answers_of(server, book, requests(6))] == ["answered"] * 6
    assert [len(batch.lines) for batch in server.batches] == [6, 4]


def test_what_the_content_filter_stopped_is_a_refusal_and_a_count_beyond_reason_is_none(
    server: BatchServer, tmp_path: Path
) -> None:
    def ends(batch: Batch) -> Ending:
        line = answered(batch.keys[0], "half a")
        line["response"]["body"]["choices"][0]["finish_reason"] = "content_filter"
        line["response"]["body"]["usage"]["completion_tokens"] = 2**70
        return Ending([line])

    server.ends = ends
    (answer,) = answers_of(server, tracker(tmp_path), requests(1))
    assert (answer.refusal, answer.output_tokens) == ("the endpoint's content filter stopped the answer", None)
    assert answer.input_tokens == 11


@pytest.mark.parametrize("status", ["expired", "cancelled", "failed"])
def test_of_a_batch_that_did_not_complete_what_finished_is_kept(
    server: BatchServer, tmp_path: Path, status: str
) -> None:
    server.ends = lambda batch: Ending(
        [answered(key) for key in batch.keys[:2]] if status != "failed" else [], status=status, why="too many tokens"
    )
    book = tracker(tmp_path)
    came = answers_of(server, book, requests(5))
    kept = 0 if status == "failed" else 2
    assert sorted(answer.outcome for answer in came) == ["answered"] * kept + ["failed"] * (5 - kept)
    failed = next(answer for answer in came if answer.outcome == "failed")
    assert failed.detail == f"batch batch-0 ({status}) has no result for it: too many tokens"
    assert (book.spent.calls, book.reserved) == (kept, 0)
    # The same requests again are another batch, though a batch of the same requests has failed before.
    server.ends = lambda batch: Ending([answered(key) for key in batch.keys])
    assert [answer.outcome for answer in answers_of(server, book, requests(5))] == ["answered"] * 5
    assert [len(batch.lines) for batch in server.batches] == [5, 5 - kept]


def test_many_requests_are_split_by_number_and_by_size(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_endpoint, "MOST_REQUESTS", 4)
    assert len(answers_of(server, tracker(tmp_path / "a"), requests(10))) == 10
    assert [len(batch.lines) for batch in server.batches] == [4, 4, 2]
    monkeypatch.setattr(batch_endpoint, "MOST_REQUESTS", 50_000)
    size = len(server.files[server.batches[0].input_file]) // 4
    monkeypatch.setattr(batch_endpoint, "MOST_BYTES", 3 * size + size // 2)
    assert len(answers_of(server, tracker(tmp_path / "b"), requests(7))) == 7
    assert [len(batch.lines) for batch in server.batches[3:]] == [3, 3, 1]
    assert all(len(server.files[batch.input_file]) <= 3 * size + size // 2 for batch in server.batches[3:])


def test_the_budget_holds_at_half_the_price_and_freed_money_sends_more(server: BatchServer, tmp_path: Path) -> None:
    worst = (most_input_tokens(requests(1)[0]) + 2 * 64) / 1e6 / 2
    seen: list[float] = []
    book = tracker(tmp_path, budget=Budget(usd=3.5 * worst))

    def ends(batch: Batch) -> Ending:
        seen.append(len(batch.lines))
        return Ending([answered(key) for key in batch.keys])

    server.ends = ends
    came = answers_of(server, book, requests(6))
    assert [answer.outcome for answer in came] == ["answered"] * 6
    assert seen == [3, 3]
    assert book.spent.usd <= 3.5 * worst

    tight = tracker(tmp_path / "b", budget=Budget(calls=2))
    outcomes = [answer.outcome for answer in answers_of(server, tight, requests(5))]
    assert sorted(outcomes) == ["answered"] * 2 + ["over_budget"] * 3
    assert len(server.requested) == 8


def test_a_silent_server_is_borne_while_a_batch_is_at_work(server: BatchServer, tmp_path: Path) -> None:
    server.ends = lambda batch: Ending([answered(key) for key in batch.keys]) if batch.looks > 2 else None
    count = 0

    def before(method: str, path: str) -> Any:
        nonlocal count
        if path.startswith("/batches/"):
            count += 1
            return (503, {"error": {"message": "busy"}}) if count % 3 == 1 else None if count % 3 == 2 else False
        return False

    server.before = before
    came = answers_of(server, tracker(tmp_path), requests(2), tries=1)
    assert [answer.outcome for answer in came] == ["answered"] * 2
    assert len(server.batches) == 1


def test_a_server_silent_for_too_long_is_an_error_and_the_batch_goes_on(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_batch_api, "PATIENCE", 0.3)
    server.before = lambda method, path: (503, {"error": {"message": CANARY}}) if path == "/batches/batch-0" else False
    with pytest.raises(UserError, match="batch-0 goes on, and the next start collects it") as problem:
        answers_of(server, tracker(tmp_path), requests(2), tries=1)
    assert CANARY not in str(problem.value)
    server.before = lambda method, path: False
    assert [answer.outcome for answer in answers_of(server, tracker(tmp_path), requests(2))] == ["answered"] * 2
    assert len(server.batches) == 1


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/models", 401, r"refuses the key \(HTTP 401\); set the environment variable CANARY_KEY"),
        ("/files", 403, r"refuses the key \(HTTP 403\)"),
        ("/files", 404, "has no batch API there"),
        ("/batches", 400, "BadRequestError"),
        ("/batches", 429, "RateLimitError"),
    ],
)
def test_what_cannot_work_is_one_line_that_names_the_endpoint_and_never_the_key(
    server: BatchServer, tmp_path: Path, path: str, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_endpoint.time, "sleep", lambda seconds: None)
    server.before = lambda method, got: (status, {"error": {"message": f"key {CANARY}"}}) if got == path else False
    with pytest.raises(UserError, match=said) as problem:
        answers_of(server, tracker(tmp_path), requests(2), tries=2)
    assert server.url in str(problem.value)
    assert CANARY not in str(problem.value)
    assert "\n" not in str(problem.value)
    assert server.batches == []
    # The note of a batch that was never made does not stand in the way.
    server.before = lambda method, got: False
    assert [answer.outcome for answer in answers_of(server, tracker(tmp_path), requests(2))] == ["answered"] * 2


def test_a_model_that_is_not_listed_is_a_warning(server: BatchServer, tmp_path: Path, capfd: Any) -> None:
    answers = answers_of(server, tracker(tmp_path), requests(1), model="teacher-9b")
    assert [answer.outcome for answer in answers] == ["answered"]
    assert "does not list model 'teacher-9b'; did you mean 'teacher-8b'?" in capfd.readouterr().out


def test_a_batch_that_the_server_no_longer_knows_is_not_silently_paid_for_again(
    server: BatchServer, tmp_path: Path
) -> None:
    server.ends = lambda batch: None
    killed(server, tmp_path, 2, lambda: bool(server.batches) and server.batches[0].looks > 0, signal.SIGKILL)
    server.batches.clear()
    with pytest.raises(UserError, match=r"knows no batch batch-0.*remove .*/batches/\w+\.json to have"):
        answers_of(server, tracker(tmp_path), requests(2))
    for note in (tmp_path / "batches").glob("*.json"):
        note.unlink()
    server.ends = lambda batch: Ending([answered(key) for key in batch.keys])
    assert [answer.outcome for answer in answers_of(server, tracker(tmp_path), requests(2))] == ["answered"] * 2


def test_a_damaged_note_is_an_error_that_names_it(server: BatchServer, tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    for data in (b"\x00", b"{}", b'{"tag": 1, "identity": "i", "run": "r", "made_at": 1, "keys": 3}', b"[]"):
        (tmp_path / "batches" / "x.json").write_bytes(data)
        with pytest.raises(UserError, match=r"batches/x\.json: is no note of a batch"):
            answers_of(server, tracker(tmp_path), requests(1))


def test_without_a_ledger_a_batch_is_sent_and_collected_all_the_same(server: BatchServer) -> None:
    book = SpendTracker(run="r", prices=PRICES)
    assert [answer.outcome for answer in answers_of(server, book, requests(3))] == ["answered"] * 3
    assert book.spent.calls == 3


def test_the_key_goes_to_the_server_and_nowhere_else(
    server: BatchServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    monkeypatch.setenv("CANARY_KEY", f"{CANARY}\n")  # as a secret that was made from a file has it
    server.ends = lambda batch: Ending(
        [answered(key, f"your key is {CANARY}") for key in batch.keys[:2]], [refused(batch.keys[2], 400, CANARY)]
    )
    came = answers_of(server, tracker(tmp_path), requests(3))
    assert server.keys == {f"Bearer {CANARY}"}
    assert [answer.text for answer in came].count("your key is ***") == 2
    assert CANARY not in repr(came)
    said = capfd.readouterr()
    assert CANARY not in said.out + said.err
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert CANARY.encode() not in (gzip.decompress(data) if path.suffix == ".gz" else data)
