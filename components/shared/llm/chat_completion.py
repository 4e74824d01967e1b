"""Builds chat completion requests and reads the responses that servers really send.

chat_request(...)        the JSON that is sent
decode_body(bytes)       the JSON that came: with a byte order mark, or as a stream of events
error_in(body)           the error that a status of 200 hides
read_completion(body)    text, refusal and tokens, as the fields of `LLMResponse`
read_logprobs(body)      the tokens of the text with their log-probabilities
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared.data.jsonl import parse_json
from llm2llm.components.shared.llm.requests import LLMRequest, Message, TokenLogprobs, without_control_tokens

MOST_TOKENS = 2**40
"""A count above this is no count."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message that hold its thoughts."""
_EVENTS = re.compile(r"(?:data|event|id|retry)?:")
"""How a stream of server-sent events begins."""
_CUT = {"length", "max_tokens", "max_output_tokens"}
"""Reasons to end, in small letters, of an answer that is too long; OpenAI's, and those that gateways pass on."""
_FILTERED = {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
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
    most_logprobs: int = 20,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of a request.

    Args:
        request: What is asked.
        model: Its name at the endpoint.
        in_words: Whether the form of the answer is asked for in words rather than by JSON schema.
        limit_name: `max_tokens` or `max_completion_tokens`, the only one that newer models of OpenAI take.
        temperature: Whether it is sent; some models take none.
        most_logprobs: The largest `top_logprobs` that is taken.
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
    if request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": min(request.top_logprobs, most_logprobs)}
    if request.schema is not None and in_words:
        messages = schema_in_words(messages, request.schema)
    elif request.schema is not None:
        form = {"name": "answer", "schema": dict(request.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return {**body, "messages": messages}


def decode_body(content: bytes, charset: str = "") -> Any:
    """The JSON value of a response's body. Of a stream of server-sent events the completion that its pieces make.

    Args:
        content: In UTF-8, UTF-16 or UTF-32, with a byte order mark or without.
        charset: What the response says of it, for one that is in none of these.

    Raises:
        ValueError: Neither JSON nor such a stream.
    """
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:
        try:
            text = content.decode(charset or "utf-8")
        except LookupError:
            raise ValueError(f"the character set {charset!r} is not known") from None
    text = text.strip()
    if _EVENTS.match(text):
        return _from_events(text)
    return parse_json(text)


def _from_events(text: str) -> Any:
    """A chat completion from the events of a stream."""
    texts: dict[str, list[str]] = {}
    arguments: list[str] = []
    whole: dict[str, Any] = {}
    finish: str | None = None
    found = done = False
    for data in _event_data(text):
        if data == "[DONE]":
            done = True
            continue
        event = parse_json(data)
        if not isinstance(event, Mapping):
            raise ValueError("an event is no JSON object")
        if error := event.get("error"):
            return {"error": error}
        whole |= {name: event[name] for name in ("model", "usage") if event.get(name)}
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if not isinstance(choice, Mapping):
                raise ValueError("an event is no piece of a chat completion")
            if choice.get("index"):
                continue  # another answer to the same request
            found = True
            finish = choice.get("finish_reason") or finish
            piece = choice.get("delta") or choice.get("message") or {}
            if not isinstance(piece, Mapping):
                continue
            for name in ("content", "refusal", *REASONING):
                value = _content(piece.get(name)) if name == "content" else piece.get(name)
                if isinstance(value, str):
                    texts.setdefault(name, []).append(value)
            calls = piece.get("tool_calls")
            first = calls[0] if isinstance(calls, list) and calls else None
            if not (isinstance(first, Mapping) and first.get("index")):  # of several calls the first
                arguments.append(_arguments(piece))
    if not found:
        raise ValueError("the stream holds no chat completion")
    message: dict[str, Any] = {name: "".join(parts) for name, parts in texts.items()}
    if any(arguments):
        message["tool_calls"] = [{"function": {"arguments": "".join(arguments)}}]
    # A stream that neither says that it is done nor why was cut off.
    return {**whole, "choices": [{"message": message, "finish_reason": finish or ("stop" if done else "length")}]}


def _event_data(text: str) -> Iterator[str]:
    """The data of each event: its lines of data joined, unless each of them is a value of its own."""
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("data:"):
            lines.append(line[5:].strip())
        elif not line.strip():
            yield from _values_in(lines)
            lines = []


def _values_in(lines: Sequence[str]) -> Iterator[str]:
    """Some servers leave no blank line between two events."""
    whole = ""
    for line in lines:
        whole = f"{whole}\n{line}" if whole else line
        if whole == "[DONE]" or (whole and _is_json(whole)):
            yield whole
            whole = ""
    if whole:
        yield whole


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
    if body.get("object") == "error":  # older servers of vLLM
        error = {name: body[name] for name in ("message", "code", "type") if body.get(name)} or "error"
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
        error = body["error"] if "error" in body else body["message"]
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
        choices = body["choices"]
        # Some gateways do not sort them.
        choice = next((one for one in choices if isinstance(one, Mapping) and not one.get("index")), choices[0])
        message, finish = choice.get("message"), choice.get("finish_reason")
        if message is None:  # the older completions
            message = {"content": choice["text"]}
        text, refusal = _content(message.get("content")), str(message.get("refusal") or "")
        text = text if text.strip() else _arguments(message) or text
        refusal = refusal or _refused_in(message.get("content"))
        finish = finish.lower() if isinstance(finish, str) else ""
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError):
        raise ValueError("what came is no chat completion") from None
    detail = ""
    thoughts = next((message[name] for name in REASONING if isinstance(message.get(name), str)), "").strip()
    if not text.strip() and thoughts:
        if finish not in _CUT and _is_json(thoughts):
            text = thoughts
        else:
            detail = "the model wrote thoughts and no answer"
    if finish in _FILTERED and not refusal:
        refusal = "the endpoint's content filter stopped the answer"
    return {
        "text": text,
        "refusal": refusal,
        "truncated": finish in _CUT,
        "detail": detail,
        **tokens_in(body),
    }


def read_logprobs(body: Any) -> tuple[TokenLogprobs, ...] | None:
    """The tokens of a chat completion's text with their log-probabilities, thoughts among them where the text holds
    them; None where it tells none, or what is none.

    They stand in `choices[0].logprobs.content` as `{token, bytes, logprob, top_logprobs: [{token, bytes, logprob}]}`;
    `bytes` may be missing or null.
    """
    try:
        choices = body["choices"]
        choice = next((one for one in choices if isinstance(one, Mapping) and not one.get("index")), choices[0])
        tokens = tuple(
            TokenLogprobs(*_logprob(one), tuple(_logprob(other) for other in one.get("top_logprobs") or ()))
            for one in choice["logprobs"]["content"]
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    return tokens or None


def _logprob(token: Mapping[str, Any]) -> tuple[bytes, float]:
    raw, value = token.get("bytes"), float(token["logprob"])
    if value != value or value > 1e-3:
        raise ValueError("no log-probability")
    return bytes(raw) if isinstance(raw, list) else str(token["token"]).encode("utf-8", "replace"), value


def tokens_in(body: Any) -> dict[str, int | None]:
    """`input_tokens` and `output_tokens` as a body tells them, whether it holds a completion or none; None: it does
    not."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    return {
        "input_tokens": _count(usage, "prompt_tokens", "input_tokens"),
        "output_tokens": _count(usage, "completion_tokens", "output_tokens"),
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


def _refused_in(content: Any) -> str:
    """The refusal among the parts of a content."""
    parts = content if isinstance(content, list) else []
    found = (part.get("refusal") for part in parts if isinstance(part, Mapping) and part.get("type") == "refusal")
    return next((text for text in found if isinstance(text, str)), "")


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


def _count(usage: Any, *names: str) -> int | None:
    """A number of tokens under the first of these names; some servers write 11.0 or "11"."""
    given = usage if isinstance(usage, Mapping) else {}
    value = next((given[name] for name in names if given.get(name) is not None), None)
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
