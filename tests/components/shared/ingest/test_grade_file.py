"""Grading a file of any model's completions."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.ingest.grade_file import grade_file
from llm2llm.components.shared.tasks import TASKS, Task


def lines(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def graded(tmp_path: Path, task: Task, *values: Any) -> list[dict[str, Any]]:
    grade_file(lines(tmp_path / "in.jsonl", *values), tmp_path / "out.jsonl", task)
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_gsm8k(tmp_path: Path) -> None:
    source = lines(
        tmp_path / "in.jsonl",
        {"completion": "16-7=9\n#### 9", "answer": "16-3-4=9\n#### 9", "model": "mine"},
        {"completion": "#### -9", "answer": 9},
        {"completion": "I do not know", "answer": "9", "correct": True},
    )
    counts = grade_file(source, tmp_path / "out" / "graded.jsonl", TASKS["gsm8k"])
    assert counts == {"correct": 1, "wrong": 1, "unparseable": 1}
    result = [json.loads(line) for line in (tmp_path / "out" / "graded.jsonl").read_text().splitlines()]
    assert result == [
        {"completion": "16-7=9\n#### 9", "answer": "16-3-4=9\n#### 9", "model": "mine", "correct": True, "parsed": "9",
         "outcome": "correct"},
        {"completion": "#### -9", "answer": 9, "correct": False, "parsed": "-9", "outcome": "wrong"},
        {"completion": "I do not know", "answer": "9", "correct": False, "parsed": None, "outcome": "unparseable"},
    ]  # fmt: skip


def outcomes(tmp_path: Path, task: Task, *values: Any) -> list[str]:
    return [row["outcome"] for row in graded(tmp_path, task, *values)]


def test_labels_and_letters(tmp_path: Path) -> None:
    sst2 = [{"completion": "Positive.", "answer": 1}, {"completion": "positive", "answer": "negative"}]
    assert outcomes(tmp_path, TASKS["sst2"], *sst2) == ["correct", "wrong"]
    choices = ["one", "two", "three", "four", "five"]
    casehold = [
        {"completion": "B", "answer": "B"},
        {"completion": "B", "answer": 1},
        {"completion": "B", "answer": "two", "choices": choices},
        {"completion": "B", "answer": "A", "choices": choices},
    ]
    assert outcomes(tmp_path, TASKS["casehold"], *casehold) == ["correct", "correct", "correct", "wrong"]


def test_a_file_may_be_graded_in_place_and_half_characters_survive(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", {"completion": "9 \ud83d", "answer": "9", "note": "ü"})
    grade_file(path, path, TASKS["gsm8k"])
    row = json.loads(path.read_text(encoding="utf-8"))
    assert (row["completion"], row["note"], row["correct"]) == ("9 \ud83d", "ü", True)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"completion": "9"}, "in.jsonl:2: no field 'answer'"),
        ({"answer": "9"}, "in.jsonl:2: no field 'completion'"),
        ({"completion": None, "answer": "B"}, "in.jsonl:2: `completion` must be text, got NoneType"),
        ({"completion": "B", "answer": None}, "in.jsonl:2: `answer` must be text or a number, got NoneType"),
        ({"completion": "B", "answer": True}, "in.jsonl:2: `answer` must be text or a number, got bool"),
        ({"completion": "B", "answer": ["B"]}, "in.jsonl:2: `answer` must be text or a number, got list"),
        ({"completion": "B", "answer": "F"}, "in.jsonl:2: the answer 'F' is none of the choices"),
        ({"completion": "B", "answer": "A", "choices": None}, "in.jsonl:2: `choices` must be a list of texts"),
        ({"completion": "B", "answer": "A", "choices": "AB"}, "in.jsonl:2: `choices` must be a list of texts"),
        ({"completion": "B", "answer": "A", "choices": ["a"]}, "in.jsonl:2: expected 5 choices, got 1"),
    ],
)
def test_what_is_refused_leaves_no_output(tmp_path: Path, row: Any, says: str) -> None:
    source = lines(tmp_path / "in.jsonl", {"completion": "B", "answer": "B"}, row)
    with pytest.raises(UserError) as caught:
        grade_file(source, tmp_path / "out.jsonl", TASKS["casehold"])
    assert says in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_an_empty_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in\.jsonl: no rows"):
        grade_file(lines(tmp_path / "in.jsonl"), tmp_path / "out.jsonl", TASKS["sst2"])
    with pytest.raises(UserError, match=r"cannot read .*none\.jsonl"):
        grade_file(tmp_path / "none.jsonl", tmp_path / "out.jsonl", TASKS["sst2"])
