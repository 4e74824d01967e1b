"""From errors to candidates."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llm2llm.components import tasks
from llm2llm.components.problems import UserError
from llm2llm.components.rows.kinds import Call, Example, Reject, StudentError, content_id
from llm2llm.components.tasks import Task
from llm2llm.components.teacher_augment import eda, grammar, openai_teacher
from llm2llm.components.teacher_augment import pool as pool_teacher
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.strategies import requests as requests_for

MAX_QUESTION = 20_000
"""Characters in a generated question; a longer one is a teacher that does not stop."""


class TooManyFailures(RuntimeError):
    """More of the requested rows failed than `max_failed_fraction` allows."""


@dataclass(frozen=True)
class Augmented:
    """Candidates sorted by id, rejects and calls in the order of the requests."""

    candidates: list[Example]
    rejects: list[Reject]
    calls: list[Call]


def teacher_augment(
    errors: Sequence[StudentError],
    training_set: Sequence[Example],
    pool: Sequence[Example],
    used: set[str],
    task: Task,
    settings: TeacherAugmentSettings,
    iteration: int,
    random_seed: int,
) -> Augmented:
    """Writes new examples.

    Args:
        errors: The errors of the iteration before.
        training_set: The rows so far: its seeds are what to write from, and none of its rows is written again.
        pool: Labelled rows for the teacher `pool`; else ignored.
        used: Ids that were generated and rejected before; the pool does not offer them again.
        task: What a valid example is, and what the teacher is told.
        settings: See `TeacherAugmentSettings`.
        iteration: The iteration whose training set the rows are for.
        random_seed: Decides draws; a language model's sampling is its own.

    Returns:
        Every requested row, as a candidate or as a reject.

    Raises:
        UserError: The teacher cannot work at all: no pool, unreachable endpoint, wrong key, broken grammar.
        TooManyFailures: It works too badly.
    """
    seeds = [row for row in training_set if not row.generated]
    if unknown := {error.example_id for error in errors} - {seed.id for seed in seeds}:
        raise UserError(f"teacher_augment: {len(unknown)} errors are of no seed in the training set, as {min(unknown)}")
    wanted = requests_for(errors, seeds, settings, iteration, random_seed)
    replies = _write(wanted, training_set, pool, used, task, settings, iteration, random_seed)
    candidates: dict[str, Example] = {}
    rejects: list[Reject] = []
    failed = 0
    for reply in replies:
        for problem in reply.problems:
            # A pool or grammar that has nothing left is at its end, not broken; the report shows the rejects.
            failed += problem.reason != "exhausted"
            rejects.append(_reject(reply, None, problem, settings, iteration, len(rejects)))
        for draft in reply.drafts:
            checked = _check(draft, reply, task, settings, iteration)
            if isinstance(checked, Problem):
                failed += 1
                rejects.append(_reject(reply, draft, checked, settings, iteration, len(rejects)))
            elif checked.id in candidates:
                problem = Problem("copy", "the teacher wrote the same row twice in this iteration")
                rejects.append(_reject(reply, draft, problem, settings, iteration, len(rejects)))
            else:
                candidates[checked.id] = checked
    requested = sum(request.count for request in wanted)
    print(f"teacher_augment: {requested} rows asked for, {len(candidates)} usable, {len(rejects)} rejected", flush=True)
    if failed > settings.max_failed_fraction * requested:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(r.reason for r in rejects).most_common())
        example = next((r.detail for r in rejects if r.reason != "exhausted"), "")
        raise TooManyFailures(
            f"teacher_augment: {failed} of {requested} requested rows are not usable ({reasons}; for example: "
            f"{example}), more than max_failed_fraction {settings.max_failed_fraction}"
        )
    return Augmented(sorted(candidates.values(), key=lambda row: row.id), rejects, [reply.call for reply in replies])


def _write(
    wanted: Sequence[Request],
    training_set: Sequence[Example],
    pool: Sequence[Example],
    used: set[str],
    task: Task,
    settings: TeacherAugmentSettings,
    iteration: int,
    random_seed: int,
) -> list[Reply]:
    if not wanted:
        return []
    if settings.strategy == "eda":
        synonyms = eda.load_synonyms(settings.eda_synonyms)
        return eda.write(wanted, settings.eda_share, synonyms, iteration, random_seed)
    if settings.teacher == "openai":
        return openai_teacher.write(wanted, task, settings, iteration)
    if settings.teacher == "grammar":
        assert settings.grammar is not None, "TeacherAugmentSettings requires a grammar"
        texts = [row.question for row in training_set]
        return grammar.write(wanted, grammar.load_grammar(settings.grammar), texts, iteration, random_seed)
    if not pool:
        raise UserError(
            "teacher_augment.teacher: 'pool' has no rows to draw from; set data.pool, or prepare.seed_count below the "
            "number of seed rows so that the rest becomes the pool"
        )
    not_again = used | {row.id for row in training_set}
    return pool_teacher.write(wanted, pool, not_again, task.form == "classification", iteration)


def _check(
    draft: Draft, reply: Reply, task: Task, settings: TeacherAugmentSettings, iteration: int
) -> Example | Problem:
    question = draft.question.strip()
    if not question:
        return Problem("invalid", "the question is empty")
    if len(question) > MAX_QUESTION:
        return Problem("invalid", f"the question has {len(question):,} characters, more than {MAX_QUESTION:,}")
    choices = [choice.strip() for choice in draft.choices] if task.form == "multiple_choice" else []
    if not all(choices):
        return Problem("invalid", "a choice is empty")
    try:
        answer, rationale = tasks.normalise(task, draft.answer, choices, draft.rationale)
    except ValueError as problem:
        return Problem("invalid", str(problem))
    if not answer:
        return Problem("invalid", "the answer is empty")
    if reply.request.parent.rationale and not (rationale or "").strip():
        return Problem("invalid", "the rationale is missing")
    if any(_printable(text) != text for text in (question, answer, rationale or "", *choices)):
        return Problem("invalid", "holds half a surrogate pair, which is no valid text")
    return Example(
        id=content_id(question, choices, rationale, answer),
        question=question,
        choices=choices,
        rationale=rationale,
        answer=answer,
        source="teacher",
        parent_id=reply.request.parent.id,
        iteration=iteration,
        strategy=settings.strategy,
        teacher=_name(settings),
        call_key=reply.call.key,
        checks=["valid answer"],
    )


def _printable(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _name(settings: TeacherAugmentSettings) -> str:
    if settings.strategy == "eda":
        return "eda"
    return f"{settings.teacher}:{settings.model}" if settings.teacher == "openai" else settings.teacher


def _reject(
    reply: Reply,
    draft: Draft | None,
    problem: Problem,
    settings: TeacherAugmentSettings,
    iteration: int,
    number: int,
) -> Reject:
    question = _printable(draft.question if draft else problem.raw)
    answer = _printable(draft.answer) if draft else ""
    choices = [_printable(choice) for choice in draft.choices] if draft else []
    rationale = _printable(draft.rationale) if draft and draft.rationale is not None else None
    # Two empty answers are two rejects: their place among the rejects tells their ids apart.
    content = (question, choices, rationale, answer) if draft else (reply.call.key, [], None, str(number))
    return Reject(
        iteration=iteration,
        stage="teacher_augment",
        reason=problem.reason,
        detail=_printable(problem.detail),
        id=content_id(*content),
        question=question,
        choices=choices,
        rationale=rationale,
        answer=answer,
        parent_id=reply.request.parent.id,
        strategy=settings.strategy,
        teacher=_name(settings),
        call_key=reply.call.key,
    )
