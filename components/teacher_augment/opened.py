"""Opens the language models of `teacher_augment` with the run's budget, and sums up their use in one line."""

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.shared.data.journal import Journal
from llm2llm.components.shared.llm.budget import SpendTracker, Spent
from llm2llm.components.shared.llm.client import open_teacher, with_revision
from llm2llm.components.shared.llm.settings import ModelSettings, Price
from llm2llm.components.teacher_augment.augment import Augmented
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.student import STUDENT, student_settings
from llm2llm.components.teacher_augment.until_usable import OpenTeacher


def open_spend_tracker(settings: TeacherAugmentSettings, journal: Journal) -> SpendTracker:
    """The run's money and memory, with what its earlier iterations have paid.

    Args:
        settings: Ledger, cache, budget and prices.
        journal: Has the calls of the run's earlier iterations and what they have paid.
    """
    return SpendTracker(
        run=os.environ.get(RUN_VARIABLE) or uuid.uuid4().hex,
        ledger=settings.ledger or None,
        budget=settings.budget,
        prices=settings.prices,
        spent=Spent(usd=journal.spent.usd, tokens=journal.spent.tokens, calls=journal.spent.calls),
        counted={call.key for call in journal.calls},
        cache=settings.cache,
    )


@contextmanager
def opened_teachers(
    settings: TeacherAugmentSettings, tracker: SpendTracker, student: Path | None
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
                ask = stack.enter_context(open_teacher(own, teacher, tracker))
                opened[key] = OpenTeacher(teacher, model, own, ask, weight)
            return opened[key]

        writers = []
        if settings.asks_models and settings.teachers:
            writers = [opening(one.teacher, one.model, one, one.weight) for one in settings.teachers]
        elif settings.needs_student:
            if student is None:
                raise UserError(
                    f"teacher_augment.strategy: {settings.strategy!r} asks the student of the iteration before, and "
                    "the stage was given none; give it as student_model"
                )
            own_student = student_settings(str(student), settings)
            # It runs in this pod, where nobody sends a bill.
            price = settings.prices.get(STUDENT, Price(input=0, output=0))
            tracker.prices[own_student.model] = price
            writers = [replace(opening(settings.teacher, STUDENT, own_student), price=price)]
        elif settings.asks_models:
            own = ModelSettings(**{key: getattr(settings, key) for key in ModelSettings.model_fields})
            writers = [opening(settings.teacher, settings.model, own)]
        by = settings.verification.by if settings.verify != "none" else None
        yield writers, opening(by.teacher, by.model, by) if by else None


def summary_line(written: Augmented, settings: TeacherAugmentSettings, tracker: SpendTracker) -> str:
    """What the stage did, in one line. Requests that broke after they were sent are paid for too, so there may be more
    of them than calls."""
    reasons = Counter(reject.reason for reject in written.rejects)
    line = f"teacher_augment: {written.requested:,} rows asked for, {len(written.candidates):,} usable"
    if settings.rows_per_iteration and (short := written.wanted - len(written.candidates)):
        line += f"; {short:,} of the {written.wanted:,} wanted could not be had"
    if reasons:
        line += ", rejected: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
    if not settings.asks_models and settings.verify == "none":
        return line
    paid = tracker.paid
    if written.repaired:
        line += "; answers repaired: " + ", ".join(
            f"{count:,} {what}" for what, count in sorted(written.repaired.items())
        )
    line += f"; {len(written.calls):,} calls; paid now: {paid.calls:,} requests, {paid.tokens:,} tokens"
    if settings.prices:
        line += f", ${paid.usd:,.4f}"
    spent = tracker.spent
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
