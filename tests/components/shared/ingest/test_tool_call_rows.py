"""Conversations with tool calls: OpenAI's `messages`, ShareGPT's turns, prompt and completion; one content, one id."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.ingest.examples import to_examples
from llm2llm.components.shared.ingest.export import export_rows
from llm2llm.components.shared.ingest.sources import read_examples, read_raw
from llm2llm.components.shared.tasks import Task, load_task

CALLS = load_task({"name": "calls", "form": "json", "columns": {"tools": "tools"}})
TEXT = Task(name="free", form="text", match="exact")


def tool(name: str, **properties: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"type": "function", "function": {"name": name, "description": "It does.", "parameters": parameters}}


TOOLS = [tool("weather", city="string", days="integer"), tool("timer", minutes="integer")]
ASKED = "The weather in Łódź tomorrow, and a timer, please."
ARGUMENTS: list[tuple[str, dict[str, Any]]] = [("weather", {"city": "Łódź", "days": 1}), ("timer", {"minutes": 5})]
PLAIN = [{"name": name, "arguments": given} for name, given in ARGUMENTS]
OPENAI = [
    {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
    for number, (name, given) in enumerate(ARGUMENTS)
]
SPOKEN = {"role": "assistant", "content": None, "tool_calls": OPENAI}
ROWS: dict[str, dict[str, Any]] = {
    "columns": {"question": ASKED, "answer": PLAIN, "tools": TOOLS},
    "messages": {"messages": [{"role": "user", "content": ASKED}, SPOKEN], "tools": TOOLS},
    "arguments as objects": {
        "messages": [
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": "", "tool_calls": [{"function": one} for one in PLAIN]},
        ],
        "tools": json.dumps(TOOLS),
    },
    "prompt and completion": {"prompt": [{"role": "user", "content": ASKED}], "completion": [SPOKEN], "tools": TOOLS},
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": ASKED},
            {"from": "function_call", "value": json.dumps(PLAIN)},
        ],
        "tools": json.dumps(TOOLS),
    },
}


def put(folder: Path, *rows: dict[str, Any]) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / "rows.jsonl")


@pytest.mark.parametrize("name", ROWS)
def test_the_same_call_has_the_same_id_in_every_format(tmp_path: Path, name: str) -> None:
    (expected,) = read_examples(put(tmp_path, ROWS["columns"]), CALLS)
    (found,) = read_examples(put(tmp_path, ROWS[name]), CALLS)
    assert json.loads(found.answer) == PLAIN
    assert (found.id, found.question, found.tools) == (expected.id, ASKED, expected.tools)


def test_parquet_that_fills_in_other_rows_arguments_is_the_same(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": ASKED, "tool_calls": None},
                {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": one}]},
            ],
            "tools": json.dumps(TOOLS),
        }
        for one in PLAIN
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    filled = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert filled[1]["messages"][1]["tool_calls"][0]["function"]["arguments"]["city"] is None
    from_lines = read_examples(put(tmp_path, *rows), CALLS)
    assert [row.id for row in read_examples(str(tmp_path / "rows.parquet"), CALLS)] == [row.id for row in from_lines]
    assert [json.loads(row.answer) for row in from_lines] == [[one] for one in PLAIN]


HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is it warm in Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"days": 1, "city": "Rome"}'}}]},
    {"role": "tool", "tool_call_id": "a", "content": '{"degrees": 31}'},
    {"role": "assistant", "content": "Yes, 31 degrees."},
    {"role": "user", "content": "Then a timer."},
]  # fmt: skip
RENDERED = (
    "Be brief.\n\nUser: Is it warm in Rome?\n\n"
    'Assistant: [{"name": "weather", "arguments": {"city": "Rome", "days": 1}}]\n\n'
    'Tool: {"degrees": 31}\n\nAssistant: Yes, 31 degrees.\n\nUser: Then a timer.'
)
TIMER = {"name": "timer", "arguments": {"minutes": 5}}


def test_earlier_calls_and_the_results_of_tools_are_context(tmp_path: Path) -> None:
    last = {"role": "assistant", "content": "", "function_call": {"name": "timer", "arguments": '{"minutes": 5}'}}
    (one,) = read_examples(put(tmp_path, {"messages": [*HISTORY, last], "tools": TOOLS}), CALLS)
    assert (one.question, json.loads(one.answer)) == (RENDERED, [TIMER])
    sharegpt = [
        {"from": "human", "value": "Is it warm in Rome?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome", "days": 1}}'},
        {"from": "observation", "value": '{"degrees": 31}'},
        {"from": "gpt", "value": "Yes, 31 degrees."},
        {"from": "human", "value": "Then a timer."},
        {"from": "function_call", "value": json.dumps(TIMER)},
    ]
    row = {"system": "Be brief.", "conversations": sharegpt, "tools": json.dumps(TOOLS)}
    assert read_examples(put(tmp_path, row), CALLS)[0].id == one.id
    # To a task whose answers are texts they are context as well.
    text = [*HISTORY, {"role": "assistant", "content": "Done."}]
    (free,) = read_examples(put(tmp_path, {"messages": text}), TEXT)
    assert (free.question, free.answer) == (RENDERED, "Done.")


def test_what_follows_the_last_call_is_left_out_and_said(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": ASKED},
        {**SPOKEN, "content": "One moment."},
        {"role": "tool", "content": "ok"},
        {"role": "assistant", "content": "Done."},
    ]
    raw = read_raw(put(tmp_path, {"messages": turns, "tools": TOOLS}), CALLS, CALLS.columns)
    (one,) = to_examples(raw, CALLS, CALLS.columns, None)
    assert json.loads(one.answer) == PLAIN
    assert raw.notes == [
        "in 1 rows, turns behind the assistant's last call are left out",
        "in 1 rows, what the assistant says beside its calls is left out",
    ]


def test_no_call_is_an_answer_where_the_row_says_so(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": None, "tool_calls": []}]
    (one,) = read_examples(put(tmp_path, {"messages": turns, "tools": TOOLS}), CALLS)
    assert one.answer == "[]"
    turns[1] = {"role": "assistant", "content": "Hello!", "tool_calls": []}
    with pytest.raises(UserError, match=r"rows\.jsonl:1: the answer is not JSON"):
        read_examples(put(tmp_path, {"messages": turns, "tools": TOOLS}), CALLS)


def test_a_call_of_a_tool_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the answer calls 'weather', and the row offers timer"):
        read_examples(put(tmp_path, {**ROWS["messages"], "tools": TOOLS[1:]}), CALLS)
    without = {"messages": ROWS["messages"]["messages"]}
    with pytest.raises(UserError, match="no column 'tools'"):
        read_examples(put(tmp_path, without), CALLS)


def test_exported_messages_hold_the_calls_and_are_read_back(tmp_path: Path) -> None:
    rows = read_examples(put(tmp_path, ROWS["messages"]), CALLS)
    export_rows(rows, tmp_path / "chat.jsonl", "messages")
    (written,) = map(json.loads, (tmp_path / "chat.jsonl").read_text("utf-8").splitlines())
    assert written["messages"] == [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": one} for one in PLAIN]},
    ]
    assert written["tools"] == TOOLS
    (again,) = read_examples(str(tmp_path / "chat.jsonl"), CALLS)
    assert (again.id, again.answer) == (rows[0].id, rows[0].answer)
