"""The form `numeric` and the task gsm8k: what models write, and the number that it means."""

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm2llm.components.shared import tasks
from llm2llm.components.shared.tasks import TASKS, Task
from llm2llm.components.shared.tasks.numbers import show

NUMERIC = Task(name="sums", form="numeric")
GSM8K = TASKS["gsm8k"]

# With and without a rationale alike.
PARSE = {
    # GSM8K
    "#### 18": "18",
    "####18": "18",
    "#### 18.": "18",
    "#### 18\n": "18",
    "####\n18": "18",
    "#### -5": "-5",
    "####-5": "-5",
    "#### - 5": "-5",
    "#### minus 5": "-5",
    "#### $18": "18",
    "#### \\$18": "18",
    "#### **18**": "18",
    "#### _18_": "18",
    "#### 1,234.50": "1234.5",
    "#### 18%": "18",
    "#### 18 eggs per day": "18",
    "#### 3/4 cup": "0.75",
    "#### 2/3": "2/3",
    "#### 1 1/2": "1.5",
    "#### .75": "0.75",
    "#### 16 - 3 = 13": "13",
    "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $<<9*2=18>>18.\n#### 18": "18",
    "#### 18\n#### 20": "18",
    "#### 18\n\nAlso 20": "18",
    "#### Step 1: count\n16-3-4 = 9\n#### Final answer\n18": "18",
    "#### 1. Count the eggs\n16-3-4 = 9\n#### 2. Sell them\n9*2 = 18 dollars": "18",
    # cues
    "A: 18": "18",
    "Answer: 18": "18",
    "Answer - 18": "18",
    "Answer – 18": "18",
    "Answer: -18": "-18",
    "Answer:\n18": "18",
    "The answer is 18.": "18",
    "The answer is $72.00.": "72",
    "The answer is -5": "-5",
    "The answer is \u2212 5": "-5",
    "The final answer is 1,080 miles, as shown in step 3.": "1080",
    "the answer would be 18": "18",
    "**Answer:** 18": "18",
    "**Answer**: 18": "18",
    "**Answer: 18**": "18",
    "**Final Answer**\n18": "18",
    "### Final Answer\n\n18": "18",
    "The answer is **$18**, since 9 * 2 is that.": "18",
    "The answer is 18 (9*2=18).": "18",
    "The answer is 9 * 2 = 18.": "18",
    "Answer: 9 eggs * $2 = $18": "18",
    "The answer is 18, not 20.": "18",
    "I think 18, but the answer is 20": "20",
    "The answer is 18.\nThis answer is right.": "18",
    "The answer is 18.\nI hope the answer helps!": "18",
    "The answer is:\n\\[\n18\n\\]": "18",
    # LaTeX
    "\\boxed{18}": "18",
    "So 9 of 20 give $\\boxed{\\$18}$.": "18",
    "\\boxed{\\text{18 dollars}}": "18",
    "\\boxed{18\\text{ dollars}}": "18",
    "\\boxed{1{,}234}": "1234",
    "\\boxed{-\\frac{1}{2}}": "-0.5",
    "\\boxed{2\\tfrac{1}{2}}": "2.5",
    "\\boxed{x = 5}": "5",
    "\\boxed{25\\text{ m}^2}": "25",
    "\\boxed{18^\\circ}": "18",
    "\\boxed{3} is no answer, \\boxed{4} is": "4",
    "The final answer is \\(18\\).": "18",
    "$x = -18$": "-18",
    "$- 5$": "-5",
    "So\n\\[ 9 \\times 2 = 18 \\]": "18",
    # the last line
    "= $18": "18",
    "= -$18": "-18",
    "So she makes 9 * 2 = $18 every day at the farmer's market.": "18",
    "9*2 = 18 dollars in 3 days": "18",
    "9 * 2 = 18 = $18": "18",
    "10/3 \\approx 3.33": "3.33",
    "She eats 3.\nJanet makes **$18** a day from 9 eggs.": "18",
    "Let a = 5.\nb = 7": "7",
    "-5": "-5",
    "**-5**": "-5",
    "$ -5 $": "-5",
    # not the next question
    "The answer is 18\nQuestion: What is 5+5?\nAnswer: 10": "18",
    "She makes 18\n\nQuestion: 20 apples": "18",
    # nothing to read, or no telling which
    "": None,
    "   \n": None,
    "no number": None,
    "eighteen": None,
    "####": None,
    "#### eighteen": None,
    "#### 1/0": None,
    "#### 3 + 4": None,
    "#### 18 or 20": None,
    "#### 5-6": None,
    "#### 1 000": None,
    "#### 1'000": None,
    "#### 12,34": None,
    "#### 9x2": None,
    "#### 7:30": None,
    "#### 10^2": None,
    "\\boxed{2\\pi}": None,
    "\\boxed{\\sqrt{2}}": None,
    "She has 5 apples and 3 oranges.": None,
    "between 3 and 5": None,
    "5 - 3": None,
    "The answer is not 18 but 20": None,
    "To find the answer, we multiply 9 by 2\nand so on": None,
    "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs.\nShe makes 9 * 2": None,  # truncated
    "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs.\nShe makes 9 * 2 = $<<9*2=1": None,
    "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs.\nShe": None,
    "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs.\n#### ": None,
}  # fmt: skip


