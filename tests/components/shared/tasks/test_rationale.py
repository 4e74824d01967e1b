"""A rationale against its question and its answer."""

import dataclasses
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.tasks import load_task
from llm2llm.components.shared.tasks.rationale import MADE_UP, ends_at_answer, is_made_up, wrong_rationale, wrong_spoken

QUESTION = "Ann has 3 pears and buys 4 bags of 5. How many pears has she?"


@pytest.mark.parametrize(
    ("rationale", "answer", "does"),
    [
        ("She has 3+2=5 pears.", "5", True), ("It costs $0.25 each", "25", True), ("It is 4 million", "4", True),
        ("That makes $100 000.", "100,000", True), ("It is the 4th step.", "4", True), ("So three days.", "3", True),
        ("5 pears\nin all", "5", True), ("5 pears\nthen 6", "5", False), ("none", "5", False), ("", "5", False),
        ("-5", "5", False), ("It is 50.", "5", False), ("x is 5", "5 or 6", False),
        ("So 12 - 3 = 9 are left.", "12", False), ("So 12 - 3 = 9 are left.", "9", True),
        ("She has 12. He takes 3, so 9 are left.", "12", False), ("She has 9 of 12.", "9", True),
        ("It takes 500 minutes", "5", False), ("It takes 5 thousand steps", "5000", True), ("It is 5%", "0.05", True),
        ("3 + 4 = 7 = 7 in all, of 9", "7", True),
    ],
)  # fmt: skip
def test_a_rationale_ends_at_its_answer(rationale: str, answer: str, does: bool) -> None:
    assert ends_at_answer(rationale, answer) == does


def test_the_question_may_name_the_unit() -> None:
    assert not ends_at_answer("It costs 0.25", "25")
    assert ends_at_answer("It costs 0.25", "25", "How many cents is it?")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("5 times 6 is 32.", ["5 times 6 is 32"]), ("5 times 6 is 30.", []), ("10 divided by 4 is 2.5", []),
        ("10 divided by 3 gives 3.33", []), ("8 pears plus 2 pears makes 11 pears", ["8 pears plus 2 pears makes 11"]),
        ("1 plus 2 plus 3 equals 6", []), ("9 minus 4 is 5 plus 2", []),
        ("3 divided by 0 is 3", ["3 divided by 0 is 3"]), ("1,000 minus 1 equals 999", []), ("2 times 3 is 6 / 1", []),
    ],
)  # fmt: skip
def test_steps_in_words(text: str, wrong: list[str]) -> None:
    assert wrong_spoken(text) == wrong


@pytest.mark.parametrize(
    ("rationale", "answer", "wrong"),
    [
        ("4 * 5 = 20. 20 + 3 = 23.", "23", ""),
        ("4 * 5 = 21. 21 + 3 = 24.", "24", "4 * 5 = 21 does not hold"),
        ("4*5=<<4*5=21>>21, so 24.", "24", "4*5=21 does not hold"),
        ("4 times 5 is 21, so 24.", "24", "4 times 5 is 21 does not hold"),
        ("4 * 5 = 20. 20 + 3 = 23.", "20", "the rationale ends at 23, and the answer is 20"),
        ("She has many.", "23", "the rationale ends at no number, and the answer is 23"),
        ("17 + 6 = 23.", "23", MADE_UP),
        ("17 + 6 = <<17+6=23>>23.", "23", MADE_UP),
        ("Let p be what she buys. 17 + 6 = 23.", "23", ""),
        ("She has 23.", "23", ""),
    ],
)
def test_what_is_wrong_with_a_rationale(rationale: str, answer: str, wrong: str) -> None:
    assert wrong_rationale(QUESTION, rationale, answer) == wrong


def test_a_question_with_words_for_numbers_or_with_few_says_nothing() -> None:
    assert not is_made_up("Ann has a dozen pears and eats half. How many?", "12 / 2 = 6")
    assert not is_made_up("Ann is 8. How old was she before?", "9 - 2 = 7")
    assert is_made_up("Ann has a dozen pears and eats half. How many?", "15 - 8 = 7")


@given(st.text(), st.text(), st.text(alphabet="0123456789.,-/% x"))
def test_no_text_breaks_it(question: str, rationale: str, answer: str) -> None:
    assert isinstance(wrong_rationale(question, rationale, answer), str)


@given(
    st.lists(
        st.sampled_from(["12", " ", "plus", "times", "is", ".", "=", "1,0", "$", "\n", "%", "9" * 400]), max_size=40
    )
)
def test_no_sum_breaks_it(parts: list[str]) -> None:
    wrong_rationale("".join(parts[::-1]), " ".join(parts), "12")


@pytest.mark.data
def test_solutions_of_gsm8k_are_hardly_ever_refused_and_those_of_other_questions_nearly_always(real_data: Path) -> None:
    task = load_task("gsm8k")
    rows = [
        row for split in ("train", "test") for row in read_examples(str(real_data / "gsm8k" / f"{split}.jsonl"), task)
    ]
    kinds = Counter(wrong_rationale(row.question, row.rationale or "", row.answer).rpartition(" ")[2] for row in rows)
    assert len(rows) == 8_792
    assert kinds[""] == len(rows) - 45
    draw = random.Random(0)
    others = [dataclasses.replace(row, rationale=draw.choice(rows).rationale) for row in rows[:2000]]
    refused = sum(bool(wrong_rationale(row.question, row.rationale or "", row.answer)) for row in others)
    made_up = sum(is_made_up(row.question, row.rationale or "") for row in others)
    assert refused > 1_900
    assert made_up > 400
