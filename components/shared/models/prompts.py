"""From an example to token ids: in one place, so that a student is asked in evaluation what it was trained on.

What a row says is text, whatever it says: a special token's name in it (`</s>`, `<|im_end|>`) is encoded letter by
letter, and cannot end a turn or begin another one. The template's own special tokens stay what they are. For that the
template sees a mark in the place of each such name, and the name is encoded apart from the rest.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.tasks import Task


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of an example; the student is trained on `prompt + completion` with loss on the completion only."""

    prompt: list[int]
    completion: list[int]


def encode_prompt(tokenizer: Any, task: Task, example: Example) -> list[int]:
    """What the student is given before it answers, in its own chat template where it has one."""
    marks, (prompt,) = _with_marks(tokenizer, [tasks.prompt(task, example.question, example.choices)])
    if tokenizer.chat_template:
        prompt = _chat(tokenizer, prompt)
    return _prompt_ids(tokenizer, prompt, marks)


def encode(tokenizer: Any, task: Task, example: Example) -> Encoded:
    """Prompt and right completion, ended the way the student is expected to end."""
    prompt = tasks.prompt(task, example.question, example.choices)
    return _encode(tokenizer, prompt, " ", tasks.target(task, example.answer, example.rationale))


def encode_general(tokenizer: Any, example: Example) -> Encoded:
    """A general row, which is of no task: the question as it stands, and the answer, without a template below it."""
    return _encode(tokenizer, example.question, "\n", example.answer)


def _encode(tokenizer: Any, prompt: str, between: str, target: str) -> Encoded:
    marks, (asked, answered) = _with_marks(tokenizer, [prompt, target])
    completion = between + answered
    if tokenizer.chat_template:
        question = asked
        asked = _chat(tokenizer, question)
        whole = _chat(tokenizer, question, answered)
        # The template says how a turn ends; one that rewrites the turns before it gives no clean suffix.
        completion = whole[len(asked) :] if whole.startswith(asked) else answered
    ids = _ids(tokenizer, completion, marks)
    if tokenizer.eos_token_id not in ids[-2:]:  # some templates write a line break after the end of a turn
        ids.append(tokenizer.eos_token_id)
    return Encoded(_prompt_ids(tokenizer, asked, marks), ids)


def _prompt_ids(tokenizer: Any, prompt: str, marks: dict[str, str]) -> list[int]:
    if tokenizer.chat_template:
        return _ids(tokenizer, prompt, marks)
    first, *rest = _pieces(prompt, marks)
    ids = list(tokenizer(first)["input_ids"])
    if ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers end every text themselves
        ids = ids[:-1]
    return ids + _ids(tokenizer, "".join(rest), marks)


def _with_marks(tokenizer: Any, texts: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """({mark: special token's name}, the texts with marks in the place of the names that are in them).

    Only tokens that the tokenizer calls special count: others, such as `<think>`, a completion may well have to teach.
    """
    special = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    # The longest first, as one name may be a part of another.
    named = sorted((name for name in special if any(name in text for text in texts)), key=lambda n: (-len(n), n))
    used = set().union(*texts)
    free = (mark for mark in map(chr, range(0xE000, 0xF900)) if mark not in used)  # Unicode's private use area
    marks = {next(free): name for name in named}
    marked = list(texts)
    for mark, name in marks.items():
        marked = [text.replace(name, mark) for text in marked]
    return marks, marked


def _ids(tokenizer: Any, text: str, marks: dict[str, str]) -> list[int]:
    ids: list[int] = []
    for piece in _pieces(text, marks):
        if piece in marks:
            ids += tokenizer(marks[piece], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        elif piece:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def _pieces(text: str, marks: dict[str, str]) -> list[str]:
    """The text cut at its marks, which are pieces of their own."""
    return re.split(f"([{''.join(marks)}])", text) if marks else [text]


def _chat(tokenizer: Any, prompt: str, answer: str | None = None) -> str:
    # jinja2 comes with transformers' chat templates, and only they need it.
    from jinja2 import TemplateError

    messages = [{"role": "user", "content": prompt}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer is None))
    except TemplateError as problem:
        raise UserError(
            f"student {tokenizer.name_or_path}: its chat template refuses a question and its answer: {problem}; "
            "correct the template, or choose another student"
        ) from problem
