"""Chat templates of real models: what they write before an answer is in the prompt, and nothing is left out.

The templates are those that TRL ships, copies of the models' own.
"""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoTokenizer

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.generate import to_answer
from llm2llm.components.shared.inference.predict import predict
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.prompts import encode, encode_chat, encode_prompt, frame
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.tasks.chat import ChatSettings
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import FineTuneSettings
from tests.support.students import CHATML
from tests.support.tiny_models import save_tiny

SHIPPED = {file.stem: file for file in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))}
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>"
    "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROW = Example(id="1", question="What is it?", answer="billing")
TASK = Task(name="open", form="text")


@pytest.fixture
def tokenizer(tiny_student: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_student)


def with_template(tokenizer: Any, name: str) -> Any:
    tokenizer.chat_template = SHIPPED[name].read_text(encoding="utf-8") if name in SHIPPED else name
    return tokenizer


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_template_shows_question_and_answer(tokenizer: Any, name: str, thinking: bool) -> None:
    found = frame(with_template(tokenizer, name), ChatSettings(thinking=thinking))
    assert found is not None
    assert found.before or found.between
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "billing"}]
    if not thinking and "strftime_now" not in tokenizer.chat_template and "smolvlm" not in name:
        try:
            whole = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False)
        except Exception:  # one for messages in parts
            return
        if "billing" in whole:
            assert f"{found.before}Which?{found.between}{found.opening}billing{found.after}" == whole


@pytest.mark.parametrize(
    ("name", "thinking", "end", "opening"),
    [
        ("qwen3", False, "<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("qwen3", True, "<|im_start|>assistant\n", "<think>\n\n</think>\n\n"),
        ("qwen3_5_think", True, "<|im_start|>assistant\n<think>\n", "\n</think>\n\n"),
        ("gptoss", False, "<|start|>assistant<|channel|>final<|message|>", ""),
        ("gptoss", True, "<|start|>assistant", "<|channel|>final<|message|>"),
        ("deepseekv3", False, "<｜Assistant｜>", ""),
        ("deepseekv3", True, "<｜Assistant｜><think>\n", "</think>\n\n"),
        ("nemotron_3_nano", True, "<|im_start|>assistant\n<think>\n", "</think>"),
        ("gemma3", False, "<start_of_turn>model\n", ""),
        ("llama3_2", False, "<|start_header_id|>assistant<|end_header_id|>\n\n", ""),
        ("llava_next", False, " [/INST]", " "),
    ],
)
def test_what_the_template_writes_before_an_answer(
    tokenizer: Any, name: str, thinking: bool, end: str, opening: str
) -> None:
    found = frame(with_template(tokenizer, name), ChatSettings(thinking=thinking))
    assert found is not None
    assert found.between.endswith(end)
    assert found.opening == opening


@pytest.mark.parametrize("name", ["qwen3", "gptoss", "llama3_2", "gemma3"])
def test_training_generation_and_scoring_have_one_prompt(tokenizer: Any, name: str) -> None:
    with_template(tokenizer, name)
    encoded = encode(tokenizer, TASK, ROW)
    assert encoded.prompt == encode_prompt(tokenizer, TASK, ROW)
    completion = tokenizer.decode(encoded.completion)
    assert completion.startswith("billing")
    assert "think" not in completion
    assert "channel" not in completion


@pytest.mark.parametrize("name", ["llama3_2", "gptoss"])
def test_prompts_do_not_depend_on_the_day(tokenizer: Any, name: str) -> None:
    with_template(tokenizer, name)
    prompt = tokenizer.decode(encode_prompt(tokenizer, TASK, ROW))
    today = date.today()
    assert "2024" in prompt
    assert today.strftime("%d %b %Y") not in prompt
    assert today.isoformat() not in prompt
    later = TASK.model_copy(update={"chat": ChatSettings(date="2031-02-03")})
    assert "2031" in tokenizer.decode(encode_prompt(tokenizer, later, ROW))


def test_a_computed_form_of_the_date_is_refused(tokenizer: Any) -> None:
    with_template(tokenizer, "{% set form = '%Y' %}{{ strftime_now(form) }}" + CHATML)
    with pytest.raises(UserError, match=r"chat template .*today's date.*task\.chat\.template"):
        encode_prompt(tokenizer, TASK, ROW)


def test_a_template_for_parts_gets_parts(tokenizer: Any) -> None:
    with_template(tokenizer, PARTS)
    prompt = tokenizer.decode(encode_prompt(tokenizer, TASK, ROW))
    assert prompt == "<|im_start|>user\nQuestion: What is it?\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(encode(tokenizer, TASK, ROW).completion).startswith("billing<|im_end|>")
    assert "Hello" in tokenizer.decode(encode_chat(tokenizer, [{"role": "user", "content": "Hello"}]))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "leaves out the answer"),
        ("{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}", "leaves out the question"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "writes the question 2 times"),
        ("{% for m in messages %}{{ m.content + ['x'] }}{% endfor %}", "refuses what it is given"),
        ("{% for m in messages %}{{ m.tool_calls[0].function.name + m.content }}{% endfor %}", "refuses what"),
        ("{% for m in messages %}{{ m.content ", "refuses what it is given"),
        (
            "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + CHATML,
            r"system first; set task\.chat\.system",
        ),
    ],
)
def test_a_template_that_does_not_do_is_named(tokenizer: Any, template: str, message: str) -> None:
    with_template(tokenizer, template)
    with pytest.raises(UserError, match=rf"student .*: its chat template .*{message}") as caught:
        encode(tokenizer, TASK, ROW)
    assert "task.chat" in str(caught.value)


