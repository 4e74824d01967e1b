"""Asks language models until their answers can be used, and records every call.

    asking = CallLog(iteration=2, strategy="cot", attempts=3, earlier=keys, remembers=True)
    told = query_until_usable(call_log, [Query(teacher, ask, read), ...])

Everything is asked in rounds over the whole batch: first every question, then those whose answers could not be used,
with `attempt + 1`, and so on. What cannot be used is told by the question's own `read`.
"""

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from llm2llm.components.shared.data.schemas import Call, Reason
from llm2llm.components.shared.llm.json_answers import read_object
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, Message, Teacher, call_row, request_key
from llm2llm.components.shared.llm.settings import ModelSettings, Price
from llm2llm.components.teacher_augment.replies import Problem

T = TypeVar("T")

RAW_LIMIT = 2_000
"""Characters of an unusable answer that are kept in its reject."""


class Unusable(Exception):
    """An answer that does not give what was asked for."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class OpenTeacher:
    """A language model that can be asked."""

    teacher: str
    """`openai`, `batch`, `vllm` or `transformers`."""
    model: str
    """As rows name it: `student` for the student, wherever its folder is."""
    settings: ModelSettings
    ask: Teacher
    weight: float = 1.0
    price: Price | None = None
    """Of the student, whose folder is another one in each run and so has no price of its own; None: as answers say."""

    @property
    def name(self) -> str:
        """As rows name it: `openai:gpt-x`."""
        return f"{self.teacher}:{self.model}"

    @property
    def identity(self) -> str:
        """As the ledger knows it."""
        return self.settings.identity(self.teacher)

    def request(
        self, messages: Sequence[Message], schema: dict[str, Any] | None, purpose: str, parent_id: str | None,
        temperature: float | None = None,
    ) -> LLMRequest:  # fmt: skip
        """A request to this teacher, at its own temperature unless another is given."""
        return LLMRequest(
            messages=messages,
            schema=schema,
            temperature=self.settings.temperature if temperature is None else temperature,
            max_tokens=self.settings.max_tokens,
            top_p=1.0 if temperature == 0 else self.settings.top_p,
            purpose=purpose,
            parent_id=parent_id,
        )


@dataclass(frozen=True)
class Query(Generic[T]):
    """One thing to be told, by whom, and how its answer is read."""

    teacher: OpenTeacher
    request: LLMRequest
    read: Callable[[LLMResponse], T]
    """Raises `Unusable`."""
    fresh: bool = True
    """Bypass answers cached by earlier iterations: the same error may come again with the same wrong answer, and the
    same request would bring the same rows."""


@dataclass(frozen=True)
class QueryResult(Generic[T]):
    """What came of a question: a value or a problem."""

    teacher: OpenTeacher
    call: Call | None
    """The last call; None where the budget was used up before it."""
    value: T | None
    problem: Problem | None


@dataclass
class CallLog:
    """The calls of one iteration."""

    iteration: int
    strategy: str
    attempts: int
    """How often a question is asked until its answer can be used."""
    earlier: Set[str] = frozenset()
    """The keys of the calls that the run's earlier iterations have had answered."""
    remembers: bool = False
    """Whether there is a ledger, so that an earlier iteration's call costs nothing when it is made again."""
    calls: list[Call] = field(default_factory=list)
    """A row for each call that is not one of an earlier iteration's."""
    unusable: int = 0
    """How many answers could not be used."""
    repaired: Counter[str] = field(default_factory=Counter)
    """How many answers could be used after a repair of their JSON, by repair; see `json_answers`."""
    _answers: dict[str, LLMResponse] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _counted: set[str] = field(default_factory=set)

    def record(self, teacher: OpenTeacher, answer: LLMResponse) -> Call | None:
        """The row of a call, kept once."""
        if answer.outcome == "over_budget":
            return None
        row = replace(call_row(answer, self.iteration, self.strategy, teacher.teacher), model=teacher.model)
        if teacher.price and answer.input_tokens is not None and answer.output_tokens is not None:
            usd = answer.input_tokens * teacher.price.input + answer.output_tokens * teacher.price.output
            row = replace(row, usd=usd / 10**6)
        if answer.key not in self._answers:
            self._answers[answer.key] = answer
            if not (self.remembers and answer.key in self.earlier):
                self.calls.append(row)
        return row

    def count_repairs(self, response: LLMResponse) -> None:
        """Counts what had to be repaired to read an answer that was used."""
        schema = response.request.schema
        if schema is not None and response.key not in self._counted:
            self._counted.add(response.key)
            keys = schema.get("required", [])
            found = read_object(response.answer, keys, schema, complete=not response.truncated)
            self.repaired.update(found.repairs if found else ())

    def numbered(self, questions: Sequence[Query[Any]]) -> list[LLMRequest]:
        """The requests of questions, those that want a fresh answer with the first `sample` number that makes them one:
        not asked in an earlier iteration, nor before in this one."""
        requests = []
        for question in questions:
            request = question.request
            if question.fresh:
                while (key := request_key(question.teacher.identity, request)) in self.earlier or key in self._taken:
                    request = replace(request, sample=request.sample + 1)
                self._taken.add(key)
            requests.append(request)
        return requests


