"""The report's controls: the headline is the gain over the seeds alone with as many steps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from llm2llm.components.evaluate.evaluate import confusions_of
from llm2llm.components.report.controls import majority
from llm2llm.components.report.inputs import metric_figures
from llm2llm.components.report.report import render_html, render_markdown
from llm2llm.components.report.summary import summarise
from llm2llm.components.report.verdict import verdict
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import mcnemar_p
from llm2llm.components.shared.data.schemas import Confusion, Control, Example, Score, Split
from llm2llm.components.shared.tasks import Task
from llm2llm.pipelines.inspect.tables import summary_table
from tests.support import builders
from tests.support.builders import confusion, decision, example, prediction, score

N = 200
IDS = [f"{number:04}" for number in range(N)]


def scored(iteration: int, split: Split, right: range, steps: int) -> Score:
    ids = [IDS[place] for place in right]
    return replace(score(iteration, split, len(ids), N, 4 + 2 * iteration), correct_ids=ids, steps=steps)


def control(right: range, split: Split = "test", n: int = N) -> Control:
    return builders.control([IDS[place] for place in right], n, split)


def summary(controls: list[Control], go_on: bool = False, confusions: Sequence[Confusion] = ()) -> dict[str, Any]:
    """Iteration 1 is 17 points ahead of iteration 0 on test, with five times the steps."""
    history = [
        scored(0, "validation", range(100), 10), scored(0, "test", range(146), 10),
        scored(1, "validation", range(150), 50), replace(scored(1, "test", range(180), 50), gain=0.17, gain_low=0.12,
                                                         gain_high=0.22, gain_p=1e-6),
    ]  # fmt: skip
    rows = [example(f"seed {i}") for i in range(4)]
    decisions = [decision(0, 0, 0, True), decision(1, 0, 1, go_on)]
    return summarise(rows, history, [], decisions, [], [], controls=controls, confusions=confusions)


def test_more_steps_alone_are_no_gain() -> None:
    """As on SNIPS: 73% to 90% by the loop, and 93% by the seeds alone with as many steps."""
    numbers = summary([control(range(14, N))])
    found = verdict(numbers)
    assert found.outcome == "unclear" or found.outcome == "worse"
    assert "than the seeds alone with as many steps on the test split" in found.headline
    assert "Worse: 3.0 points lower" in found.headline
    words = " ".join(found.sentences)
    assert "93.0%" in words
    assert "of the seeds alone, trained for as many steps (50 optimiser steps)" in words
    assert "Iteration 0, with 10 steps, has 73.0% on the test split: +17.0 points since then" in words


def test_the_headline_is_the_gain_over_the_control_everywhere() -> None:
    numbers = summary([control(range(150)), control(range(120), "validation")])
    (one,) = numbers["controls"]
    assert (one["name"], one["steps"]) == ("steps", 50)
    assert one["gain"]["test"]["value"] == pytest.approx(0.15)
    assert one["gain"]["test"]["low"] < 0.15 < one["gain"]["test"]["high"]
    assert one["gain"]["test"]["p"] == mcnemar_p([False] * 30, [True] * 30)
    headline = "Better: 15.0 points higher than the seeds alone with as many steps on the test split"
    assert verdict(numbers).headline == headline
    html, markdown = render_html({"name": "x"}, numbers, [], [], []), render_markdown({"name": "x"}, numbers, [])
    for text in (html, markdown, summary_table(numbers)):
        assert headline in text
    for text in (html, markdown):
        assert "Seeds alone, as many steps" in text
        assert "+15.0 points" in text
    assert "seeds alone, as many steps  4 " in summary_table(numbers)
    assert "Paired 95% interval: +10" in summary_table(numbers)
    assert metric_figures(numbers)["gain_over_steps_test"] == 0.15


def test_until_the_loop_ends_the_report_says_that_the_comparison_is_not_one_of_equal_compute() -> None:
    words = " ".join(verdict(summary([], go_on=True)).sentences)
    assert "Iteration 0 had 10 optimiser steps and this one 50; once the loop has ended" in words
    off = " ".join(verdict(summary([])).sentences)
    assert "part of the difference may come from the steps" in off


def test_a_control_of_other_rows_is_refused() -> None:
    with pytest.raises(UserError, match=r"control 'steps' answered 199 test rows, and the delivered student 200"):
        summary([control(range(150), n=N - 1)])


def test_a_student_that_always_says_one_label_is_called_that_and_never_better() -> None:
    one_label = [confusion("billing", "<b>billing", 180), confusion("refund", "<b>billing", 20)]
    numbers = summary([control(range(150))], confusions=one_label)
    found = verdict(numbers)
    assert (found.outcome, found.headline) == ("open", "The student always gives the same answer")
    assert "answers '<b>billing' to each of the 200 test questions" in found.sentences[0]
    assert found.sentences[1] == (
        "The seeds alone, trained for as many steps, have 75.0% on the test split, and this student 90.0%: "
        "+15.0 points."
    )
    assert "always gives the same answer" in summary_table(numbers)
    page = render_html({"name": "x"}, numbers, [], [], [])
    assert "<b>billing" not in page
    assert "&lt;b&gt;billing" in page
    two = [confusion("billing", "billing", 199), confusion("refund", None, 1)]
    assert verdict(summary([control(range(150))], confusions=two)).outcome == "better"
    of_another_iteration = [replace(one, iteration=0) for one in one_label]
    assert verdict(summary([control(range(150))], confusions=of_another_iteration)).outcome == "better"


def test_a_student_that_always_gives_one_free_answer_is_called_that_without_a_matrix() -> None:
    numbers = summary([control(range(150))], confusions=[confusion("[1]", "[]", 180), confusion("[]", "[]", 20)])
    for split in numbers["answers"]["splits"].values() if numbers["answers"] else ():
        split["confusion"] = None
    assert verdict(numbers).headline == "The student always gives the same answer"
    page = render_html({"name": "x"}, numbers, [], [], [])
    assert "answers &#39;[]&#39; to each of the 200 test questions" in page


def test_the_majority_label_is_that_of_the_seeds() -> None:
    seeds = [example("a", "x"), example("b", "y"), example("c", "y")]
    rows = [example("d", "x"), example("e", "y"), example("f", "x"), example("g", "z")]
    asked = [score(1, "validation", 2, 4), score(1, "test", 1, 1)]
    found = majority({"seeds": seeds, "validation": rows, "test": rows[1:2]}, asked, 1)
    assert [(one.split, one.n, one.correct, one.correct_ids) for one in found] == [
        ("validation", 4, 1, [rows[1].id]),
        ("test", 1, 1, [rows[1].id]),
    ]
    tied = majority({"seeds": seeds[:2], "validation": rows}, asked, 1)
    assert tied[0].correct == 2, "the first by name"
    assert majority({"seeds": [], "validation": rows}, asked, 1) == []


def test_what_is_no_better_than_the_majority_label_is_said_to_be() -> None:
    label = replace(control(range(185)), name="majority", steps=0)
    words = " ".join(verdict(summary([label, control(range(150))])).sentences)
    assert "Always answering the most frequent label of the seeds does as well: 92.5% on the test split." in words
    markdown = render_markdown({"name": "x"}, summary([label]), [])
    assert "| Always the most frequent label | none |" in markdown


def test_confusions_count_every_answer_once_and_free_answers_have_none() -> None:
    rows = [example("d", "x"), example("e", "y"), example("f", "x")]
    splits: dict[Split, list[Example]] = {"validation": rows[:1], "test": rows}
    answers = [prediction(rows[0], "x", "validation", 2), prediction(rows[0], "y", "test", 2),
               prediction(rows[1], None, "test", 2), prediction(rows[2], "y", "test", 2)]  # fmt: skip
    task = Task(name="t", form="classification", labels=["x", "y"])
    assert confusions_of(task, splits, answers) == [
        confusion("x", "x", 1, "validation", 2),
        confusion("x", "y", 2, "test", 2),
        confusion("y", None, 1, "test", 2),
    ]
    text = Task(name="t", form="text")
    assert confusions_of(text, splits, answers) == []
    same = [replace(one, parsed="y") for one in answers]
    assert confusions_of(text, splits, same) == [  # what is always given is told of free answers, too
        Confusion(iteration=2, split="test", right="x", given="y", n=2),
        Confusion(iteration=2, split="test", right="y", given="y", n=1),
    ]
    unread = [replace(one, parsed=None) for one in answers]
    assert confusions_of(text, splits, unread) == []


def test_what_costs_no_training_and_does_as_well_is_said() -> None:
    untrained = replace(control(range(10)), name="untrained", steps=0)
    few_shot = replace(control(range(185)), name="few_shot", steps=0, shots=4)
    numbers = summary([untrained, few_shot, replace(control(range(195)), name="teacher", steps=0)])
    words = " ".join(verdict(numbers).sentences)
    assert (
        "The student before any training, with 4 seeds in its prompt, does as well: 92.5% on the test split." in words
    )
    assert "The student before any training does as well" not in words, "the delivered one is far ahead"
    for text in (render_html({"name": "x"}, numbers, [], [], []), render_markdown({"name": "x"}, numbers, [])):
        assert "Before any training, 4 seeds in the prompt" in text
        assert "The teacher itself (ceiling)" in text
    assert metric_figures(numbers)["gain_over_untrained_test"] == 0.85
    # Nobody is ahead of the teacher for nothing: that it does better is what a ceiling is.
    assert "teacher itself does as well" not in words


def test_a_control_that_was_asked_a_part_is_compared_on_that_part() -> None:
    part = replace(control(range(10), n=20), name="teacher", steps=0, asked_ids=IDS[:20])
    (one,) = summary([part])["controls"]
    assert one["gain"]["test"]["value"] == pytest.approx(0.5), "the delivered student has all of these 20"
    other = replace(part, asked_ids=[*IDS[:19], "of another run"])
    assert summary([other])["controls"][0]["gain"]["test"]["value"] == pytest.approx(9 / 20)
    with pytest.raises(UserError, match="answered 300 test rows"):
        summary([replace(part, n=300, asked_ids=[f"x{number}" for number in range(300)])])
