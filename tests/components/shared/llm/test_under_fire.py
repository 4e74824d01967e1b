"""2,000 requests from real rows to an endpoint that misbehaves: each is accounted for, and none is paid for twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.llm.backends import openai_attempts
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.chat_completion import chat_request
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.ledger import list_entries
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse
from llm2llm.components.shared.llm.settings import ModelSettings
from tests.support.misbehaving_server import MODEL, Faults, Running, misbehaving, request_hash

ROOT = Path(__file__).resolve().parents[4]
SETTINGS: dict[str, Any] = {"model": MODEL, "concurrency": 128, "timeout": 5.0, "tries": 8}
MADE_UP = [
    {"question": f"What is {n} and {n}?", "answer": str(2 * n), "rationale": f"{n}+{n}={2 * n}"} for n in range(50)
]


def real_rows(real_data: Path) -> list[dict[str, Any]]:
    """1,000 rows of GSM8K and 1,000 of SNIPS."""
    rows = []
    for line in (real_data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:1000]:
        row = json.loads(line)
        rationale, _, answer = row["answer"].rpartition("#### ")
        rows.append({"question": row["question"], "answer": answer, "rationale": rationale})
    for line in (real_data / "snips" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:1000]:
        row = json.loads(line)
        rows.append({"question": row["text"], "answer": row["intent"]})
    return rows


def asks_about(rows: Sequence[Mapping[str, Any]]) -> list[LLMRequest]:
    """One request about each row."""
    names = ("question", "answer", "rationale")
    item = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": list(names)}
    schema = {"type": "object", "properties": {"examples": {"type": "array", "items": item}}, "required": ["examples"]}
    return [
        LLMRequest(
            messages=[
                {"role": "system", "content": "Write one example like this."},
                {"role": "user", "content": json.dumps({"question": row["question"], "number": number})},
            ],
            schema=schema,
            temperature=0.7,
            max_tokens=512,
        )
        for number, row in enumerate(rows)
    ]


def answers_to(
    rows: Sequence[Mapping[str, Any]], url: str, ledger: Path, run: str = "r"
) -> tuple[list[LLMResponse], SpendTracker]:
    openai_attempts.FIRST_WAIT = 0.05
    tracker = SpendTracker(run=run, ledger=str(ledger))
    with open_teacher(ModelSettings(**SETTINGS, url=url), "openai", tracker) as teacher:
        return teacher(asks_about(rows)), tracker


@pytest.fixture(autouse=True)
def first_wait_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_attempts, "FIRST_WAIT", openai_attempts.FIRST_WAIT)


def numbers_of(hashes: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> set[int]:
    """The numbers of the rows that requests with these hashes were about, by schema or in words."""
    numbers = {
        request_hash(chat_request(request, MODEL, in_words=in_words)): number
        for number, request in enumerate(asks_about(rows))
        for in_words in (False, True)
    }
    return {numbers[one] for one in hashes}


def accounted_for(
    answers: Sequence[LLMResponse], rows: Sequence[Mapping[str, Any]], server: Running, ledger: Path
) -> None:
    """Every request has an answer that is in the ledger as the endpoint gave it, or a reason why there is none."""
    assert len(answers) == len(rows)
    stored = {entry.key: entry for entry in list_entries(str(ledger))}
    for answer, request in zip(answers, asks_about(rows), strict=True):
        assert answer.request == request
        if answer.outcome == "answered":
            assert stored[answer.key].text == answer.text
        else:
            assert (answer.outcome, bool(answer.detail)) == ("failed", True)
    outcomes = Counter(answer.outcome for answer in answers)
    assert len(stored) == outcomes["answered"] >= 0.98 * len(answers)
    delivered = server.stats()["delivered"]
    # A killed process may have been given an answer to a request that then failed for good when it was sent again.
    sent = (request_hash(entry.sent or {}) for entry in stored.values())
    lost = numbers_of(delivered, rows) - numbers_of(sent, rows)
    assert len(lost) <= outcomes["failed"], "none was lost"


@pytest.mark.slow
@pytest.mark.data
def test_two_thousand_rows_with_a_tenth_of_each_fault(real_data: Path, tmp_path: Path) -> None:
    rows = real_rows(real_data)
    with misbehaving(rows, Faults.of(0.1), seed=1) as server:
        answers, tracker = answers_to(rows, server.url, tmp_path)
        accounted_for(answers, rows, server, tmp_path)
        stats = server.stats()
        assert set(stats["delivered"].values()) == {1}, "no key was paid for twice"
        assert all(stats["met"][fault] > 50 for fault in vars(Faults()))
        assert stats["billed"]["calls"] <= tracker.paid.calls
        again, second = answers_to(rows, server.url, tmp_path, run="again")
        known = sum(answer.outcome == "answered" for answer in answers)
        assert sum(not answer.paid for answer in again) >= known
        assert second.paid.calls <= 8 * (len(rows) - known)


@pytest.mark.slow
@pytest.mark.data
def test_two_thousand_rows_with_a_sigkill_in_the_middle(real_data: Path, tmp_path: Path) -> None:
    killed_and_restarted(real_rows(real_data), Faults.of(0.1), tmp_path, until=800)


def test_a_few_rows_with_a_sigkill_in_the_middle(tmp_path: Path) -> None:
    killed_and_restarted(MADE_UP * 4, Faults(busy=0.1, error=0.1, dropped=0.1, refusal=0.1), tmp_path, until=40)


def killed_and_restarted(rows: list[dict[str, Any]], faults: Faults, tmp_path: Path, until: int) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    ledger, log = tmp_path / "ledger", tmp_path / "log"
    with misbehaving(rows, faults, seed=2, latency=0.05) as server:
        command = [sys.executable, "-c", CHILD, str(tmp_path / "rows.json"), server.url, str(ledger)]
        with open(log, "wb") as out:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=out,
                stderr=out,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])},
            )
        deadline = time.monotonic() + 120
        while len(server.stats()["delivered"]) < until and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL, log.read_text()
        time.sleep(1.0)  # the endpoint is done with what it was sent
        before = server.stats()["delivered"]
        stored = {request_hash(entry.sent or {}) for entry in list_entries(str(ledger))}
        lost = before.keys() - stored
        assert until <= len(before) < len(rows)
        assert stored <= before.keys()
        assert len(lost) <= SETTINGS["concurrency"], "only calls in flight are lost"

        answers, tracker = answers_to(rows, server.url, ledger)
        accounted_for(answers, rows, server, ledger)
        after = server.stats()["delivered"]
        twice = {key for key, times in after.items() if times > 1}
        assert twice <= lost, "nothing that the ledger held was sent again"
        # What was asked in words, after an error, may be asked by schema when it is sent again.
        held = {request_hash(entry.sent or {}) for entry in list_entries(str(ledger))}
        gone = numbers_of(lost, rows) - numbers_of(held, rows)
        assert len(gone) <= sum(answer.outcome == "failed" for answer in answers)
        assert max(after.values()) <= 2
        assert tracker.spent.calls >= len(after), "what the killed process paid for counts"


CHILD = """
import json, sys
from pathlib import Path
from tests.components.shared.llm.test_under_fire import answers_to
answers_to(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], Path(sys.argv[3]))
"""
