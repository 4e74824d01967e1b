"""`journal`: what a run has found out so far, longer with each stage."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.journal import (
    FILES,
    SPENT,
    Journal,
    Spending,
    read_journal,
    write_journal,
)
from llm2llm.components.shared.data.parquet import write_rows
from llm2llm.components.shared.data.schemas import KINDS, VERSION
from llm2llm.components.shared.lineage.embedded import content_hash
from tests.support.builders import (
    call,
    confusion,
    content,
    control,
    decision,
    example,
    journal_artifact,
    reject,
    score,
    student_error,
    trial,
)

ROWS = {
    "scores": [score(0, "validation", 1, 2), score(0, "test", 2, 2)],
    "errors": [student_error(example("the sky"))],
    "decisions": [decision()],
    "rejects": [reject(0, "copy")],
    "calls": [call("one"), call("two")],
    "controls": [control(["a"], 2)],
    "trials": [trial(0, "{}", ["a"], 2, chosen=True)],
    "confusions": [confusion("A", "B"), confusion("A", None)],
}


def test_it_has_the_kinds_that_rows_are_of() -> None:
    assert tuple(ROWS) == FILES
    assert set(FILES) < KINDS.keys()
    assert {one.name for one in fields(Journal)} == {*FILES, "spent"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    journal = Journal(**ROWS, spent=Spending(usd=0.1 + 0.2, tokens=7, calls=2))
    artifact = LocalArtifact(str(tmp_path / "journal"))
    write_journal(artifact, journal)
    assert read_journal(artifact) == journal
    assert artifact.metadata == {"kind": "journal", "schema_version": VERSION, "rows": 11}
    assert sorted(content(artifact)) == sorted([*(f"{kind}.parquet" for kind in FILES), SPENT])


def test_more_rows_come_after_those_that_are_there_and_nothing_else_changes() -> None:
    before = Journal(**ROWS, spent=Spending(usd=1.0))
    after = before.with_more(scores=[score(1, "validation", 2, 2)])
    assert after.scores == [*ROWS["scores"], score(1, "validation", 2, 2)]
    assert before.scores == ROWS["scores"]
    for kind in FILES[1:]:
        assert getattr(after, kind) == ROWS[kind]
    assert after.spent == Spending(usd=1.0)
    assert before.with_more(spent=Spending(usd=2.0)).spent == Spending(usd=2.0)
    assert before.with_more(spent=Spending()).spent == Spending(), "nothing spent is said as well"
    with pytest.raises(AttributeError):
        before.with_more(predictions=[])


def test_none_and_missing_files_are_empty(tmp_path: Path) -> None:
    assert read_journal(None) == Journal()
    artifact = journal_artifact(tmp_path, **ROWS)
    for name in ("scores.parquet", SPENT):
        (Path(artifact.path) / name).unlink()
    journal = read_journal(artifact)
    assert (list(journal.scores), journal.spent) == ([], Spending())
    assert journal.errors == ROWS["errors"]


def test_json_lines_are_read_as_well(tmp_path: Path) -> None:
    row = {"iteration": 0, "selection": "wrong", "errors": 3, "go_on": False, "reason": "limit reached"}
    (tmp_path / "decisions.jsonl").write_text(json.dumps({**row, "best_iteration": 0}) + "\n")
    assert read_journal(LocalArtifact(str(tmp_path))).decisions == [decision()]


def test_what_was_paid_is_no_part_of_the_content(tmp_path: Path) -> None:
    """The same run again finds the answers in the ledger, and pays less."""
    paid = journal_artifact(tmp_path, "paid", spent=Spending(usd=3.5, tokens=90, calls=4), **ROWS)
    free = journal_artifact(tmp_path, "free", **ROWS)
    assert content_hash(paid.path) == content_hash(free.path)
    assert content(paid)[SPENT] != content(free)[SPENT]


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; a journal is a folder with scores\.parquet"):
        read_journal(LocalArtifact(str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "3", '{"usd": 1}', '{"usd": "much", "tokens": 1, "calls": 1}', '{"usd": null}']
)
def test_a_damaged_account_is_refused(tmp_path: Path, text: str) -> None:
    """Taken for nothing spent, it would let a run pay its budget twice."""
    artifact = journal_artifact(tmp_path, **ROWS)
    (Path(artifact.path) / SPENT).write_text(text)
    with pytest.raises(UserError, match=r"spent\.json: does not say what the run has spent"):
        read_journal(artifact)


def test_rows_of_another_kind_and_half_a_file_are_refused(tmp_path: Path) -> None:
    artifact = journal_artifact(tmp_path, **ROWS)
    file = Path(artifact.path) / "errors.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"errors\.parquet"):
        read_journal(artifact)
    file.unlink()
    write_rows(file, "scores", ROWS["scores"])
    with pytest.raises(UserError, match=r"errors\.parquet.*scores"):
        read_journal(artifact)
