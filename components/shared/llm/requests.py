"""Requests to language models, and their responses.

    LLMRequest (messages, sampling) -> key -> [ledger] or a model -> LLMResponse (raw text, tokens, price)

A response holds the raw text. Parsing and checks come later, so that a change of the parser costs no new calls.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llm2llm.components.shared.base.thoughts import without_thoughts
from llm2llm.components.shared.data.schemas import Call

Message = Mapping[str, str]
"""`role` (system, user or assistant) and `content`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMRequest:
    """One request to a model."""

    messages: Sequence[Message]
    """For a model without a chat template their contents are joined by blank lines."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of the answer; None for free text."""
    temperature: float | None
    """None: the model's own."""
    max_tokens: int
    """The longest answer."""
    top_p: float = 1.0
    """Nucleus sampling: only the likeliest tokens that have this share of the probability together; 1: all."""
    top_logprobs: int = 0
    """How many of the likeliest tokens are to be told at each place, each with its log-probability; 0: none."""
    sample: int = 0
    """Tells requests apart that are otherwise equal, so that each is answered, and paid for, on its own."""
    attempt: int = 0
    """Raised when an answer cannot be used and the same is asked again."""
    purpose: str = "write"
    """What the answer is for, as in `Call.purpose`; says nothing to the model."""
    parent_id: str | None = None
    """The seed example that it is about; says nothing to the model."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """One token of an answer."""

    text: bytes
    """In UTF-8, of which a token may hold a part of a character."""
    logprob: float
    likeliest: tuple[tuple[bytes, float], ...]
    """The likeliest tokens at its place, each with its log-probability, in nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMResponse:
    """What came of one request."""

    request: LLMRequest
    key: str
    outcome: Literal["answered", "failed", "over_budget"]
    """`failed`: no answer after all tries; `over_budget`: never sent."""
    text: str = ""
    """What the model wrote, as it came, with its thoughts; see `answer`."""
    refusal: str = ""
    """Why the model declined, where it says so apart from the text."""
    truncated: bool = False
    """Whether the answer hit `max_tokens`."""
    detail: str = ""
    """What went wrong, for a person; never holds a key."""
    logprobs: tuple[TokenLogprobs, ...] | None = None
    """The tokens of the text, where the request asked for `top_logprobs` and the endpoint tells them."""
    model: str = ""
    attempts: int = 1
    """How often the request was sent until it was answered."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    usd: float | None = None
    """The price of the tokens; None when it is not known."""
    paid: bool = False
    """Whether this run paid for it, rather than found it in the ledger."""

    @property
    def answer(self) -> str:
        """The text without the thoughts of a reasoning model: a draft among them is no answer."""
        return without_thoughts(self.text)


Teacher = Callable[[Sequence[LLMRequest]], list[LLMResponse]]
"""Answers every request, in the order of the requests."""


def request_key(identity: str, request: LLMRequest) -> str:
    """The content key of a request: 32 hexadecimal digits (128 bits) of the SHA-256 of all that the answer depends on.

    Args:
        identity: Who answers: endpoint, model and revision, as the teacher's settings give it.
        request: What it is asked; `purpose` and `parent_id` do not count.
    """
    content = [
        identity, [dict(m) for m in request.messages], request.schema, request.temperature, request.max_tokens,
        request.sample, request.attempt,
    ]  # fmt: skip
    if request.top_p != 1:  # the key of a call that was paid for before there was the setting stays as it is
        content.append({"top_p": request.top_p})
    if request.top_logprobs:
        content.append({"top_logprobs": request.top_logprobs})
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_CONTROL = re.compile(
    r"<(?=\|[^<>\s]{1,60}\|>)"  # <|im_start|>, <|eot_id|>, <|channel|>
    r"|<(?=｜[^<>\s]{1,60}｜>)"  # <｜User｜>
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|think|tool_call|tool_response|(?:start|end)_of_turn|(?:start|end)_of_image)>)"
    r"|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|IMG_END|PREFIX|SUFFIX|MIDDLE)\])"
)


def without_control_tokens(text: str) -> str:
    """The text with a space inside everything that a chat template's tokenizer would read as a control token, so that
    a row cannot end its own message and begin another one: `<|im_end|>` becomes `< |im_end|>`.

    Every backend sends texts in this form; the key is of the text as it was asked. Half a surrogate pair, which cannot
    be sent, becomes a question mark.
    """
    plain = _CONTROL.sub(lambda found: found[0] + " ", text) if "<" in text or "[" in text else text
    return plain if plain.isascii() else plain.encode("utf-8", "replace").decode("utf-8")


def call_row(response: LLMResponse, iteration: int, strategy: str, teacher: str) -> Call:
    """The row of kind `calls` for an answer that was asked for; one that was never sent has none."""
    assert response.outcome != "over_budget", "a call that was never made"
    return Call(
        key=response.key,
        iteration=iteration,
        parent_id=response.request.parent_id,
        purpose=response.request.purpose,
        strategy=strategy,
        teacher=teacher,
        model=response.model,
        outcome=response.outcome,
        attempts=response.attempts,
        input_tokens=response.input_tokens,
        output_tokens=response.output_tokens,
        usd=response.usd,
    )
