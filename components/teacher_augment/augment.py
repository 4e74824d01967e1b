"""Errors to candidates.

    errors -> requests -> a strategy has a teacher write -> replies -> checks -> verification -> candidates

Every row that was asked for is a candidate in the end, or a reject with a reason.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field, replace

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Call, Example, Reason, Reject, StudentError, content_id
from llm2llm.components.shared.similarity import question_key
from llm2llm.components.shared.similarity.rouge import rouge_l_of_words
from llm2llm.components.shared.similarity.words import words
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.teacher_augment.checks import PASSED, REASONS, Usual, failed_check, same_choices, usual
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.requests import requests as requests_for
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings, check_task
from llm2llm.components.teacher_augment.until_usable import CallLog, OpenTeacher
from llm2llm.components.teacher_augment.verify import agreed, judged, resolved

MAX_TEXT = 20_000
"""Characters in a generated text; a longer one is of a teacher that does not stop."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""What no text has but for an error; a form feed is what JSON makes of LaTeX's `\\f`."""

FAILURES: frozenset[Reason] = frozenset(
    {"call_failed", "truncated", "empty", "refused", "unparseable", "missing", "invalid", "no_patterns"}
)
"""The reasons that say that a teacher does not do its work. Others say that a row is not good enough, or that there was
no money or nothing left to ask for."""


class TooManyFailures(RuntimeError):
    """More of the requested rows failed than `max_failed_fraction` allows."""


@dataclass(frozen=True)
class Augmented:
    """Candidates sorted by id, rejects in the order of the requests, calls in the order in which they were made."""

    candidates: list[Example]
    rejects: list[Reject]
    calls: list[Call]
    requested: int = 0
    """Rows asked for: as many as candidates and rejects together."""
    wanted: int = 0
    """Rows that were to be kept; fewer than `requested` where rejects were asked for again."""
    repaired: dict[str, int] = field(default_factory=dict)
    """How many answers were used after a repair of their JSON, by repair."""


def teacher_augment(
    errors: Sequence[StudentError],
    training_set: Sequence[Example],
    pool: Sequence[Example],
    used: set[str],
    task: Task,
    settings: TeacherAugmentSettings,
    iteration: int,
    random_seed: int,
    teachers: Sequence[OpenTeacher] = (),
    verifier: OpenTeacher | None = None,
    earlier: Set[str] = frozenset(),
) -> Augmented:
    """Writes new examples.

    Args:
        errors: The errors of the iteration before.
        training_set: The rows so far: its seeds, and its generated rows that are among the errors, are what to write
            from, and none of its rows is written again.
        pool: Labelled rows for the teacher `pool`; else ignored.
        used: Ids that were generated and rejected before; the pool does not offer them again.
        task: What a valid example is, and what the teacher is told.
        settings: See `TeacherAugmentSettings`.
        iteration: The iteration whose training set the rows are for.
        random_seed: Decides draws; a language model's sampling is its own.
        teachers: The language models that write, if any do.
        verifier: The one that verifies; None: whoever wrote.
        earlier: The keys of the calls that the run's earlier iterations have had answered.

    Returns:
        Every requested row, as a candidate or as a reject.

    Raises:
        UserError: The teacher cannot work at all: no pool, unreachable endpoint, wrong key, broken grammar or prompt.
        TooManyFailures: It works too badly.
    """
    seeds = [row for row in training_set if not row.generated]
    if unknown := {error.example_id for error in errors} - {row.id for row in training_set}:
        raise UserError(f"teacher_augment: {len(unknown)} errors are of no row of the training set, as {min(unknown)}")
    try:
        check_task(settings, task)
    except ValueError as unfit:
        raise UserError(f"teacher_augment.{unfit}") from None
    context = Context(
        requests=requests_for(errors, training_set, settings, iteration, random_seed),
        errors=errors,
        seeds=seeds,
        task=task,
        settings=settings,
        iteration=iteration,
        random_seed=random_seed,
        teachers=teachers,
        call_log=CallLog(
            iteration=iteration,
            strategy=settings.strategy,
            attempts=settings.attempts,
            earlier=earlier,
            remembers=bool(settings.ledger),
        ),
        training_set=training_set,
        pool=pool,
        used=used,
    )
    wanted = sum(request.count for request in context.requests)
    written = _Written(
        seen={question_key(row) for row in training_set} if settings.asks_again else set(),
        questions=[words(row.question) for row in training_set] if settings.ask_again_above else [],
    )
    bounds = usual(seeds) if context.requests and settings.asks_models else None
    offline: list[Call] = []
    first = context.requests
    for round_number in range(settings.attempts if settings.asks_again else 1):
        missing = wanted - len(written.candidates)
        if round_number:
            if settings.rows_per_iteration:
                asked = _again(context.requests, missing, f"{random_seed}:{iteration}:{round_number}")
            else:
                asked = _again_of_same(first, written.candidates.values())
            context = replace(context, requests=asked)
            if not missing or written.out_of_money or written.failed_fraction > settings.max_failed_fraction:
                break
        replies = _write(context)
        _take(replies, context, verifier, bounds, written)
        offline += [] if settings.asks_models else [reply.call for reply in replies if reply.call is not None]
    rejects = written.rejects
    assert len(written.candidates) + len(rejects) == written.requested, "every requested row is a candidate or a reject"
    _check_failures(rejects, written.requested, settings)
    ordered = sorted(written.candidates.values(), key=lambda row: row.id)
    calls = [*offline, *context.call_log.calls]
    return Augmented(ordered, rejects, calls, written.requested, wanted, dict(context.call_log.repaired))


