r"""The formats in which people keep training rows, each made a question and an answer.

columns            question and answer in columns of any name, as `task.columns` says
messages           {"messages": [{"role": "system"|"user"|"assistant", "content": ...}, ...]}; or, as Gemini is tuned,
                   {"systemInstruction": ..., "contents": [{"role": "user"|"model", "parts": [{"text": ...}]}, ...]}
sharegpt           {"conversations": [{"from": "human"|"gpt"|"system", "value": ...}, ...]}
prompt_completion  {"prompt": text or messages, "completion": text or messages}; the first may be called "query", the
                   second "response"; of a preference ("chosen" beside "rejected", as in TRL, or OpenAI's
                   "preferred_output") what was preferred is the answer
alpaca             {"instruction": ..., "input": ..., "output": ...}, also with "system" and "history"; or, as in Dolly,
                   {"instruction": ..., "context": ..., "response": ...}
examples           rows that llm2llm wrote: `llm2llm export`, or a stage; told by their id

The last assistant turn is the answer, but for those with `weight: 0` (or `train: false`). What comes before it is the
question, rendered alike in every format, so that the same content has the same id: the parts are joined with an empty
line between them, system prompt first; where there are earlier turns, each begins with its speaker.

    Be brief.                  You are a clerk.

    What is 1 + 1?             User: My parcel is late.

                               Assistant: Which one?

                               User: Number 7.

Tool calls (OpenAI's `tool_calls` and `function_call`, ShareGPT's `function_call`) in earlier turns are written into the
question as JSON, and so are the results of tools (`role: tool`, `observation`). Where the task's answers are calls, the
last turn that makes some is the answer.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.jsonl import parse_json
from llm2llm.components.shared.data.schemas import content_id
from llm2llm.components.shared.ingest.columns import has_column, is_empty, list_cell
from llm2llm.components.shared.tasks import Columns

RowFormat = Literal["auto", "columns", "messages", "prompt_completion", "sharegpt", "alpaca", "examples"]
FORMATS: tuple[str, ...] = get_args(RowFormat)

_CHAT = {"messages": "messages", "conversations": "sharegpt", "conversation": "sharegpt", "dialog": "messages",
         "dialogue": "messages", "chat": "messages", "contents": "messages"}  # fmt: skip
"""Columns that hold turns, and the format they are the mark of."""
_SYSTEM = ("system", "systemInstruction", "system_instruction")
"""Columns that hold a system prompt."""
_PROMPTS = ("prompt", "query")
_COMPLETIONS = ("completion", "response", "chosen")
_OUTPUTS = ("output", "response")
_TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of the parts of a turn that are text; the last two are those of OpenAI's Responses API."""
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Columns that hold what a conversation is about, where there is more than its text."""
_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "chatbot": "assistant",
    "model": "assistant", "bing": "assistant", "bard": "assistant", "tool": "tool", "function": "tool",
    "observation": "tool", "function_call": "call",
}  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    text: str
    calls: list[Any] | None = None
    """The tools that the assistant calls, as the row has them; None where it calls none."""
    learnt: bool = True
    """Whether it may be the answer; not with `weight: 0`, which says that nothing is learnt from it."""


@dataclass(frozen=True)
class Content:
    """A row's question and answer, out of any format but `columns`."""

    question: str
    answer: str | list[Any]
    """Empty text where there is none; a list of tool calls for a task whose answers are such."""
    after: int = 0
    """Turns behind the one that is the answer, which are left out."""
    beside: bool = False
    """Whether text beside the calls of the answer is left out."""


def recognise(row: Mapping[str, Any], columns: Columns, unanswered: bool = False) -> str:
    """The format of a row. Rows of our own and columns that the task names win; `columns` also for a row of no known
    format. With `unanswered` a row may lack its answer."""
    if is_own(row):
        return "examples"
    asked = [columns.question] if isinstance(columns.question, str) else columns.question
    answered = unanswered or has_column(row, columns.answer)
    if answered and any(has_column(row, column) for column in asked):
        return "columns"
    for column, name in _CHAT.items():
        if column in row and _turns_in(row[column]) is not None:
            return name
    if is_preference(row) or (_named(row, _PROMPTS) in row and (unanswered or _named(row, _COMPLETIONS) in row)):
        return "prompt_completion"
    if "instruction" in row and (unanswered or _named(row, _OUTPUTS) in row):
        return "alpaca"
    return "columns"


