"""The form `json`: reading, canonical comparison, fields, and the schema as users, teachers and decoders know it."""

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import read_settings_text, settings_text
from llm2llm.components.shared.tasks import Task, json_schema, load_task
from llm2llm.components.shared.tasks.json_schema import expanded

INVOICE = Task(
    name="invoices",
    form="json",
    answer_schema={
        "type": "object",
        "properties": {
            "number": {"type": "string"},
            "total": {"type": "number", "minimum": 0},
            "due": {"type": ["string", "null"], "description": "null where none is named"},
            "address": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            "tags": {"type": "array", "uniqueItems": True, "items": {"enum": ["paid", "late", "disputed"]}},
            "lines": {"type": "array", "x-unordered": True, "items": {"type": "string"}},
            "steps": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["number", "total", "due"],
    },
)
SPANS = Task(
    name="spans",
    form="json",
    answer_schema={
        "type": "array",
        "x-unordered": True,
        "items": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "type": {"enum": ["person", "place"]}},
            "required": ["text", "type"],
        },
    },
)
BASE = {"number": "7", "total": 12, "due": None}


def text_of(**more: Any) -> str:
    return json.dumps({**BASE, **more})


@pytest.mark.parametrize(
    ("completion", "parsed"),
    [
        ('{"number": "7", "total": 12, "due": null}', '{"number":"7","total":12,"due":null}'),
        ('{"due":null,\n "total":1.2e1,"number":"7"}', '{"number":"7","total":12,"due":null}'),
        ('```json\n{"number": "7"}\n```', '{"number":"7"}'),
        ('```\n{"number": "7"}', '{"number":"7"}'),
        ('The answer is {"number": "7"}.', '{"number":"7"}'),
        ('{"number": "7"}\n{"number": "8"}', '{"number":"7"}'),
        ('{"number": "7"} and so on, [1, 2]', '{"number":"7"}'),
        ('{"number": "7"} [as agreed]', '{"number":"7"}'),
        ('```json\n{"number": "7"}\n```\nI hope {this} helps.', '{"number":"7"}'),
        ('For {you}:\n```json\n{"number": "7"}\n```', '{"number":"7"}'),
        ('[1] says {"number": "7"}', '{"number":"7"}'),
        ('One:\n```\n{"number": "7"}\n```\nTwo:\n```\n{"number": "8"}\n```', None),
        ('{"number": "7", "due": "so: ```{"number": "8"}```', None),
        ('{"number": "\\ud83d"}', None),
        ('{"\\udc00": "7"}', None),
        ('{"number": "\\ud83d\\ude00"}', '{"number":"😀"}'),
        ('either {"number": "7"} or {"number": "8"}', None),
        ('{"number": "7", "address": {"city": "Rome"}', None),
        ('so: {"number": "7", "address": {"city": "Rome"}', None),
        ('{"number": "7", "number": "8"}', None),
        ('{"total": NaN}', None),
        ('{"total": 1e999999}', None),
        ('["7"]', None),
        ("none", None),
        ("", None),
        ("[" * 100_000, None),
        ('{"number": "7"}\nQuestion: the next one\nAnswer: {"number": "8"}', '{"number":"7"}'),
    ],
)
def test_parse(completion: str, parsed: str | None) -> None:
    assert tasks.parse(INVOICE, completion) == parsed


@pytest.mark.parametrize(
    ("given_", "right", "same"),
    [
        (text_of(total=12.0), text_of(), True),
        (text_of(total="12"), text_of(), False),
        (text_of(total=True), text_of(total=1), False),
        (text_of(address=None), text_of(), True),
        ('{"number": "7", "total": 12}', text_of(), False),
        (text_of(tags=["late", "paid"]), text_of(tags=["paid", "late"]), True),
        (text_of(tags=["late", "late"]), text_of(tags=["late"]), True),
        (text_of(lines=["a", "b", "a"]), text_of(lines=["a", "a", "b"]), True),
        (text_of(lines=["a", "b"]), text_of(lines=["a", "a", "b"]), False),
        (text_of(steps=["a", "b"]), text_of(steps=["b", "a"]), False),
        (text_of(number="e\u0301"), text_of(number="\u00e9"), True),
        (text_of(number="A"), text_of(number="a"), False),
        (text_of(other=1), text_of(), False),
    ],
)
def test_what_counts_as_the_same(given_: str, right: str, same: bool) -> None:
    assert tasks.grade(INVOICE, given_, right)[1] == ("correct" if same else "wrong")


