"""Builds chat completion requests and reads the responses that servers really send.

chat_request(...)        the JSON that is sent
decode_body(bytes)       the JSON that came: with a byte order mark, or as a stream of events
error_in(body)           the error that a status of 200 hides
read_completion(body)    text, refusal and tokens, as the fields of `LLMResponse`
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared.data.jsonl import parse_json
from llm2llm.components.shared.llm.requests import LLMRequest, Message, without_control_tokens

MOST_TOKENS = 2**40
"""A count above this is no count."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message that hold its thoughts."""
_STATUSES = {
    "rate_limit": 429, "too_many_requests": 429, "overloaded": 503, "unavailable": 503, "insufficient_quota": 402,
    "invalid_request": 400, "invalid_argument": 400, "authentication": 401, "permission": 403, "not_found": 404,
}  # fmt: skip


def schema_in_words(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """The messages with the form of the answer asked for in the first one."""
    words = "Answer with one JSON object and nothing else, valid under this JSON schema:\n" + json.dumps(schema)
    return [{**messages[0], "content": f"{messages[0]['content']}\n\n{words}"}, *messages[1:]]


def chat_request(
    request: LLMRequest,
    model: str,
    *,
    in_words: bool = False,
    limit_name: str = "max_tokens",
    temperature: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of a request.

    Args:
        request: What is asked.
        model: Its name at the endpoint.
        in_words: Whether the form of the answer is asked for in words rather than by JSON schema.
        limit_name: `max_tokens` or `max_completion_tokens`, the only one that newer models of OpenAI take.
        temperature: Whether it is sent; some models take none.
        extra: Further parameters.
    """
    messages: Sequence[Message] = [
        {"role": message["role"], "content": without_control_tokens(message["content"])} for message in request.messages
    ]
    body: dict[str, Any] = {**(extra or {}), "model": model, limit_name: request.max_tokens}
    if temperature and request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p != 1:
        body["top_p"] = request.top_p
    if request.schema is not None and in_words:
        messages = schema_in_words(messages, request.schema)
    elif request.schema is not None:
        form = {"name": "answer", "schema": dict(request.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return {**body, "messages": messages}


def decode_body(content: bytes) -> Any:
    """The JSON value of a response's body. Of a stream of server-sent events the completion that its pieces make.

    Raises:
        ValueError: Neither JSON nor such a stream.
    """
    text = content.decode("utf-8-sig").strip()
    if text.startswith(("data:", "event:", ":")):
        return _from_events(text)
    return parse_json(text)


def _from_events(text: str) -> Any:
    """A chat completion from the events of a stream."""
    texts: dict[str, list[str]] = {}
    whole: dict[str, Any] = {}
    finish: str | None = None
    found = False
    for line in text.splitlines():
        if not line.startswith("data:") or line[5:].strip() in ("", "[DONE]"):
            continue
        event = parse_json(line[5:].strip())
        if not isinstance(event, Mapping):
            raise ValueError("an event is no JSON object")
        if error := event.get("error"):
            return {"error": error}
        whole |= {name: event[name] for name in ("model", "usage") if event.get(name)}
        choices = event.get("choices")
        for choice in choices[:1] if isinstance(choices, list) else []:
            found = True
            if not isinstance(choice, Mapping):
                raise ValueError("an event is no piece of a chat completion")
            finish = choice.get("finish_reason") or finish
            piece = choice.get("delta") or choice.get("message") or {}
            for name in ("content", "refusal", *REASONING):
                if isinstance(piece, Mapping) and isinstance(piece.get(name), str):
                    texts.setdefault(name, []).append(piece[name])
    if not found:
        raise ValueError("the stream holds no chat completion")
    message = {name: "".join(parts) for name, parts in texts.items()}
    return {**whole, "choices": [{"message": message, "finish_reason": finish}]}


@dataclass(frozen=True, slots=True)
class ErrorInside:
    """An error in the body of a response with status 200."""

    status: int
    """The HTTP status that it should have had; 500 where it names none."""
    text: str


def error_in(body: Any) -> ErrorInside | None:
    """The error that a body holds in place of a completion; None where it holds none."""
    if not isinstance(body, Mapping):
        return None
    error, choices = body.get("error"), body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        error = choices[0].get("error") if choices[0].get("error") else (None if "message" in choices[0] else error)
    if not error:
        return None
    kinds = (
        [str(error.get(name, "")).lower() for name in ("code", "type", "status")] if isinstance(error, Mapping) else []
    )
    status = next((int(kind) for kind in kinds if kind.isdecimal() and 400 <= int(kind) <= 599), 0)
    if not status:
        status = next((code for word, code in _STATUSES.items() if any(word in kind for kind in kinds)), 500)
    return ErrorInside(status, said_in({"error": error}) or "an error without a message")


def said_in(body: Any) -> str:
    """What an error says: its message, code and type; empty where the body is none."""
    try:
        error = body["error"]
        if isinstance(error, Mapping):
            said = [str(error[name]) for name in ("message", "code", "type") if error.get(name)]
            return f"{said[0]} ({', '.join(said[1:])})" if len(said) > 1 else said[0]
        return str(error)
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        return ""


def read_completion(body: Any) -> dict[str, Any]:
    """What a chat completion says, as fields of `LLMResponse`: `text`, `refusal`, `truncated`, `detail` and the tokens.

    The text is that of the content, whether one text or a list of parts, without parts that are thoughts; where there
    is none, the arguments of the first tool call. What stands in a field for thoughts is no answer, unless all of it is
    one JSON value: a server's parser has then taken the answer for thoughts.

    Raises:
        ValueError: It is no chat completion.
    """
    try:
        choice = body["choices"][0]
        message, finish = choice.get("message"), choice.get("finish_reason")
        if message is None:  # the older completions
            message = {"content": choice["text"]}
        text, refusal, usage = _content(message.get("content")), str(message.get("refusal") or ""), body.get("usage")
        text = text if text.strip() else _arguments(message) or text
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError):
        raise ValueError("what came is no chat completion") from None
    detail = ""
    thoughts = next((message[name] for name in REASONING if isinstance(message.get(name), str)), "").strip()
    if not text.strip() and thoughts:
        if finish != "length" and _is_json(thoughts):
            text = thoughts
        else:
            detail = "the model wrote thoughts and no answer"
    if finish == "content_filter" and not refusal:
        refusal = "the endpoint's content filter stopped the answer"
    tokens_in, tokens_out = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    return {
        "text": text,
        "refusal": refusal,
        "truncated": finish == "length",
        "detail": detail,
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
    }


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content] if isinstance(content, Mapping) else []
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and part.get("type", "text") in ("text", "output_text"):
            value = part.get("text")
            value = value.get("value") if isinstance(value, Mapping) else value
            texts.append(value if isinstance(value, str) else "")
    return "".join(texts)


def _arguments(message: Mapping[str, Any]) -> str:
    """The arguments of the first tool call: some servers make one of a JSON schema."""
    calls = message.get("tool_calls")
    function = calls[0].get("function") if isinstance(calls, list) and calls else message.get("function_call")
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    return json.dumps(arguments) if isinstance(arguments, Mapping) else arguments if isinstance(arguments, str) else ""


def _is_json(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict | list)
    except ValueError:
        return False


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