def columns_read(name: str, columns: Columns) -> set[str]:
    """The columns that a format's question, choices and answer are read from, if a row has them."""
    if name == "columns":
        asked = [columns.question] if isinstance(columns.question, str) else columns.question
        choices = columns.choices if isinstance(columns.choices, list) else [columns.choices or ""]
        return {*asked, *choices, columns.answer, columns.id or ""}
    if name == "examples":
        return {"id", "question", "choices", "answer", "source", "source_id"}
    more = {"prompt_completion": (*_PROMPTS, *_COMPLETIONS), "alpaca": ("instruction", "input", "context", *_OUTPUTS)}
    return {*_SYSTEM, *more.get(name, _CHAT), "history", columns.id or ""}


def is_own(row: Mapping[str, Any]) -> bool:
    """Whether llm2llm wrote a row: its id is that of its content."""
    if not {"id", "question", "choices", "rationale", "answer"} <= row.keys():
        return False
    try:
        choices = list_cell(row, "choices")
        tools = list_cell(row, "tools") if row.get("tools") else []
    except ValueError:
        return False
    return bool(content_id(row["question"], choices, row["rationale"] or None, row["answer"], tools) == row["id"])


def read_row(row: Mapping[str, Any], name: str, unanswered: bool = False, calls: bool = False) -> Content:
    """The question and the answer of a row.

    Args:
        row: A row as its file has it.
        name: A format other than `columns`, `examples` and `auto`.
        unanswered: Whether the row may lack its answer: a conversation that ends before the assistant speaks is then
            all question.
        calls: Whether the task's answers are tool calls.

    Raises:
        ValueError: The row is not of the format, has no assistant turn, or has what is no text: images, or calls as the
            answer of a task whose answers are none.
    """
    for media in _MEDIA:
        if not is_empty(row.get(media)) and row[media] != []:
            raise ValueError(
                f"column {media!r} is not empty, and only text can be read; leave out the row or the column"
            )
    if name in ("messages", "sharegpt"):
        column = next((column for column in row if _CHAT.get(column) == name), None)
        column = column or next((column for column in row if column in _CHAT), None)
        if column is None:
            raise ValueError(f"no column {'messages' if name == 'messages' else 'conversations'!r}, which format "
                             f"{name!r} needs; columns here: {_names(row)}")  # fmt: skip
        turns = turns_of(row[column], column)
        return _content([*_system(row, turns), *turns], unanswered, calls)
    if name == "prompt_completion":
        return _content(_prompted(row, name, unanswered), unanswered, calls)
    if name == "alpaca":
        more = _optional(row, "input" if "input" in row else "context")
        asked = [_string(_column(row, "instruction", name), "instruction"), more]
        earlier = _earlier(row)
        last = [Turn("user", joined(asked))]
        column = _named(row, _OUTPUTS)
        if not (unanswered and is_empty(row.get(column))):
            last.append(Turn("assistant", _string(_column(row, column, name), column)))
        return _content([*_system(row, earlier), *earlier, *last], unanswered, calls)
    raise UserError(f"format {name!r} is not known; there are {', '.join(FORMATS)}")


def _prompted(row: Mapping[str, Any], name: str, unanswered: bool) -> list[Turn]:
    """The turns of a prompt and its completion, each of them text or turns."""
    if row.get("label") is False:
        raise ValueError(
            "label is false, which says that the completion is not wanted; leave out the row, or say by "
            "task.columns what the columns hold"
        )
    if isinstance(row.get("input"), Mapping) and "preferred_output" in row:
        row = {**row, "prompt": row["input"].get("messages"), "completion": row["preferred_output"]}
    asked, column = _named(row, _PROMPTS), _named(row, _COMPLETIONS)
    completion = row.get(column) if unanswered else _column(row, column, name)
    answers: list[Turn] = []
    if _turns_in(completion) is not None:
        answers = turns_of(completion, column)
    elif not (unanswered and (is_empty(completion) or completion == [])):
        answers = [Turn("assistant", _string(completion, column))]
    if asked not in row and any(turn.role == "user" for turn in answers):
        turns = []  # TRL's implicit prompt: the whole conversation stands in `chosen`
    else:
        prompt = _column(row, asked, name)
        turns = turns_of(prompt, asked) if _turns_in(prompt) is not None else [Turn("user", _string(prompt, asked))]
    turns = [*_earlier(row), *turns, *answers]
    return [*_system(row, turns), *turns]


