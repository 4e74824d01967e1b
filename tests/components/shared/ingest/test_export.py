"""Exports: the same rows when read back, safe in a spreadsheet, whole or not at all."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, content_id
from llm2llm.components.shared.ingest.csv_cells import plain_cell, safe_cell
from llm2llm.components.shared.ingest.export import CONTENT, LINEAGE, export_rows
from llm2llm.components.shared.ingest.sources import read_examples, read_raw
from llm2llm.components.shared.models.prompts import encode, encode_rationale
from llm2llm.components.shared.tasks import Columns, Task
from llm2llm.components.shared.tasks.chat import ChatSettings
from tests.components.shared.models.test_chat_templates import SHIPPED
from tests.components.shared.tasks.forms.test_json import CALL, CALLS, WEATHER

TEXT = Task(name="free", form="text", match="exact", question_cue="\0", columns=Columns(question="body", answer="told"))
CHOICE = Task(name="m", form="multiple_choice", columns=Columns(choices="options"))
SUMS = Task(name="s", form="numeric", rationale=True)


def row(
    question: str, answer: str, rationale: str | None = None, choices: list[str] | None = None, **more: Any
) -> Example:
    id_ = content_id(question, choices or [], rationale, answer, more.get("tools", []))
    return Example(id=id_, question=question, choices=choices or [], rationale=rationale, answer=answer, **more)


starts = st.sampled_from(
    ["", "=", "+", "-", "@", "\n", "＝", "＠", "'", "'=", "''-", "=1+cmd|' /C calc'!A0", '"', ",", ";"]
)
characters = st.characters(codec="utf-8", exclude_categories=["Cc", "Cf"]) | st.just("\n")
texts = st.builds(str.__add__, starts, st.text(characters, max_size=20)).map(str.strip).filter(bool)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(texts, texts, st.lists(texts, max_size=2)), min_size=1, max_size=4), st.booleans())
def test_rows_come_back_as_they_were(tmp_path: Path, contents: list[tuple[str, str, list[str]]], lineage: bool) -> None:
    rows = [row(question, answer, also_right=others, skills=["adding"]) for question, answer, others in contents]
    for name in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"rows.{name}"
        export_rows(rows, path, name, lineage=lineage)  # type: ignore[arg-type]
        assert read_raw(str(path), TEXT, TEXT.columns).format == "examples"
        read = read_examples(str(path), TEXT)
        assert [(one.id, one.question, one.answer, one.also_right, one.skills) for one in read] == [
            (one.id, one.question, one.answer, one.also_right, one.skills) for one in rows
        ], name


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_choices_and_rationales_come_back(tmp_path: Path, name: Any) -> None:
    path = tmp_path / f"rows.{name}"
    numbers = [row("How many?", "B", choices=["-4", "=2", "1"])]
    export_rows(numbers, path, name)
    assert [(one.id, one.choices, one.answer) for one in read_examples(str(path), CHOICE)] == [
        (numbers[0].id, ["-4", "=2", "1"], "B")
    ]
    sums = [row("16-7?", "-9", "- first"), row("1+1?", "2")]
    export_rows(sums, path, name, lineage=True)
    assert [one.id for one in read_examples(str(path), SUMS)] == [one.id for one in sums]


def test_no_cell_of_csv_is_a_formula(tmp_path: Path) -> None:
    rows = [row("=1+1", "-5", source="@me"), row("+49 30", "@home"), row("'=x", "'")]
    export_rows(rows, tmp_path / "rows.csv", "csv", lineage=True)
    with open(tmp_path / "rows.csv", encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for line in lines for cell in line.values())
    assert [line["question"] for line in lines] == ["'=1+1", "'+49 30", "''=x"]
    assert lines[2]["answer"] == "'"


@given(st.text())
def test_a_safe_cell_is_no_formula_and_has_an_inverse(text: str) -> None:
    assert not safe_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert plain_cell(safe_cell(text)) == text


def test_an_apostrophe_of_other_peoples_csv_stays(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,body,told,question,answer\n7,'-5 is cold,x,'-5 is cold,x\n")
    assert read_examples(str(tmp_path / "rows.csv"), TEXT)[0].question == "'-5 is cold"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3))
def test_chat_exports_without_a_task_have_the_same_ids(tmp_path: Path, contents: list[tuple[str, str]]) -> None:
    rows = [row(question, answer) for question, answer in contents]
    for name in ("messages", "prompt_completion"):
        export_rows(rows, tmp_path / "rows.jsonl", name)  # type: ignore[arg-type]
        assert [one.id for one in read_examples(str(tmp_path / "rows.jsonl"), TEXT)] == [one.id for one in rows]


def test_chat_exports_of_a_task_are_what_its_student_is_trained_on(tmp_path: Path) -> None:
    task = Task(name="s", form="numeric", rationale=True, instruction="Solve.")
    rows = [row("16-7?", "9", "16-7=9")]
    export_rows(rows, tmp_path / "rows.jsonl", "messages", task)
    (line,) = (tmp_path / "rows.jsonl").read_text().splitlines()
    prompt, target = "Solve.\nQuestion: 16-7?\nAnswer:", "16-7=9\n#### 9"
    assert json.loads(line) == {
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": target}]
    }
    export_rows(rows, tmp_path / "rows.jsonl", "prompt_completion", task, lineage=True)
    found = json.loads((tmp_path / "rows.jsonl").read_text())
    assert (found["prompt"], found["completion"], found["id"]) == (prompt, f" {target}", rows[0].id)
    export_rows([row("Where?", "B", choices=["x", "y"])], tmp_path / "rows.jsonl", "messages")
    assert json.loads((tmp_path / "rows.jsonl").read_text())["messages"][0]["content"] == "Where?\nA. x\nB. y"


TEAM = ChatSettings(system="You are brief.")
CLASSES = Task(name="c", form="classification", labels=["a", "b"], rationale=True, chat=TEAM)
EXPORTED = {
    "system": (TEXT.model_copy(update={"chat": TEAM}), row("Who?", "me")),
    "rationale first": (CLASSES, row("Which?", "a", "It is so.")),
    "rationale beside": (CLASSES.model_copy(update={"rationale_as": "second_task"}), row("Which?", "a", "It is so.")),
    "calls": (CALLS, row("Is it warm?", CALL, tools=[WEATHER])),
    "no call": (CALLS.model_copy(update={"chat": TEAM}), row("Thanks!", "[]", tools=[WEATHER])),
    "calls as text": (
        CALLS.model_copy(update={"answer_schema": {"type": "array", "items": {"type": "object"}}}),
        row("Is it warm?", CALL, tools=[WEATHER]),
    ),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_a_trainer_that_applies_the_template_sees_the_students_own_tokens(
    name: str, tmp_path: Path, tiny_student: Path
) -> None:
    task, example = EXPORTED[name]
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    tokenizer.chat_template = SHIPPED["qwen2_5"].read_text("utf-8")
    export_rows([example], tmp_path / "rows.jsonl", "messages", task)
    exported = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    own = [encode(tokenizer, task, example)]
    own += [encode_rationale(tokenizer, task, example)] if tasks.is_second_task(task) else []
    assert [tokenizer.decode(one.prompt + one.completion).removesuffix(tokenizer.eos_token).strip() for one in own] == [
        tokenizer.apply_chat_template(one["messages"], tools=one.get("tools"), tokenize=False).strip()
        for one in exported
    ]


def test_lineage_is_left_out_or_put_in(tmp_path: Path) -> None:
    rows = [row("a", "b", source="seeds.jsonl:1", parent_id="p", checks=["valid"], confidence=0.5)]
    export_rows(rows, tmp_path / "plain.parquet", "parquet")
    assert set(pq.read_schema(tmp_path / "plain.parquet").names) == set(CONTENT)
    export_rows(rows, tmp_path / "full.jsonl", "jsonl", lineage=True)
    assert set(CONTENT) | set(LINEAGE) == set(Example.__dataclass_fields__)
    assert read_rows(tmp_path / "full.jsonl", "examples", Example) == rows


def test_nothing_half_written_and_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"export: no rows to write to .*rows\.csv"):
        export_rows([], tmp_path / "rows.csv", "csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export_rows([row("a", "b")], tmp_path / "file" / "rows.csv", "csv")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
