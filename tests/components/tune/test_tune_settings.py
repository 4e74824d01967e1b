"""What can be tuned: contradictions are refused before anything is trained; the grid is the same every time."""

from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.tune.settings import KEYS, TuneSettings
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.config.form import from_parameters, to_parameters

RATES = {"learning_rate": [1e-3, 1e-2]}
FREE = ("train.learning_rate=2e-5", "train.epochs=3")
"""Puts what the quickstart sets back to the defaults."""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learning_rate": []}, "tune.learning_rate: a list of two values or more"),
        ({"learning_rate": [0.1]}, "a single one belongs in train.learning_rate"),
        ({"learning_rate": 0.1}, "tune.learning_rate: a list of two values or more"),
        ({"learning_rate": [0.1, 0.1]}, "learning_rate: 0.1 stands there twice"),
        ({"learning_rate": [True, 0.1]}, "expected numbers, not truth values"),
        ({"learning_rate": [0.0, 0.1]}, "tune.learning_rate.0: Input should be greater than 0"),
        ({"learning_rates": [0.1, 0.2]}, "tune.learning_rates: unknown key; did you mean 'learning_rate'?"),
        ({"trials": 3}, "trials: 3, and nothing to tune"),
        ({"folds": 3}, "folds: 3, and nothing to tune"),
        ({**RATES, "folds": 1}, "folds: 1 holds back all seeds"),
        ({**RATES, "trials": 2}, "trials: 2 of 2 combinations"),
        ({**RATES, "epochs": [1, 2], "trials": 1}, "trials: 1 of 4 combinations"),
        ({**RATES, "trials": 51}, "tune.trials: Input should be less than or equal to 50"),
        ({"learning_rate": [1, 2, 3, 4], "epochs": [1, 2, 3, 4], "warmup": [0, 0.1, 0.2, 0.3]}, "64 combinations"),
    ],
)
def test_what_makes_no_choice_is_refused_with_the_key_and_the_fix(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        TuneSettings.load(values, "tune")
    assert said in str(refused.value)
    assert str(refused.value).startswith("tune")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("tune.learning_rate=[0.1, 0.2]", "train.learning_rate=0.5"), "train.learning_rate is 0.5; remove one"),
        (("tune.epochs=[1, 2]", *FREE, "train.max_steps=9"), "epochs change nothing with train.max_steps 9"),
        (("tune.lora_rank=[4, 8]", *FREE), "tune.lora_rank is for an adapter"),
        (
            ("tune.warmup=[0, 0.1]", "train.nodes=2", "train.checkpoint_uri=s3://b/c", "train.warmup=0.03",
             "controls.steps=false"),
            "train.nodes is 2",
        ),
    ],
)  # fmt: skip
def test_a_training_that_says_otherwise_is_refused(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match="tune") as refused:
        load_config("quickstart", overrides)
    assert said in str(refused.value)


def test_the_default_of_the_method_contradicts_nothing() -> None:
    TuneSettings.model_validate(RATES).check(FineTuneSettings.model_validate({"method": "lora"}))


def test_every_key_is_one_of_train_and_its_values_are_tried_in_order() -> None:
    assert set(KEYS) <= FineTuneSettings.model_fields.keys()
    settings = TuneSettings.model_validate({**RATES, "epochs": [2, 1]})
    assert (
        settings.combinations(0)
        == settings.combinations(9)
        == [
            {"learning_rate": 1e-3, "epochs": 2},
            {"learning_rate": 1e-3, "epochs": 1},
            {"learning_rate": 1e-2, "epochs": 2},
            {"learning_rate": 1e-2, "epochs": 1},
        ]
    )


def test_a_part_of_a_large_grid_is_drawn_by_the_random_seed_and_keeps_its_order() -> None:
    values = {"learning_rate": [n / 1000 for n in range(1, 11)], "epochs": list(range(1, 11))}
    settings = TuneSettings.model_validate({**values, "trials": 6})
    grid = TuneSettings.model_validate({**values, "trials": 50})._grid()
    drawn = settings.combinations(0)
    assert len(drawn) == 6
    assert drawn == settings.combinations(0) != settings.combinations(1)
    assert [grid.index(one) for one in drawn] == sorted(grid.index(one) for one in drawn)


def test_it_comes_through_the_form() -> None:
    config = load_config("quickstart", [*FREE, "tune.learning_rate=[0.1, 0.2]", "tune.folds=3"])
    assert from_parameters(config.name, to_parameters(config), config.images).tune == config.tune
