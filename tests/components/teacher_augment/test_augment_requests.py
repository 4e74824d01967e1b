"""Which seeds are written from, and how many rows from each; what can be set."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.tasks import Task, load_task
from llm2llm.components.teacher_augment.replies import Request
from llm2llm.components.teacher_augment.requests import doubtful, in_parts, requests
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings, check_task


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


def test_suspects_are_not_written_from(seeds, mistake) -> None:
    errors = [mistake(seed, suspect=number == 1) for number, seed in enumerate(seeds[:3])]
    assert counts(requests(errors, seeds, settings(), 1, 0)) == {seeds[0].id: 1, seeds[2].id: 1}
    assert requests([mistake(seeds[0], suspect=True)], seeds, settings(strategy="random"), 1, 0) == []


def test_the_gate_lets_the_errors_through_that_the_student_is_least_sure_of(seeds, mistake) -> None:
    errors = [mistake(seed, hardness=float(number)) for number, seed in enumerate(seeds[:8])]
    assert [error.hardness for error in doubtful(errors, 0.25)] == [7.0, 6.0]
    assert doubtful(errors, 1.0) == errors
    kinds = ["unsolved", "flaky", "format_only", "solved"]
    errors = [mistake(seed, difficulty=kind) for kind, seed in zip(kinds, seeds, strict=False)]
    assert [error.difficulty for error in doubtful(errors, 0.5)] == ["unsolved", "flaky"]
    assert len(doubtful(errors, 1.0)) == 4


def test_the_gate_decides_whom_is_written_from(seeds, mistake) -> None:
    errors = [mistake(seed, hardness=float(number)) for number, seed in enumerate(seeds[:4])]
    chosen = settings(
        teacher="openai", model="m", verify="resolve", verification={"student_unsure": 0.5}, rows_per_iteration=10
    )
    assert set(counts(requests(errors, seeds, chosen, 1, 0))) == {seeds[2].id, seeds[3].id}


@given(count=st.integers(1, 200), most=st.integers(1, 100))
def test_parts_are_as_many_rows_as_the_whole_none_too_large_and_even(seeds, count: int, most: int) -> None:
    parts = [part.count for part in in_parts(Request(seeds[0], None, count), most)]
    assert sum(parts) == count
    assert 1 <= min(parts) <= max(parts) <= most
    assert max(parts) - min(parts) <= 1
    assert len(parts) == -(-count // most)


TWO = [{"model": "a"}, {"model": "b"}]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"teacher": "grammar"}, "teacher_augment: grammar: missing; teacher 'grammar' needs a grammar file"),
        ({"teacher": "openai"}, "teacher_augment: model: missing; teacher 'openai' needs the name of a model"),
        ({"teacher": "vllm"}, "teacher_augment: model: missing; teacher 'vllm' needs the name of a model"),
        ({"teacher": "openai", "model": "m", "url": "x"}, "teacher_augment: url: must begin with http:// or https://"),
        ({"teacher": "openai", "model": "m", "url": "https://me:secret@host/v1"},
         "teacher_augment: url: holds a user name or password, which would be shown in logs and reports; remove it"),
        ({"teacher": "openai", "model": "m", "url": "https://host/v1?key=secret"},
         "teacher_augment: url: holds a '?' or '#', and paths are put behind it; end it at /v1, and put a key into"),
        ({"teacher": "gpt"}, "teacher_augment.teacher: Input should be 'openai', 'batch', 'vllm', 'transformers', "),
        ({"examples_per_error": 0}, "teacher_augment.examples_per_error: Input should be greater than or equal to 1"),
        ({"max_failed_fraction": 2}, "teacher_augment.max_failed_fraction: Input should be less than or equal to 1"),
        ({"api_key": "x"}, "teacher_augment.api_key: unknown key; did you mean 'api_key_env'?"),
        ({"checks": ["speling"]}, "teacher_augment.checks.0: Input should be 'arithmetic', 'given_away', "),
        ({"strategy": "cot"}, "teacher_augment: strategy: 'cot' needs a language model, and teacher is 'pool'; set"),
        ({"verify": "resolve"}, "teacher_augment: verify: 'resolve', but teacher 'pool' is no language model that"),
        ({"strategy": "eda", "verify": "judge"}, "teacher_augment: verify: 'judge', but strategy 'eda' is no language"),
        ({"verification": {"samples": 5}}, "teacher_augment: verification: set, but verify is 'none'; set verify to"),
        ({"teacher": "openai", "strategy": "star"},
         "teacher_augment: teacher: strategy 'star' asks the student itself"),
        ({"teacher": "vllm", "strategy": "self", "model": "m"}, "teacher_augment: model: strategy 'self' with teacher"),
        ({"teacher": "openai", "model": "m", "strategy": "cot", "verify": "resolve"},
         "teacher_augment: verify: strategy"),
        ({"teachers": TWO}, "teacher_augment: teacher: 'pool' and teachers are both given; remove one of them"),
        ({"teacher": "openai", "model": "m", "teachers": TWO},
         "teacher_augment: model: 'm' and teachers are both given"),
        ({"teacher": "openai", "teachers": [*TWO, TWO[0]]}, "teacher_augment: teachers: 'openai:a' is listed twice"),
        ({"teacher": "openai", "teachers": TWO, "agree": 3},
         "teacher_augment: agree: from 2 to the number of teachers"),
        ({"teacher": "openai", "teachers": TWO, "agree": 1},
         "teacher_augment: agree: from 2 to the number of teachers"),
        ({"teacher": "openai", "model": "m", "agree": 2}, "teacher_augment: agree: needs several teachers to agree"),
        ({"teacher": "openai", "teachers": TWO, "agree": 2, "verify": "resolve"}, "teacher_augment: agree: the other"),
        ({"teacher": "vllm", "strategy": "star", "teachers": TWO},
         "teacher_augment: teachers: strategy 'star' asks the"),
        ({"teacher": "openai", "teachers": [{"model": "a", "teacher": "vllm"}, {"model": "b", "teacher": "vllm"}]},
         "teacher_augment: teachers: 2 different models with teacher 'vllm' do not fit into one pod's GPUs"),
        ({"prompts": {"lm2llm": "# user\n"}},
         "teacher_augment: prompts: 'lm2llm' is no prompt; did you mean 'llm2llm'?"),
        ({"prompts": {"judge": "# user\n{{exampel}}"}},
         "teacher_augment: prompts.judge: {{exampel}} is no placeholder"),
        ({"prices": {"m": {"input": 1}}}, "teacher_augment.prices.m.output: missing"),
        ({"budget": {"eur": 1}}, "teacher_augment.budget.eur: unknown key"),
        ({"teacher": "openai", "model": "big", "prices": {"bigg": {"input": 1, "output": 2}}},
         "teacher_augment: prices: name 'bigg', and the model that is asked is 'big'; did you mean 'bigg'?"),
        ({"teacher": "openai", "model": "big", "verify": "judge", "verification": {"by": {"model": "small"}},
          "prices": {"big": {"input": 1, "output": 2}}},
         "teacher_augment: prices: name 'big', and the model that is asked is 'small'"),
        ({"teacher": "openai", "model": "big", "budget": {"usd": 1}},
         "teacher_augment: budget.usd: 1, but the price of model 'big' is not known"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(values, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(**values)
    assert str(caught.value).startswith(expected)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"strategy": "eda", "teacher": "openai"},
        {"teacher": "openai", "strategy": "star", "model": "our-student"},
        {"teacher": "transformers", "strategy": "self"},
        {"teacher": "openai", "teachers": TWO, "agree": 2},
        {"teacher": "pool", "verify": "judge", "verification": {"by": {"model": "m"}}},
        {"teacher": "vllm", "model": "m", "verify": "judge", "verification": {"by": {"model": "m", "teacher": "vllm"}}},
        {"prompts": {"llm2llm": "prompts/mine.md"}},
        {"teacher": "openai", "model": "m", "prices": {"m": {"input": 1, "output": 2}, "n": {"input": 1, "output": 2}}},
        {"teacher": "transformers", "strategy": "self", "budget": {"usd": 1}},
        {"teacher": "openai", "model": "m", "temperature": None, "extra_body": {"reasoning_effort": "low"}},
    ],
)
def test_settings_that_fit_together(values) -> None:
    chosen = settings(**values)
    assert TeacherAugmentSettings.load(chosen.model_dump(mode="json"), "again") == chosen


def test_a_strategy_without_anything_to_write_for_a_task_is_refused(colours) -> None:
    for strategy in ("star", "cot"):
        chosen = settings(teacher="openai", model="m", strategy=strategy)
        check_task(chosen, load_task("gsm8k"))
        with pytest.raises(
            ValueError, match=f"strategy: '{strategy}' writes rationales, and the students of task 'colo"
        ):
            check_task(chosen, colours)
    chosen = settings(teacher="openai", model="m", strategy="counterfactual")
    with pytest.raises(ValueError, match="strategy: 'counterfactual' changes which of the known answers"):
        check_task(chosen, Task(name="t", form="text"))
