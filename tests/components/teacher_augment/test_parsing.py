"""Reading answers: nothing that a model writes breaks the reader, and nothing is lost in it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.tasks import Task, load_task
from llm2llm.components.teacher_augment.parsing import object_in, read_drafts, read_questions, read_solution
from llm2llm.components.teacher_augment.replies import Draft
from llm2llm.components.teacher_augment.until_usable import Unusable
from tests.support.fake_teacher import answered, examples

GSM8K = load_task("gsm8k")
CHOICE = Task(name="choice", form="multiple_choice")


def why(content: Any, task: Task, count: int = 1, **fields: Any) -> str:
    with pytest.raises(Unusable) as caught:
        read_drafts(answered(content, **fields), task, count)
    return caught.value.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("no", "unparseable"),
        ("{", "unparseable"),
        ("[]", "unparseable"),
        ('{"examples": {}}', "unparseable"),
        ('{"examples": ', "unparseable"),
        ('"examples"', "unparseable"),
        ('{"examples": []}', "empty"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("As an AI, I cannot", "refused"),
        ("I won’t write this.", "refused"),
        ("{" * 5_000, "unparseable"),
        ('{"a":' * 100_000, "unparseable"),
        ("[" * 100_000, "unparseable"),
        ("{" * 10**6, "unparseable"),
        ('{"examples": [{"question": "x", "answer": ' + "1" * 5_000 + "}]}", "unparseable"),
    ],
)
def test_what_is_no_answer_has_a_reason(colours: Task, text: str, reason: str) -> None:
    assert why(text, colours) == reason


def test_an_answer_that_was_cut_off(colours: Task) -> None:
    assert why('{"examples": [{"question": "a', colours, truncated=True) == "truncated"
    whole = answered(examples(("the sea", "blue")), truncated=True)
    assert read_drafts(whole, colours, 1)[0] == [Draft("the sea", "blue")]


def test_code_fences_and_words_around(colours: Task) -> None:
    inner = json.dumps(examples(("new", "blue")), indent=1)
    text = f"Sure! {{ok}} {{}}\n```json\n{inner}\n```\nAnything {{else}}?"
    assert read_drafts(answered(text), colours, 1)[0] == [Draft("new", "blue")]


def test_fewer_and_more_than_asked_for(colours: Task) -> None:
    drafts, problems = read_drafts(answered(examples(("one", "blue"))), colours, 3)
    assert len(drafts) == 1
    assert [(p.reason, p.detail) for p in problems] == [("missing", "1 of 3 examples came")] * 2
    drafts, problems = read_drafts(answered(examples(("one", "blue"), ("two", "blue"))), colours, 1)
    assert ([draft.question for draft in drafts], problems) == (["one"], [])


INVALID = [{"question": "x", "answer": "purple"}, {"question": "x", "answer": True}]


@pytest.mark.parametrize(
    "item", [5, None, [], {}, {"question": "x"}, {"answer": "x"}, {"question": 5, "answer": "x"},
             {"question": "x", "answer": None}, {"question": "x", "answer": True}, {"question": "x", "answer": []},
             {"question": "x", "answer": "A", "choices": "abc"}, {"question": "x", "answer": "A", "choices": [1]},
             {"question": "x", "answer": "purple"}]
)  # fmt: skip
def test_an_example_without_its_parts_is_a_problem_and_alone_it_is_no_answer(colours: Task, item: Any) -> None:
    good = {"question": "x", "answer": "blue"}
    drafts, problems = read_drafts(answered({"examples": [item, good]}), colours, 2)
    assert drafts == [Draft("x", "blue")]
    assert [(problem.reason, problem.raw) for problem in problems] == [
        ("invalid" if item in INVALID else "unparseable", json.dumps(item))
    ]
    assert why({"examples": [item]}, colours) == problems[0].reason


def test_all_parts_are_read() -> None:
    item = {"question": "q", "answer": 7, "rationale": "because"}
    assert read_drafts(answered({"examples": [item]}), GSM8K, 1)[0] == [Draft("q", "7", [], "because")]
    item = {"question": "q", "answer": "B", "choices": ["a", "b"]}
    assert read_drafts(answered({"examples": [item]}), CHOICE, 1)[0] == [Draft("q", "B", ["a", "b"])]


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["blue", "A"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["question", "answer", "choices", "rationale", "examples", "x"]), inner, max_size=4
        )
    ),
)


@given(value=VALUE, text=st.text(), count=st.integers(1, 4))
def test_drafts_and_problems_are_as_many_as_asked_for(colours: Task, value: Any, text: str, count: int) -> None:
    for content in (text, value, {"examples": value}, {"examples": [value, {"question": text, "answer": "blue"}]}):
        try:
            drafts, problems = read_drafts(answered(content), colours, count)
        except Unusable:
            continue
        assert drafts
        assert len(drafts) + len(problems) == count


@given(value=VALUE, count=st.integers(1, 4))
def test_questions_and_problems_are_as_many_as_asked_for(value: Any, count: int) -> None:
    for content in (value, {"examples": value}, {"examples": [{"question": value}]}):
        try:
            questions, problems = read_questions(answered(content), count)
        except Unusable:
            continue
        assert questions
        assert len(questions) + len(problems) == count


def test_a_solution_is_read_in_the_forms_own_terms(colours: Task) -> None:
    assert read_solution(answered({"rationale": "1+1=2", "answer": 2}), GSM8K, []) == ("2", "1+1=2")
    assert read_solution(answered({"answer": "b"}), CHOICE, ["x", "y"]) == ("B", None)
    for content in (
        {"answer": "purple"},
        {"answer": []},
        {"answer": None},
        {"answer": True},
        {"question": "x"},
        "blue",
    ):
        with pytest.raises(Unusable):
            read_solution(answered(content), colours, [])


def test_an_object_needs_all_keys() -> None:
    text = '{"a": 1} {"a": 2, "b": 3}'
    assert object_in(answered(text), "a", "b") == {"a": 2, "b": 3}