ANSWERS = st.fixed_dictionaries(
    {
        "number": st.text(st.characters(exclude_categories=["Cs", "Cc"])),
        "total": st.one_of(st.integers(0, 10**20), st.floats(0, 1e300, allow_nan=False)),
        "due": st.none() | st.sampled_from(["tomorrow", "3 May", "null"]),
    },
    optional={
        "address": st.fixed_dictionaries({"city": st.sampled_from(["Rome", "Oslo", "東京"])}),
        "tags": st.lists(st.sampled_from(["paid", "late", "disputed"]), unique=True),
        "lines": st.lists(st.sampled_from(["a", "b", 'c"', "{", "```"])),
        "steps": st.lists(st.sampled_from(["a", "b"])),
    },
)


def rewritten(value: Any, draw: random.Random, name: str = "") -> Any:
    """The same answer in another guise: names and unordered lists shuffled, whole numbers as floats."""
    if isinstance(value, dict):
        names = draw.sample(sorted(value), len(value))
        return {one: rewritten(value[one], draw, one) for one in names}
    if isinstance(value, list):
        return draw.sample(value, len(value)) if name in ("tags", "lines") else value
    return float(value) if isinstance(value, int) and value < 2**53 else value


@given(ANSWERS, st.randoms(use_true_random=False), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_the_guise_of_an_answer_does_not_count(value: Any, draw: random.Random, indent: Any, fenced: bool) -> None:
    right, _ = tasks.normalise(INVOICE, value, [], None)
    assert tasks.normalise(INVOICE, right, [], None) == (right, None)  # what is canonical stays as it is
    text = json.dumps(rewritten(value, draw), indent=indent, ensure_ascii=draw.random() < 0.5)
    assert tasks.grade(INVOICE, f"```json\n{text}\n```" if fenced else text, right)[1] == "correct"
    assert tasks.row_score(INVOICE, tasks.parse(INVOICE, text), right) == 1.0


@given(ANSWERS, ANSWERS)
def test_two_answers_are_the_same_exactly_where_their_values_are(one: Any, other: Any) -> None:
    def value(answer: Any) -> Any:
        return {
            **{name: json_schema.plain(inner) for name, inner in answer.items()},
            **{name: sorted(answer[name]) for name in ("tags", "lines") if name in answer},
        }

    right, _ = tasks.normalise(INVOICE, one, [], None)
    parsed, _ = tasks.normalise(INVOICE, other, [], None)
    nfc = all(a["number"].isascii() for a in (one, other))
    if nfc:
        assert tasks.matches(INVOICE, parsed, right) == (value(one) == value(other))
    assert tasks.matches(INVOICE, parsed, right) == tasks.matches(INVOICE, right, parsed)
    counts = tasks.field_scores(INVOICE, [(parsed, right)])
    assert all((score.wrong == score.missing == 0) for score in counts) or not tasks.matches(INVOICE, parsed, right)
    assert 0 <= tasks.row_score(INVOICE, parsed, right) <= 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("nothing", "the answer is not JSON: "),
        ('{"number": "7", "number": "8"}', "not JSON: the name 'number' stands twice"),
        ("[]", r"does not fit task.answer_schema: must be object, got \[\]"),
        ({"number": "7", "total": 1}, "lacks 'due'"),
        ({**BASE, "total": "12"}, 'total: must be number, got "12"'),
        ({**BASE, "total": -1}, "total: -1 is not within minimum and maximum"),
        ({**BASE, "total": float("nan")}, "nan is no number"),
        ({**BASE, "adress": {}}, "has 'adress', which the schema does not; did you mean 'address'"),
        ({**BASE, "address": {"city": 3}}, "address.city: must be string, got 3"),
        ({**BASE, "tags": ["payd"]}, r'tags\[0\]: "payd" is none of "paid", "late", "disputed"; did you mean'),
        ({**BASE, "tags": ["paid", "paid"]}, "tags: has the same item twice, and uniqueItems says"),
        ({**BASE, "number": "\ud800"}, "half a surrogate pair"),
        ({**BASE, "\udc00": 1}, "half a surrogate pair"),
        ({**BASE, "number": "\x00"}, r"control character U\+0000"),
    ],
)
def test_a_wrong_answer_is_refused_by_its_place(answer: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tasks.normalise(INVOICE, answer, [], None)


def test_a_set_of_labels_is_taught_in_the_schemas_order() -> None:
    assert tasks.normalise(INVOICE, {**BASE, "tags": ["disputed", "paid"]}, [], None)[0].endswith(
        '["paid","disputed"]}'
    )


def test_scores_of_fields() -> None:
    right = '[{"text": "Ann", "type": "person"}, {"text": "Oslo", "type": "place"}, {"text": "Oslo", "type": "place"}]'
    given_ = '[{"text": "Oslo", "type": "place"}, {"text": "Ann", "type": "place"}]'
    scores = {(one.field, one.kind): one for one in tasks.field_scores(SPANS, [(given_, right), (None, "[]")])}
    assert list(scores) == [("", ""), ("items", ""), ("items", "person"), ("items", "place")]
    place = scores["items", "place"]
    assert (place.right, place.wrong, place.missing) == (1, 1, 1)
    assert (place.precision, place.recall, place.f1) == (0.5, 0.5, 0.5)
    person = scores["items", "person"]
    assert (person.precision, person.recall, person.f1) == (None, 0.0, 0.0)
    assert scores["", ""].f1 == tasks.row_score(SPANS, given_, right) == pytest.approx(0.4)
    assert tasks.row_score(SPANS, None, right) == 0.0


def test_references_as_pydantic_writes_them() -> None:
    schema = expanded(
        {
            "$defs": {"Line": {"title": "Line", "type": "object", "properties": {"name": {"type": "string"}}}},
            "type": "object",
            "properties": {"lines": {"items": {"$ref": "#/$defs/Line"}, "type": "array"},
                           "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}},
        }
    )  # fmt: skip
    assert schema["properties"]["lines"]["items"]["properties"] == {"name": {"type": "string"}}
    assert schema["additionalProperties"] is False
    assert expanded(schema) == schema


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "array", "items": {"$ref": "#/$defs/x"}}, r"items|\[\]: \$ref '#/\$defs/x' leads to nothing"),
        ({"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "goes in a circle"),
        ({"type": "object", "properties": {"a": {"type": "array", "minItems": -1}}}, "a: minItems must be a whole"),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, "required names 'b', which properties does"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "a: pattern '.' is no regular expression"),
        ({"type": "object", "properties": {"a": {"enum": []}}}, "a: enum must be a list that is not empty"),
        ({"type": "object", "not": {}}, "keyword 'not' is not supported"),
        ({"type": "object", "allOf": []}, "allOf must be a list of one schema"),
        ({"type": "object", "x-unorderd": True}, "'x-unorderd' is not supported; did you mean 'x-unordered'"),
        ({"type": "object", "properties": {"a": {"exclusiveMinimum": True}}}, "a: exclusiveMinimum must be a number"),
        ({"type": "object", "properties": {"a": {"multipleOf": 0}}}, "a: multipleOf must be above 0"),
        ({"anyOf": [{"type": "object"}, {"type": "array"}]}, "an answer is an object or a list"),
    ],
)
def test_a_wrong_schema_is_refused_by_its_place(schema: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_task({"name": "x", "form": "json", "answer_schema": schema})


@pytest.mark.parametrize(
    ("schema", "fits", "wrong"),
    [
        ({"type": "integer", "exclusiveMinimum": 0}, [1, 1.0], [0, -1]),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5, 1e-9], [0, 1, 1.5]),
        ({"type": "number", "multipleOf": 0.01}, [0.07, 1.1, 19.99, 3], [0.005, 1.001]),
        ({"type": "object", "minProperties": 1, "maxProperties": 2}, [{"a": 1}], [{}, dict.fromkeys("abc", 1)]),
        ({"type": "string", "nullable": True}, ["x", None], [1]),
        ({"enum": ["x"], "nullable": True}, ["x", None], ["y"]),
        ({"allOf": [{"$ref": "#/$defs/even"}], "description": "an id", "nullable": True}, [2, None], [3]),
        ({"type": "array", "items": True}, [[1, "x", None]], ["x"]),
        ({"type": "string", "x-ui": {}}, ["x"], [1]),
    ],
)  # fmt: skip
def test_keywords_that_programs_write(schema: Any, fits: list[Any], wrong: list[Any]) -> None:
    even = {"type": "integer", "multipleOf": 2}
    properties = {"properties": {"v": schema}, "required": ["v"]}
    task = load_task({"name": "x", "form": "json", "answer_schema": {"$defs": {"even": even}, **properties}})
    assert task.answer_schema is not None
    assert expanded(task.answer_schema) == task.answer_schema
    for value in fits:
        assert tasks.normalise(task, {"v": value}, [], None)
    for value in wrong:
        with pytest.raises(ValueError, match="does not fit"):
            tasks.normalise(task, {"v": value}, [], None)


