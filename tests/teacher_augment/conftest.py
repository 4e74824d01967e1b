"""Fixtures for the teachers: seeds, errors, an endpoint."""

from collections.abc import Callable, Iterator

import pytest
from loopback_endpoint import Endpoint

from llm2llm.components.rows.kinds import Example, StudentError


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture(scope="session")
def mistake() -> Callable[..., StudentError]:
    """The error of a student that answered a seed wrongly."""

    def make(seed: Example, completion: str = "red", iteration: int = 0) -> StudentError:
        return StudentError(
            iteration=iteration,
            example_id=seed.id,
            question=seed.question,
            choices=seed.choices,
            rationale=seed.rationale,
            answer=seed.answer,
            completion=completion,
            parsed=completion,
            outcome="wrong",
        )

    return make


@pytest.fixture(scope="session")
def seeds(example: Callable[..., Example]) -> list[Example]:
    return [example(f"a blue thing, number {number}", "blue") for number in range(12)]
