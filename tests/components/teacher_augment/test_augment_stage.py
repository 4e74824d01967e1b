"""The stage against an endpoint that behaves and misbehaves: every row is accounted for, and paid for once."""

import dataclasses
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.journal import read_journal
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Call, Example, Reject, StudentError
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.lineage.embedded import content_hash, embed_record
from llm2llm.components.shared.llm.ledger import list_entries
from llm2llm.components.shared.tasks import load_task
from llm2llm.components.teacher_augment.augment import TooManyFailures
from llm2llm.components.teacher_augment.student import folder_digest
from tests.support.misbehaving_server import MODEL, Faults, Running, misbehaving
from tests.support.run_augment_stage import OUTPUTS, go, prepare

CANARY = "sk-canary-5f3a9c1e7b"
COLOURS = {"name": "colours", "form": "classification", "labels": ["red", "green", "blue"]}
ROWS = [{"question": f"a thing that is like the sky, number {n}", "answer": "blue"} for n in range(5_000)]


@pytest.fixture(autouse=True)
def the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("LLM2LLM_RUN_ID", "run-1")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path, seeds, mistake) -> Path:
    return prepare(tmp_path, seeds, [mistake(seed) for seed in seeds])


def settings(server: Running, folder: Path, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "url": server.url, "ledger": str(folder / "ledger"), "max_failed_fraction": 0.5, **more}


def sent(server: Running) -> int:
    return int(server.stats()["requests"])


def rows_of(made: dict[str, Any]) -> tuple[list[Example], list[Reject], list[Call]]:
    journal = read_journal(made["journal"])
    return (
        read_rows(made["candidates"].path, "candidates", Example),
        list(journal.rejects),
        list(journal.calls),
    )


