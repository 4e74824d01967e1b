"""A real pretrained model as teacher and verifier, behind vLLM's server, with and without structured output.

What a model of 135 million parameters writes is not asserted: only that every row is accounted for, that every answer
is paid for once, and that structured output has the form that was asked for.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.data.journal import read_journal
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, StudentError
from llm2llm.components.shared.llm.ledger import list_entries
from tests.support.pretrained import pretrained_student
from tests.support.run_augment_stage import go, prepare
from tests.support.vllm_server import requests_answered, vllm_python, vllm_server

__all__ = ["pretrained_student"]

pytestmark = [pytest.mark.slow, pytest.mark.vllm]

TASK = {"name": "colours", "form": "classification", "labels": ["red", "green", "blue"],
        "description": "Say which colour a thing has."}  # fmt: skip
UNREADABLE = {"unparseable", "empty", "truncated"}


@pytest.fixture(scope="module")
def server(pretrained_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    vllm_python()
    with vllm_server(pretrained_student, "smollm2", tmp_path_factory.mktemp("vllm") / "server.log") as url:
        yield url


@pytest.mark.parametrize("structured", ["json_schema", "words"])
def test_a_real_teacher_and_verifier(
    structured: str,
    server: str,
    seeds: list[Example],
    mistake: Callable[..., StudentError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    folder = prepare(tmp_path, seeds, [mistake(seed) for seed in seeds[:6]])
    settings: dict[str, Any] = {
        "model": "smollm2", "url": server, "structured": structured, "max_tokens": 120, "attempts": 2,
        "verify": "resolve", "verification": {"samples": 2}, "ledger": str(tmp_path / "ledger"),
        "max_failed_fraction": 1.0, "concurrency": 4,
    }  # fmt: skip
    before = requests_answered(server)
    made = go(folder, folder / "one", TASK, settings)
    candidates = read_rows(made["candidates"].path, "candidates", Example)
    journal = read_journal(made["journal"])
    asked = requests_answered(server) - before
    assert len(candidates) + len(journal.rejects) == 6, "every row is kept, or rejected with a reason"
    entries = list(list_entries(str(tmp_path / "ledger")))
    assert asked == len(entries) == len({call.key for call in journal.calls})
    assert {call.purpose for call in journal.calls} <= {"write", "resolve"}
    assert all(row.answer in TASK["labels"] for row in candidates)
    if structured == "json_schema":
        assert not {reject.reason for reject in journal.rejects} & (UNREADABLE - {"truncated"})
    again = go(folder, folder / "two", TASK, settings)
    assert requests_answered(server) - before == asked, "nothing is paid for twice"
    assert read_rows(again["candidates"].path, "candidates", Example) == candidates