def query_until_usable(
    call_log: CallLog, questions: Sequence[Query[T]], attempts: int | None = None
) -> list[QueryResult[T]]:
    """Asks every question until its answer can be used.

    Args:
        call_log: The iteration's calls, which these join.
        questions: To any teachers; each teacher is given all of its own at once.
        attempts: Of each question; default: as `asking` says.

    Returns:
        What came of each question, in their order. A problem is the last attempt's: `call_failed`, `over_budget`, or
        what `read` said.
    """
    attempts = call_log.attempts if attempts is None else attempts
    requests = call_log.numbered(questions)
    told: list[QueryResult[T] | None] = [None] * len(questions)
    pending = list(range(len(questions)))
    for attempt in range(attempts):
        again: list[int] = []
        answers = _answers(call_log, [questions[i].teacher for i in pending], [requests[i] for i in pending])
        for i, answer in zip(pending, answers, strict=True):
            teacher = questions[i].teacher
            call = call_log.record(teacher, answer)
            try:
                told[i] = QueryResult(teacher, call, _read(questions[i], answer), None)
                call_log.count_repairs(answer)
                continue
            except Unusable as what:
                problem = Problem(what.reason, what.detail, (answer.answer or answer.text)[:RAW_LIMIT])
            before = told[i]
            # The answer that cannot be used says more than that there was no money to ask once more.
            if answer.outcome != "over_budget" or before is None:
                told[i] = QueryResult(teacher, call, None, problem)
            if answer.outcome == "answered":
                call_log.unusable += 1
                requests[i] = replace(requests[i], attempt=attempt + 1)
                again.append(i)
        pending = again
        if not pending:
            break
    return [one for one in told if one is not None]


def _answers(call_log: CallLog, teachers: Sequence[OpenTeacher], requests: Sequence[LLMRequest]) -> list[LLMResponse]:
    """The answer to each request; the same request twice, now or earlier in the stage, is one call."""
    keys = [request_key(teacher.identity, request) for teacher, request in zip(teachers, requests, strict=True)]
    known = dict(call_log._answers)
    batches: dict[int, tuple[OpenTeacher, dict[str, LLMRequest]]] = {}
    for teacher, request, key in zip(teachers, requests, keys, strict=True):
        if key not in known:
            batches.setdefault(id(teacher), (teacher, {}))[1][key] = request
    for teacher, batch in batches.values():
        answers = teacher.ask(list(batch.values()))
        assert len(answers) == len(batch), "a teacher gives one answer for each request"
        known |= dict(zip(batch, answers, strict=True))
    return [known[key] for key in keys]


def _read(question: Query[T], answer: LLMResponse) -> T:
    if answer.outcome != "answered":
        reason: Reason = "call_failed" if answer.outcome == "failed" else "over_budget"
        raise Unusable(reason, answer.detail or "the budget was used up before it could be asked")
    if answer.refusal:
        raise Unusable("refused", answer.refusal[:RAW_LIMIT])
    return question.read(answer)
