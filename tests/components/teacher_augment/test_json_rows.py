"""What a language model writes for tasks with JSON answers: told the schema, held to it."""

import json
from typing import Any

import pytest

from llm2llm.components.shared.data.schemas import Example, StudentError, content_id
from llm2llm.components.shared.tasks import Columns, Task, load_task
from llm2llm.components.teacher_augment.augment import teacher_augment
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from tests.support.fake_teacher import examples, opened, shown

ORDERS = load_task(
    {
        "name": "orders",
        "form": "json",
        "answer_schema": {
            "type": "object",
            "properties": {
                "item": {"type": "string"},
                "count": {"type": "integer", "minimum": 1},
                "due": {"type": "string"},
            },
            "required": ["item", "count"],
        },
    }
)
CALLS = Task(name="calls", form="json", columns=Columns(tools="tools"))
TOOL = json.dumps({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}})
OTHER = TOOL.replace("add", "subtract")


def seed(question: str, answer: str, *tools: str) -> Example:
    return Example(
        id=content_id(question, [], None, answer, tools), question=question, answer=answer, tools=list(tools)
    )


def written(task: Task, parent: Example, *rows: Any, **settings: Any) -> tuple[Any, Any]:
    """(what comes of rows that a teacher writes from a seed that went wrong, what the teacher was asked)."""
    teacher, fake = opened(lambda ask, n: examples(*rows))
    wrong = StudentError(
        iteration=0, example_id=parent.id, question=parent.question, answer=parent.answer, completion="{}", parsed="{}",
        outcome="wrong",
    )  # fmt: skip
    own = TeacherAugmentSettings(
        model=teacher.model, examples_per_error=len(rows), rows_per_call=len(rows), max_failed_fraction=1.0, **settings
    )
    return teacher_augment([wrong], [parent], [], set(), task, own, 1, 0, [teacher]), fake


def test_drafts_are_held_to_the_schema() -> None:
    parent = seed("2 lamps by May please", '{"item": "lamp", "count": 2, "due": "May"}')
    got, fake = written(
        ORDERS,
        parent,
        {"question": "3 hats, whenever", "answer": {"due": None, "count": 3.0, "item": "hat"}},
        {"question": "4 cups, soon please", "answer": '{"item": "cup", "count": 4}'},
        {"question": "no mats for me please", "answer": {"item": "mat", "count": 0}},
        {"question": "5 pens for her", "answer": {"item": "pen"}},
        {"question": "6 pots for him", "answer": 6},
    )
    assert {row.question: row.answer for row in got.candidates} == {
        "3 hats, whenever": '{"item":"hat","count":3}',
        "4 cups, soon please": '{"item":"cup","count":4}',
    }
    assert sorted((one.reason, one.detail.rpartition("schema: ")[2]) for one in got.rejects) == [
        ("invalid", "count: 0 is not within minimum and maximum"),
        ("invalid", "lacks 'count'"),
        ("unparseable", "an example lacks its question or answer"),
    ]
    request = fake.requests[0]
    answer = request.schema["properties"]["examples"]["items"]["properties"]["answer"]
    assert answer["required"] == ["item", "count", "due"]  # structured output
    assert '"required": ["item", "count"]' in request.messages[0]["content"]  # in words


def test_the_teacher_sees_the_tools_and_its_calls_are_held_against_them() -> None:
    parent = seed("add three", '[{"name": "add", "arguments": {"n": 3}}]', TOOL)
    got, fake = written(
        CALLS,
        parent,
        {"question": "what is it with four more?", "answer": '[{"name": "add", "arguments": {"n": 4}}]'},
        {"question": "take four away from it", "answer": '[{"name": "subtract", "arguments": {"n": 4}}]'},
    )
    assert shown(fake.requests[0])["tools"] == [json.loads(TOOL)]
    (row,) = got.candidates
    assert row.tools == [TOOL]
    assert row.id == content_id(row.question, [], None, row.answer, [TOOL])
    assert [one.detail for one in got.rejects] == ["the answer calls 'subtract', and the row offers add"]


def test_rows_of_a_pool_keep_their_own_tools() -> None:
    parent = seed("add three", '[{"name": "add", "arguments": {"n": 3}}]', TOOL)
    pool = [seed("subtract three", '[{"name": "subtract", "arguments": {"n": 3}}]', OTHER)]
    wrong = StudentError(
        iteration=0, example_id=parent.id, question=parent.question, answer=parent.answer, completion="", parsed=None,
        outcome="unparseable",
    )  # fmt: skip
    settings = TeacherAugmentSettings(teacher="pool")
    got = teacher_augment([wrong], [parent], pool, set(), CALLS, settings, 1, 0, [])
    assert [row.tools for row in got.candidates] == [[OTHER]]


@pytest.mark.parametrize("verify", ["resolve", "judge"])
def test_verification_compares_values(verify: Any) -> None:
    parent = seed("2 lamps by May please", '{"item": "lamp", "count": 2, "due": "May"}')

    def writes(ask: Any, n: int) -> Any:
        if ask.purpose == "write":
            return examples({"question": "3 hats, whenever", "answer": {"item": "hat", "count": 3}})
        return {"answer": {"count": 3.0, "item": "hat", "due": None}, "right": True, "confidence": 90}

    teacher, _ = opened(writes)
    wrong = StudentError(
        iteration=0, example_id=parent.id, question=parent.question, answer=parent.answer, completion="", parsed=None,
        outcome="unparseable",
    )  # fmt: skip
    settings = TeacherAugmentSettings(model=teacher.model, verify=verify)
    got = teacher_augment([wrong], [parent], [], set(), ORDERS, settings, 1, 0, [teacher])
    assert [row.answer for row in got.candidates] == ['{"item":"hat","count":3}']
