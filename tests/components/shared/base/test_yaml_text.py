"""YAML that is damaged or meant to do harm is refused in bounded time; any other is read as PyYAML reads it."""

import time
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.yaml_text import MOST_DEPTH, load_yaml

NAMES = "abcdefghij"


def bomb(inner: str) -> str:
    """Ten to the power of ten values in ten lines."""
    lines = [f"a: &a {inner}"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise(NAMES)]
    return "\n".join(lines) + "\n"


HOSTILE = {
    "aliases": (bomb("[x]"), "holds more than 1,000,000 values"),
    "aliases as keys": (bomb("[x]") + "? *i\n: 1\n? *h\n: 2\n", "holds more than 1,000,000 values"),
    "aliases merged": (bomb("{x: 1}").replace("[*", "{<<: [*").replace("]", "]}"), "holds more than 1,000,000 values"),
    "5,000 lists": ("a: " + "[" * 5_000 + "]" * 5_000, f"nested more than {MOST_DEPTH} deep"),
    "5,000 mappings": ("{a: " * 5_000 + "}" * 5_000, f"nested more than {MOST_DEPTH} deep"),
    "indented": ("".join(" " * depth + "k:\n" for depth in range(900)), f"nested more than {MOST_DEPTH} deep"),
    "an alias of itself": ("a: &a {b: [*a]}", "an alias of itself"),
    "5,000 digits": ("a: " + "9" * 5_000, "digits"),
    "5,000 hexadecimal digits": ("a: 0x" + "f" * 5_000, "a number of 5,002 digits"),
    "a month of 99": ("a: 2001-99-99", "month must be in 1..12"),
    "code": ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "no character": ("a: \0", "special characters are not allowed"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("keys_once", [True, False])
def test_hostile_yaml_is_refused_at_once(name: str, keys_once: bool) -> None:
    text, message = HOSTILE[name]
    began = time.process_time()
    with pytest.raises(yaml.YAMLError, match=message):
        load_yaml(text, keys_once)
    assert time.process_time() - began < 60


def test_a_key_that_stands_twice() -> None:
    assert load_yaml("a: 1\na: 2") == {"a": 2}
    with pytest.raises(yaml.YAMLError, match="the key 'a' stands twice"):
        load_yaml("a: 1\na: 2", keys_once=True)


def test_ordinary_aliases_are_read() -> None:
    assert load_yaml("a: &a [1, 2]\nb: *a\nc: {<<: &m {x: 1}, y: 2}") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"x": 1, "y": 2},
    }


# PyYAML writes U+0085 as it is, and reads it as a line break.
characters = st.characters(codec="utf-8", exclude_characters="\x85")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.text(characters, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(characters, max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_what_is_written_is_read_as_it_was(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert load_yaml(text) == load_yaml(text, keys_once=True) == yaml.safe_load(text) == value