def test_names_keep_the_order_of_the_schema_on_the_way_to_a_stage() -> None:
    """A reason before the label is a thought, after it an excuse."""
    inner = {"properties": {"why": {"type": "string"}, "title": {"type": "string"}}}
    schema = {"properties": {"reason": {"type": "string"}, "label": {"enum": ["a", "b"]}, "inner": inner}}
    task = load_task({"name": "x", "form": "json", "answer_schema": schema})
    sent = read_settings_text(settings_text(task.model_dump(mode="json")), "task")
    assert [*sent["answer_schema"]["properties"]] == ["inner", "label", "reason"]
    arrived = load_task(sent)
    assert arrived == task
    answer = '{"reason":"r","label":"a","inner":{"why":"w","title":"t"}}'
    assert tasks.normalise(arrived, json.dumps(json.loads(answer), sort_keys=True), [], None) == (answer, None)
    assert tasks.parse(arrived, f"Here: {json.dumps(json.loads(answer), sort_keys=True)}") == answer
    told = tasks.answer_schema(arrived)["properties"]["answer"]
    assert [*told["properties"]] == ["reason", "label", "inner"]
    constraint = tasks.FORMS["json"].constraint
    assert constraint is not None
    assert [*constraint(arrived)["properties"]] == ["reason", "label", "inner"]
    words = tasks.FORMS["json"].in_words(arrived)
    assert words.index('"reason"') < words.index('"label"') < words.index('"why"') < words.index('"title"')
    assert "propertyOrdering" not in f"{words}{told}{constraint(arrived)}"
    chosen = {**schema, "propertyOrdering": ["label", "reason"]}  # as Gemini's API has it
    assert [*expanded(chosen)["properties"]] == ["label", "reason", "inner"]
    with pytest.raises(
        ValueError, match="propertyOrdering names 'lable', which properties does not have; did you mean"
    ):
        expanded({**schema, "propertyOrdering": ["lable"]})