def is_preference(row: Mapping[str, Any]) -> bool:
    """Whether a row holds a preferred and a rejected answer."""
    return {"chosen", "rejected"} <= row.keys() or {"input", "preferred_output"} <= row.keys()


def _earlier(row: Mapping[str, Any]) -> list[Turn]:
    """The turns of a column `history`."""
    return [
        Turn(role, _string(text, "history"))
        for pair in _history(row.get("history"))
        for role, text in zip(("user", "assistant"), pair, strict=False)
    ]


def joined(parts: Iterable[str]) -> str:
    """The parts that are not blank, without outer white space, an empty line between them."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def rendered(turns: Sequence[Turn]) -> str:
    """Turns as the text of a question; see the module's docstring."""
    system = [turn.text for turn in turns if turn.role == "system"]
    others = [turn for turn in turns if turn.role != "system"]
    if len(others) == 1:
        return joined([*system, others[0].text])
    return joined([*system, *(f"{turn.role.capitalize()}: {_with_calls(turn)}" for turn in others)])


def _with_calls(turn: Turn) -> str:
    """What a turn says, and the calls that it makes as JSON, alike however a row writes them."""
    if not turn.calls:
        return turn.text.strip()
    written = []
    for call in turn.calls:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"a tool call without a name: {_short(call)}")
        arguments = function.get("arguments", function.get("parameters"))
        if isinstance(arguments, str) and arguments.strip():
            try:
                arguments = parse_json(arguments)
            except ValueError:
                raise ValueError(f"the arguments of a tool call are no JSON: {_short(arguments)}") from None
        # Null is none: nested columns of Parquet fill in the names of other rows' arguments, in their own order.
        if not isinstance(arguments or {}, Mapping):
            raise ValueError(f"the arguments of a tool call must be an object, got {_short(arguments)}")
        given = {name: one for name, one in sorted(arguments.items()) if one is not None} if arguments else {}
        written.append(json.dumps({"name": function["name"], "arguments": given}, ensure_ascii=False))
    return "\n".join(filter(None, [turn.text.strip(), f"[{', '.join(written)}]"]))


def _content(turns: Sequence[Turn], unanswered: bool, calls: bool) -> Content:
    if unanswered and turns and turns[-1].role in ("user", "tool"):
        return Content(rendered(turns), "")
    spoken = [place for place, turn in enumerate(turns) if turn.role == "assistant" and turn.learnt]
    if not spoken:
        weighed = "; all that there are have weight 0" if any(turn.role == "assistant" for turn in turns) else ""
        raise ValueError(f"no turn of the assistant, so no answer{weighed}")
    calling = [place for place in spoken if turns[place].calls is not None]
    last = calling[-1] if calls and calling else spoken[-1]
    answer = turns[last]
    if answer.calls and not calls:
        raise ValueError(
            "the answer is a tool call, which is no text; for answers that are calls set task.form: json without "
            "answer_schema, and task.columns.tools"
        )
    before = turns[:last]
    if not any(turn.role != "system" for turn in before):
        raise ValueError("the assistant's turn follows no question")
    said, after = answer.text.strip(), len(turns) - last - 1
    if calls and answer.calls is not None:
        return Content(rendered(before), answer.calls, after, beside=bool(said))
    return Content(rendered(before), said, after)


def _system(row: Mapping[str, Any], turns: Sequence[Turn]) -> list[Turn]:
    """A system prompt that has a column of its own, unless the turns hold one."""
    column = _named(row, _SYSTEM)
    if any(turn.role == "system" for turn in turns) or is_empty(row.get(column)):
        return []
    text = _text_of(_parts_in(row[column]), column)
    return [Turn("system", text)] if text else []