def test_several_templates_without_a_default_are_named(tokenizer: Any) -> None:
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}
    with pytest.raises(UserError, match="its chat template refuses"):
        encode(tokenizer, TASK, ROW)
    own = TASK.model_copy(update={"chat": ChatSettings(template=CHATML)})
    assert encode(tokenizer, own, ROW).prompt == encode(with_template(tokenizer, CHATML), TASK, ROW).prompt


def test_the_system_prompt_is_in_the_prompt(tokenizer: Any) -> None:
    task = TASK.model_copy(update={"chat": ChatSettings(system="Be brief.")})
    with_template(tokenizer, CHATML)
    prompt = tokenizer.decode(encode_prompt(tokenizer, task, ROW))
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    prompt = tokenizer.decode(encode_prompt(with_template(tokenizer, refuses), task, ROW))
    assert prompt.startswith("<|im_start|>user\nBe brief.\n\nQuestion: What is it?")


def test_a_template_is_read_from_a_file_or_given_itself(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(CHATML)
    assert ChatSettings.load({"template": str(file)}, "task.chat") == ChatSettings(template=CHATML)
    with pytest.raises(UserError, match=r"task\.chat\.template: neither a template"):
        ChatSettings.load({"template": str(tmp_path / "none.jinja")}, "task.chat")
    with pytest.raises(UserError, match=r"task\.chat\.date: no such day"):
        ChatSettings.load({"date": "2026-02-30"}, "task.chat")


def test_an_answer_is_what_comes_after_the_thoughts(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>", "<|message|>", "<|end|>", "<|start|>"]})
    tokenizer.add_tokens(["<think>", "</think>"])
    for text in (
        "<think>It may be delivery.</think>\nbilling",
        "<|channel|>analysis<|message|>Delivery?<|end|><|start|>assistant<|channel|>final<|message|>billing",
        "billing",
    ):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = to_answer(tokenizer, [*ids, tokenizer.eos_token_id], [tokenizer.eos_token_id])
        assert (answer.completion, answer.truncated) == ("billing", False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3", "gptoss", "parts"])
def test_a_student_learns_to_answer_in_the_template_of_a_reasoning_model(
    name: str, quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    """Training and generation have one prompt: what is learnt is what is answered. An empty thought that was learnt as
    a part of the answer would not fit into four tokens."""
    template = PARTS if name == "parts" else SHIPPED[name].read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    tokenizer.chat_template = template
    special = ["<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|return|>", "<|channel|>", "<|message|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens(["<think>", "</think>"])
    student = save_tiny("qwen3", tokenizer, tmp_path / "student")
    (tmp_path / "model").mkdir()
    longer = quick.model_copy(update={"max_length": 1024, "epochs": 40})
    wide = {"max_position_embeddings": 2048}
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**config, **wide}))
    log = fine_tune(rows, colours, str(student), longer, 0, tmp_path / "model")
    assert log.loss_curve[-1][1] < 0.5 * log.loss_curve[0][1]
    predictions = predict(tmp_path / "model", {"seeds": rows}, 0, None, colours, AnswerSettings())
    assert sum(one.outcome == "correct" for one in predictions) > 0.7 * len(rows)
    assert not any("think" in one.completion or "channel" in one.completion for one in predictions)
    scored = predict(tmp_path / "model", {"seeds": rows}, 0, None, colours, AnswerSettings(mode="score"))
    assert sum(one.outcome == "correct" for one in scored) > 0.7 * len(rows)
