"""What a language model's rows are checked for without asking, also on real rows."""

import dataclasses
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.tasks import Task, load_task
from llm2llm.components.teacher_augment.checks import PASSED, REASONS, Check, failed_check, given_away, usual
from tests.support.fake_teacher import examples

SNIPS = load_task("snips")
GSM8K = load_task("gsm8k")
CHOICE = Task(name="choice", form="multiple_choice")
LETTERS = Task(name="letters", form="classification", labels=["positive", "negative", "not_sure", "B2"])
TEXT = Task(name="text", form="text")


@pytest.fixture(scope="session")
def fails(sums, example):
    """The first check that a row fails, beside the fixture `sums` as seeds."""

    def of(question: str, answer: str = "5", rationale: str | None = "She has 3+2=5 pears.", task: Task = GSM8K,
           parent: Example = sums[0], choices: list[str] | None = None) -> tuple[Check, str] | None:  # fmt: skip
        row = example(question, answer, choices=choices, rationale=rationale)
        return failed_check(row, parent, task, usual(sums), list(PASSED))

    return of


GOOD = "Ann has 3 pears and buys 2 more. How many has she?"


def test_a_good_row_fails_none(fails) -> None:
    assert fails(GOOD) is None


@pytest.mark.parametrize(
    ("rationale", "detail"),
    [
        ("She has 3+2=<<3+2=6>>6 pears, so 5.", "3+2=6 does not hold"),
        ("She has 3 + 2 = 6 pears, so 5.", "3 + 2 = 6 does not hold"),
        ("She has <<three+2=5>>5 pears.", "three+2=5 does not hold"),
        ("She has <<9**9**9=5>>5 pears.", "9**9**9=5 does not hold"),
        ("She has 3+3=<<3+3=6>>6 pears.", "the rationale ends at 6, and the answer is 5"),
        ("She has five times as many, 20.", "the rationale ends at 20, and the answer is 5"),
        ("She has 3+2=5.\nSo there are 9 pears.", "the rationale ends at 9, and the answer is 5"),
        ("She has many pears.", "the rationale ends at no number, and the answer is 5"),
    ],
)
def test_wrong_arithmetic(fails, rationale: str, detail: str) -> None:
    if "five times" in rationale:  # a number in words, but not the answer
        assert fails(GOOD, "4", rationale) == ("arithmetic", "the rationale ends at 20, and the answer is 4")
    else:
        assert fails(GOOD, rationale=rationale) == ("arithmetic", detail)


@pytest.mark.parametrize(
    ("task", "question", "choices", "answer", "given"),
    [
        (GSM8K, "Ann has 3 pears. The answer is 5.", [], "5", True),
        (GSM8K, "Ann has 3 pears.\n#### 5", [], "5", True),
        (GSM8K, "Ann has 3 pears. Answer: $5.00", [], "5", True),
        (GSM8K, "Ann has 5 pears and eats none. How many has she?", [], "5", False),
        (GSM8K, "August solved a problem with an answer of 600, then one with twice that.", [], "1200", False),
        (GSM8K, "The answer is 6, she thinks. What is 2+3?", [], "5", False),
        (SNIPS, "play music by Too Poetic", [], "PlayMusic", False),
        (SNIPS, "PlayMusic by Too Poetic", [], "PlayMusic", True),
        (SNIPS, "add it (intent: AddToPlaylist)", [], "AddToPlaylist", True),
        (SNIPS, "add it. The answer is add to playlist", [], "AddToPlaylist", True),
        (SNIPS, "is PlayMusic a book?", [], "RateBook", False),
        (LETTERS, "a positive film", [], "positive", False),
        (LETTERS, "a good film. Answer: positive", [], "positive", True),
        (LETTERS, "is it not_sure?", [], "not_sure", True),
        (LETTERS, "vitamin B2 helps", [], "B2", True),
        (LETTERS, "vitamin B23 helps", [], "B2", False),
        (CHOICE, "Which? The answer is B.", ["one", "two"], "B", True),
        (CHOICE, "Which? The answer is B.", ["one", "two"], "A", False),
        (CHOICE, "Which?", ["one (correct)", "two"], "A", True),
        (CHOICE, "Which is correct?", ["one ✓", "two"], "A", True),
        (CHOICE, "Which is right?", ["one", "the right one"], "B", False),
        (TEXT, "Marie Curie was born in Warsaw. Where was she born?", [], "Warsaw", False),
        (TEXT, "Where was she born? Answer: Warsaw.", [], "Warsaw", True),
    ],
)
def test_a_question_that_tells_its_answer(
    task: Task, question: str, choices: list[str], answer: str, given: bool
) -> None:
    assert bool(given_away(task, question, choices, answer)) == given