def _turns_in(value: Any) -> list[Mapping[str, Any]] | None:
    """The turns in a cell, as they are or as JSON text; None where it holds none. A mapping of lists of equal lengths
    is how `datasets` stores a `Sequence` of turns."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError:
            return None
    if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
        if len({len(column) for column in value.values()}) > 1:
            return None
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(turn, Mapping) and ("role" in turn or "from" in turn) for turn in value):
        return value
    return None


def turns_of(value: Any, column: str) -> list[Turn]:
    """The turns in a cell, as they are or as JSON text.

    Raises:
        ValueError: It holds no turns, an unknown speaker, or what is neither text nor a tool call: images.
    """
    found = _turns_in(value)
    if found is None:
        raise ValueError(f"column {column!r} must hold a list of turns, each with `role` and `content` (or `from` and "
                         f"`value`), got {_short(value)}")  # fmt: skip
    turns = []
    for place, turn in enumerate(found):
        where = f"{column}[{place}]"
        speaker = turn.get("role", turn.get("from"))
        role = _ROLES.get(str(speaker).casefold())
        if role is None:
            raise ValueError(f"{where}: the speaker {speaker!r} is not known; there are {', '.join(_ROLES)}")
        said = turn.get("content", turn.get("value", turn.get("text", turn.get("parts"))))
        learnt = turn.get("weight") not in (0, "0") and turn.get("train") is not False
        if role == "call":
            turns.append(Turn("assistant", "", _call_list(said, where), learnt))
            continue
        calls = turn.get("tool_calls")
        if is_empty(calls) and not is_empty(turn.get("function_call")):
            calls = turn["function_call"]
        # An empty list beside a text is what tools fill in for "no calls"; alone it says that there is nothing to call.
        none = is_empty(calls) or (calls == [] and not is_empty(said))
        found_calls = None if none else _call_list(calls, where)
        if role == "tool" and isinstance(said, Mapping):
            said = json.dumps(said, ensure_ascii=False)
        text = "" if is_empty(said) and found_calls is not None else _text_of(said, where)
        turns.append(Turn(role, text, found_calls, learnt))
    return turns


def _call_list(value: Any, where: str) -> list[Any]:
    """Tool calls: a list or a single one, as they are or as JSON text."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            raise ValueError(f"{where}: a tool call that is no JSON: {_short(value)}") from None
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise ValueError(f"{where}: tool calls must be a list of {{name, arguments}}, got {_short(value)}")
    return value


def _parts_in(value: Any) -> Any:
    """The list of parts in `{"parts": [...]}`, as Gemini has it; else the value itself."""
    return value["parts"] if isinstance(value, Mapping) and "parts" in value else value


def _text_of(content: Any, where: str) -> str:
    """The text of a turn; parts `{"type": "text", "text": ...}` are joined."""
    if isinstance(content, list):
        parts = []
        for part in content:
            kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
            if not isinstance(part, Mapping) or kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
                raise ValueError(f"{where}: a part of type {kind!r}, and only text can be read")
            parts.append(part["text"])
        content = "".join(parts)
    if content is None:
        raise ValueError(f"{where}: no content")
    return _string(content, where)


def _history(value: Any) -> list[Sequence[Any]]:
    if isinstance(value, str):
        value = parse_json(value) if value.strip() else None
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value):
        raise ValueError("column 'history' must hold pairs of question and answer")
    return value


def _column(row: Mapping[str, Any], column: str, name: str) -> Any:
    if column not in row:
        raise ValueError(f"no column {column!r}, which format {name!r} needs; columns here: {_names(row)}")
    return row[column]


def _named(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these columns that the row has; the first of all where it has none."""
    return next((name for name in names if name in row), names[0])


def _optional(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    return "" if value is None or value != value else _string(value, column)


def _string(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"column {where!r} holds {_short(value)}, expected text" if "[" not in where else
                         f"{where}: expected text, got {_short(value)}")  # fmt: skip
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "none"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
