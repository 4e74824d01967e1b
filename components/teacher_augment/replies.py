"""What a strategy or an offline teacher returns to the stage."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from llm2llm.components.shared.data.schemas import Call, Example, Reason, StudentError


@dataclass(frozen=True, slots=True)
class Request:
    """`count` new examples like `parent`."""

    parent: Example
    error: StudentError | None
    """What the student answered, when the parent is one of its errors."""
    count: int
    number: int = 0
    """Which part it is, from 0, of all that is wanted of the parent (or for the skill): the same part again, whatever
    else is asked for, is the same request to the same teacher."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One example as written, not yet checked."""

    question: str
    answer: str
    choices: list[str] = field(default_factory=list)
    rationale: str | None = None
    skills: list[str] = field(default_factory=list)
    """The skills that it was written for."""
    tools: list[str] | None = None
    """The tools that it offers; None: those of its parent."""
    checks: list[str] = field(default_factory=list)
    """The checks that the strategy itself has made."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One example that was asked for and did not come, or not in the form asked for."""

    reason: Reason
    detail: str
    raw: str = ""
    """The beginning of what came instead."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request, or of a part of one: `request.count` drafts and problems together."""

    request: Request
    call: Call | None
    """The call that the text came from; None where nothing was sent, because the budget was used up."""
    drafts: list[Draft] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    teacher: str = ""
    """Who wrote, as rows name it: `openai:model`, `pool`."""


def offline_call_key(*parts: Any) -> str:
    """The content key of an offline teacher's call: the same request has the same key in every run."""
    content = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]
