"""Which seeds are written from, and how many rows from each."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.problems import UserError
from llm2llm.components.teacher_augment.replies import Request
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.strategies import requests


def settings(**values: object) -> TeacherAugmentSettings:
    return TeacherAugmentSettings.load({"teacher": "pool", **values}, "teacher_augment")


def counts(made: list[Request]) -> dict[str, int]:
    return {request.parent.id: request.count for request in made}


def test_llm2llm_writes_from_every_error(seeds, mistake) -> None:
    errors = [mistake(seed) for seed in seeds[:3]]
    made = requests(errors, seeds, settings(examples_per_error=2), 1, 0)
    assert counts(made) == {seed.id: 2 for seed in seeds[:3]}
    assert [request.parent.id for request in made] == sorted(request.parent.id for request in made)
    for request in made:
        assert request.error is not None
        assert request.error.example_id == request.parent.id


def test_no_errors_no_requests(seeds) -> None:
    for strategy in ("llm2llm", "random", "eda"):
        assert requests([], seeds, settings(strategy=strategy, rows_per_iteration=50), 1, 0) == []


@pytest.mark.parametrize("strategy", ["llm2llm", "random", "eda"])
@given(wrong=st.integers(1, 12), rows=st.integers(1, 60), iteration=st.integers(1, 9), random_seed=st.integers(0, 9))
def test_rows_per_iteration_is_exact_and_even(seeds, mistake, strategy, wrong, rows, iteration, random_seed) -> None:
    errors = [mistake(seed) for seed in seeds[:wrong]]
    made = requests(errors, seeds, settings(strategy=strategy, rows_per_iteration=rows), iteration, random_seed)
    assert sum(request.count for request in made) == rows
    given_out = [request.count for request in made] + [0] * (wrong - len(made))
    assert max(given_out) - min(given_out) <= 1
    assert all(request.count >= 1 for request in made)


@given(wrong=st.integers(1, 12), per_error=st.integers(1, 4), iteration=st.integers(1, 5))
def test_random_writes_as_many_rows_as_there_would_be(seeds, mistake, wrong, per_error, iteration) -> None:
    errors = [mistake(seed) for seed in seeds[:wrong]]
    made = requests(errors, seeds, settings(strategy="random", examples_per_error=per_error), iteration, 0)
    assert len(made) == wrong, "no seed twice while there are enough"
    assert sum(request.count for request in made) == wrong * per_error


def test_random_draws_from_all_seeds_and_others_each_iteration(seeds, mistake) -> None:
    errors = [mistake(seed) for seed in seeds[:4]]
    drawn = [requests(errors, seeds, settings(strategy="random"), iteration, 0) for iteration in range(1, 40)]
    times = Counter(request.parent.id for made in drawn for request in made)
    assert set(times) == {seed.id for seed in seeds}
    assert min(times.values()) > 3
    assert len({frozenset(counts(made)) for made in drawn}) > 30
    of_errors = {error.example_id for error in errors}
    for made in drawn:
        assert all((request.error is not None) == (request.parent.id in of_errors) for request in made)


def test_other_random_seeds_draw_other_parents(seeds, mistake) -> None:
    errors = [mistake(seed) for seed in seeds[:4]]
    one, same, other = (counts(requests(errors, seeds, settings(strategy="random"), 1, n)) for n in (0, 0, 1))
    assert one == same != other


def test_the_order_of_errors_and_seeds_changes_nothing(seeds, mistake) -> None:
    errors = [mistake(seed) for seed in seeds[:5]]
    for strategy in ("llm2llm", "random", "eda"):
        chosen = settings(strategy=strategy, rows_per_iteration=7)
        assert requests(errors, seeds, chosen, 1, 0) == requests(errors[::-1], seeds[::-1], chosen, 1, 0)


def test_fewer_rows_than_errors_leaves_some_out(seeds, mistake) -> None:
    made = requests([mistake(seed) for seed in seeds], seeds, settings(rows_per_iteration=5), 1, 0)
    assert [request.count for request in made] == [1] * 5


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"teacher": "grammar"}, "teacher_augment: grammar: missing; teacher 'grammar' needs a grammar file"),
        ({"teacher": "openai"}, "teacher_augment: model: missing; teacher 'openai' needs the name of a model at the"),
        ({"teacher": "gpt"}, "teacher_augment.teacher: Input should be 'grammar', 'pool' or 'openai' (got 'gpt')"),
        ({"examples_per_error": 0}, "teacher_augment.examples_per_error: Input should be greater than or equal to 1"),
        ({"max_failed_fraction": 2}, "teacher_augment.max_failed_fraction: Input should be less than or equal to 1"),
        ({"api_key": "x"}, "teacher_augment.api_key: unknown key; did you mean 'api_key_env'?"),
    ],
)
def test_wrong_settings_are_named(values, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(**values)
    assert str(caught.value).startswith(expected)


def test_eda_needs_no_teacher() -> None:
    assert settings(strategy="eda", teacher="openai").strategy == "eda"
