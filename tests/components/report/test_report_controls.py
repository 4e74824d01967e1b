"""The report's controls: the headline is the gain over the seeds alone with as many steps."""

from dataclasses import replace
from typing import Any

import pytest

from llm2llm.components.report.inputs import metric_figures
from llm2llm.components.report.report import render_html, render_markdown
from llm2llm.components.report.summary import summarise
from llm2llm.components.report.verdict import verdict
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import mcnemar_p
from llm2llm.components.shared.data.schemas import Control, Score, Split
from llm2llm.pipelines.inspect.tables import summary_table
from tests.support import builders
from tests.support.builders import decision, example, score

N = 200
IDS = [f"{number:04}" for number in range(N)]


def scored(iteration: int, split: Split, right: range, steps: int) -> Score:
    ids = [IDS[place] for place in right]
    return replace(score(iteration, split, len(ids), N, 4 + 2 * iteration), correct_ids=ids, steps=steps)


def control(right: range, split: Split = "test", n: int = N) -> Control:
    return builders.control([IDS[place] for place in right], n, split)


def summary(controls: list[Control], go_on: bool = False) -> dict[str, Any]:
    """Iteration 1 is 17 points ahead of iteration 0 on test, with five times the steps."""
    history = [
        scored(0, "validation", range(100), 10), scored(0, "test", range(146), 10),
        scored(1, "validation", range(150), 50), replace(scored(1, "test", range(180), 50), gain=0.17, gain_low=0.12,
                                                         gain_high=0.22, gain_p=1e-6),
    ]  # fmt: skip
    rows = [example(f"seed {i}") for i in range(4)]
    decisions = [decision(0, 0, 0, True), decision(1, 0, 1, go_on)]
    return summarise(rows, history, [], decisions, [], [], controls=controls)


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
