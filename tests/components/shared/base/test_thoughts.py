"""Thoughts before an answer are set aside, and only those."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.thoughts import without_thoughts


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("billing", "billing"),
        ("  billing\n", "  billing\n"),
        ("<think>\n\n</think>\n\nbilling", "billing"),
        ("\n<think>It could be delivery.\n</think>\nbilling", "billing"),
        ("<Thinking>A?</Thinking>C", "C"),
        ("[THINK]A is tempting.[/THINK]C", "C"),
        ("It could be delivery.\n</think>\n\nbilling", "billing"),
        ("<think>one</think><think>two</think>billing", "billing"),
        ("<think>cut off before it", ""),
        ("<think>\n\n</think>", ""),
        ("<|channel|>analysis<|message|>Hm. #### 70<|end|><|start|>assistant<|channel|>final<|message|>72", "72"),
        ("<|channel|>final<|message|>72", "72"),
        ("<|channel|>analysis<|message|>Hm.", ""),
        ("<|channel>thought\nHm.<channel|>72", "72"),
        ("Write the <think> tag", "Write the <think> tag"),
        ("Close it with </think> at once", "Close it with </think> at once"),
        ("48+24 = 72\n#### 72", "48+24 = 72\n#### 72"),
    ],
)
def test_what_is_left(text: str, answer: str) -> None:
    assert without_thoughts(text) == answer


@given(st.text().filter(lambda text: "think" not in text.lower()), st.text(alphabet="abc 12.", min_size=1))
def test_any_thought_is_cut_off_and_the_answer_kept(thought: str, answer: str) -> None:
    assert without_thoughts(f"<think>{thought}</think>\n{answer}") == answer.lstrip()


@given(st.text(alphabet="abcABC 12.#\n<>/[]|"))
def test_a_text_without_marks_stays(text: str) -> None:
    assert without_thoughts(text) == text