@pytest.mark.parametrize(
    "question",
    [
        "Sure! Here is one: Ann has 3 pears.", "Sure, Ann has 3 pears", "Here's a new example for you: Ann",
        "Certainly: Ann has 3 pears.", "Question: Ann has 3 pears.", "New question: Ann", "Example 2: Ann has 3 pears.",
        "As an AI, I have 3 pears and buy 2.", "**Question:** Ann has 3 pears.", "Paraphrase 1: Ann has three pears",
        "Ann has 3 pears and buys 2. Let me know if you need more!", "Ann has 3 pears. I hope this helps!",
    ],
)  # fmt: skip
def test_boilerplate(fails, question: str) -> None:
    assert fails(question) is not None
    assert fails(question)[0] == "boilerplate"


@pytest.mark.parametrize("question", ["Sure as eggs is eggs, Ann has 3 pears.", "Here is Ann with 3 pears, buying 2.",
                                      "Great oaks grow 3 or 2 pears a year.", "Questionable pears are 3, good ones 2.",
                                      "An example of a pear costs 3, another one 2."])  # fmt: skip
def test_what_is_like_boilerplate_but_is_none(fails, question: str) -> None:
    assert fails(question) is None


def test_what_stands_in_the_parent_is_no_boilerplate(fails, example) -> None:
    parent = example("Question: Ann has 3 pears, how many?", "5", rationale="3+2=5")
    assert fails("Question: Ann has 4 pears, how many?", parent=parent) is None


@pytest.mark.parametrize("token", ["<|im_end|>", "</s>", "[INST]", "<start_of_turn>", "<｜User｜>"])
def test_control_tokens(fails, token: str) -> None:
    assert fails(f"{GOOD} {token}")[0] == "control_tokens"
    assert fails(GOOD, rationale=f"{token} 3+2=5")[0] == "control_tokens"


def test_length(fails) -> None:
    assert fails("Ann?")[0] == "length"
    assert fails("Ann has 3 pears. " * 20)[0] == "length"
    assert fails(GOOD, rationale="She has 3+2=5. " * 30)[0] == "length"


def test_script(fails) -> None:
    assert fails("У Ани 3 груши, и она покупает ещё 2. Сколько у неё груш?")[0] == "script"
    assert fails("安有3个梨,又买了2个。现在一共有多少个梨?请算一算吧。")[0] == "script"
    assert fails("Ann, in Greek Άννα, has 3 pears and buys 2 more. How many pears does she have now?") is None
    assert fails("3 + 2 = ? 3 + 2 = ? 3 + 2") is None, "no letters at all"


def test_only_the_wanted_checks_are_made(augment, colours, seeds) -> None:
    for checks, kept in ((["boilerplate"], 0), (["length"], 1), ([], 1)):
        got, _ = augment(
            lambda ask, n: examples(("Sure, a blue thing, number 20", "blue")), colours, seeds, 1, checks=checks
        )
        assert len(got.candidates) == kept
        assert [row.checks[1:] for row in got.candidates] == [[PASSED[check] for check in checks]] * kept
        assert [reject.reason for reject in got.rejects] == ["boilerplate"] * (1 - kept)


def test_choices_that_differ_in_case_only_are_invalid(augment, example) -> None:
    seed = example("Which?", "A", choices=["one", "two"])
    row = {"question": "Which one?", "answer": "A", "choices": ["Three", "three."]}
    got, _ = augment(lambda ask, n: examples(row), CHOICE, [seed], 1)
    assert got.rejects[0].detail == "two of the choices are the same but for case or punctuation"


def test_every_check_has_a_reason_and_a_name() -> None:
    assert REASONS.keys() == PASSED.keys()
    assert len(set(REASONS.values())) == len(set(PASSED.values())) == len(PASSED)


@given(st.text(), st.text(), st.text())
def test_no_text_breaks_a_check(sums, question: str, answer: str, rationale: str) -> None:
    for task in (GSM8K, SNIPS, CHOICE, TEXT):
        row = Example(id="x", question=question, answer=answer or "5", rationale=rationale, choices=["a", question])
        failed = failed_check(row, sums[0], task, usual(sums), list(PASSED))
        assert failed is None or failed[1]


@pytest.mark.data
@pytest.mark.parametrize("name", ["gsm8k", "snips"])
@pytest.mark.parametrize("seeds", [10, 100])
def test_real_rows_are_hardly_ever_refused(real_data: Path, name: str, seeds: int) -> None:
    """With bounds from a few of them; below half a percent, for each check and all together."""
    task = load_task(name)
    rows = [row for split in ("train", "test") for row in read_examples(str(real_data / name / f"{split}.jsonl"), task)]
    bounds = usual(random.Random(seeds).sample(rows, seeds))
    checks: list[Any] = [check for check in PASSED if check != "arithmetic"]
    failed = Counter(
        found[0]
        for row in rows
        if (found := failed_check(row, dataclasses.replace(row, question=""), task, bounds, checks))
    )
    print(f"{name}, {seeds} seeds: {dict(failed)} of {len(rows)}")
    assert failed.total() < 0.005 * len(rows)
