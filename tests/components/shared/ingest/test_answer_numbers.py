"""Whole numbers among answers: text, or places whose start is known; never guessed."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.ingest.grade_file import grade_file
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.tasks import Columns, Task
from llm2llm.components.shared.tasks.options import option_of


def classification(*labels: str, numbers: Any = "auto") -> Task:
    return Task(name="c", form="classification", labels=list(labels), columns=Columns(answer_numbers=numbers))


def choice(numbers: Any = "auto", choices: str | list[str] = "choices") -> Task:
    return Task(name="m", form="multiple_choice", columns=Columns(choices=choices, answer_numbers=numbers))


MOOD = ("negative", "neutral", "positive")
STARS = ("1.0", "1.5", "2.0", "2.5", "3.0")
PLACES = ["Paris", "Rome", "Oslo", "Bern"]


def answers(folder: Path, task: Task, given: list[Any], suffix: str = ".jsonl", choices: Any = None) -> list[str]:
    rows = [{"question": f"question {i}", "answer": one, **({"choices": choices} if choices is not None else {})}
            for i, one in enumerate(given)]  # fmt: skip
    path = folder / f"rows{suffix}"
    if suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in r.items()} for r in rows
            )
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [row.answer for row in read_examples(str(path), task)]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("given", "labels"),
    [
        ([0, 1, 2], ["negative", "neutral", "positive"]),
        (["0", "2"], ["negative", "positive"]),
        ([0.0, 2.0], ["negative", "positive"]),
        (["neutral", 0], ["neutral", "negative"]),
    ],
)
def test_a_column_with_a_0_counts_from_0(tmp_path: Path, suffix: str, given: list[Any], labels: list[str]) -> None:
    assert answers(tmp_path, classification(*MOOD), given, suffix) == labels


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("given", [[1, 2], ["1", "2"], [1.0, 2.0], [1, 2, 3], ["positive", 1], [3]])
def test_a_column_without_a_0_is_asked_about(tmp_path: Path, suffix: str, given: list[Any]) -> None:
    with pytest.raises(UserError, match=r"set task\.columns\.answer_numbers to from_zero, from_one or text"):
        answers(tmp_path, classification(*MOOD), given, suffix)


def test_what_is_set_is_done(tmp_path: Path) -> None:
    assert answers(tmp_path, classification(*MOOD, numbers="from_one"), [1, "3"]) == ["negative", "positive"]
    assert answers(tmp_path, classification(*MOOD, numbers="from_zero"), [1, "2.0"]) == ["neutral", "positive"]
    with pytest.raises(UserError, match=r"the answer 0 is no place in .*, counted from 1: 1 to 3"):
        answers(tmp_path, classification(*MOOD, numbers="from_one"), [1, 0])
    with pytest.raises(UserError, match="the answer '1' is not in the label set"):
        answers(tmp_path, classification(*MOOD, numbers="text"), [1, 0])
    with pytest.raises(UserError, match=r"the answer 3 is no place in .*, counted from 0: 0 to 2"):
        answers(tmp_path, classification(*MOOD), [0, 3])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_labels_that_are_numbers_are_matched_as_text(tmp_path: Path, suffix: str) -> None:
    assert answers(tmp_path, classification(*STARS), [3.0, 1, "2", 2.5, "1.50"], suffix) == [
        "3.0",
        "1.0",
        "2.0",
        "2.5",
        "1.5",
    ]
    with pytest.raises(UserError, match="the answer '0' is not in the label set"):
        answers(tmp_path, classification(*STARS), [3.0, 0], suffix)
    assert answers(tmp_path, classification("-1", "1"), [-1, 1.0], suffix) == ["-1", "1"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("given", [["2", "A"], [2], ["4"], ["B", 3]])
def test_keys_that_may_count_from_one_are_asked_about(tmp_path: Path, suffix: str, given: list[Any]) -> None:
    with pytest.raises(UserError, match=r"set task\.columns\.answer_numbers to"):
        answers(tmp_path, choice(), given, suffix, PLACES)
    assert answers(tmp_path, choice("from_one"), given, suffix, PLACES) == [
        one if isinstance(one, str) and one.isalpha() else "ABCD"[int(one) - 1] for one in given
    ]


def test_a_number_that_is_a_choice_and_may_be_a_place_is_asked_about(tmp_path: Path) -> None:
    numbers = ["4", "2", "24", "120"]
    with pytest.raises(UserError, match="the answer 2 may be the text '2' or a place, of '24'"):
        answers(tmp_path, choice(), ["2"], choices=numbers)
    assert answers(tmp_path, choice(), [24, "120"], choices=numbers) == ["C", "D"]
    assert answers(tmp_path, choice("text"), [2, "4.0"], choices=numbers) == ["B", "A"]
    assert answers(tmp_path, choice("from_zero"), [2, "3"], choices=numbers) == ["C", "D"]
    with pytest.raises(UserError, match="the answer '7' is none of the choices"):
        answers(tmp_path, choice(), [7], choices=numbers)


@pytest.mark.parametrize(
    "choices",
    [{"text": PLACES, "label": ["1", "2", "3", "4"]}, {"1": "Paris", "2": "Rome", "3": "Oslo", "4": "Bern"},
     [{"key": str(i + 1), "value": place} for i, place in enumerate(PLACES)]],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_row_with_its_own_keys_needs_no_guess(tmp_path: Path, choices: Any, suffix: str) -> None:
    assert answers(tmp_path, choice(), ["2", 4, "Oslo"], suffix, choices) == ["B", "D", "C"]


def test_keys_beside_a_path(tmp_path: Path) -> None:
    choices = {"text": PLACES, "label": ["A", "B", "C", "D"]}
    assert answers(tmp_path, choice(choices="choices.text"), ["B", "D"], choices=choices) == ["B", "D"]
    with pytest.raises(
        UserError, match=r"must hold a list, got dict with 'text'; a path such as choices\.text may lead"
    ):
        answers(tmp_path, choice(), ["B"], choices={"text": PLACES})


def test_a_completion_is_graded_by_the_same_rule(tmp_path: Path) -> None:
    lines = [{"completion": "neutral", "answer": 1}, {"completion": "negative", "answer": 0}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert grade_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", classification(*MOOD)) == {"correct": 2}
    (tmp_path / "in.jsonl").write_text(json.dumps(lines[0]))
    with pytest.raises(UserError, match=r"in\.jsonl:1: the answer 1 may be 'neutral', counted from 0 or 'negative'"):
        grade_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", classification(*MOOD))


def test_a_completion_may_be_any_of_several_right_answers(tmp_path: Path) -> None:
    lines = [{"completion": "Curie", "answer": ["Marie Curie", "Curie"]}, {"completion": "Bohr", "answer": ["Curie"]}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    counts = grade_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", Task(name="t", form="text"))
    assert counts == {"correct": 1, "wrong": 1}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data(), st.integers(2, 6), st.sampled_from([0, 1]))
def test_no_column_is_ever_read_with_the_wrong_start(tmp_path: Path, data: Any, count: int, start: int) -> None:
    labels = [f"label {chr(97 + i)}" for i in range(count)]
    truth = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    shape = data.draw(st.sampled_from([int, str, float, lambda number: f"{number}.0"]))
    given_as = [shape(place + start) for place in truth]
    try:
        found = answers(tmp_path, classification(*labels), given_as)
    except UserError:
        assert start == 1 or 0 not in truth
    else:
        assert found == [labels[place] for place in truth]


@given(st.lists(st.decimals(-99, 99, places=1, allow_nan=False).map(str), min_size=2, max_size=6, unique_by=float))
def test_a_number_in_any_spelling_is_its_label(labels: list[str]) -> None:
    for place, label in enumerate(labels):
        for spelling in (label, float(label), f"{float(label)}00", f"{float(label):+}"):
            assert option_of(spelling, labels) == place
