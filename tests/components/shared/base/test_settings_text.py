"""`settings_text`: whatever it says arrives as it was written, by way of every template engine between."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import read_settings_text, settings_text

# Texts of the characters that Argo, the launcher and the kubelet look for, of those that JSON escapes, and of any.
hostile = st.text(st.sampled_from("{}$()[].=\"\\'a1 \n"), max_size=20)
texts = st.one_of(st.text(max_size=20), hostile)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts
)  # fmt: skip
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
objects = st.dictionaries(texts, values, max_size=5)

TEMPLATES = [
    "{{workflow.name}}",
    "{{=1+1}}",
    "{{$.inputs.parameters['x']}}",
    "{{channel:task=;name=teacher;type=String;}}",
    "$(HOME) $$ ${HOME} $HOME",
    r"a set \{x : x > 0\} costs $5, as in \frac{1}{{2}}",
    '"}{{"',
    "\\{{\\\\{{",
    "\ud800 half a pair, Ключ, 鍵, 😀",
]


@given(objects)
def test_any_values_come_back(given_values: dict[str, Any]) -> None:
    text = settings_text(given_values)
    assert json.loads(text) == given_values
    assert read_settings_text(text, "here") == given_values


@given(objects)
def test_no_template_engine_finds_anything_in_it(given_values: dict[str, Any]) -> None:
    text = settings_text(given_values)
    assert "{{" not in text
    assert "$" not in text
    assert text.isascii()
    assert "\n" not in text


@given(objects, st.randoms(use_true_random=False))
def test_equal_values_give_equal_texts(given_values: dict[str, Any], order: Any) -> None:
    keys = list(given_values)
    order.shuffle(keys)
    assert settings_text({key: given_values[key] for key in keys}) == settings_text(given_values)


@given(objects)
def test_a_text_in_a_text_is_as_safe(given_values: dict[str, Any]) -> None:
    """A stage's settings are themselves a value in what Kubeflow writes, as JSON once more."""
    once = settings_text(given_values)
    for outer in (settings_text({"settings": once}), json.dumps({"settings": once})):
        assert not re.search(r"\{\{|\$", outer)
        assert read_settings_text(json.loads(outer)["settings"], "here") == given_values


@pytest.mark.parametrize("text", TEMPLATES)
def test_templates_arrive_as_they_were_written(text: str) -> None:
    for one in ({"key": text}, {text: "value"}, {"deep": [{"er": [text]}]}):
        written = settings_text(one)
        assert not re.search(r"\{\{|\$", written)
        assert read_settings_text(written, "here") == one


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_text_has_no_values(text: str) -> None:
    assert read_settings_text(text, "here") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", r"train settings: expected a JSON object of keys and values, got \[1\]"),
        ('"text"', "train settings: expected a JSON object"),
        ("{", "train settings: not JSON: "),
        ('{"a": 1, "a": 1}', "train settings: not JSON: the key 'a' stands twice"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "train settings: not JSON: the key 'b' stands twice"),
        ('{"a": ' + "[" * 100_000, "train settings: nested too deep to be read"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_settings_text(text, "train settings")
