"""The form `multiple_choice` and the task casehold."""

from string import ascii_uppercase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared import tasks
from llm2llm.components.shared.tasks import TASKS, Task

FIVE = TASKS["casehold"]
ANY = Task(name="own", form="multiple_choice")
PLACES = ["Paris", "Rome", "Oslo", "Bern", "Bonn"]

PARSE = {
    "C": "C",
    "c": "C",
    " C\n": "C",
    "C.": "C",
    "C. Oslo": "C",
    "C) Oslo": "C",
    "C: Oslo": "C",
    "C Oslo": "C",
    "(C)": "C",
    "(C) Oslo": "C",
    "[C]": "C",
    "*C*": "C",
    "**C**": "C",
    "**C.** Oslo": "C",
    "`C`": "C",
    '"C"': "C",
    "\\boxed{C}": "C",
    "$\\boxed{A}$": "A",
    "Answer: C": "C",
    "**Answer:** C": "C",
    "**Answer**: (C)": "C",
    "Answer C": "C",
    "A: C": "C",
    "The answer is C.": "C",
    "The correct answer is (C), Oslo.": "C",
    "the answer is option C": "C",
    "Option C": "C",
    "I think it is B": "B",
    "I'd go with D": "D",
    "The answer is D, since A and B are cities in the south.": "D",
    "It is not E. The answer is B": "B",
    "A": "A",
    "a": "A",
    "A.": "A",
    "A) Paris": "A",
    "A: Paris": "A",
    "A is right": "A",
    "The best option is A.": "A",
    "The best option is (A)": "A",
    "A dog barks": None,
    "A Dog barks": None,
    "a dog": None,
    "Answer: A dog": None,
    "I think so": None,
    "I": None,
    "I.": None,
    "So do I.": None,
    "B or C": None,
    "B, C": None,
    "B/C": None,
    "A or B": None,
    "A-B": None,
    "A - the first": "A",
    "A-": "A",
    "A and B": None,
    "Both A and B are right": None,
    "(B) or (C)": None,
    "not sure": None,
    "None of the above": None,
    "Answer: 2": None,
    "D'accord": None,
    "Z": None,
    "": None,
    " ": None,
    "...": None,
    "B\nCiting text: another\nAnswer: C": "B",
}


@pytest.mark.parametrize(("completion", "parsed"), PARSE.items(), ids=map(repr, PARSE))
def test_parse(completion: str, parsed: str | None) -> None:
    assert tasks.parse(FIVE, completion) == parsed


@pytest.mark.parametrize(
    ("completion", "parsed"), [("Z", "Z"), ("I", "I"), ("(I)", "I"), ("I. Rome", "I"), ("I am", None)]
)
def test_a_letter_counts_up_to_the_number_of_choices(completion: str, parsed: str | None) -> None:
    assert tasks.parse(ANY, completion) == parsed
    assert tasks.parse(FIVE, completion) is None


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("C", "C"),
        ("c", "C"),
        (" C ", "C"),
        ("(C)", "C"),
        ("C.", "C"),
        ("C. Oslo", "C"),
        ("(c) Oslo", "C"),
        ("Oslo", "C"),
    ],
)
def test_normalise(answer: Any, letter: str) -> None:
    assert tasks.normalise(FIVE, answer, PLACES, "a rationale") == (letter, None)


@pytest.mark.parametrize(
    ("answer", "choices", "says"),
    [
        ("F", PLACES, "'F' is none of the choices"),
        ("5", PLACES, "'5' is none of the choices"),
        (5, PLACES, "'5' is none of the choices"),
        (2, PLACES, "'2' is none of the choices"),  # never a place: nothing here tells what it counts from
        ("B. Oslo", PLACES, "'B. Oslo' is none of the choices"),
        (-1, PLACES, "'-1' is none of the choices"),
        (True, PLACES, "'True' is none of the choices"),
        ("oslo", PLACES, "'oslo' is none of the choices"),
        ("", PLACES, "'' is none of the choices"),
        ("A", PLACES[:4], "expected 5 choices, got 4"),
        ("A", ["Paris", *PLACES[:4]], "two of the choices are the same"),
    ],
)
def test_normalise_refuses(answer: Any, choices: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tasks.normalise(FIVE, answer, choices, None)


@pytest.mark.parametrize("count", [0, 1, 27])
def test_from_2_to_26_choices(count: int) -> None:
    with pytest.raises(ValueError, match=f"expected 2 to 26 choices, got {count}"):
        tasks.normalise(ANY, "A", [str(i) for i in range(count)], None)
    assert tasks.normalise(ANY, "B", ["x", "y"], None) == ("B", None)
    assert tasks.normalise(ANY, "Z", [f"choice {i}" for i in range(26)], None) == ("Z", None)


def test_numbers_as_choices() -> None:
    choices = ["4", "2.0", "24", "120"]
    for answer in (2, 2.0, "2", "2.0", "B"):
        assert tasks.normalise(ANY, answer, choices, None) == ("B", None)
    with pytest.raises(ValueError, match="'3' is none of the choices"):
        tasks.normalise(ANY, 3, choices, None)
    with pytest.raises(ValueError, match="'A' may be A or B"):
        tasks.normalise(ANY, "A", ["B", "A"], None)


letters = st.sampled_from("ABCDE")


@given(
    letters,
    st.sampled_from(
        ["{}", "({})", "{}.", "{}) x", "[{}]", "**{}**", "Answer: {}", "The answer is {}.", "Answer: ({}) x"]
    ),
)
def test_any_way_to_write_a_letter_is_read(letter: str, shape: str) -> None:
    assert tasks.grade(FIVE, shape.format(letter), letter) == (letter, "correct")
    assert tasks.grade(FIVE, shape.format(letter), "A" if letter != "A" else "B") == (letter, "wrong")


@given(st.text() | st.lists(st.sampled_from([*"ABCI(). \n", "Answer:", "or", "dog", "is"])).map("".join))
def test_parse_gives_a_letter_or_nothing(text: str) -> None:
    parsed = tasks.parse(ANY, text)
    assert parsed is None or (len(parsed) == 1 and parsed in ascii_uppercase)
    assert parsed == tasks.parse(ANY, text)
    assert (tasks.grade(ANY, text, "A")[1] == "unparseable") == (parsed is None)


words = st.text(st.characters(categories=["Ll", "Lo", "Nd"]), min_size=2)


@given(st.lists(words, min_size=2, max_size=26, unique=True), st.data())
def test_normalise_finds_the_choice_by_its_text(choices: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(choices) - 1))
    assert tasks.normalise(ANY, choices[index], choices, None) == (ascii_uppercase[index], None)
