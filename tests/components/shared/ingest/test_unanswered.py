"""Rows to be asked: in any format, with or without their answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import content_id
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.tasks import Columns, Task

COLOURS = Task(name="c", form="classification", labels=["red", "blue"], columns=Columns(question="text", answer="c"))
USER = {"role": "user", "content": "a rose"}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "columns": ({"text": "a rose", "c": "red"}, {"text": "a rose"}),
    "empty cell": ({"text": "a rose", "c": "red"}, {"text": "a rose", "c": None}),
    "messages": ({"messages": [USER, {"role": "assistant", "content": "red"}]}, {"messages": [USER]}),
    "prompt": ({"prompt": "a rose", "completion": "red"}, {"prompt": "a rose"}),
    "chat prompt": ({"prompt": [USER], "completion": "red"}, {"prompt": [USER], "completion": []}),
    "alpaca": ({"instruction": "a rose", "output": "red"}, {"instruction": "a rose", "input": "", "output": ""}),
    "sharegpt": ({"conversations": [{"from": "human", "value": "a rose"}, {"from": "gpt", "value": "red"}]},
                 {"conversations": [{"from": "human", "value": "a rose"}]}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_answers_may_be_missing_when_rows_are_only_asked(tmp_path: Path, name: str) -> None:
    file = tmp_path / "rows.jsonl"
    answered, bare = ROWS[name]
    file.write_text(json.dumps(answered) + "\n" + json.dumps(bare) + "\n")
    first, second = read_examples(str(file), COLOURS, unanswered=True)
    assert (first.question, first.answer, second.question, second.answer) == ("a rose", "red", "a rose", "")
    assert (first.id, second.id) == (content_id("a rose", [], None, "red"), content_id("a rose", [], None, ""))
    file.write_text(json.dumps(bare) + "\n")  # the format is told from a row without an answer as well
    assert read_examples(str(file), COLOURS, unanswered=True)[0].question == "a rose"
    with pytest.raises(UserError, match=r"rows\.jsonl:1: "):
        read_examples(str(file), COLOURS)


def test_a_conversation_that_the_user_ends_is_all_question(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": [USER, {"role": "assistant", "content": "red"}, USER]}) + "\n")
    (row,) = read_examples(str(file), COLOURS, unanswered=True)
    assert (row.question, row.answer) == ("User: a rose\n\nAssistant: red\n\nUser: a rose", "")


def test_an_answer_that_is_there_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "c": null}\n{"text": "b", "c": "rad"}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl:2: the answer 'rad' is not in the label set"):
        read_examples(str(tmp_path / "rows.jsonl"), COLOURS, unanswered=True)


def test_indices_beside_missing_answers_are_still_places(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "c": 0}\n{"text": "b"}\n{"text": "d", "c": 1}\n')
    rows = read_examples(str(tmp_path / "rows.jsonl"), COLOURS, unanswered=True)
    assert [row.answer for row in rows] == ["red", "", "blue"]
