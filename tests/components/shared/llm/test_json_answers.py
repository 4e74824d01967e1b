r"""JSON as models write it: what is read is what was written, and what was cut off is not completed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.latex import double_backslashes
from llm2llm.components.shared.llm.json_answers import Found, fits, holds_json, only_object, read_object

ITEM = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["question", "answer"],
    "additionalProperties": False,
}
SCHEMA = {"type": "object", "properties": {"examples": {"type": "array", "items": ITEM}}, "required": ["examples"]}
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
ROWS = st.lists(st.fixed_dictionaries({"question": TEXTS, "answer": TEXTS}), min_size=1, max_size=3)


def read(text: str, complete: bool = True) -> Found | None:
    return read_object(text, ["examples"], SCHEMA, complete)


@given(ROWS, st.booleans(), st.sampled_from(["{}", "```json\n{}\n```", "Sure:\n{}\nBye.", "\n{}  "]))
def test_what_is_json_is_read_as_it_stands(rows: list[Any], ascii_only: bool, around: str) -> None:
    text = json.dumps({"examples": rows}, ensure_ascii=ascii_only)
    assert read(around.replace("{}", text)) == Found({"examples": rows})


PLAIN = st.text(alphabet="abc xyz 0123456789 äß中,.:;!?()-+*$%&=", min_size=1, max_size=30).filter(
    lambda text: "//" not in text and "/*" not in text
)
PLAIN_ROWS = st.lists(st.fixed_dictionaries({"question": PLAIN, "answer": PLAIN}), min_size=1, max_size=3)


@given(PLAIN_ROWS, st.sampled_from(["comma", "comment", "single", "list", "one", "lines"]))
def test_what_is_repaired_is_what_was_meant(rows: list[Any], kind: str) -> None:
    text = json.dumps({"examples": rows}, ensure_ascii=False)
    text = {
        "comma": text.replace("}]", "},]"),
        "comment": text.replace('{"question"', '{ // new\n "question"').replace("]}", "] /* end */ }"),
        "single": repr({"examples": rows}),
        "list": json.dumps(rows),
        "one": json.dumps(rows[0]),
        "lines": "\n".join(map(json.dumps, rows)),
    }[kind]
    found = read(text)
    assert found is not None
    assert found.value == {"examples": rows[:1] if kind == "one" else rows}
    assert found.repairs == (("list",) if kind in ("list", "one", "lines") else ("syntax",))


@given(ROWS, st.data())
def test_what_is_cut_off_is_never_completed(rows: list[Any], data: st.DataObject) -> None:
    text = json.dumps({"examples": rows}, ensure_ascii=data.draw(st.booleans()))
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    assert read(cut, complete=False) is None
    found = read(cut)
    assert found is None or all(row in rows for row in found.value["examples"])


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    found = read(text)
    assert found is None or "examples" in found.value
    holds_json(text)
    only_object(text, SCHEMA)


@given(st.text(alphabet="{}[]\",:'\\/*#ab1 \n", max_size=60))
def test_what_is_repaired_fits_the_schema(text: str) -> None:
    found = read('{"examples": [{"question": ' + text)
    assert found is None or not found.repairs or fits(found.value, SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        '{"examples": [{"question": "a", "answer": "b", "why": "c",}]}',
        '{"examples": [{"question": "a", "answer": 5,}]}',
        '{"examples": [{"question": "a",}]}',
        '{"examples": [{"question": "a "b", "c": d", "answer": "b"}]}',
        '{"examples": [{"question": "is it "a", or "b"?", "answer": "b" lost}]}',
        "[1, 2]",
        '{"examples": ',
    ],
)
def test_what_does_not_fit_or_loses_something_is_not_repaired(text: str) -> None:
    assert read(text) is None


def test_quotation_marks_in_a_text_are_kept() -> None:
    found = read('{"examples": [{"question": "He said "hi" to us", "answer": "b"}]}')
    assert found == Found({"examples": [{"question": 'He said "hi" to us', "answer": "b"}]}, ("syntax",))


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        (r"$\frac{3}{4} \times 16 \neq \alpha$", r"$\\frac{3}{4} \\times 16 \\neq \\alpha$"),
        (r"\\frac{3}{4} \\times", r"\\frac{3}{4} \\times"),
        (r"\beta \binom \right \rho \theta \text{a} \nabla", r"\\beta \\binom \\right \\rho \\theta \\text{a} \\nabla"),
        (r"$\nu = 5$", r"$\\nu = 5$"),
        (r"first\nu, then", r"first\nu, then"),
        (r"a\nThe end\tTotal\r\n", r"a\nThe end\tTotal\r\n"),
        (r"\u00e9 \"q\" \/ \underline{a}", r"\u00e9 \"q\" \/ \\underline{a}"),
        (r"\(x\) \{1\} It\'s", r"\\(x\\) \\{1\\} It's"),
    ],
)
def test_backslashes_that_were_meant_are_doubled(source: str, meant: str) -> None:
    assert double_backslashes(source) == meant


@given(TEXTS)
def test_doubled_backslashes_stay(text: str) -> None:
    source = json.dumps({"a": text.replace("\b", "").replace("\f", "")})
    if "\\n" not in source and "\\t" not in source and "\\r" not in source:
        assert double_backslashes(source) == source


def test_a_verdict_between_words_is_none() -> None:
    schema = {
        "type": "object",
        "properties": {"verdict": {"type": "string", "enum": ["right"]}},
        "required": ["verdict"],
    }
    assert only_object('```json\n{"verdict": "right"}\n```', schema) == {"verdict": "right"}
    assert only_object('It says {"verdict": "right"}', schema) is None
    assert only_object('{"verdict": "left"}', schema) is None
