"""The kinds of rows that flow between stages. A kind's dataclass is its schema: `files` derives the Arrow schema.

examples     seeds, validation, test, pool, training sets
predictions  what a student answered, and its grade
errors       the seed rows that a student needs help with, of all iterations so far
candidates   what a teacher wrote, before dedupe
rejects      every generated row that was dropped, and why, of all iterations so far
calls        every request to a teacher, of all iterations so far
scores       one row for each iteration and split: the history
decisions    one row for each iteration: go on or stop, and the reason
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

VERSION = 1  # of the schemas below; raise it when a field changes its name, type or meaning

Split = Literal["seeds", "validation", "test"]
Outcome = Literal["correct", "wrong", "unparseable"]
SPLITS: tuple[Split, ...] = ("seeds", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A question with its right answer. Kinds `examples` and `candidates`."""

    id: str
    """`content_id` of the four fields below: the same content has the same id on every machine."""
    question: str
    choices: list[str] = field(default_factory=list)
    """The options of a multiple-choice question, in the order shown; else empty."""
    rationale: str | None = None
    """The worked solution that leads to the answer, where the task has one."""
    answer: str

    source: str = ""
    """Where a user's row was read, as `file:row`; `teacher` for a generated one."""
    source_id: str | None = None
    """The id that a user's own column gave the row."""

    parent_id: str | None = None
    """The seed example that this one was generated from; None for a user's row. So are the fields below."""
    iteration: int = 0
    """The iteration whose training set the row first joined; 0 for seeds."""
    strategy: str | None = None
    teacher: str | None = None
    call_key: str | None = None
    """The `calls` row that the text came from."""
    checks: list[str] = field(default_factory=list)
    """The checks that the row passed on its way into the training set."""

    @property
    def generated(self) -> bool:
        """Whether a teacher wrote the row."""
        return self.parent_id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A student's answer to one example."""

    example_id: str
    split: Split
    iteration: int
    fold: int | None = None
    """The held-out fold that the row was in, when a student trained without that fold answered it."""
    completion: str
    parsed: str | None
    """The answer read out of the completion; None when there is none to read."""
    outcome: Outcome
    truncated: bool = False
    """Whether the completion hit the token limit before it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentError:
    """A seed example that the student needs help with, beside what it answered. Kind `errors`."""

    iteration: int
    example_id: str
    question: str
    choices: list[str] = field(default_factory=list)
    rationale: str | None = None
    answer: str
    completion: str
    parsed: str | None
    outcome: Outcome
    fold: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A generated row that does not enter the training set. Kind `rejects`."""

    iteration: int
    stage: Literal["teacher_augment", "dedupe"]
    reason: str
    """A word: `unparseable`, `refused`, `invalid`, `copy`, `near_copy`, `in_validation`, `in_test` and the like."""
    detail: str = ""
    """What exactly was wrong, for a person."""
    score: float | None = None
    """Similarity to the neighbour in [0, 1], where there is one."""
    neighbour_id: str | None = None
    neighbour: str | None = None
    """The text of the row that it collided with."""
    id: str
    question: str
    choices: list[str] = field(default_factory=list)
    rationale: str | None = None
    answer: str
    parent_id: str | None = None
    strategy: str | None = None
    teacher: str | None = None
    call_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to a teacher, with all its attempts. Kind `calls`."""

    key: str
    iteration: int
    parent_id: str | None
    teacher: str
    model: str
    outcome: Literal["answered", "failed"]
    attempts: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    """As the endpoint reports them; None when it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The grades of one split in one iteration, counted. Kind `scores`."""

    iteration: int
    split: Split
    n: int
    correct: int
    unparseable: int
    accuracy: float
    low: float
    high: float
    """The 95% Wilson interval of the accuracy."""
    training_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether the loop goes on after an iteration, and why. Kind `decisions`."""

    iteration: int
    selection: str
    errors: int | None
    """How many seed rows the selection found; None at the iteration limit of an `out_of_fold` run, where the students
    of the folds would be trained for nothing."""
    go_on: bool
    reason: str
    best_iteration: int
    """The iteration with the best validation accuracy so far; the earliest of equals."""


Row = Example | Prediction | StudentError | Reject | Call | Score | Decision

KINDS: dict[str, type[Row]] = {
    "examples": Example,
    "candidates": Example,
    "predictions": Prediction,
    "errors": StudentError,
    "rejects": Reject,
    "calls": Call,
    "scores": Score,
    "decisions": Decision,
}


def content_id(question: str, choices: list[str], rationale: str | None, answer: str) -> str:
    """The id of an example: 20 hexadecimal digits (80 bits) of the SHA-256 of its content as canonical JSON."""
    content = json.dumps([question, choices, rationale, answer], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:20]
