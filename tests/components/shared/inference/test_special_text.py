"""Whatever a row says is text: no special token gets in through a question or an answer."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.load import load_tokenizer
from llm2llm.components.shared.models.prompts import encode, encode_general, encode_prompt
from llm2llm.components.shared.tasks import Task
from tests.support.builders import example

NAMES = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|im_start|>system\n", "<", "|", "s>", "</"]
SAID = st.lists(st.one_of(st.sampled_from(NAMES), st.text(max_size=8)), max_size=8).map("".join)
OPEN = Task(name="open", form="text")


def row(question: str, answer: str) -> Example:
    return example(question, answer)


def specials(tokenizer: Any, ids: list[int]) -> list[str]:
    known = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return [tokenizer.decode([token]) for token in ids if token in known]


@settings(max_examples=150, deadline=None)
@given(SAID, SAID.filter(str.strip))
def test_control_tokens_come_from_the_template_alone(tokenizer: Any, question: str, answer: str) -> None:
    example = row(question, answer)
    encoded = encode(tokenizer, OPEN, example)
    chat = bool(tokenizer.chat_template)
    assert specials(tokenizer, encoded.prompt) == (["<|im_start|>", "<|im_end|>", "<|im_start|>"] if chat else [])
    assert specials(tokenizer, encoded.completion) == [tokenizer.eos_token]
    assert encoded.prompt == encode_prompt(tokenizer, OPEN, example)
    assert tasks.prompt(OPEN, question, []) in tokenizer.decode(encoded.prompt)
    assert answer in tokenizer.decode(encoded.completion)


@settings(max_examples=100, deadline=None)
@given(SAID, SAID)
def test_general_rows_are_text_as_well(tokenizer: Any, question: str, answer: str) -> None:
    encoded = encode_general(tokenizer, row(question, answer), OPEN.chat)
    assert specials(tokenizer, encoded.completion) == [tokenizer.eos_token]
    assert question in tokenizer.decode(encoded.prompt)
    assert answer in tokenizer.decode(encoded.completion)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40).filter(lambda text: not any(name in text for name in NAMES)))
def test_text_without_special_names_is_encoded_as_the_template_is(tokenizer: Any, question: str) -> None:
    text = tasks.prompt(OPEN, question, [])
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": text}]
        whole = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        wanted = tokenizer(whole, add_special_tokens=False)["input_ids"]
    else:
        wanted = tokenizer(text)["input_ids"]
    assert encode_prompt(tokenizer, OPEN, row(question, "x")) == wanted


def test_marks_of_the_private_use_area_in_the_text_itself_stay(tokenizer: Any) -> None:
    example = row("\ue000 and \ue001 </s> <pad>", "\ue002</s>")
    encoded = encode(tokenizer, OPEN, example)
    assert example.question in tokenizer.decode(encoded.prompt)
    assert example.answer in tokenizer.decode(encoded.completion)


def test_tokens_that_are_added_but_not_special_are_taught(tiny_student: Path, colours: Task) -> None:
    """A model that thinks between `<think>` tokens is to learn that from completions that have them."""
    tokenizer = copy.deepcopy(load_tokenizer(tiny_student))
    tokenizer.add_tokens(["<think>"])
    completion = encode(tokenizer, OPEN, row("Why?", "<think>so")).completion
    assert tokenizer.convert_tokens_to_ids("<think>") in completion


def test_a_template_that_refuses_is_named(tiny_student: Path, example: Callable[..., Example], colours: Task) -> None:
    tokenizer = copy.deepcopy(load_tokenizer(tiny_student))
    tokenizer.chat_template = "{{ raise_exception('a system message is needed') }}"
    with pytest.raises(UserError, match=r"chat template refuses .*a system message is needed"):
        encode(tokenizer, colours, example("a red ball", "red"))


def test_the_end_is_learnt_even_where_the_answer_speaks_of_it(tiny_student: Path) -> None:
    tokenizer = load_tokenizer(tiny_student)
    said = encode(tokenizer, OPEN, dataclasses.replace(row("What ends a text?", "</s>")))
    assert said.completion[-1] == tokenizer.eos_token_id
    assert said.completion.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(said.completion[:-1]) == " </s>"
