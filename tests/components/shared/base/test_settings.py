"""`Settings.load`: what a user reads who got a key wrong."""

from datetime import date
from typing import Any, Literal, Self

import pytest
from pydantic import Field, model_validator

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings import Settings


class Oven(Settings):
    heat: int = Field(180, ge=50, le=300)
    fan: bool = False


class Cake(Settings):
    kind: Literal["sponge", "cheese"]
    eggs: int = Field(3, ge=0)
    share: float = 0.5
    name: str = Field("cake", pattern=r"^[a-z]+$")
    """What to call it: lower-case letters."""
    topping: str | dict[str, Any] | None = None
    layers: list[str] = []  # noqa: RUF012
    oven: Oven = Oven()

    @model_validator(mode="after")
    def _eggs_fit(self) -> Self:
        if self.kind == "sponge" and self.eggs == 0:
            raise ValueError("eggs 0 and kind 'sponge' contradict each other")
        return self


def message(values: Any, where: str = "cake.yaml", **inputs: Any) -> str:
    with pytest.raises(UserError) as caught:
        Cake.load(values, where, **inputs)
    return str(caught.value)


def test_loads_values_and_inputs() -> None:
    cake = Cake.load({"eggs": 4, "oven": {"heat": 200}}, "cake.yaml", kind="cheese")
    assert (cake.kind, cake.eggs, cake.oven.heat, cake.oven.fan) == ("cheese", 4, 200, False)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"egs": 4}, "cake.yaml: egs: unknown key; did you mean 'eggs'?"),
        ({"zzz": 4}, "cake.yaml: zzz: unknown key"),
        ({"oven": {"heet": 4}}, "cake.yaml: oven.heet: unknown key; did you mean 'heat'?"),
        ({"int": 4}, "cake.yaml: int: unknown key"),
        ({"oven": {"str": 4}}, "cake.yaml: oven.str: unknown key"),
        (
            {"eggs": "many"},
            "cake.yaml: eggs: Input should be a valid integer, unable to parse string as an integer (got 'many')",
        ),
        ({"eggs": -1}, "cake.yaml: eggs: Input should be greater than or equal to 0 (got -1)"),
        ({"eggs": None}, "cake.yaml: eggs: Input should be a valid integer (got None)"),
        ({"oven": {"heat": 9}}, "cake.yaml: oven.heat: Input should be greater than or equal to 50 (got 9)"),
        ({"oven": 5}, "cake.yaml: oven: expected keys and values, got 5"),
        ({"oven": None}, "cake.yaml: oven: expected keys and values, got None"),
        (
            {"layers": ["jam", 2]},
            "cake.yaml: layers.1: Input should be a valid string (got 2); YAML reads it as a number: put it in quotes, "
            'as "2"',
        ),
        (
            {"layers": [750]},
            "cake.yaml: layers.0: Input should be a valid string (got 750); YAML reads it as a number "
            '(12:30 as 750): put it in quotes, as "750"',
        ),
        (
            {"layers": [False]},
            "cake.yaml: layers.0: Input should be a valid string (got False); YAML reads no, yes, on, "
            "off, true and false as truth values: put the word in quotes",
        ),
        (
            {"layers": [None]},
            "cake.yaml: layers.0: Input should be a valid string (got None); YAML reads null, ~ and "
            "nothing as no value: put the word in quotes",
        ),
        (
            {"layers": [date(2024, 1, 1)]},
            "cake.yaml: layers.0: Input should be a valid string (got datetime.date(2024, "
            '1, 1)); YAML reads it as a date: put it in quotes, as "2024-01-01"',
        ),
        ({"name": "Käse"}, "cake.yaml: name: not as it must be: What to call it: lower-case letters (got 'Käse')"),
        ({"eggs": True}, "cake.yaml: eggs: expected a number, not a truth value (got True)"),
        ({"share": False}, "cake.yaml: share: expected a number, not a truth value (got False)"),
        ({"kind": "bread"}, "cake.yaml: kind: Input should be 'sponge' or 'cheese' (got 'bread')"),
        (
            {"kind": "sponje"},
            "cake.yaml: kind: Input should be 'sponge' or 'cheese' (got 'sponje'); did you mean 'sponge'?",
        ),
        (
            {"topping": 5},
            "cake.yaml: topping: Input should be a valid string (got 5), "
            "or: Input should be a valid dictionary (got 5)",
        ),
        ({1: 2}, "cake.yaml: 1: Keys should be strings (got 1)"),
        ({"eggs": 0}, "cake.yaml: eggs 0 and kind 'sponge' contradict each other"),
    ],
)
def test_names_key_value_and_fix(values: dict[Any, Any], expected: str) -> None:
    assert message({"kind": "sponge", **values}) == expected


def test_names_every_wrong_key_at_once() -> None:
    lines = message({"egs": 1, "share": "x", "oven": {"fan": "perhaps"}}).splitlines()
    assert [":".join(line.split(":")[:2]) for line in lines] == [
        "cake.yaml: kind",
        "cake.yaml: share",
        "cake.yaml: oven.fan",
        "cake.yaml: egs",
    ]
    assert lines[0] == "cake.yaml: kind: missing; it has no default, so set it"


def test_a_key_given_twice_is_refused_with_both_values() -> None:
    assert message({"eggs": 4}, eggs=5, kind="cheese") == (
        "cake.yaml: eggs: given twice, as an input (5) and in the settings (4); remove it from the settings"
    )


@pytest.mark.parametrize("values", [None, [1], "eggs", 5])
def test_something_else_than_keys_and_values_is_refused(values: Any) -> None:
    assert message(values, kind="cheese") == f"cake.yaml: expected keys and values, got {values!r}"


def test_a_long_value_is_cut() -> None:
    assert len(message({"kind": "x" * 10_000})) < 300


def test_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Cake(kind="cheese").eggs = 5
