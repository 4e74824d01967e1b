"""From an example to token ids: in one place, so that a student is asked in evaluation what it was trained on."""

from dataclasses import dataclass
from typing import Any

from llm2llm.components import tasks
from llm2llm.components.rows.kinds import Example
from llm2llm.components.tasks import Task


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of an example; the student is trained on `prompt + completion` with loss on the completion only."""

    prompt: list[int]
    completion: list[int]


def encode_prompt(tokenizer: Any, task: Task, example: Example) -> list[int]:
    """What the student is given before it answers, in its own chat template where it has one."""
    text = tasks.prompt(task, example.question, example.choices)
    if tokenizer.chat_template:
        ids = tokenizer(_chat(tokenizer, text), add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(text)["input_ids"]
        if ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers end every text themselves
            ids = ids[:-1]
    return list(ids)


def encode(tokenizer: Any, task: Task, example: Example) -> Encoded:
    """Prompt and right completion, ended the way the student is expected to end."""
    text = tasks.target(task, example.answer, example.rationale)
    completion = " " + text
    if tokenizer.chat_template:
        prompt = tasks.prompt(task, example.question, example.choices)
        before, whole = _chat(tokenizer, prompt), _chat(tokenizer, prompt, text)
        # The template says how a turn ends; one that rewrites the turns before it gives no clean suffix.
        completion = whole[len(before) :] if whole.startswith(before) else text
    ids = list(tokenizer(completion, add_special_tokens=False)["input_ids"])
    if tokenizer.eos_token_id not in ids[-2:]:  # some templates write a line break after the end of a turn
        ids.append(tokenizer.eos_token_id)
    return Encoded(prompt=encode_prompt(tokenizer, task, example), completion=ids)


def _chat(tokenizer: Any, prompt: str, answer: str | None = None) -> str:
    messages = [{"role": "user", "content": prompt}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer is None))
