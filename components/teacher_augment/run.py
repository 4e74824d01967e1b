"""`teacher_augment` from artifacts to artifacts."""

import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.shared.data.artifacts import Artifact, read_optional, write_artifact
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Call, Example, Reject, StudentError
from llm2llm.components.shared.lineage.records import notes_of
from llm2llm.components.shared.llm.budget import Account, Spent
from llm2llm.components.shared.llm.client import open_teacher, with_revision
from llm2llm.components.shared.llm.settings import ModelSettings, Price
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import load_task
from llm2llm.components.teacher_augment.augment import Augmented, teacher_augment
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.student import STUDENT, student_settings
from llm2llm.components.teacher_augment.until_usable import OpenTeacher


def run(
    *,
    errors: Artifact,
    training_set: Artifact,
    pool_set: Artifact | None,
    task: Mapping[str, Any],
    previous_rejects: Artifact | None,
    previous_calls: Artifact | None,
    student_model: Artifact | None,
    iteration: int,
    teacher: str,
    teacher_model: str,
    teacher_url: str,
    examples_per_error: int,
    random_seed: int,
    settings: Mapping[str, Any],
    candidates: Artifact,
    rejects: Artifact,
    calls: Artifact,
) -> None:
    """See the component."""
    outputs = {"candidates": candidates, "rejects": rejects, "calls": calls}
    inputs = {
        "errors": errors,
        "training_set": training_set,
        "pool_set": pool_set,
        "previous_rejects": previous_rejects,
        "previous_calls": previous_calls,
        "student_model": student_model,
    }
    with stage_lifecycle("teacher_augment", iteration=iteration, inputs=inputs, outputs=outputs) as notes:
        checked = TeacherAugmentSettings.load(
            settings,
            "teacher_augment",
            teacher=teacher,
            model=teacher_model,
            url=teacher_url,
            examples_per_error=examples_per_error,
        )
        all_errors = read_rows(errors.path, "errors", StudentError)
        past_rejects = read_optional(previous_rejects, "rejects", Reject)
        past_calls = read_optional(previous_calls, "calls", Call)
        account = open_account(checked, past_calls, notes_of(previous_calls))
        with _opened(checked, account, student_model) as (teachers, verifier):
            written = teacher_augment(
                [error for error in all_errors if error.iteration == iteration - 1],
                read_rows(training_set.path, "examples", Example),
                read_optional(pool_set, "examples", Example),
                {reject.id for reject in past_rejects},
                load_task(task),
                checked,
                iteration,
                random_seed,
                teachers,
                verifier,
                {call.key for call in past_calls if call.outcome == "answered"},
            )
        write_artifact(candidates, "candidates", written.candidates)
        write_artifact(rejects, "rejects", [*past_rejects, *written.rejects])
        write_artifact(calls, "calls", [*past_calls, *written.calls])
        spent = account.spent
        # Not with the rows, which are the same where the ledger had the answers and nothing was paid.
        notes.update(paid_usd=spent.usd, paid_tokens=spent.tokens, paid_calls=spent.calls)
        print(summary_line(written, checked, account), flush=True)


def open_account(settings: TeacherAugmentSettings, past_calls: Sequence[Call], notes: Mapping[str, Any]) -> Account:
    """The run's money and memory, with what its earlier iterations have paid.

    Args:
        settings: Ledger, cache, budget and prices.
        past_calls: Of the run's earlier iterations.
        notes: What this stage has noted with them: the `paid_...` figures.
    """
    return Account(
        run=os.environ.get(RUN_VARIABLE) or uuid.uuid4().hex,
        ledger=settings.ledger or None,
        budget=settings.budget,
        prices=settings.prices,
        spent=Spent(
            usd=float(notes.get("paid_usd", 0.0)),
            tokens=int(notes.get("paid_tokens", 0)),
            calls=int(notes.get("paid_calls", 0)),
        ),
        counted={call.key for call in past_calls},
        cache=settings.cache,
    )


@contextmanager
def _opened(
    settings: TeacherAugmentSettings, account: Account, student_model: Artifact | None
) -> Iterator[tuple[list[OpenTeacher], OpenTeacher | None]]:
    """The language models that write and the one that verifies; none where an offline teacher or nobody does.

    A model is loaded, and an endpoint looked at, when something is asked of it that the ledger does not hold. The same
    model is opened once.
    """
    with ExitStack() as stack:
        opened: dict[tuple[str, str, str], OpenTeacher] = {}

        def opening(teacher: str, model: str, own: ModelSettings, weight: float = 1.0) -> OpenTeacher:
            key = (teacher, model, own.model_dump_json(exclude={"weight"}))
            if key not in opened:
                own = with_revision(own, teacher)
                ask = stack.enter_context(open_teacher(own, teacher, account))
                opened[key] = OpenTeacher(teacher, model, own, ask, weight)
            return opened[key]

        writers = []
        if settings.asks_models and settings.teachers:
            writers = [opening(one.teacher, one.model, one, one.weight) for one in settings.teachers]
        elif settings.needs_student:
            if student_model is None:
                raise UserError(
                    f"teacher_augment.strategy: {settings.strategy!r} asks the student of the iteration before, and "
                    "the stage was given none; give it as student_model"
                )
            student = student_settings(student_model.path, settings)
            # It runs in this pod, where nobody sends a bill.
            price = settings.prices.get(STUDENT, Price(input=0, output=0))
            account.prices[student.model] = price
            writers = [replace(opening(settings.teacher, STUDENT, student), price=price)]
        elif settings.asks_models:
            own = ModelSettings(**{key: getattr(settings, key) for key in ModelSettings.model_fields})
            writers = [opening(settings.teacher, settings.model, own)]
        by = settings.verification.by if settings.verify != "none" else None
        yield writers, opening(by.teacher, by.model, by) if by else None


def summary_line(written: Augmented, settings: TeacherAugmentSettings, account: Account) -> str:
    """What the stage did, in one line. Requests that broke after they were sent are paid for too, so there may be more
    of them than calls."""
    reasons = Counter(reject.reason for reject in written.rejects)
    line = f"teacher_augment: {written.requested:,} rows asked for, {len(written.candidates):,} usable"
    if reasons:
        line += ", rejected: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
    if not settings.asks_models and settings.verify == "none":
        return line
    paid = account.paid
    line += f"; {len(written.calls):,} calls; paid now: {paid.calls:,} requests, {paid.tokens:,} tokens"
    if settings.prices:
        line += f", ${paid.usd:,.4f}"
    spent = account.spent
    limits = [
        (f"${spent.usd:,.4f} of ${settings.budget.usd:,.4f}" if settings.budget.usd is not None else ""),
        (f"{spent.tokens:,} of {settings.budget.tokens:,} tokens" if settings.budget.tokens is not None else ""),
        (f"{spent.calls:,} of {settings.budget.calls:,} calls" if settings.budget.calls is not None else ""),
    ]
    if any(limits):
        line += "; budget: " + ", ".join(limit for limit in limits if limit)
        if reasons["over_budget"]:
            line += ", used up"
    return line
