"""A run that is repeated pays for nothing and leaves the same: the ledger answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.llm.ledger import list_entries
from llm2llm.components.shared.storage import write_bytes
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import run_local
from tests.support.loopback_endpoint import MODEL, Endpoint, written
from tests.support.rgw import S3Server
from tests.support.small_run import events

pytestmark = pytest.mark.slow

NOUNS = ("boat", "hat", "cup", "bag", "car", "leaf", "coat", "shoe", "door", "wall", "roof", "kite")


@pytest.fixture
def teacher() -> Iterator[Endpoint]:
    """Writes something new each time that it is asked, so that only a ledger can give the same twice."""
    endpoint = Endpoint()

    def answer(body: dict[str, Any], number: int) -> Any:
        first, second = NOUNS[number % 12], NOUNS[number // 12 % 12]
        colour, word = (("red", "scarlet"), ("green", "emerald"), ("blue", "azure"))[number % 3]
        return written((f"{word} {first}, {second} {number}", colour))

    endpoint.answer = answer
    yield endpoint
    endpoint.close()


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the ledger is."""
    if request.param == "local":
        return str(tmp_path / "ledger")
    server: S3Server = request.getfixturevalue("s3_server")
    server.use(monkeypatch)
    return f"s3://{server.bucket()}/ledger"


def test_a_run_that_is_repeated_with_the_same_inputs_writes_the_same_and_pays_for_nothing(
    small_config: Path, tmp_path: Path, teacher: Endpoint, ledger: str
) -> None:
    data = str(small_config.parent)
    if ledger.startswith("s3://"):
        data = ledger.replace("/ledger", "/data")
        for file in small_config.parent.glob("*.jsonl"):
            write_bytes(f"{data}/{file.name}", file.read_bytes())
    overrides = [
        "teacher_augment.teacher=openai",
        "teacher_augment.grammar=",
        "max_iterations=1",
        "teacher_augment.examples_per_error=1",
        f"teacher_augment.model={MODEL}",
        f"teacher_augment.url={teacher.url}",
        "teacher_augment.api_key_env=",
        f"teacher_augment.ledger={ledger}",
        *(f"data.{split}={data}/{split}.jsonl" for split in ("seeds", "validation", "test")),
    ]
    config = load_config(str(small_config), overrides, resolve=True)
    output = tmp_path / "out"  # the config that is kept names the copies of the user's files, so the same place
    run_local(config, output, "process")
    paid = len(teacher.requests)
    assert paid == len(list(list_entries(ledger))) > 0
    shown = json.dumps(teacher.requests)
    for split, is_shown in (("seeds", True), ("validation", False), ("test", False)):
        rows = [json.loads(line)["text"] for line in (small_config.parent / f"{split}.jsonl").read_text().splitlines()]
        assert any(text in shown for text in rows) == is_shown, f"what the teacher was shown of {split}"
    output.rename(tmp_path / "first")

    run_local(config, output, "process")
    assert len(teacher.requests) == paid, "something was paid for twice"
    first, second = hashes(tmp_path / "first"), hashes(output)
    assert first.keys() == second.keys()
    # What a run has paid is its own: figures of time, and of where an answer came from.
    assert {what for what, iteration in first if first[what, iteration] != second[what, iteration]} <= {
        ("train", "metrics"),
        ("report", "html"),
        ("report", "markdown"),
        ("report", "summary"),
        ("report", "manifest"),
    }


def hashes(output: Path) -> dict[tuple[tuple[str, str], int | None], str]:
    """The hash of each output of each stage, by (stage, name) and iteration."""
    return {
        ((event["stage"], name), event["iteration"]): sha256
        for event in events(output)
        if event["event"] == "finished"
        for name, sha256 in event["sha256"].items()
    }
