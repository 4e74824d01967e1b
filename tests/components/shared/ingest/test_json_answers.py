"""Rows whose answers are JSON: as text, as nested columns, with tools."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.export import export_rows
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.tasks import Task, load_task

TASK = Task(
    name="orders",
    form="json",
    answer_schema={
        "type": "object",
        "properties": {"item": {"type": "string"}, "count": {"type": "integer"}, "due": {"type": "string"}},
        "required": ["item", "count"],
    },
)
ROWS: list[dict[str, Any]] = [
    {"question": "2 lamps by May", "answer": {"item": "lamp", "count": 2, "due": "May"}},
    {"question": "1 hat", "answer": {"count": 1, "item": "hat"}},
]
TOOL = {"name": "add", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}
CALLS = load_task({"name": "calls", "form": "json", "columns": {"tools": "tools"}})


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_text_and_nested_columns_are_the_same_rows(tmp_path: Path) -> None:
    nested = read_examples(lines(tmp_path / "nested.jsonl", ROWS), TASK)
    assert [row.answer for row in nested] == [
        '{"item":"lamp","count":2,"due":"May"}',
        '{"item":"hat","count":1}',
    ]
    text = [{**row, "answer": json.dumps(row["answer"], indent=2)} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "nested.parquet")  # with a null for the second row's due
    csv = tmp_path / "text.csv"
    cells = [row["answer"].replace('"', '""') for row in text]
    csv.write_text(
        "question,answer\n" + "".join(f'{row["question"]},"{cell}"\n' for row, cell in zip(text, cells, strict=True))
    )
    chat = [
        {"messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]}
        for row in text
    ]
    for other in (lines(tmp_path / "t.jsonl", text), str(tmp_path / "nested.parquet"), str(csv),
                  lines(tmp_path / "chat.jsonl", chat)):  # fmt: skip
        assert [row.id for row in read_examples(other, TASK)] == [row.id for row in nested], other


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("{", r"rows.jsonl:1: the answer is not JSON: .*\(column 'answer'\)"),
        ({"item": "x"}, r"rows.jsonl:1: the answer does not fit task.answer_schema: lacks 'count' \(column 'answer'\)"),
        ([1], "rows.jsonl:1: .*must be object"),
        (None, "rows.jsonl:1: column 'answer' is empty"),
    ],
)
def test_a_wrong_row_is_refused_in_one_line(answer: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read_examples(lines(tmp_path / "rows.jsonl", [{"question": "q", "answer": answer}]), TASK)
    assert "\n" not in str(caught.value)


def test_rows_with_tools(tmp_path: Path) -> None:
    call = [{"name": "add", "arguments": {"n": 3}}]
    row = {"question": "add three", "answer": call}
    wrapped = {"type": "function", "function": TOOL}
    ways = [
        {**row, "tools": [TOOL]},
        {**row, "tools": json.dumps([wrapped])},
        {**row, "tools": [wrapped], "answer": json.dumps(call)},
    ]
    read = [read_examples(lines(tmp_path / f"{n}.jsonl", [one]), CALLS)[0] for n, one in enumerate(ways)]
    assert len({one.id for one in read}) == 1
    assert read[0].tools == [json.dumps(wrapped)]
    assert read[0].id != Example(id="", question="add three", answer=read[0].answer).id
    # What llm2llm has written is read as it is.
    for export_format in ("jsonl", "csv", "parquet"):
        file = tmp_path / f"own.{export_format}"
        export_rows(read[:1], file, export_format)
        again = read_examples(str(file), CALLS)[0]
        assert (again.id, again.tools) == (read[0].id, read[0].tools)
    export_rows(read[:1], tmp_path / "chat.jsonl", "messages", CALLS)
    assert json.loads((tmp_path / "chat.jsonl").read_text())["tools"] == [wrapped]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"tools": []}, "calls 'add', and the row offers no tool"),
        ({"tools": [{"description": "x"}]}, r"tools\[0\] must be a tool with a name"),
        ({"tools": [TOOL, TOOL]}, r"tools\[1\]: there is a tool 'add' already"),
        ({"tools": "add"}, "column 'tools' must hold a list of tools, got str"),
        ({"tools": [TOOL], "answer": "add(3)"}, "the answer is not JSON"),
        ({"tools": [TOOL], "answer": [{"name": "add", "arguments": {"n": "3"}}]}, 'n: must be integer, got "3"'),
    ],
)
def test_wrong_tools_are_refused_in_one_line(more: dict[str, Any], says: str, tmp_path: Path) -> None:
    row = {"question": "q", "answer": [{"name": "add", "arguments": {"n": 3}}], **more}
    with pytest.raises(UserError, match=r"rows.jsonl:1: .*" + says):
        read_examples(lines(tmp_path / "rows.jsonl", [row]), CALLS)
