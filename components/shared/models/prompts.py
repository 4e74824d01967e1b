"""From texts to token ids: one chat encoding for training, evaluation and teachers.

A student's chat template is rendered once, with marks in the place of question and answer (`Frame`):

    <|im_start|>user\n [question] <|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n [answer] <|im_end|>\n
    before            question    between                                                   answer   after
    \\_______________________ prompt ____________________________________________________/  \\____ completion ____/

So nothing that a row says can steer the template, and what the template writes between question and answer, such as
Qwen3's empty thought or the channel of gpt-oss, is part of the prompt wherever the student is trained, asked or scored.

What a row says is text, whatever it says: a special token's name in it (`</s>`, `<|im_end|>`) is encoded letter by
letter, and cannot end a turn or begin another one. The template's own special tokens stay what they are.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.tasks.chat import DEFAULT_DATE, ChatSettings

Messages = Sequence[Mapping[str, str]]

_TODAY = re.compile(r"""\bstrftime_now\s*\(\s*(["'])([^"']*)\1\s*\)""")
_QUESTION, _ANSWER = "\uf8f0", "\uf8f1"  # Unicode's private use area; `_with_marks` uses what comes before these


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of an example; the student is trained on `prompt + completion` with loss on the completion only."""

    prompt: list[int]
    completion: list[int]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a chat template writes around a question and its answer."""

    before: str
    between: str
    """Up to where the student's part begins."""
    opening: str
    """What the student's part begins with before the answer: empty, but for `thinking`."""
    after: str
    trims: bool
    """Whether the template strips white space around a question."""


def encode_prompt(tokenizer: Any, task: Task, example: Example) -> list[int]:
    """What the student is given before it answers, in its own chat template where it has one.

    Raises:
        UserError: The template leaves out the question or the answer, or refuses them.
    """
    asked = _asked(tokenizer, task, example)
    return _prompt_ids(tokenizer, asked.around, asked.question, asked.marks)


def encode(tokenizer: Any, task: Task, example: Example) -> Encoded:
    """Prompt and right completion, ended the way the student is expected to end.

    Raises:
        UserError: The template leaves out the question or the answer, or refuses them.
    """
    asked = _asked(tokenizer, task, example)
    ids = _completion(tokenizer, asked.around, " ", asked.answer, asked.marks)
    return Encoded(_prompt_ids(tokenizer, asked.around, asked.question, asked.marks), ids)


def encode_answers(tokenizer: Any, task: Task, example: Example, answers: Sequence[str]) -> list[Encoded]:
    """As `encode`, with each of several answers in the place of the right one: the prompt is encoded once for all of
    them, and an answer once for all rows.

    Raises:
        UserError: The template leaves out the question or the answer, or refuses them.
    """
    if example.tools:  # where an answer may be a call, the template writes it
        return [encode(tokenizer, task, replace(example, answer=answer)) for answer in answers]
    targets = [tasks.target(task, answer, example.rationale) for answer in answers]
    marks, (question, *marked) = _with_marks(
        tokenizer, [tasks.prompt(task, example.question, example.choices), *targets]
    )
    around = frame(tokenizer, task.chat)
    prompt = _prompt_ids(tokenizer, around, question, marks)
    known = _ANSWERS.setdefault(tokenizer, {})
    encoded = []
    for target, text in zip(targets, marked, strict=True):
        ids = known.get((around, target))
        if ids is None:
            ids = _completion(tokenizer, around, " ", text, marks)
            if len(known) < MOST_ANSWERS:
                known[around, target] = ids
        encoded.append(Encoded(prompt, ids))
    return encoded


def encode_rationale(tokenizer: Any, task: Task, example: Example) -> Encoded:
    """A row's second task: prompt and rationale.

    Raises:
        UserError: The template leaves out the question or the answer, or refuses them.
    """
    assert example.rationale, "only rows with a rationale have a second task"
    prompt = tasks.rationale_prompt(task, example.question, example.choices)
    return _encode(tokenizer, task.chat, prompt, " ", example.rationale)


def encode_completion(tokenizer: Any, task: Task, example: Example, completion: str) -> Encoded:
    """As `encode`, with what a student wrote in the place of the right completion; for rows without tools.

    Raises:
        UserError: The template leaves out the question or the answer, or refuses them.
    """
    assert not example.tools, "a template writes calls of tools in its own way"
    return _encode(tokenizer, task.chat, tasks.prompt(task, example.question, example.choices), " ", completion)


def answer_tokens(tokenizer: Any, task: Task, example: Example) -> int:
    """How many tokens a student must write to answer a row as it is taught to, the one that ends the answer included.

    Raises:
        UserError: The template leaves out the question or the answer, or refuses them.
    """
    asked = _asked(tokenizer, task, example)
    completion = _completion(tokenizer, asked.around, " ", asked.answer, asked.marks)
    return completion.index(tokenizer.eos_token_id) + 1


def encode_general(tokenizer: Any, example: Example, chat: ChatSettings) -> Encoded:
    """A general row, which is of no task: the question as it stands, and the answer, without a template below it."""
    return _encode(tokenizer, chat, example.question, "\n", example.answer)


def frame(tokenizer: Any, chat: ChatSettings) -> Frame | None:
    """The frame of a student's chat template; None for a student without one.

    Raises:
        UserError: The template leaves out the question or the answer, repeats them, or refuses them.
    """
    template = chat.template or tokenizer.chat_template
    if not template:
        return None
    known = _FRAMES.setdefault(tokenizer, {})
    key = (str(template), chat)
    if key not in known:
        known[key] = _make_frame(tokenizer, chat)
    return known[key]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A row in its student's frame."""

    around: Frame | None
    marks: dict[str, str]
    question: str
    answer: str


def _asked(tokenizer: Any, task: Task, example: Example) -> _Asked:
    """A row's question and right answer, and the frame for them.

    Tools go through the template where it shows them, and a call is then written as the template writes calls; where it
    does not, they stand in the question, and calls are JSON.
    """
    question = tasks.prompt(task, example.question, example.choices)
    answer = tasks.target(task, example.answer, example.rationale)
    if not example.tools:
        marks, (question, answer) = _with_marks(tokenizer, [question, answer])
        return _Asked(frame(tokenizer, task.chat), marks, question, answer)
    in_text = tasks.prompt(task, example.question, example.choices, example.tools)
    marks, (question, in_text, answer, *tools) = _with_marks(tokenizer, [question, in_text, answer, *example.tools])
    around = _frame_with_tools(tokenizer, task.chat, tuple(tools))
    if around is None:
        return _Asked(frame(tokenizer, task.chat), marks, in_text, answer)
    calls = _calls_text(tokenizer, task, tools, answer, around) if tasks.answers_with_calls(task) else ""
    return _Asked(replace(around, after="") if calls else around, marks, question, calls or answer)


def _frame_with_tools(tokenizer: Any, chat: ChatSettings, tools: tuple[str, ...]) -> Frame | None:
    """The frame of a template that is given tools; None where there is no template, or it does not show them."""
    template = chat.template or tokenizer.chat_template
    if not template:
        return None
    known = _TOOL_FRAMES.setdefault(tokenizer, {})
    key = (str(template), chat, tools)
    if key not in known:
        try:
            found = _make_frame(tokenizer, chat, tools)
        except UserError:
            known[key] = None
        else:
            names = [json.loads(tool)["function"]["name"] for tool in tools]
            known[key] = found if all(name in found.before + found.between for name in names) else None
    return known[key]


_TOOL_FRAMES: "WeakKeyDictionary[Any, dict[tuple[str, ChatSettings, tuple[str, ...]], Frame | None]]" = (
    WeakKeyDictionary()
)


def _calls_text(tokenizer: Any, task: Task, tools: Sequence[str], answer: str, around: Frame) -> str:
    """Calls as the template writes them, with what ends the turn; empty where it has no form for them, or one that
    could not be read."""
    calls = [
        {"id": f"call{number:05d}", "type": "function", "function": call}
        for number, call in enumerate(json.loads(answer))
    ]
    system = [{"role": "system", "content": task.chat.system}] if task.chat.system else []
    turns: list[dict[str, Any]] = [
        *system, {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": "", "tool_calls": calls},
    ]  # fmt: skip
    try:
        whole = _render(tokenizer, turns, task.chat, tools=tools) if calls else ""
    except UserError:
        return ""
    start = around.before + _QUESTION + around.between + around.opening
    text = whole[len(start) :].lstrip() if whole.startswith(start) else ""
    return text if tasks.grade(task, text, answer)[1] == "correct" else ""


_FRAMES: "WeakKeyDictionary[Any, dict[tuple[str, ChatSettings], Frame]]" = WeakKeyDictionary()

_ANSWERS: "WeakKeyDictionary[Any, dict[tuple[Frame | None, str], list[int]]]" = WeakKeyDictionary()

MOST_ANSWERS = 10_000
"""How many answers' tokens are remembered: labels are few, rationales are not."""


def encode_chat(tokenizer: Any, messages: Messages) -> list[int]:
    """The token ids of a conversation up to where the model answers, in its chat template where it has one.

    For a single message of the user they are those of `encode_prompt`, where the template writes nothing of its own
    before an answer.

    Raises:
        UserError: The template refuses the messages, or leaves one out.
    """
    marks, texts = _with_marks(tokenizer, [message["content"] for message in messages])
    if not tokenizer.chat_template:
        return _plain_ids(tokenizer, "\n\n".join(texts), marks)
    marked = [{**message, "content": text} for message, text in zip(messages, texts, strict=True)]
    rendered = _render(tokenizer, marked, None, generate=True)
    return _ids(tokenizer, rendered, marks)


def _encode(tokenizer: Any, chat: ChatSettings, prompt: str, between: str, target: str) -> Encoded:
    marks, (question, answer) = _with_marks(tokenizer, [prompt, target])
    around = frame(tokenizer, chat)
    ids = _completion(tokenizer, around, between, answer, marks)
    return Encoded(_prompt_ids(tokenizer, around, question, marks), ids)


def _completion(tokenizer: Any, around: Frame | None, between: str, answer: str, marks: dict[str, str]) -> list[int]:
    text = between + answer if around is None else around.opening + answer + around.after
    ids = _ids(tokenizer, text, marks)
    if tokenizer.eos_token_id not in ids[-2:]:  # some templates write a line break after the end of a turn
        ids.append(tokenizer.eos_token_id)
    return ids


def _prompt_ids(tokenizer: Any, around: Frame | None, question: str, marks: dict[str, str]) -> list[int]:
    if around is None:
        return _plain_ids(tokenizer, question, marks)
    question = question.strip() if around.trims else question
    return _ids(tokenizer, around.before + question + around.between, marks)


def _plain_ids(tokenizer: Any, prompt: str, marks: dict[str, str]) -> list[int]:
    first, *rest = _pieces(prompt, marks)
    ids = list(tokenizer(first)["input_ids"])
    if ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers end every text themselves
        ids = ids[:-1]
    return ids + _ids(tokenizer, "".join(rest), marks)


def _make_frame(tokenizer: Any, chat: ChatSettings, tools: Sequence[str] = ()) -> Frame:
    question = {"role": "user", "content": _QUESTION}
    answer = {"role": "assistant", "content": _ANSWER}
    system = [{"role": "system", "content": chat.system}] if chat.system else []
    whole = _render(tokenizer, [*system, question, answer], chat, tools=tools)
    for what, mark in (("question", _QUESTION), ("answer", _ANSWER)):
        if whole.count(mark) != 1:
            raise _template_error(tokenizer, chat, f"writes the {what} {whole.count(mark)} times instead of once")
    before, rest = whole.split(_QUESTION)
    if _ANSWER not in rest:
        raise _template_error(tokenizer, chat, "writes the answer before the question")
    between, after = rest.split(_ANSWER)
    begun = _render(tokenizer, [*system, question], chat, generate=True, tools=tools).partition(_QUESTION)[2]
    opening = ""
    if chat.thinking:
        stem = begun.rstrip()
        if between.startswith(begun):
            between, opening = begun, between[len(begun) :]
        elif stem.endswith("<think>") and between.startswith(stem):
            between, opening = begun, between[len(stem) :].lstrip()
        elif stem == f"{between}<think>":
            between, opening = begun, "</think>\n\n"
        else:
            raise _template_error(
                tokenizer, chat, "begins an answer in another way than it writes one", "set task.chat.thinking: false"
            )
    elif between.startswith(begun) and between[len(begun) :].isspace():
        # A space before the answer is better a part of its first token, as in all text that the student has read.
        between, opening = begun, between[len(begun) :]
    spaced = _render(tokenizer, [*system, {**question, "content": f" {_QUESTION} "}, answer], chat, tools=tools)
    return Frame(before, between, opening, after, trims=f" {_QUESTION} " not in spaced)


def _render(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    chat: ChatSettings | None,
    generate: bool = False,
    tools: Sequence[str] = (),
) -> str:
    """The messages in the template, with the date of the settings.

    Templates made for messages that are lists of parts get such lists. Where a system message is refused, it is put
    before the next one.
    """
    as_parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    tries: list[Sequence[Mapping[str, Any]]] = [messages, as_parts]
    if len(messages) > 1 and messages[0]["role"] == "system":
        joined = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        tries.insert(1, [joined, *messages[2:]])
    options: dict[str, Any] = {"enable_thinking": chat.thinking} if chat else {}
    if tools:
        options["tools"] = [json.loads(tool) for tool in tools]
    own = chat.template if chat else ""
    refusal = None
    shown = None
    for tried in tries:
        try:
            template = _on_day(own or tokenizer.get_chat_template(), chat.date if chat else DEFAULT_DATE)
            text = str(
                tokenizer.apply_chat_template(
                    tried, chat_template=template, tokenize=False, add_generation_prompt=generate, **options
                )
            )
        except Exception as problem:  # a template is a program: what it raises may be anything
            if shown is None:
                refusal = refusal or problem
            continue
        python = "{'type': 'text'" in text and "{'type': 'text'" not in str(messages)  # parts written out as they are
        if not python and all(message["content"].strip() in text for message in messages):
            return text
        shown = shown or text
    if shown is not None and refusal is None:  # what the first try came to
        missing = next(message for message in messages if message["content"].strip() not in shown)
        part = {"user": "question", "assistant": "answer", "system": "system prompt"}.get(missing["role"], "message")
        raise _template_error(tokenizer, chat, f"leaves out the {part}")
    first = (str(refusal).strip() or type(refusal).__name__).splitlines()[0]
    raise _template_error(tokenizer, chat, f"refuses what it is given: {first}") from refusal


def _on_day(template: str, date: str) -> str:
    """The template with a fixed date in place of today's.

    Raises:
        ValueError: The form of the date is computed by the template.
    """
    day = datetime.fromisoformat(date)
    fixed = _TODAY.sub(lambda found: repr(day.strftime(found[2])), template)
    if re.search(r"strftime_now\s*\(", fixed):
        raise ValueError("it asks for today's date in a form that cannot be read from the template")
    return fixed


def _template_error(tokenizer: Any, chat: ChatSettings | None, what: str, fix: str = "") -> UserError:
    if chat is None:
        return UserError(f"model {tokenizer.name_or_path!r}: its chat template {what}; choose another model")
    own = bool(chat.template)
    whose = "task.chat.template:" if own else f"student {tokenizer.name_or_path}: its chat template"
    if not fix:
        fix = "correct it" if own else "set task.chat.template to one that writes question and answer once"
        if "system" in what and not chat.system:
            fix = f"set task.chat.system to a system prompt, or {fix}"
    return UserError(f"{whose} {what}; {fix}")


def _with_marks(tokenizer: Any, texts: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """({mark: special token's name}, the texts with marks in the place of the names that are in them).

    Only tokens that the tokenizer calls special count: others, such as `<think>`, a completion may well have to teach.
    """
    special = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    # The longest first, as one name may be a part of another.
    named = sorted((name for name in special if any(name in text for text in texts)), key=lambda n: (-len(n), n))
    used = set().union(*texts)
    free = (mark for mark in map(chr, range(0xE000, 0xF8F0)) if mark not in used)  # Unicode's private use area
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