def same_content(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(content_hash(one[name].path) == content_hash(other[name].path) for name in OUTPUTS)


def test_the_same_again_sends_nothing_and_leaves_the_same(folder: Path, capfd, monkeypatch) -> None:
    with misbehaving(ROWS) as server:
        one = go(folder, folder / "one", COLOURS, settings(server, folder))
        first = sent(server)
        assert "12 rows asked for, 12 usable; 12 calls; paid now: 12 requests, " in capfd.readouterr().out
        for run_id in ("run-1", "run-2"):  # the stage tried again, and another run
            monkeypatch.setenv("LLM2LLM_RUN_ID", run_id)
            two = go(folder, folder / run_id, COLOURS, settings(server, folder))
            assert same_content(one, two)
            assert "12 calls; paid now: 0 requests, 0 tokens" in capfd.readouterr().out
            assert read_journal(two["journal"]).spent.calls == (12 if run_id == "run-1" else 0)
        assert sent(server) == first == 12


def test_a_changed_prompt_asks_only_what_it_changes_and_a_changed_check_nothing(folder: Path) -> None:
    mine = folder / "mine.md"
    mine.write_text("# user\nSolve this: {{question}}\n", encoding="utf-8")
    with misbehaving(ROWS) as server:
        whole = settings(server, folder, verify="resolve", verification={"samples": 2})
        _, _, calls = rows_of(go(folder, folder / "one", COLOURS, whole))
        assert Counter(call.purpose for call in calls) == {"write": 12, "resolve": 24}
        before = sent(server)
        for changed in ({"checks": []}, {"max_failed_fraction": 0.4}, {"verification": {"samples": 1}}):
            go(folder, folder / "two", COLOURS, {**whole, **changed})
        assert sent(server) == before
        go(folder, folder / "three", COLOURS, {**whole, "prompts": {"solve": str(mine)}})
        assert sent(server) == before + 24


def test_a_later_iteration_gets_new_answers_and_knows_what_was_paid(folder: Path, seeds, mistake) -> None:
    errors = [mistake(seed, iteration=iteration) for iteration in (0, 1) for seed in seeds]
    prepare(folder, seeds, errors)
    with misbehaving(ROWS) as server:
        values = settings(server, folder, budget={"calls": 20})
        first = go(folder, folder / "one", COLOURS, values)
        before = {"previous_journal": first["journal"], "iteration": 2}
        second = go(folder, folder / "two", COLOURS, values, **before)
        candidates, rejects, calls = rows_of(second)
        assert Counter(call.iteration for call in calls) == {1: 12, 2: 8}
        assert len({call.key for call in calls}) == 20
        assert [reject.reason for reject in rejects if reject.iteration == 2].count("over_budget") == 4
        assert len(candidates) + len([r for r in rejects if r.iteration == 2]) == 12
        assert read_journal(second["journal"]).spent.calls == 20 == sent(server)
        go(folder, folder / "three", COLOURS, values, **before)
        assert sent(server) == 20


def test_what_failed_in_an_earlier_iteration_is_asked_for_again(folder: Path, seeds, mistake) -> None:
    prepare(folder, seeds, [mistake(seed, iteration=iteration) for iteration in (0, 1) for seed in seeds])
    with misbehaving(ROWS, Faults(error=0.5), seed=2) as server:
        values = settings(server, folder, tries=1, max_failed_fraction=1)
        first = go(folder, folder / "one", COLOURS, values)
        before = {"previous_journal": first["journal"], "iteration": 2}
        _, _, calls = rows_of(go(folder, folder / "two", COLOURS, values, **before))
    first_key = {call.parent_id: call.key for call in calls if call.iteration == 1}
    failed = {call.parent_id for call in calls if call.iteration == 1 and call.outcome == "failed"}
    assert 0 < len(failed) < 12
    for call in calls:
        assert call.iteration == 1 or (call.key == first_key[call.parent_id]) == (call.parent_id in failed)


def test_without_cache_another_run_pays_again(folder: Path, monkeypatch) -> None:
    with misbehaving(ROWS) as server:
        go(folder, folder / "one", COLOURS, settings(server, folder, cache=False))
        go(folder, folder / "two", COLOURS, settings(server, folder, cache=False))
        assert sent(server) == 12, "a retry of the same run"
        monkeypatch.setenv("LLM2LLM_RUN_ID", "run-2")
        go(folder, folder / "three", COLOURS, settings(server, folder, cache=False))
        assert sent(server) == 24


def test_too_many_failures_fail_the_stage_and_what_was_paid_for_stays(folder: Path) -> None:
    with misbehaving(ROWS, Faults(refusal=1.0)) as server:
        with pytest.raises(
            TooManyFailures, match=r"12 of 12 requested rows are not usable .*; what was paid for is in"
        ):
            go(folder, folder / "one", COLOURS, settings(server, folder, attempts=1))
        assert not (folder / "one").exists()
        assert len(list(list_entries(str(folder / "ledger")))) == 12
        go(folder, folder / "two", COLOURS, settings(server, folder, attempts=1, max_failed_fraction=1))
        assert sent(server) == 12


def test_the_key_is_nowhere(folder: Path, capfd) -> None:
    """Also where the server repeats it in everything that it says."""
    with misbehaving(ROWS, Faults(error=0.2, refusal=0.2), seed=3, echo_key=True) as server:
        go(folder, folder / "one", COLOURS, settings(server, folder, verify="judge", max_failed_fraction=1, tries=3))
        go(folder, folder / "two", COLOURS, settings(server, folder, model="other", attempts=1, max_failed_fraction=1))
    said = capfd.readouterr()
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    files += [gzip.decompress(content) for content in files if content.startswith(b"\x1f\x8b")]
    assert len(files) > 24
    for content in (*files, said.out.encode(), said.err.encode()):
        assert CANARY.encode() not in content


def test_several_teachers_and_one_that_verifies(folder: Path) -> None:
    with misbehaving(ROWS) as one, misbehaving(ROWS, seed=1) as two:
        several = {
            "teachers": [{"model": MODEL, "url": one.url}, {"model": MODEL, "url": two.url, "teacher": "openai"}],
        }
        with pytest.raises(SystemExit):
            go(folder, folder / "no", COLOURS, {**several, "ledger": str(folder / "ledger")})
        made = go(
            folder, folder / "one", COLOURS,
            settings(one, folder, verify="resolve",
                     verification={"by": {"model": MODEL, "url": two.url}, "samples": 1}),
        )  # fmt: skip
        _, _, calls = rows_of(made)
        assert (sent(one), sent(two)) == (12, 12)
        assert Counter(call.purpose for call in calls) == {"write": 12, "resolve": 12}


def test_a_student_is_known_by_what_is_in_its_folder(tmp_path: Path) -> None:
    for name in ("one", "two", "other"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "sub" / "x.json").write_text("{}")
        (tmp_path / name / "training.json").write_text(name)
        embed_record(tmp_path / name, {"version": 2, "stage": "train", "python": name})
    (tmp_path / "other" / "sub" / "x.json").write_text("{ }")
    one, two, other = (folder_digest(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two != other


def test_a_strategy_that_asks_the_student_needs_one(folder: Path, capfd) -> None:
    sums = {"name": "sums", "form": "numeric", "rationale": True}
    for student, expected in (
        (None, "'star' asks the student of the iteration before, and the stage was given none"),
        (LocalArtifact(str(folder / "none")), "is not there, or is empty"),
    ):
        with pytest.raises(SystemExit):
            go(folder, folder / "out", sums, {"teacher": "transformers", "strategy": "star"}, student_model=student)
        assert expected in capfd.readouterr().err


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory, sums, gsm8k) -> Path:
    """The folder of a tiny student that has learnt nothing yet."""
    from llm2llm.components.shared.training.scratch import build_student
    from llm2llm.components.shared.training.settings import ScratchSettings

    folder = tmp_path_factory.mktemp("student") / "one"
    tiny = ScratchSettings(vocabulary=300, hidden_size=32, layers=2, heads=2, context=2048)
    model, tokenizer = build_student(sums, gsm8k, tiny, random_seed=7)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["star", "self"])
def test_the_student_itself_is_asked_and_found_again_in_another_folder(
    tmp_path: Path, student: Path, sums, mistake, strategy: str, capfd
) -> None:
    prepare(tmp_path, sums, [mistake(seed) for seed in sums])
    values = {"teacher": "transformers", "strategy": strategy, "max_tokens": 24, "max_failed_fraction": 1,
              "ledger": str(tmp_path / "ledger"), "budget": {"usd": 1.0}}  # fmt: skip
    one = go(tmp_path, tmp_path / "one", "gsm8k", values, student_model=LocalArtifact(str(student)))
    candidates, rejects, calls = rows_of(one)
    assert len(candidates) + len(rejects) == len(sums)
    assert {call.model for call in calls} == {"student"}
    assert {call.usd for call in calls} == {0.0}
    assert {row.teacher for row in rejects} <= {"transformers:student"}
    moved = shutil.copytree(student, tmp_path / "moved")
    capfd.readouterr()
    two = go(tmp_path, tmp_path / "two", "gsm8k", values, student_model=LocalArtifact(str(moved)))
    assert same_content(one, two)
    assert "paid now: 0 requests" in capfd.readouterr().out
    assert len(list(list_entries(str(tmp_path / "ledger")))) == len(calls)


# --- 2,000 rows of GSM8K under fire ----------------------------------------------------------------------------------

FIRE = Faults.of(0.1)
ROWS_UNDER_FIRE = 2_000


@pytest.fixture
def under_fire(real_data: Path, tmp_path: Path, mistake: Callable[..., StudentError]) -> tuple[Path, list[Any]]:
    """(a folder with 2,000 errors on real seeds, the rows that the server answers from)."""
    task = load_task("gsm8k")
    real = read_examples(str(real_data / "gsm8k" / "train.jsonl"), task)
    seeds = real[:ROWS_UNDER_FIRE]
    prepare(tmp_path, seeds, [mistake(seed, "I do not know") for seed in seeds])
    rows = [
        {"question": row.question, "answer": row.answer, "rationale": row.rationale} for row in real[ROWS_UNDER_FIRE:]
    ]
    return tmp_path, rows


def fire_settings(server: Running, folder: Path, **more: Any) -> dict[str, Any]:
    fire = {"timeout": 4, "tries": 20, "concurrency": 128, "max_failed_fraction": 0.1, **more}
    return settings(server, folder, **fire)


def check_all_accounted_for(made: dict[str, Any], rows: list[Any]) -> None:
    candidates, rejects, calls = rows_of(made)
    assert len(candidates) + len(rejects) == ROWS_UNDER_FIRE
    assert len({call.key for call in calls}) == len(calls)
    reasons = Counter(reject.reason for reject in rejects)
    truth = {row["question"].strip(): row["answer"] for row in rows}
    wrong = sum(truth[row.question] != row.answer for row in candidates)
    print(f"{len(candidates)} kept, of them {wrong} wrong; rejected {dict(reasons)}; {len(calls)} calls")
    assert reasons.keys() <= {"copy", "wrong_arithmetic", "refused", "truncated", "unparseable", "empty", "call_failed",
                              "unusual_length"}  # fmt: skip
    assert wrong < 0.01 * len(candidates), "a wrong answer nearly always shows in its rationale"
    assert len(candidates) > 0.6 * ROWS_UNDER_FIRE


@pytest.mark.slow
@pytest.mark.data
def test_two_thousand_rows_under_fire_are_all_accounted_for_and_paid_for_once(under_fire) -> None:
    folder, rows = under_fire
    with misbehaving(rows, FIRE) as server:
        made = go(folder, folder / "one", "gsm8k", fire_settings(server, folder))
        stats = server.stats()
        check_all_accounted_for(made, rows)
        _, _, calls = rows_of(made)
        # The same text is asked again when its answer could not be used; each such call is a key of its own.
        answered = [call for call in calls if call.outcome == "answered"]
        assert sum(stats["delivered"].values()) == len(answered) == len(list(list_entries(str(folder / "ledger"))))
        assert all(stats["met"][field.name] > 20 for field in dataclasses.fields(Faults))
        two = go(folder, folder / "two", "gsm8k", fire_settings(server, folder))
        assert same_content(made, two)
        assert len(answered) == len(calls), "every call was answered in the end"
        assert server.stats()["requests"] == stats["requests"]


@pytest.mark.slow
@pytest.mark.data
def test_a_sigkill_in_the_middle_loses_no_row_and_pays_for_none_twice(under_fire) -> None:
    folder, rows = under_fire
    ledger = str(folder / "ledger")
    with misbehaving(rows, FIRE) as server:
        arguments = {"folder": str(folder), "output": str(folder / "killed"), "task": "gsm8k",
                     "settings": fire_settings(server, folder)}  # fmt: skip
        (folder / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
        root = Path(__file__).parents[3]
        command = [sys.executable, "-m", "tests.support.run_augment_stage", str(folder / "arguments.json")]
        with subprocess.Popen(command, cwd=root) as stage:
            while sum(server.stats()["delivered"].values()) < 600:
                assert stage.poll() is None, "the stage ended before it was killed"
                time.sleep(0.05)
            os.kill(stage.pid, signal.SIGKILL)
        _settled(server)
        at_kill, kept = server.stats(), len(list(list_entries(ledger)))
        lost = sum(at_kill["delivered"].values()) - kept
        assert not (folder / "killed").exists()
        assert 400 < kept < ROWS_UNDER_FIRE
        assert 0 <= lost <= 128, "no more than the calls in flight"
        made = go(folder, folder / "again", "gsm8k", fire_settings(server, folder))
        check_all_accounted_for(made, rows)
        again = sum(server.stats()["delivered"].values()) - sum(at_kill["delivered"].values())
        assert again == len(list(list_entries(ledger))) - kept, "nothing that the ledger held was sent again"
        print(f"killed with {kept} answers in the ledger and {lost} on their way; {again} more were paid for")


def _settled(server: Running) -> None:
    """Waits until the server has got rid of the connections of the killed process."""
    before = -1
    while (now := sum(server.stats()["delivered"].values())) != before:
        before = now
        time.sleep(2.5)
