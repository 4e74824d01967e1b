"""Logs of applications as questions: as OpenAI's API, MLflow and Langfuse write them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.ingest.traces import Take, read_traces

MESSAGES = [
    {"role": "system", "content": "You sort tickets."},
    {"role": "user", "content": "My parcel is late."},
    {"role": "assistant", "content": "Which one?"},
    {"role": "user", "content": [{"type": "text", "text": "Number 7."}]},
]
PARTS = [{"role": "user", "content": [{"type": "input_text", "text": "Number 7."}]}]
ROOT = {"name": "chat", "parent_id": None, "attributes": {"mlflow.spanInputs": json.dumps({"messages": MESSAGES})}}
CHILD = {"name": "tool", "parent_id": "a", "attributes": {"mlflow.spanInputs": '"another question"'}}
RECORDS: dict[str, dict[str, Any]] = {
    "a request": {"model": "gpt", "messages": MESSAGES},
    "with its answer": {"messages": [*MESSAGES, {"role": "assistant", "content": "ok"}]},
    "a batch": {"custom_id": "t1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": MESSAGES}},
    "a gateway": {"id": "t1", "request": {"messages": MESSAGES}, "response": {"choices": []}},
    "responses": {"id": "t1", "input": PARTS, "output": []},
    "mlflow 3": {"info": {"trace_id": "t1", "state": "OK"}, "data": {"spans": [CHILD, ROOT]}},
    "mlflow 2": {"info": {"request_id": "t1"}, "data": {"request": json.dumps({"messages": MESSAGES}), "spans": []}},
    "mlflow's table": {"trace_id": "t1", "request": json.dumps({"messages": MESSAGES}), "response": '"ok"'},
    "mlflow's function": {"trace_id": "t1", "request": '{"question": "Number 7."}', "response": "1"},
    "langfuse trace": {"id": "t1", "name": "chat", "input": MESSAGES, "output": {"role": "assistant", "content": "1"}},
    "langfuse generation": {"id": "t1", "type": "GENERATION", "input": {"messages": MESSAGES, "tools": []}},
    "langfuse function": {"id": "t1", "input": {"args": ["Number 7."], "kwargs": {}}},
    "langfuse text": {"id": "t1", "input": "Number 7."},
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_last_question_of_the_user(tmp_path: Path, name: str) -> None:
    record = RECORDS[name]
    (tmp_path / "log.jsonl").write_text(json.dumps(record) + "\n")
    (row,) = read_traces(str(tmp_path / "log.jsonl")).rows
    named = "t1" if "t1" in json.dumps(record) else None
    assert (row.question, row.answer, row.source, row.source_id) == ("Number 7.", "", "log.jsonl:1", named)
    (tmp_path / "log.json").write_text(json.dumps([record]))
    (again,) = read_traces(str(tmp_path / "log.json")).rows
    assert again.id == row.id
    if record.get("messages") == MESSAGES:
        (whole,) = read_traces(str(tmp_path / "log.jsonl"), "all").rows
        assert whole.question == "User: My parcel is late.\n\nAssistant: Which one?\n\nUser: Number 7."


def test_a_table_of_langfuse_as_csv(tmp_path: Path) -> None:
    with open(tmp_path / "log.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "input", "output"], ["t1", json.dumps(MESSAGES), "ok"], ["t2", "=1+1?", "2"]])
    assert [row.question for row in read_traces(str(tmp_path / "log.csv")).rows] == ["Number 7.", "=1+1?"]


@pytest.mark.parametrize("take", ["last", "all"])
def test_what_holds_no_question_is_counted(tmp_path: Path, take: Take) -> None:
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    records: list[dict[str, Any]] = [
        {"input": "a?"}, {"input": "a?"}, {"type": "SPAN", "input": "b?"}, {"input": None}, {"messages": picture},
        {"messages": [{"role": "assistant", "content": "hello"}]}, {"messages": []}, {"input": {"a": {"b": 1}}},
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    found = read_traces(str(tmp_path / "log.jsonl"), take)
    assert ([row.question for row in found.rows], found.repeated, found.without) == (["a?"], 1, 6)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records[2:]))
    with pytest.raises(UserError, match=r"log\.jsonl: no question of a user in 6 records"):
        read_traces(str(tmp_path / "log.jsonl"), take)
