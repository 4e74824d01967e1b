"""A language model that does what a test says."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llm2llm.components.shared.llm.requests import Answer, Ask, call_key
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.teacher_augment.until_usable import OpenTeacher

MODEL = "teacher-8b"

Writes = Callable[[Ask, int], Any]
"""What it writes for a request and its number from 0: text, a value that is sent as JSON, or an `Answer`."""


@dataclass
class Fake:
    """Remembers what it was asked."""

    writes: Writes
    asks: list[Ask] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    identity: str = ""

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        self.batches.append(len(asks))
        answers = []
        for ask in asks:
            came = self.writes(ask, len(self.asks))
            self.asks.append(ask)
            key = call_key(self.identity, ask)
            if not isinstance(came, Answer):
                came = answered(came)
            answers.append(replace(came, ask=ask, key=key, model=MODEL, paid=True))
        return answers


def answered(content: Any, **fields: Any) -> Answer:
    """An answer that holds a text, or a value as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return Answer(
        ask=Ask(messages=[], temperature=0, max_tokens=16),
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


def shown(ask: Ask, mark: str = "example") -> Any:
    """The data between two marks of the last message."""
    text = ask.messages[-1]["content"]
    assert text.count(f"<{mark}>") == text.count(f"</{mark}>") == 1
    return json.loads(text.split(f"<{mark}>")[1].split(f"</{mark}>")[0])


def asked_count(ask: Ask) -> int:
    """How many rows a request wants."""
    assert ask.schema is not None
    count: int = ask.schema["properties"]["examples"]["minItems"]
    return count
