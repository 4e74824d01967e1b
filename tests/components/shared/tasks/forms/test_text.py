"""The form `text`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared import tasks
from llm2llm.components.shared.tasks import Task

NORMALISED = Task(name="people", form="text")
EXACT = Task(name="people", form="text", match="exact")
JUDGED = Task(name="people", form="text", match="judge", rubric="the same person")


@pytest.mark.parametrize(
    ("completion", "parsed"),
    [
        ("Marie Curie", "Marie Curie"),
        (" Marie Curie.\n", "Marie Curie."),
        ("Answer: Marie Curie", "Marie Curie"),
        ("The answer is: Marie Curie", "Marie Curie"),
        ("The answer is Marie Curie", "Marie Curie"),
        ("A: Marie Curie", "Marie Curie"),
        ("a: Marie Curie", "a: Marie Curie"),
        ("Answers differ", "Answers differ"),
        ("Aachen", "Aachen"),
        ("Marie Curie\nQuestion: who else?\nAnswer: Pierre", "Marie Curie"),
        ("", None),
        (" \n", None),
        ("Answer:", None),
    ],
)
def test_parse(completion: str, parsed: str | None) -> None:
    assert tasks.parse(NORMALISED, completion) == parsed


@pytest.mark.parametrize(
    ("completion", "answer", "normalised", "exact"),
    [
        ("Marie Curie", "Marie Curie", "correct", "correct"),
        ("marie  CURIE.", "Marie Curie", "correct", "wrong"),
        ('"Marie Curie"', "Marie Curie", "correct", "wrong"),
        ("Curie", "Marie Curie", "wrong", "wrong"),
        ("Stra\u00dfe", "STRASSE", "correct", "wrong"),
        ("\uff21\uff22", "AB", "correct", "wrong"),
        ("!", "?", "wrong", "wrong"),
        ("\u300c\u6771\u4eac\u300d\u3002", "\u6771\u4eac", "correct", "wrong"),
        (
            "\u0627\u0644\u0642\u0627\u0647\u0631\u0629\u061f",
            "\u0627\u0644\u0642\u0627\u0647\u0631\u0629",
            "correct",
            "wrong",
        ),
        ("\u0926\u093f\u0932\u094d\u0932\u0940\u0964", "\u0926\u093f\u0932\u094d\u0932\u0940", "correct", "wrong"),
        ("\u00bfQu\u00e9?", "qu\u00e9", "correct", "wrong"),
        ("\u201eBerlin\u201c", "Berlin", "correct", "wrong"),
        ("10\u00b2", "102", "wrong", "wrong"),
        ("10\u00b2", "10^2", "correct", "wrong"),
        ("2\u2075", "25", "wrong", "wrong"),
        ("1\u00bd", "11/2", "wrong", "wrong"),
        ("10\u2082", "102", "wrong", "wrong"),
        (".5", "5", "wrong", "wrong"),
        ("<5", ">5", "wrong", "wrong"),
        ("5!", "5", "wrong", "wrong"),
        ("5%", "5", "wrong", "wrong"),
        ("(0, 1]", "[0, 1)", "wrong", "wrong"),
        ("?", "?", "correct", "correct"),
        ("", "Marie Curie", "unparseable", "unparseable"),
    ],
)
def test_grade(completion: str, answer: str, normalised: str, exact: str) -> None:
    assert tasks.grade(NORMALISED, completion, answer)[1] == normalised
    assert tasks.grade(EXACT, completion, answer)[1] == exact
    assert tasks.grade(JUDGED, completion, answer)[1] == normalised, "what needs no judge"


def test_any_of_several_right_answers_counts() -> None:
    assert tasks.grade(NORMALISED, "the Seine.", "Seine", ["the Seine", "la Seine"]) == ("the Seine.", "correct")
    assert tasks.grade(NORMALISED, "Rhine", "Seine", ["the Seine"]) == ("Rhine", "wrong")


def test_normalise() -> None:
    assert tasks.normalise(EXACT, " Marie  Curie. ", [], "a rationale") == ("Marie  Curie.", None)
    assert tasks.normalise(EXACT, 18, [], None) == ("18", None)
    with pytest.raises(ValueError, match="the answer is empty"):
        tasks.normalise(EXACT, " ", [], None)
    with pytest.raises(ValueError, match="would be graded unparseable"):
        tasks.normalise(EXACT, "Answer:", [], None)


@given(st.text())
def test_whatever_answer_is_accepted_is_read_from_its_own_target(answer: str) -> None:
    for task in (NORMALISED, EXACT, JUDGED):
        try:
            kept, _ = tasks.normalise(task, answer, [], None)
        except ValueError:
            continue
        assert tasks.grade(task, " " + tasks.target(task, kept, None), kept)[1] == "correct"
        assert tasks.normalise(task, kept, [], None) == (kept, None)


@given(st.text())
def test_unparseable_means_nothing_was_read(completion: str) -> None:
    parsed, outcome = tasks.grade(NORMALISED, completion, "Marie Curie")
    assert (parsed is None) == (outcome == "unparseable")