def test_a_choice_of_objects_is_an_object() -> None:
    """As pydantic describes `RootModel[Cat | Dog]`."""
    cat, dog = ({"properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in ("cat", "dog"))
    schema = {"$defs": {"cat": cat, "dog": dog}, "anyOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}]}
    task = load_task({"name": "x", "form": "json", "answer_schema": schema})
    assert tasks.grade(task, 'It is {"kind": "dog"}.', '{"kind":"dog"}')[1] == "correct"


def test_a_schema_from_a_file(tmp_path: Any) -> None:
    file = tmp_path / "schema.yaml"
    file.write_text("type: array\nitems: {type: string}\n")
    schema = load_task({"name": "x", "form": "json", "answer_schema": str(file)}).answer_schema
    assert schema == {"type": "array", "items": {"type": "string"}}


def test_what_the_teacher_is_given_and_what_decoding_is_held_to() -> None:
    teacher = tasks.teacher_schema(INVOICE, 1)["properties"]["examples"]["items"]["properties"]["answer"]
    assert teacher["required"] == list(teacher["properties"])
    assert teacher["properties"]["address"]["anyOf"][1] == {"type": "null"}
    assert {"uniqueItems", "x-unordered", "minimum"}.isdisjoint(json.dumps(teacher).replace('"', " ").split())
    constraint = tasks.FORMS["json"].constraint
    assert constraint is not None
    held = constraint(INVOICE)
    assert held["required"] == ["number", "total", "due"]
    assert "anyOf" not in held["properties"]["address"]
    # Objects of any names cannot be told to every endpoint: then the answer is text.
    open_task = Task(
        name="x", form="json", answer_schema={"type": "object", "additionalProperties": {"type": "number"}}
    )
    answer = tasks.answer_schema(open_task)["properties"]["answer"]
    assert answer["type"] == "string"
    assert tasks.normalise(open_task, '{"b": 1.0, "a": 2}', [], None)[0] == '{"a":2,"b":1}'


WEATHER = json.dumps(
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Today's weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
)
CALLS = Task(name="calls", form="json", columns=tasks.Columns(tools="tools"))
CALL = '[{"name":"get_weather","arguments":{"city":"Oslo"}}]'


@pytest.mark.parametrize(
    "completion",
    [
        CALL,
        '{"name": "get_weather", "parameters": {"city": "Oslo"}}',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo", "day": null}, "id": "call00000"}]',
        '[{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}}]',
        f"{CALL} [see {{above}}]",
        f"[TOOL_CALLS] {CALL}\nIt gives [1, 2].",
    ],
)
def test_calls_in_the_forms_that_models_write(completion: str) -> None:
    assert tasks.grade(CALLS, completion, CALL) == (CALL, "correct")
    assert tasks.grade(CALLS, completion.replace("Oslo", "Rome"), CALL)[1] == "wrong"


@pytest.mark.parametrize("completion", ["It is sunny.", '{"city": "Oslo"}', '[{"name": "x", "arguments": [1]}]', "[1]"])
def test_what_is_no_call_is_not_read(completion: str) -> None:
    assert tasks.parse(CALLS, completion) is None


def test_two_calls_in_any_order() -> None:
    two = '<tool_call>{"name": "b"}</tool_call><tool_call>{"name": "a", "arguments": {"n": 1.0}}</tool_call>'
    right = '[{"name": "a", "arguments": {"n": 1}}, {"name": "b", "arguments": {}}]'
    assert tasks.grade(CALLS, two, right)[1] == "correct"
    assert tasks.grade(CALLS, "[]", "[]") == ("[]", "correct")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            CALL.replace("get_weather", "get_wether"),
            "the answer calls 'get_wether', and the row offers get_weather; did",
        ),
        (
            CALL.replace('"Oslo"', "3"),
            "arguments of the call of 'get_weather' do not fit its parameters: city: must be",
        ),
        (CALL.replace('"city":"Oslo"', ""), "do not fit its parameters: lacks 'city'"),
    ],
)
def test_calls_are_held_against_the_rows_tools(answer: str, says: str) -> None:
    normal, _ = tasks.normalise(CALLS, answer, [], None)
    tasks.check_tools(CALLS, CALL, [WEATHER])
    with pytest.raises(ValueError, match=says):
        tasks.check_tools(CALLS, normal, [WEATHER])


