"""All inputs of a run, read in one place: general rows are no rows of the task, one column counts from one start."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.prepare.settings import PrepareSettings
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.ingest.read_inputs import read_inputs
from llm2llm.components.shared.tasks import Task

MOOD = Task(name="mood", form="classification", labels=["bad", "so so", "good"])


def put(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def moods(folder: Path, name: str, answers: list[Any]) -> str:
    return put(folder, name, [{"question": f"{name} {i}", "answer": one} for i, one in enumerate(answers)])


def test_general_rows_are_read_as_general_rows(tmp_path: Path) -> None:
    sources = {
        "seeds": moods(tmp_path, "seeds.jsonl", ["bad", "good"]),
        "validation": "",
        "replay": put(tmp_path, "chat.jsonl", [{"conversations": [{"from": "human", "value": "What do bees make?"},
                                                                 {"from": "gpt", "value": "Honey.\nQuestion: no"}]}]),
    }  # fmt: skip
    inputs = read_inputs(sources, MOOD, PrepareSettings())
    assert {name: len(one.examples) for name, one in inputs.items()} == {"seeds": 2, "validation": 0, "replay": 1}
    assert (inputs["seeds"].format, inputs["replay"].format) == ("columns", "sharegpt")
    assert inputs["replay"].examples[0].answer == "Honey.\nQuestion: no"
    assert inputs["replay"].examples[0].choices == []


@pytest.mark.parametrize(
    "columns", [{}, {"replay_columns": {"question": "instruction", "answer": "output"}}, {"replay_format": "alpaca"}]
)
def test_general_rows_have_a_format_of_their_own(tmp_path: Path, columns: dict[str, Any]) -> None:
    sources = {
        "seeds": moods(tmp_path, "seeds.jsonl", ["bad", "good"]),
        "replay": put(tmp_path, "alpaca.jsonl", [{"instruction": "Name a fruit.", "output": "A pear."}]),
    }
    inputs = read_inputs(sources, MOOD, PrepareSettings.load(columns, "prepare"))
    assert (inputs["replay"].examples[0].question, inputs["replay"].examples[0].answer) == ("Name a fruit.", "A pear.")


def test_a_0_in_one_input_tells_what_the_others_count_from(tmp_path: Path) -> None:
    sources = {
        "seeds": moods(tmp_path, "seeds.jsonl", [0, 1, 2]),
        "validation": moods(tmp_path, "validation.jsonl", [1, 2]),
    }
    inputs = read_inputs(sources, MOOD, PrepareSettings())
    assert [row.answer for row in inputs["validation"].examples] == ["so so", "good"]
    with pytest.raises(UserError, match="the answer 1 may be 'so so', counted from 0 or 'bad', counted from 1"):
        read_inputs({"validation": sources["validation"]}, MOOD, PrepareSettings())


def test_an_input_that_cannot_be_read_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    sources = {
        "seeds": moods(tmp_path, "seeds.jsonl", ["bad", "good"]),
        "validation": str(tmp_path / "none.jsonl"),
        "test": moods(tmp_path, "test.jsonl", ["good", "gut"]),
    }
    told: dict[str, str] = {}
    inputs = read_inputs(sources, MOOD, PrepareSettings(), lambda name, problem: told.update({name: str(problem)}))
    assert list(inputs) == ["seeds"]
    assert "none.jsonl: no such file" in told["validation"]
    assert told["test"].startswith("test.jsonl:2: the answer 'gut' is not in the label set")
    with pytest.raises(UserError, match="no such file"):
        read_inputs(sources, MOOD, PrepareSettings())
