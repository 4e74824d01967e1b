"""Fixtures that several rooms use."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from llm2llm.components.shared.base.process import PARENT_VARIABLE, RUN_VARIABLE
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.tasks import Task
from tests.support import builders
from tests.support.registry import registry  # noqa: F401  # fixtures that several rooms use
from tests.support.rgw import s3_server  # noqa: F401
from tests.support.storage import place  # noqa: F401
from tests.support.webhook import hook  # noqa: F401

# Property tests are about what comes out, not about how long one example takes on a busy computer.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def quick_stacks() -> Iterator[None]:
    """KFP asks `inspect.stack` for its caller's name whenever something is set on a task. With source lines, which it
    does not use, that takes a tenth of a second under pytest beside a loaded PyTorch; a pipeline sets 500 things."""
    with pytest.MonkeyPatch.context() as patch:
        whole = inspect.stack
        patch.setattr(inspect, "stack", lambda context=0: whole(context))
        yield


@pytest.fixture(autouse=True)
def of_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in this process leaves these in the environment, and what a run has paid for counts against its budget."""
    for variable in (RUN_VARIABLE, PARENT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets beside the checkout; the test skips where it is not there."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data sets are not beside this checkout")
    return REAL_DATA


@pytest.fixture(scope="session")
def colours() -> Task:
    """A task that a tiny student learns in seconds: which colour does the text name?"""
    return Task(
        name="colours",
        form="classification",
        labels=["red", "green", "blue"],
        question_cue="Text",
        answer_cue="Colour",
        max_new_tokens=4,
    )


@pytest.fixture(scope="session")
def example() -> Callable[..., Example]:
    """Makes an example with its content id; other fields as keywords."""
    return builders.example