@pytest.mark.parametrize("task", [NUMERIC, GSM8K], ids=lambda task: task.name)
@pytest.mark.parametrize(("completion", "parsed"), PARSE.items(), ids=map(repr, PARSE))
def test_parse(task: Task, completion: str, parsed: str | None) -> None:
    assert tasks.parse(task, completion) == parsed


@pytest.mark.parametrize("completion", ["18\n\nJanet has 16 eggs, of which she eats 3", "$18\nThat is 2 times 9."])
def test_a_number_on_the_first_line_answers_where_no_rationale_is_due(completion: str) -> None:
    assert tasks.parse(NUMERIC, completion) == "18"
    assert tasks.parse(GSM8K, completion) != "18"


@pytest.mark.parametrize(
    ("completion", "answer", "outcome"),
    [
        ("#### 18", "18", "correct"),
        ("#### 18.00", "$18", "correct"),
        ("#### 0.5", "1/2", "correct"),
        ("#### 1/2", "50%", "wrong"),
        ("#### 1/2", "12", "wrong"),
        ("#### 12", "1/2", "wrong"),
        ("#### 5", "-5", "wrong"),
        ("#### -5", "5", "wrong"),
        ("#### \u22125", "-5", "correct"),
        ("#### 0.333", "1/3", "wrong"),
        ("#### 0.1", "1/10", "correct"),
        ("#### 5000000", "5 million", "correct"),
        ("#### -0", "0", "correct"),
        ("", "18", "unparseable"),
        ("18 or 20", "18", "unparseable"),
    ],
)
def test_grade(completion: str, answer: str, outcome: str) -> None:
    assert tasks.grade(GSM8K, completion, answer)[1] == outcome


def test_an_answer_that_is_no_number_matches_nothing() -> None:
    assert not tasks.matches(NUMERIC, "18", "many")
    assert not tasks.matches(NUMERIC, "many", "many")


@pytest.mark.parametrize(
    ("answer", "rationale", "expected"),
    [
        ("16-7=9\n#### 9", None, ("9", "16-7=9")),
        ("#### 9", None, ("9", None)),
        ("9", "16-7=9", ("9", "16-7=9")),
        (" $1,234 ", None, ("$1,234", None)),
        (9, None, ("9", None)),
        (2.5, None, ("2.5", None)),
        (1e22, None, ("1e+22", None)),
    ],
)
def test_normalise(answer: object, rationale: str | None, expected: tuple[str, str | None]) -> None:
    assert tasks.normalise(GSM8K, answer, [], rationale) == expected


def test_normalise_leaves_out_a_rationale_that_the_task_does_not_want() -> None:
    assert tasks.normalise(NUMERIC, "16-7=9\n#### 9", [], "7 less") == ("9", None)


@pytest.mark.parametrize(
    "answer", ["many", "", "5 or 6", "16-7=9", "16-7=9\n####", "1/0", True, float("nan"), "9" * 2000]
)
def test_normalise_refuses_what_is_not_one_number(answer: object) -> None:
    with pytest.raises(ValueError, match="must be one number"):
        tasks.normalise(GSM8K, answer, [], None)


@pytest.mark.parametrize("rationale", ["first\n#### 5\nthen", "first\nQuestion: what?"])
def test_normalise_refuses_a_target_that_would_be_read_as_another_answer(rationale: str) -> None:
    with pytest.raises(ValueError, match="would be graded"):
        tasks.normalise(GSM8K, "18", [], rationale)


def test_target() -> None:
    assert tasks.target(GSM8K, "9", "16-7=9") == "16-7=9\n#### 9"
    assert tasks.target(GSM8K, "9", None) == "#### 9"
    assert tasks.target(NUMERIC, "9", "16-7=9") == "9"


