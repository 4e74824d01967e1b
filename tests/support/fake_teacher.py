"""A language model that does what a test says."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, request_key
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.teacher_augment.until_usable import OpenTeacher

MODEL = "teacher-8b"

Writes = Callable[[LLMRequest, int], Any]
"""What it writes for a request and its number from 0: text, a value that is sent as JSON, or an `LLMResponse`."""


@dataclass
class Fake:
    """Remembers what it was asked."""

    writes: Writes
    requests: list[LLMRequest] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    identity: str = ""

    def __call__(self, requests: Sequence[LLMRequest]) -> list[LLMResponse]:
        self.batches.append(len(requests))
        answers = []
        for request in requests:
            came = self.writes(request, len(self.requests))
            self.requests.append(request)
            key = request_key(self.identity, request)
            if not isinstance(came, LLMResponse):
                came = answered(came)
            answers.append(replace(came, request=request, key=key, model=MODEL, paid=True))
        return answers


def answered(content: Any, **fields: Any) -> LLMResponse:
    """An answer that holds a text, or a value as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return LLMResponse(
        request=LLMRequest(messages=[], temperature=0, max_tokens=16),
        key="",
        **{"outcome": "answered", "text": text, "input_tokens": 11, "output_tokens": 7, **fields},
    )


def opened(
    writes: Writes, teacher: str = "openai", model: str = MODEL, weight: float = 1.0, **settings: Any
) -> tuple[OpenTeacher, Fake]:
    """(what the stage is given, what it was asked)."""
    own = ModelSettings(model=model, **settings)
    fake = Fake(writes, identity=own.identity(teacher))
    return OpenTeacher(teacher, model, own, fake, weight), fake


def examples(*rows: tuple[str, str] | dict[str, Any]) -> dict[str, Any]:
    """The object that a strategy asks for, from (question, answer) pairs or whole rows."""
    return {"examples": [row if isinstance(row, dict) else {"question": row[0], "answer": row[1]} for row in rows]}


def shown(request: LLMRequest, mark: str = "example") -> Any:
    """The data between two marks of the last message."""
    text = request.messages[-1]["content"]
    assert text.count(f"<{mark}>") == text.count(f"</{mark}>") == 1
    return json.loads(text.split(f"<{mark}>")[1].split(f"</{mark}>")[0])


def asked_count(request: LLMRequest) -> int:
    """How many rows a request wants."""
    assert request.schema is not None
    count: int = request.schema["properties"]["examples"]["minItems"]
    return count
