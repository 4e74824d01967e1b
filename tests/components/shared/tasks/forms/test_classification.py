"""The form `classification` and the tasks snips, trec and sst2."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.thoughts import without_thoughts
from llm2llm.components.shared.tasks import TASKS, Task, load_task
from llm2llm.components.teacher_augment.prompt_files import about


def labelled(*labels: str) -> Task:
    return Task(name="own", form="classification", labels=list(labels))


SNIPS, TREC, SST2 = TASKS["snips"], TASKS["trec"], TASKS["sst2"]
PARTS = labelled("spam", "not spam", "play", "play_music", "music")
SIGNS = labelled("-1", "0", "1")
STARS = labelled("1", "2")
MINUS = labelled("\u2212A", "+A")
FACES = labelled(":)", ":(")
HALVES = labelled("2.5", "3.0", "3.5")
TRUTHS = labelled("true", "false")
CASES = labelled("it", "IT", "C", "C.", "C++")


@pytest.mark.parametrize(
    ("task", "completion", "parsed"),
    [
        (SNIPS, "PlayMusic", "PlayMusic"),
        (SNIPS, " PlayMusic\n", "PlayMusic"),
        (SNIPS, "PlayMusic.", "PlayMusic"),
        (SNIPS, '"PlayMusic"', "PlayMusic"),
        (SNIPS, "**PlayMusic**", "PlayMusic"),
        (SNIPS, "playmusic", "PlayMusic"),
        (SNIPS, "PLAY_MUSIC", "PlayMusic"),
        (SNIPS, "play-music", "PlayMusic"),
        (SNIPS, "Play music", "PlayMusic"),
        (SNIPS, "Intent: PlayMusic", "PlayMusic"),
        (SNIPS, "Answer: PlayMusic", "PlayMusic"),
        (SNIPS, "**Answer:** PlayMusic", "PlayMusic"),
        (SNIPS, "The answer is play music.", "PlayMusic"),
        (SNIPS, "The user wants to play music.", "PlayMusic"),
        (SNIPS, "PlayMusic\nGetWeather", "PlayMusic"),
        (SNIPS, "Not GetWeather. The answer is PlayMusic", "PlayMusic"),
        (SNIPS, "Answer: PlayMusic\nGetWeather is another intent.", "PlayMusic"),
        (SNIPS, "PlayMusic\nCommand: what's the weather?\nIntent: GetWeather", "PlayMusic"),
        (SNIPS, "It is PlayMusic.\nCommand: what's the weather?\nIntent: GetWeather", "PlayMusic"),
        (SNIPS, "PlayMusic or GetWeather", None),
        (SNIPS, "The answer is PlayMusic or GetWeather", None),
        (SNIPS, "DisplayMusicVideo", None),
        (SNIPS, "Play", None),
        (SNIPS, "", None),
        (SNIPS, " \n", None),
        (SNIPS, "...", None),
        (TREC, "numbers", None),
        (TREC, "a number", "number"),
        (TREC, "identity", None),
        (SST2, "Positive!", "positive"),
        (SST2, "The sentiment is positive, I think.", "positive"),
        (SST2, "positively bad", None),
        (SST2, "neither positive nor negative", None),
        (PARTS, "not spam", "not spam"),
        (PARTS, "It is not spam.", "not spam"),
        (PARTS, "It is spam.", "spam"),
        (PARTS, "spam, or not spam", None),
        (PARTS, "play music", "play_music"),
        (PARTS, "they play_music here", "play_music"),
        (PARTS, "they play it", "play"),
        (SIGNS, "-1", "-1"),
        (SIGNS, "1", "1"),
        (SIGNS, "1.", "1"),
        (SIGNS, "-1.", "-1"),
        (SIGNS, "the label is -1", "-1"),
        (SIGNS, "10", None),
        (SIGNS, "\u22121", "-1"),
        (SIGNS, "It is \u22121.", "-1"),
        (STARS, "-1", None),
        (STARS, "class-1", "1"),
        (STARS, "- 1", "1"),
        (SST2, "-positive", "positive"),
        (SST2, "not positive", None),
        (SST2, "It is positive, not negative.", "positive"),
        (SST2, "Not negative; positive.", "positive"),
        (SST2, "the knot positive", "positive"),
        (MINUS, "it is \u2212a", "\u2212A"),
        (FACES, ":(", ":("),
        (FACES, "...", None),
        (SST2, "It isn't positive.", None),
        (SST2, "no positive words, so negative", "negative"),
        (SST2, "This isn\u2019t really a positive review", None),
        (SST2, "non-positive", None),
        (SST2, "rather negative than positive", None),
        (SST2, "not only positive", "positive"),
        (SST2, "Das ist nicht positive, sondern negative", "negative"),
        (SST2, "ce n'est pas positive", None),
        (SST2, "positive is not what it is", None),
        (HALVES, "3", "3.0"),
        (HALVES, "a 3.5", "3.5"),
        (STARS, "1.5", None),
        (STARS, "2.0", "2"),
        (CASES, "IT", "IT"),
        (CASES, "it", "it"),
        (CASES, "C.", "C."),
        (CASES, "C", "C"),
        (CASES, "c++", "C++"),
    ],
)
def test_parse(task: Task, completion: str, parsed: str | None) -> None:
    assert tasks.parse(task, completion) == parsed


@pytest.mark.parametrize(
    ("task", "answer", "label"),
    [
        (SST2, "positive", "positive"),
        (SST2, " positive ", "positive"),
        (SST2, "positive\u200b", "positive"),
        (SIGNS, 1, "1"),
        (SIGNS, "0", "0"),
        (SIGNS, -1.0, "-1"),
        (HALVES, 3, "3.0"),
        (HALVES, 3.0, "3.0"),
        (HALVES, "3", "3.0"),
        (HALVES, Decimal("3.500"), "3.5"),
        (TRUTHS, True, "true"),
        (TRUTHS, "FALSE", "false"),
    ],
)
def test_normalise(task: Task, answer: Any, label: str) -> None:
    assert tasks.normalise(task, answer, [], "a rationale") == (label, None)


@pytest.mark.parametrize(
    ("task", "answer", "says"),
    [
        (SST2, "postive", r"'postive' is not in the label set .*; did you mean 'positive'\?"),
        (SST2, "2", "'2' is not in the label set"),
        (SST2, 1, "'1' is not in the label set"),  # never a place in the labels: nothing here tells what it counts from
        (SST2, "0", "'0' is not in the label set"),
        (SST2, True, "'True' is not in the label set"),
        (labelled("3", "3.0"), "3.00", "'3.00' is not in the label set"),
        (SST2, "-1", "'-1' is not in the label set"),
        (SST2, "9" * 100, "is not in the label set"),
        (SST2, "", "is not in the label set"),
        (SST2, "Positive", "is not in the label set"),
        (SIGNS, "2", "'2' is not in the label set"),  # labels that are numbers are not counted
        (labelled(*(f"label {i}" for i in range(99))), "x", r"'label 19', '\.\.\.'\]$"),
    ],
)
def test_normalise_refuses(task: Task, answer: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tasks.normalise(task, answer, [], None)


def test_grade() -> None:
    assert tasks.grade(SST2, "positive", "positive") == ("positive", "correct")
    assert tasks.grade(SST2, "negative", "positive") == ("negative", "wrong")
    assert tasks.grade(SST2, "good", "positive") == (None, "unparseable")


CASINGS = [str, str.lower, str.upper, str.title, str.swapcase]
every_label = st.sampled_from([(task, label) for task in (SNIPS, TREC, SST2, PARTS) for label in task.labels])


@given(
    every_label,
    st.sampled_from(CASINGS),
    st.text(" .,;:!?\"'`*_()[]\n", max_size=4),
    st.text(" .,;:!?\"'`*_()[]\n", max_size=4),
)
def test_a_label_in_any_case_and_punctuation_is_read(
    pair: tuple[Task, str], casing: Any, before: str, after: str
) -> None:
    task, label = pair
    assert tasks.parse(task, before + casing(label) + after) == label


@given(st.lists(st.text(min_size=1, max_size=8).filter(lambda t: t == t.strip()), min_size=2, max_size=6, unique=True))
def test_any_label_that_a_user_thinks_up_is_read_from_its_own_target(labels: list[str]) -> None:
    assume(not any(without_thoughts(label) != label for label in labels))  # refused
    task = labelled(*labels)
    for label in labels:
        assert tasks.normalise(task, label, [], None) == (label, None)
        assert tasks.grade(task, tasks.target(task, label, None), label) == (label, "correct")


@given(st.text())
def test_text_without_any_label_is_unparseable(text: str) -> None:
    bare = "".join(character for character in text.casefold() if character.isalnum())
    if not any(label in bare for label in SST2.labels):
        assert tasks.grade(SST2, text, "positive") == (None, "unparseable")


@given(
    st.text()
    | st.lists(st.sampled_from(["Answer:", "positive", "negative", "\n", "not", "Sentence:", "."])).map(" ".join)
)
def test_parse_gives_a_label_or_nothing(text: str) -> None:
    parsed = tasks.parse(SST2, text)
    assert parsed in (*SST2.labels, None)
    assert parsed == tasks.parse(SST2, text)


def test_descriptions_of_labels() -> None:
    """Given as a mapping, told to the teacher, and to the student where the task says so."""
    values = {"name": "mail", "form": "classification", "labels": {"spam": "nobody asked\nfor it", "ham": None}}
    task = load_task(values)
    assert (task.labels, task.label_descriptions) == (["spam", "ham"], {"spam": "nobody asked\nfor it"})
    assert task == load_task(
        {**values, "labels": ["spam", "ham"], "label_descriptions": {"spam": "nobody asked\nfor it"}}
    )
    assert load_task(task.model_dump()) == task
    assert about(task).endswith("Labels:\n- spam: nobody asked for it\n- ham")
    plain = tasks.prompt(task.model_copy(update={"label_descriptions": {}}), "Buy now", [])
    assert tasks.prompt(task, "Buy now", []) == plain
    both = load_task({**values, "describe_labels_to": "both", "instruction": "Which?"})
    assert tasks.prompt(both, "Buy now", []) == (
        "Which?\nLabels:\n- spam: nobody asked for it\n- ham\nQuestion: Buy now\nAnswer:"
    )
    assert "spam" not in about(load_task({**values, "describe_labels_to": "nobody"}))