HUGE = {
    "digits": "9" * 300_000,
    "marked digits": "#### " + "9" * 300_000,
    "fraction": "1/" + "7" * 300_000,
    "groups": "1" + ",111" * 50_000,
    "ragged groups": "1" + ",1111" * 50_000,
    "fractions": "1/" * 100_000,
    "points": "1." * 100_000,
    "signs": "- " * 100_000,
    "blanks": "1" + " " * 300_000 + "1",
    "line breaks": "\n" * 300_000,
    "equals": "1=" * 50_000,
    "cues": "the final answer " * 20_000,
    "cue blanks": "the " + " " * 300_000 + "answer",
    "lone As": "A " * 100_000,
    "boxes": "\\boxed{" * 50_000,
    "fracs": "\\frac{" * 50_000,
    "annotations": "<<" * 100_000,
    "stars": "*" * 300_000,
    "hashes": "#" * 300_000,
    "markers": "#### " * 50_000,
    "underscores": "_" * 300_000,
    "exponent": "1e999999999",
}


@pytest.mark.parametrize("completion", HUGE.values(), ids=HUGE)
def test_babble_does_not_hang(completion: str) -> None:
    start = time.process_time()
    tasks.parse(NUMERIC, completion)
    # The processor's time, whatever else the machine does. Linear: tenths of a second; quadratic: minutes.
    assert time.process_time() - start < 30


integers = st.integers(-(10**12), 10**12)
decimals = st.decimals(-(10**9), 10**9, allow_nan=False, places=2)
RENDERINGS = [
    "{n}", "{n}.", " {n} ", "{n}\n\nBut then again, 7",
    "{n:,}", "{n:,}.", "**{n}**", "{n} apples", "{n}%", "{n} €", "\\({n}\\)",
]  # fmt: skip


@given(
    integers | decimals,
    st.sampled_from(RENDERINGS),
    st.sampled_from(["#### ", "####", "A: ", "The answer is ", "Answer: "]),
)
def test_any_rendering_of_a_number_is_read(number: object, rendering: str, cue: str) -> None:
    completion = f"First 3, then 4.\n{cue}{rendering.format(n=number)}"
    assert tasks.grade(GSM8K, completion, str(number)) == (show(Fraction(str(number))), "correct")


@given(
    st.integers(0, 10**12) | st.decimals(0, 10**9, places=2),
    st.sampled_from(["-${n:,}", "$-{n:,}", "-{n}", "\u2212{n}"]),
)
def test_any_rendering_of_a_negative_number_is_read(number: object, rendering: str) -> None:
    parsed = tasks.parse(GSM8K, "#### " + rendering.format(n=number))
    assert parsed == show(-Fraction(str(number)))


@given(st.fractions(max_denominator=10**6))
def test_a_number_never_matches_its_negative(value: Fraction) -> None:
    assume(value != 0)
    assert tasks.grade(GSM8K, f"#### {show(value)}", show(value))[1] == "correct"
    assert tasks.grade(GSM8K, f"#### {show(-value)}", show(value))[1] == "wrong"


@given(st.text() | st.text(alphabet="0123456789.,/-+=$%*#^_ aAnswerisboxd\\{}()\n½²−"))
def test_parse_never_raises_and_reads_its_own_answer_again(text: str) -> None:
    for task in (NUMERIC, GSM8K):
        parsed, outcome = tasks.grade(task, text, "18")
        assert (parsed, outcome) == tasks.grade(task, text, "18")
        assert (parsed is None) == (outcome == "unparseable")
        if parsed is not None:
            assert tasks.parse(task, parsed) == parsed
            assert tasks.grade(task, tasks.target(task, parsed, None), parsed)[1] == "correct"


@pytest.mark.data
@pytest.mark.parametrize("split", ["train", "test"])
def test_gold_answers_of_gsm8k(real_data: Path, split: str) -> None:
    lines = (real_data / "gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").strip().split("\n")
    read_without_marker = 0
    for line in lines:
        gold = json.loads(line)["answer"]
        answer, rationale = tasks.normalise(GSM8K, gold, [], None)
        assert tasks.grade(GSM8K, tasks.target(GSM8K, answer, rationale), answer)[1] == "correct"
        assert tasks.grade(GSM8K, gold, answer)[1] == "correct"
        read_without_marker += tasks.grade(GSM8K, rationale or "", answer)[1] == "correct"
    assert read_without_marker / len(lines) > 0.95  # the last line of a rationale says the same
