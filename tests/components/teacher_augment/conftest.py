"""Fixtures for the teachers: seeds, errors, a teacher that says what it is told to."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from llm2llm.components.shared.data.schemas import Example, StudentError
from llm2llm.components.shared.tasks import Task, load_task
from llm2llm.components.teacher_augment.augment import Augmented, teacher_augment
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.until_usable import OpenTeacher
from tests.support.builders import student_error
from tests.support.fake_teacher import Fake, Writes, opened

hypothesis_settings.register_profile("unhurried", deadline=None)
hypothesis_settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def mistake() -> Callable[..., StudentError]:
    """The error of a student that answered a seed wrongly."""

    def make(seed: Example, completion: str = "red", iteration: int = 0, **fields: Any) -> StudentError:
        return student_error(seed, iteration, completion, **fields)

    return make


@pytest.fixture(scope="session")
def seeds(example: Callable[..., Example]) -> list[Example]:
    return [example(f"a blue thing, number {number}", "blue") for number in range(12)]


@pytest.fixture(scope="session")
def sums(example: Callable[..., Example]) -> list[Example]:
    """Seeds of GSM8K's form."""
    return [
        example(
            f"Ann has {n} pears and buys 2 more. How many pears has she?",
            str(n + 2),
            rationale=f"Ann has {n}+2=<<{n}+2={n + 2}>>{n + 2} pears.",
        )
        for n in range(3, 9)
    ]


@pytest.fixture(scope="session")
def gsm8k() -> Task:
    return load_task("gsm8k")


@pytest.fixture(scope="session")
def augment(mistake: Callable[..., StudentError]) -> Callable[..., tuple[Augmented, Fake]]:
    """(what comes of it, what the teacher was asked) when a fake teacher writes from the errors on these seeds."""

    def go(
        writes: Writes,
        task: Task,
        seeds: list[Example],
        wrong: int | None = None,
        fakes: list[tuple[OpenTeacher, Fake]] | None = None,
        verifier: OpenTeacher | None = None,
        earlier: frozenset[str] = frozenset(),
        iteration: int = 1,
        errors: list[StudentError] | None = None,
        **settings: Any,
    ) -> tuple[Augmented, Fake]:
        teacher, fake = fakes[0] if fakes else opened(writes, settings.get("teacher", "openai"))
        if not fakes and settings.get("strategy") not in ("star", "self"):
            settings = {"model": teacher.model, **settings}
        checked = TeacherAugmentSettings.load({"max_failed_fraction": 1, **settings}, "teacher_augment")
        got = teacher_augment(
            errors if errors is not None else [mistake(seed) for seed in seeds[:wrong]],
            seeds,
            [],
            set(),
            task,
            checked,
            iteration,
            0,
            [one for one, _ in fakes] if fakes else [teacher],
            verifier,
            earlier,
        )
        assert len(got.candidates) + len(got.rejects) == got.requested
        return got, fake

    return go
