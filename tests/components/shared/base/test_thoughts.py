"""Thoughts before an answer are set aside, and only those."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.thoughts import without_thoughts

JSON = '{"answer": "72"}'


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("billing", "billing"),
        ("  billing\n", "  billing\n"),
        ("<think>\n\n</think>\n\nbilling", "billing"),
        ("\n<think>It could be delivery.\n</think>\nbilling", "billing"),
        ("<Thinking>A?</Thinking>C", "C"),
        ('<think time="3 s">A?</think>C', "C"),
        ("[THINK]A is tempting.[/THINK]C", "C"),
        ("◁think▷A?◁/think▷C", "C"),
        ("<|begin_of_thought|>A?<|end_of_thought|>\n<|begin_of_solution|>C<|end_of_solution|>", "C"),
        ("<|START_THINKING|>A?<|END_THINKING|><|START_RESPONSE|>C<|END_RESPONSE|>", "C"),
        ("<reasoning>A?</reasoning><answer>C</answer>", "C"),
        ("It could be delivery.\n</think>\n\nbilling", "billing"),
        ('{"answer": "70"} no, wait</think>{"answer": "72"}', JSON),
        ("<think>one</think><think>two</think>billing", "billing"),
        ("<think>one <think>two</think> one</think>billing", "billing"),
        ("<think>a <thinking>b</thinking> c</think>billing", "billing"),
        ("<think>I am to use <think> first.</think>billing", "billing"),
        ("<think>cut off before it", ""),
        ('<think>{"answer": "70"}', ""),
        ('Sure.\n<think>{"answer": "70"}', "Sure.\n"),
        ("<think>\n\n</think>", ""),
        ('Sure. <think>{"answer": "70"}</think>{"answer": "72"}', JSON),
        ('{"answer": "72"}\n<think>Was that right?</think>', '{"answer": "72"}\n'),
        ("<|channel|>analysis<|message|>Hm. #### 70<|end|><|start|>assistant<|channel|>final<|message|>72", "72"),
        ("<|channel|>analysis<|message|>{}<|end|><|channel|>final <|constrain|>json<|message|>72<|return|>", "72"),
        ("<|channel|>final<|message|>72", "72"),
        ("<|channel|>analysis<|message|>Hm.", ""),
        ('analysisWe need {"answer": "70"}.assistantfinal{"answer": "72"}', JSON),
        ("analysisWe need to", ""),
        ("analysis of variance", "analysis of variance"),
        ("<|channel>thought\nHm.<channel|>72", "72"),
        ("Write the <think> tag", "Write the <think> tag"),
        ("Use <think> and </think> tags", "Use <think> and </think> tags"),
        ("Close it with </think> at once", "Close it with </think> at once"),
        ("48+24 = 72\n#### 72", "48+24 = 72\n#### 72"),
    ],
)
def test_what_is_left(text: str, answer: str) -> None:
    assert without_thoughts(text) == answer


PAIRS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought", "<channel|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]
PLAIN = st.text().filter(lambda text: not {"<", "[", "◁", "|"} & set(text))


@given(st.sampled_from(PAIRS), PLAIN, PLAIN.filter(str.strip))
def test_any_thought_is_cut_off_and_the_answer_kept(pair: tuple[str, str], thought: str, answer: str) -> None:
    assert without_thoughts(f"{pair[0]}\n{thought}{pair[1]}{answer}").strip() == answer.strip()


VALUES = st.dictionaries(st.text(max_size=5), st.text() | st.sampled_from([one for pair in PAIRS for one in pair[:2]]))


@given(st.sampled_from(PAIRS), VALUES, VALUES.filter(len))
def test_a_draft_is_no_answer_and_marks_in_json_are_text(pair: tuple[str, str], draft: dict, answer: dict) -> None:
    given, drafted = json.dumps(answer), json.dumps(draft)
    assert without_thoughts(given) == given
    assert without_thoughts(f"{pair[0]} {drafted} {pair[1]} {given}").strip() == given
    assert without_thoughts(f"{pair[0]} {drafted} {given}") == ""


@given(st.text(alphabet="abcABC 12.#\n<>/[]|"))
def test_a_text_without_marks_stays(text: str) -> None:
    assert without_thoughts(text) == text