@dataclass
class _Written:
    """What has been written in the rounds of one iteration."""

    seen: set[str]
    """Ids of rows that were written, and the questions of the training set where rejects are asked for again."""
    questions: list[list[str]] = field(default_factory=list)
    """The words of all questions that a row may be a near copy of, where near copies are asked for again."""
    candidates: dict[str, Example] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    requested: int = 0

    @property
    def out_of_money(self) -> bool:
        return any(reject.reason == "over_budget" for reject in self.rejects)

    @property
    def failed_fraction(self) -> float:
        return sum(reject.reason in FAILURES for reject in self.rejects) / max(1, self.requested)


def _again(requests: Sequence[Request], missing: int, seed: str) -> list[Request]:
    """Requests for the rows that are missing, from parents drawn at random, spread evenly."""
    parents = sorted(requests, key=lambda request: request.parent.id)
    drawn = random.Random(seed).sample(parents, len(parents))
    counts = [missing // len(drawn) + (place < missing % len(drawn)) for place in range(len(drawn))]
    asked = [replace(request, count=count) for request, count in zip(drawn, counts, strict=True) if count]
    return sorted(asked, key=lambda request: request.parent.id)


def _again_of_same(requests: Sequence[Request], written: Iterable[Example]) -> list[Request]:
    """Requests of each parent for the rows of its own that are missing."""
    there = Counter(row.written_from for row in written)
    asked = [replace(request, count=request.count - there[request.parent.id]) for request in requests]
    return [request for request in asked if request.count > 0]


def _near_copy(row: Example, context: Context, written: _Written) -> Problem | None:
    """Says what a row is a near copy of, if of anything, and notes its question."""
    threshold = context.settings.ask_again_above
    if threshold is None or context.settings.chosen_strategy.keeps_question:
        return None
    own = words(row.question)
    score = float(rouge_l_of_words([own], written.questions).max()) if written.questions else 0.0
    if score > threshold:
        return Problem("near_copy", f"ROUGE-L {score:.2f} with a question that is there, above {threshold}")
    written.questions.append(own)
    return None


def _take(
    replies: Sequence[Reply], context: Context, verifier: OpenTeacher | None, bounds: Usual | None, written: _Written
) -> None:
    """Sorts what came into candidates and rejects."""
    rejects = written.rejects
    passed: list[tuple[Example, Reply]] = []
    for reply in replies:
        written.requested += len(reply.problems) + len(reply.drafts)
        for problem in reply.problems:
            rejects.append(_reject(reply, None, problem, context, len(rejects)))
        for draft in reply.drafts:
            checked = _check(draft, reply, context, bounds)
            if isinstance(checked, Example):
                if checked.id in written.seen:
                    checked = Problem("copy", "the teacher wrote the same row twice in this iteration")
                elif question_key(checked) in written.seen and not context.settings.chosen_strategy.keeps_question:
                    checked = Problem("copy", "the question is in the training set already")
                else:
                    checked = _near_copy(checked, context, written) or checked
            if isinstance(checked, Problem):
                rejects.append(_reject(reply, draft, checked, context, len(rejects)))
            else:
                written.seen.add(checked.id)
                passed.append((checked, reply))
    for (row, reply), verified in zip(passed, _verified(passed, context, verifier, bounds), strict=True):
        if isinstance(verified, Example) and verified.id in written.candidates:
            verified = Problem("copy", "the judge has corrected two rows to the same one")
        if isinstance(verified, Problem):
            draft = Draft(row.question, row.answer, row.choices, row.rationale)
            rejects.append(_reject(reply, draft, verified, context, len(rejects)))
        else:
            written.candidates[verified.id] = verified


def _write(context: Context) -> list[Reply]:
    settings = context.settings
    if not context.requests:
        return []
    if settings.offline_teacher is not None:
        return settings.offline_teacher.write(context)
    assert context.teachers or not settings.asks_models, f"strategy {settings.strategy} asks a language model"
    return settings.chosen_strategy.write(context)


def _check(draft: Draft, reply: Reply, context: Context, bounds: Usual | None) -> Example | Problem:
    """A draft as a candidate, or what is wrong with it.

    Args:
        draft: As written.
        reply: What it came with.
        context: Task and settings.
        bounds: For a language model's rows, which go through `checks` as well.
    """
    task, parent = context.task, reply.request.parent
    question = draft.question.strip()
    if not question:
        return Problem("invalid", "the question is empty")
    choices = [choice.strip() for choice in draft.choices] if FORMS[task.form].has_choices else []
    texts = {
        "question": question,
        "answer": draft.answer,
        "rationale": draft.rationale or "",
        "choice": max(choices, key=len, default=""),
    }
    for name, text in texts.items():
        if len(text) > MAX_TEXT:
            return Problem("invalid", f"the {name} has {len(text):,} characters, more than {MAX_TEXT:,}")
    if not all(choices):
        return Problem("invalid", "a choice is empty")
    try:
        answer, rationale = tasks.normalise(task, draft.answer, choices, draft.rationale)
        tools = parent.tools if draft.tools is None else draft.tools
        tasks.check_tools(task, answer, tools)
    except ValueError as problem:
        return Problem("invalid", str(problem))
    if not answer:
        return Problem("invalid", "the answer is empty")
    if same_choices(choices):
        return Problem("invalid", "two of the choices are the same but for case or punctuation")
    if parent.rationale and not (rationale or "").strip():
        return Problem("invalid", "the rationale is missing")
    if any(_printable(text) != text for text in (question, answer, rationale or "", *choices, *draft.skills)):
        return Problem("invalid", "holds half a surrogate pair, which is no valid text")
    for text in (question, answer, rationale or "", *choices):
        if found := _CONTROL.search(text):
            return Problem("invalid", f"holds the control character U+{ord(found[0]):04X}; a backslash may be lost")
    row = Example(
        id=content_id(question, choices, rationale, answer, tools),
        question=question,
        choices=choices,
        rationale=rationale,
        answer=answer,
        tools=list(tools),
        skills=list(draft.skills),
        source="teacher",
        parent_id=parent.parent_id or parent.id,
        by_way_of=parent.id if parent.generated else None,
        iteration=context.iteration,
        strategy=context.settings.strategy,
        teacher=reply.teacher,
        call_key=reply.call.key if reply.call else None,
        checks=["valid answer", *draft.checks],
    )
    same_question = question_key(row) == question_key(parent)
    whose = "shown row's" if parent.generated else "seed's"
    if context.settings.chosen_strategy.keeps_question:
        if " ".join((rationale or "").split()) == " ".join((parent.rationale or "").split()):
            return Problem("copy", f"the rationale is the {whose} own")
    elif same_question:
        return Problem("copy", f"the question is the {whose} own")
    return row if bounds is None else _checked(row, parent, context, bounds)


def _checked(row: Example, parent: Example, context: Context, bounds: Usual) -> Example | Problem:
    """A language model's row after `checks`; a question that is the seed's own is not held against it."""
    wanted = context.settings.checks
    if failed := failed_check(row, parent, context.task, bounds, wanted):
        return Problem(REASONS[failed[0]], failed[1])
    calculates = FORMS[context.task.form].checks_arithmetic and row.rationale
    made = [PASSED[check] for check in wanted if check != "arithmetic" or calculates]
    return replace(row, checks=[*row.checks, *made])


def _verified(
    passed: Sequence[tuple[Example, Reply]], context: Context, verifier: OpenTeacher | None, bounds: Usual | None
) -> list[Example | Problem]:
    """The rows as verification leaves them, or what it says against them."""
    rows = [row for row, _ in passed]
    settings = context.settings
    if not rows or (settings.verify == "none" and not settings.agree):
        return list(rows)
    by_name = {teacher.name: teacher for teacher in context.teachers}
    writers = [by_name[reply.teacher] for _, reply in passed if reply.teacher in by_name]
    result: list[Example | Problem] = list(rows)
    if settings.agree:
        result = agreed(context, rows, writers)
    left = [i for i, row in enumerate(result) if isinstance(row, Example)]
    if settings.verify == "none" or not left:
        return result
    by = [verifier or writers[i] for i in left]
    kept = [row for row in result if isinstance(row, Example)]
    verified = resolved(context, kept, by) if settings.verify == "resolve" else judged(context, kept, by)
    for i, row in zip(left, verified, strict=True):
        if isinstance(row, Example) and row.id != rows[i].id and bounds is not None:  # corrected, so it is another row
            failed = failed_check(row, passed[i][1].request.parent, context.task, bounds, settings.checks)
            row = Problem("judged_wrong", f"and so is the correction: {failed[1]}") if failed else row
        result[i] = row
    return result


def _check_failures(rejects: Sequence[Reject], requested: int, settings: TeacherAugmentSettings) -> None:
    failed = [reject for reject in rejects if reject.reason in FAILURES]
    if len(failed) > settings.max_failed_fraction * requested:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(r.reason for r in rejects).most_common())
        kept = "; what was paid for is in the ledger" if settings.asks_models and settings.ledger else ""
        raise TooManyFailures(
            f"teacher_augment: {len(failed)} of {requested} requested rows are not usable ({reasons}; for example: "
            f"{failed[0].detail}), more than max_failed_fraction {settings.max_failed_fraction}{kept}"
        )


def _printable(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _reject(reply: Reply, draft: Draft | None, problem: Problem, context: Context, number: int) -> Reject:
    question = _printable(draft.question if draft else problem.raw)
    answer = _printable(draft.answer) if draft else ""
    choices = [_printable(choice) for choice in draft.choices] if draft else []
    rationale = _printable(draft.rationale) if draft and draft.rationale is not None else None
    key = reply.call.key if reply.call else None
    parent = reply.request.parent
    # Two empty answers are two rejects: their place among the rejects tells their ids apart.
    content = (question, choices, rationale, answer) if draft else (key or "", [], None, str(number))
    return Reject(
        iteration=context.iteration,
        stage="teacher_augment",
        reason=problem.reason,
        detail=_printable(problem.detail),
        id=content_id(*content),
        question=question,
        choices=choices,
        rationale=rationale,
        answer=answer,
        parent_id=parent.parent_id or parent.id,
        by_way_of=parent.id if parent.generated else None,
        strategy=context.settings.strategy,
        teacher=reply.teacher,
        call_key=key,
    )