def test_the_f1_of_all_fields_may_decide() -> None:
    metric = tasks.FORMS["json"].metrics["field_f1"]
    task = INVOICE.model_copy(update={"metric": "field_f1"})
    answers = [(text_of(), text_of()), (None, text_of()), (text_of(number="other"), text_of())]
    sums = np.array([metric.measure(task, right, parsed, parsed == right) for parsed, right in answers]).sum(axis=0)
    together = tasks.field_scores(task, answers)[0]
    assert (together.field, together.kind) == ("", "")
    assert float(metric.value(sums)) == pytest.approx(together.f1)
    assert 0 < together.f1 < 1
    assert float(metric.value(np.zeros(2))) == 1.0


TAGGED = (
    "bc:abc ad:ad cd:cd d:- ab:abc c:ac ab:- bcd:bc ac:ab bc:c ad:a b:b abc:cd ab:a bd:ad b:- a"
    "d:acd ad:ad c:bc ab:abd bc:bc -:a bd:bd bd:d ac:ad"
)
"""Right tags and given tags of each row; see below."""


def test_the_f1_of_sets_is_that_of_scikit_learn() -> None:
    """`precision_score`, `recall_score` and `f1_score` with `average="micro"` and with `average=None`, of scikit-learn
    1.9.1 on the rows as a `MultiLabelBinarizer` makes them."""
    schema = {"type": "array", "uniqueItems": True, "items": {"enum": list("abcd")}}
    task = tasks.load_task({"name": "tags", "form": "json", "answer_schema": schema})

    def written(tags: str) -> str:
        return tasks.normalise(task, list(tags.replace("-", "")), [], None)[0]

    rows = [(written(given), written(right)) for right, given in (pair.split(":") for pair in TAGGED.split())]
    everything, *others = tasks.field_scores(task, rows)
    assert (everything.precision, everything.recall, everything.f1) == pytest.approx(
        (0.738095238095, 0.688888888889, 0.712643678161), abs=1e-11
    )
    by_tag = [one.f1 for one in others if one.kind]
    assert by_tag == pytest.approx([0.75, 0.608695652174, 0.8, 0.7], abs=1e-11)
    metric = tasks.FORMS["json"].metrics["field_f1"]
    sums = np.array([metric.measure(task, right, given, given == right) for given, right in rows]).sum(axis=0)
    assert float(metric.value(sums)) == pytest.approx(0.712643678161, abs=1e-11)
