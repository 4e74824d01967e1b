"""Verifies rows by asking: blind solutions, other teachers, a judge.

    resolve   solved blind `samples` times; kept when the share that has its answer is high enough (`disagrees`); with
              `logprobs` once, and kept when the probability of its answer is
    agree     solved blind by each of the other teachers; kept when enough of them have its answer (`disagrees`)
    judge     judged `samples` times; kept, corrected, or dropped as `judged_wrong`

What could not be asked, for want of money or of an answer, is not verified, and so not kept.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from llm2llm.components.shared import tasks
from llm2llm.components.shared.data.schemas import Example, Reason, content_id
from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.shared.models.label_scoring import labels_of
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.teacher_augment.context import Context, example_data
from llm2llm.components.teacher_augment.label_logprobs import LEAST_TOLD, MOST_LOGPROBS, label_shares, soft_label
from llm2llm.components.teacher_augment.parsing import no_object, object_in, read_solution
from llm2llm.components.teacher_augment.prompt_files import about, render, shown
from llm2llm.components.teacher_augment.replies import Problem
from llm2llm.components.teacher_augment.until_usable import (
    OpenTeacher,
    Query,
    QueryResult,
    Unusable,
    query_until_usable,
)

Solution = tuple[str, str | None]
"""An answer, and the rationale that leads to it."""


def resolved(context: Context, rows: Sequence[Example], by: Sequence[OpenTeacher]) -> list[Example | Problem]:
    """The rows whose answer enough blind solutions have, with that share as their `confidence`; a problem for the
    others.

    Args:
        context: Task, settings and calls.
        rows: To be solved again.
        by: Who solves each row.
    """
    settings = context.settings.verification
    if settings.logprobs:
        return _told(context, rows, by)
    solved = solve(context, rows, [[teacher] * settings.samples for teacher in by], settings.temperature)
    return [
        _agreed(context.task, row, told, settings.min_agreement * settings.samples, "solved again")
        for row, told in zip(rows, solved, strict=True)
    ]


def _told(context: Context, rows: Sequence[Example], by: Sequence[OpenTeacher]) -> list[Example | Problem]:
    """The rows to whose answer the verifier gives enough of its probability, with that of each label."""
    task, prompt = context.task, context.prompt("solve_label")
    questions: list[Query[dict[str, float]]] = []
    for row, teacher in zip(rows, by, strict=True):
        labels = labels_of(task, row)
        messages = render(
            prompt, task=about(task), question=shown(row.question, row.choices, row.tools), options=labels
        )
        request = teacher.request(messages, None, "resolve", row.written_from, temperature=0.0)
        read = partial(_read_label, labels=labels)
        questions.append(Query(teacher, replace(request, top_logprobs=MOST_LOGPROBS), read, fresh=False))
    told = query_until_usable(context.call_log, questions)
    return [
        _probable(row, one, context.settings.verification.min_agreement) for row, one in zip(rows, told, strict=True)
    ]


def _read_label(answer: LLMResponse, labels: Sequence[str]) -> dict[str, float]:
    if answer.truncated or not answer.answer.strip():
        raise no_object(answer)
    return label_shares(answer, labels)


def _probable(row: Example, told: QueryResult[dict[str, float]], needed: float) -> Example | Problem:
    if told.problem is not None:
        unasked = told.problem.reason in ("call_failed", "over_budget")
        said = "could not be verified: " if unasked else "the verifier's answer tells no label: "
        reason: Reason = told.problem.reason if unasked else "disagrees"
        return replace(told.problem, reason=reason, detail=said + told.problem.detail)
    assert told.value is not None, "a value or a problem"
    shares, sure = soft_label(told.value)
    if sure < LEAST_TOLD:
        detail = (
            f"{sure:.1%} of the verifier's probability is on answers that its tokens tell apart, below {LEAST_TOLD:.0%}"
        )
        return Problem("disagrees", detail)
    own = shares.get(row.answer, 0.0)
    if own < needed - 1e-9:
        others = sorted(shares.items(), key=lambda one: (-one[1], one[0]))
        came = ", ".join(f"{label[:80]!r} {share:.1%}" for label, share in others[:5])
        return Problem("disagrees", f"the verifier gives the answer {row.answer!r} {own:.1%}; it gives {came}")
    return replace(
        row,
        confidence=round(own, 6),
        checks=[*row.checks, "solved again"],
        votes=list(shares),
        vote_shares=list(shares.values()),
    )


def agreed(context: Context, rows: Sequence[Example], writers: Sequence[OpenTeacher]) -> list[Example | Problem]:
    """The rows whose answer at least `agree` teachers give, their writer among them; a problem for the others."""
    others = [[teacher for teacher in context.teachers if teacher is not writer] for writer in writers]
    solved = solve(context, rows, others, None)
    return [
        _agreed(context.task, row, told, context.settings.agree - 1, "agreed")
        for row, told in zip(rows, solved, strict=True)
    ]


def solve(
    context: Context, rows: Sequence[Example], by: Sequence[Sequence[OpenTeacher]], temperature: float | None
) -> list[list[QueryResult[Solution]]]:
    """For each row a solution by each of its solvers, who do not see the answer."""
    prompt = context.prompt("solve")
    schema = tasks.answer_schema(context.task)
    questions: list[Query[Solution]] = []
    for row, teachers in zip(rows, by, strict=True):
        messages = render(prompt, task=about(context.task), question=shown(row.question, row.choices, row.tools))
        read = partial(read_solution, task=context.task, choices=row.choices)
        for number, teacher in enumerate(teachers):
            request = replace(teacher.request(messages, schema, "resolve", row.parent_id, temperature), sample=number)
            questions.append(Query(teacher, request, read, fresh=False))
    told = iter(query_until_usable(context.call_log, questions))
    return [[next(told) for _ in teachers] for teachers in by]


def _agreed(
    task: Task, row: Example, told: Sequence[QueryResult[Solution]], needed: float, passed: str
) -> Example | Problem:
    if unasked := _unasked(told):
        return unasked
    answers = [one.value[0] if one.value else None for one in told]
    right = sum(answer is not None and tasks.matches(task, answer, row.answer) for answer in answers)
    if right < needed - 1e-9:
        others = Counter(answer or "none" for answer in answers)
        came = ", ".join(f"{count} x {answer[:80]!r}" for answer, count in others.most_common(5))
        return Problem(
            "disagrees", f"{right} of {len(answers)} blind solutions have the answer {row.answer!r}; they are {came}"
        )
    kept = replace(row, confidence=right / len(answers), checks=[*row.checks, passed])
    if not FORMS[task.form].has_classes:
        return kept
    votes = Counter(answer for answer in answers if answer is not None)
    names = sorted(votes)
    return replace(kept, votes=names, vote_shares=[votes[name] / votes.total() for name in names])


def _unasked(told: Sequence[QueryResult[Solution]] | Sequence["QueryResult[Judgement]"]) -> Problem | None:
    """The problem, where not one answer came at all."""
    problems = [one.problem for one in told if one.problem is not None]
    if len(problems) == len(told) and all(one.reason in ("call_failed", "over_budget") for one in problems):
        return replace(problems[0], detail=f"could not be verified: {problems[0].detail}")
    return None


@dataclass(frozen=True, slots=True)
class Judgement:
    """One judgement."""

    right: bool
    confidence: float
    """In [0, 1]."""
    solution: Solution | None
    """What the judge holds for right, where it can be read."""


def judged(context: Context, rows: Sequence[Example], by: Sequence[OpenTeacher]) -> list[Example | Problem]:
    """The rows as a judge leaves them (Chen and Mueller 2024, CLEAR: touched only where it is sure).

    The judge's doubt is the mean, over the samples, of how sure it is that the answer is wrong. From `min_confidence`
    on the row gets the answer that most samples hold for right, or is dropped where they hold no other one. A row's
    `confidence` is how sure the judge is of the answer that it has in the end.
    """
    settings = context.settings.verification
    prompt = context.prompt("judge")
    solution = tasks.answer_schema(context.task)["properties"]
    properties = {
        **solution,
        "right": {"type": "boolean"},
        "confidence": {"type": "integer", "minimum": 0, "maximum": 100},
    }
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    questions = []
    for row, teacher in zip(rows, by, strict=True):
        messages = render(prompt, task=about(context.task), example=_claimed(row))
        for number in range(settings.samples):
            request = teacher.request(messages, schema, "judge", row.parent_id, settings.temperature)
            read = partial(_read_verdict, task=context.task, row=row)
            questions.append(Query(teacher, replace(request, sample=number), read, fresh=False))
    told = iter(query_until_usable(context.call_log, questions))
    return [_judgement(context, row, [next(told) for _ in range(settings.samples)]) for row in rows]


def _claimed(row: Example) -> dict[str, object]:
    data = dict(example_data(row))
    data["claimed_answer"] = data.pop("right_answer")
    return data


def _read_verdict(answer: LLMResponse, task: Task, row: Example) -> Judgement:
    found = object_in(answer, "right", "confidence")
    right, confidence = found["right"], found["confidence"]
    is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool) and confidence == confidence
    if not isinstance(right, bool) or not is_number:  # NaN, which JSON does not know but Python reads, is none
        raise Unusable("unparseable", "the verdict lacks `right` or `confidence`")
    try:
        solution = read_solution(answer, task, row.choices)
    except Unusable:
        solution = None
    return Judgement(right, min(max(confidence, 0), 100) / 100, solution)


def _judgement(context: Context, row: Example, told: Sequence[QueryResult[Judgement]]) -> Example | Problem:
    if unasked := _unasked(told):
        return unasked
    verdicts = [one.value for one in told if one.value is not None]
    if not verdicts:
        return Problem("not_judged", "no verdict could be read")
    doubt = fmean(1 - one.confidence if one.right else one.confidence for one in verdicts)
    if doubt < context.settings.verification.min_confidence:
        return replace(row, confidence=round(1 - doubt, 6), checks=[*row.checks, "judged"])
    better = [
        one.solution
        for one in verdicts
        if not one.right and one.solution and not tasks.matches(context.task, one.solution[0], row.answer)
    ]
    # Two ways to write one number are one answer.
    votes = [sum(tasks.matches(context.task, other[0], one[0]) for other in better) for one in better]
    if votes and max(votes) > len(verdicts) / 2:
        answer, rationale = better[votes.index(max(votes))]
        if rationale or not row.rationale:
            return replace(
                row,
                id=content_id(row.question, row.choices, rationale, answer, row.tools),
                answer=answer,
                rationale=rationale,
                confidence=round(doubt, 6),
                checks=[*row.checks, "corrected by the judge"],
            )
    return Problem("judged_wrong", f"the judge is {doubt:.0%} sure that the answer {row.answer!r} is wrong")
