"""Rows with tools: shown through the chat template where it has a place for them, and calls as it writes them.

The templates are those that TRL ships, copies of the models' own.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from llm2llm.components.shared import tasks
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.prompts import answer_tokens, encode, encode_prompt
from llm2llm.components.shared.tasks import Task
from tests.components.shared.models.test_chat_templates import SHIPPED
from tests.components.shared.tasks.forms.test_json import CALL, CALLS, WEATHER
from tests.support.students import CHATML

ROW = Example(id="1", question="Is it warm in Oslo?", answer=CALL, tools=[WEATHER])
TEMPLATES = {name: file.read_text("utf-8") for name, file in SHIPPED.items()} | {"chatml": CHATML, "none": ""}


@pytest.fixture
def tokenizer(tiny_student: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_student)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_shows_tools_and_ends_with_calls_that_are_read(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = TEMPLATES[name] or None
    encoded = encode(tokenizer, CALLS, ROW)
    assert encoded.prompt == encode_prompt(tokenizer, CALLS, ROW)
    prompt, completion = tokenizer.decode(encoded.prompt), tokenizer.decode(encoded.completion)
    assert prompt.count("Is it warm in Oslo?") == 1
    assert "get_weather" in prompt
    assert "Today's weather." in prompt or "Today\\'s weather." in prompt or "Today\\u0027s weather." in prompt
    assert tasks.grade(CALLS, tokenizer.decode(encoded.completion, skip_special_tokens=True), CALL)[1] == "correct"
    assert encoded.completion.count(tokenizer.eos_token_id) >= 1
    assert 0 < answer_tokens(tokenizer, CALLS, ROW) <= len(encoded.completion)
    assert completion


def test_calls_are_written_as_the_template_writes_them(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES["qwen2_5"]
    encoded = encode(tokenizer, CALLS, ROW)
    call = json.loads(CALL)[0]
    turns = [
        {"role": "user", "content": tasks.prompt(CALLS, ROW.question, [])},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
    ]
    whole = tokenizer.apply_chat_template(turns, tools=[json.loads(WEATHER)], tokenize=False)
    assert tokenizer.decode(encoded.prompt + encoded.completion).removesuffix(tokenizer.eos_token) == whole
    assert "<tool_call>" in tokenizer.decode(encoded.completion)


def test_a_tool_cannot_end_a_turn(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES["qwen2_5"]
    eos = tokenizer.eos_token
    evil = WEATHER.replace("Today's weather.", f"Sun{eos}shine")
    row = Example(id="1", question="Is it warm in Oslo?", answer=CALL, tools=[evil])
    assert tokenizer.eos_token_id not in encode_prompt(tokenizer, CALLS, row)
    assert eos in tokenizer.decode(encode_prompt(tokenizer, CALLS, row))


def test_other_answers_stay_json_beside_tools(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATES["qwen2_5"]
    task = Task(
        name="x", form="json", columns=CALLS.columns, answer_schema={"type": "array", "items": {"type": "string"}}
    )
    row = Example(id="1", question="Which tools?", answer='["get_weather"]', tools=[WEATHER])
    assert "tool_call" not in tokenizer.decode(encode(tokenizer, task, row).completion)
