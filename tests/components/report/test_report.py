"""The report: its numbers, its words, and that no text from rows or config becomes anything but text."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm.components.report.charts import Bar, bar_chart
from llm2llm.components.report.component import report
from llm2llm.components.report.report import WHOLE, cut, escape_markdown, render_html, render_markdown
from llm2llm.components.report.samples import kept_rows, last_errors, rejected_rows, spread
from llm2llm.components.report.summary import summarise
from llm2llm.components.report.verdict import verdict
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import wilson_interval
from llm2llm.components.shared.data.artifacts import without_record, write_artifact
from llm2llm.components.shared.data.journal import Journal, write_journal
from llm2llm.components.shared.data.schemas import (
    Call,
    Example,
    Reject,
)
from llm2llm.components.shared.lineage.embedded import content_hash
from llm2llm.components.shared.lineage.records import DIGITS
from tests.support import builders
from tests.support.builders import call, decision, example, reject, score, student_error

CONFIG: dict[str, Any] = {
    "name": "tickets",
    "max_iterations": 2,
    "student": "a-student",
    "task": {"name": "snips", "labels": ["A", "B"]},
    "teacher_augment": {"teacher": "openai", "model": "a-teacher", "strategy": "llm2llm"},
}


class Rows:
    """A run of three iterations: four seeds, three generated rows, best after the first of them."""

    def __init__(self) -> None:
        self.seeds = [example(f"seed {i}") for i in range(4)]
        first, second = self.seeds[:2]
        self.generated = [
            example("generated from the first", parent_id=first.id, iteration=1, source="teacher"),
            example("generated from the second", parent_id=second.id, iteration=1, source="teacher"),
            example("generated later", parent_id=first.id, iteration=2, source="teacher"),
        ]
        self.training_set = [*self.seeds, *self.generated]
        self.history = [
            score(0, "seeds", 2, 4, 4), score(0, "validation", 100, 200, 4), score(0, "test", 500, 1000, 4, 7),
            score(1, "seeds", 3, 4, 6), score(1, "validation", 140, 200, 6), score(1, "test", 700, 1000, 6, 3),
            score(2, "seeds", 4, 4, 7), score(2, "validation", 130, 200, 7), score(2, "test", 720, 1000, 7),
        ]  # fmt: skip
        self.errors = [
            student_error(first, 0, "the wrong label"),
            student_error(second, 0),
            student_error(first, 1, "no label at all", parsed=None),
        ]
        self.decisions = [
            decision(0, 2, 0, True, "2 seeds still need help"),
            decision(1, 1, 1, True, "1 seeds still need help"),
            decision(2, 0, 1, False, "no errors left on the seeds"),
        ]
        self.rejects = [
            reject(1, "near_copy", "seed 0!", detail="ROUGE-L 0.970", score=0.97, neighbour="seed 0", neighbour_id="x"),
            reject(2, "near_copy", "seed 1!", detail="ROUGE-L 0.980", score=0.98, neighbour="seed 1", neighbour_id="y"),
            reject(2, "refused", "", stage="teacher_augment", detail="I cannot help with that"),
        ]
        self.calls = [call("a"), call("b"), call("c", outcome="failed", input_tokens=None, output_tokens=None)]
        self.leakage: dict[str, Any] | None = None

    @property
    def summary(self) -> dict[str, Any]:
        return summarise(
            self.training_set, self.history, self.errors, self.decisions, self.rejects, self.calls, self.leakage
        )

    def html(self, config: dict[str, Any] = CONFIG) -> str:
        return render_html(config, self.summary, self.training_set, self.errors, self.rejects)

    def markdown(self, config: dict[str, Any] = CONFIG) -> str:
        return render_markdown(config, self.summary, self.rejects)

    def words(self) -> str:
        return " ".join(verdict(self.summary).sentences)


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def one_iteration() -> Rows:
    rows = Rows()
    rows.training_set = rows.seeds
    rows.history, rows.decisions = rows.history[:3], [decision(0, 2, 0, True, "2 seeds still need help")]
    rows.errors, rows.rejects, rows.calls = rows.errors[:2], [], []
    return rows


def with_test(correct: Sequence[int], n: int, best: int = 1) -> Rows:
    """Two iterations with these test scores."""
    rows = Rows()
    rows.history = [
        one
        for i, number in enumerate(correct)
        for one in (score(i, "validation", 100 + 20 * i, 200), score(i, "test", number, n))
    ]
    rows.decisions = [decision(0, 2, 0, True, "2 seeds still need help"), decision(1, 1, best)]
    rows.training_set = rows.training_set[:-1]
    rows.rejects = rows.rejects[:1]
    return rows


def test_every_row_shown_has_its_id_beside_it() -> None:
    rows = Rows()
    text = Page(rows.html()).text
    shown = [*rows.generated, *rows.rejects[:2]]
    assert all(row.id in text for row in shown)
    rows.decisions[2] = decision(2, 1, 1, False, "limit")
    rows.errors.append(student_error(rows.seeds[2], 2))
    errors = Page(rows.html()).text.partition("Errors left after iteration 2")[2]
    assert rows.seeds[2].id in errors


# Summary


def test_summary_counts_the_rows() -> None:
    summary = Rows().summary
    assert summary["rows"] == {
        "seeds": 4,
        "generated": 6,
        "kept": 3,
        "rejected": {"total": 3, "by_reason": {"near_copy": 2, "refused": 1}},
        "left_out": 0,
    }
    assert summary["by_iteration"] == [
        {"iteration": 1, "generated": 3, "kept": 2, "rejected": 1},
        {"iteration": 2, "generated": 3, "kept": 1, "rejected": 2},
    ]
    sums = {"total": 3, "answered": 2, "failed": 1, "input_tokens": 20, "output_tokens": 6, "usd": None, "unpriced": 2}
    assert {key: summary["teacher_calls"][key] for key in sums} == sums
    assert summary["teacher_calls"]["by_iteration"] == [{"iteration": 1, **sums}]
    assert summary["teacher_calls"]["per_kept_row"] == {"tokens": 8.7, "usd": None}
    assert summary["best_iteration"] == 1


def test_summary_has_one_entry_for_each_iteration() -> None:
    iterations = Rows().summary["iterations"]
    assert [one["iteration"] for one in iterations] == [0, 1, 2]
    assert [one["training_rows"] for one in iterations] == [4, 6, 7]
    assert [one["errors"] for one in iterations] == [2, 1, 0]
    assert [one["go_on"] for one in iterations] == [True, True, False]
    low, high = wilson_interval(500, 1000)
    assert iterations[0]["accuracy"]["test"] == {
        "value": 0.5, "low": low, "high": high, "n": 1000, "unparseable": 7, "calibration_error": None, "gain": None,
        "macro_f1": None, "balanced_accuracy": None, "decides": None,
    }  # fmt: skip


def test_summary_does_not_depend_on_the_order_of_rows() -> None:
    forwards, backwards = Rows(), Rows()
    for name in ("training_set", "history", "errors", "decisions", "rejects", "calls"):
        getattr(backwards, name).reverse()
    assert forwards.summary == backwards.summary
    assert forwards.html() == backwards.html()
    assert forwards.markdown() == backwards.markdown()


def test_tokens_are_null_where_no_call_reported_them() -> None:
    rows = Rows()
    rows.calls = [call("a", input_tokens=None, output_tokens=None)]
    assert rows.summary["teacher_calls"]["input_tokens"] is None
    assert "not reported" in rows.html()


def test_money_is_told_by_iteration_purpose_row_and_point() -> None:
    rows = Rows()
    rows.calls = [
        replace(call("a"), usd=0.5, strategy="llm2llm"),
        replace(call("b"), usd=0.25, purpose="resolve", strategy="llm2llm"),
        replace(call("c"), iteration=2, usd=0.125, strategy="llm2llm"),
    ]
    costs = rows.summary["teacher_calls"]
    assert (costs["usd"], costs["unpriced"]) == (0.875, 0)
    assert [(one["iteration"], one["usd"]) for one in costs["by_iteration"]] == [(1, 0.75), (2, 0.125)]
    assert [(one["purpose"], one["usd"]) for one in costs["by_purpose"]] == [("resolve", 0.25), ("write", 0.625)]
    assert costs["per_kept_row"] == {"tokens": 13.0, "usd": 0.291667}
    # The best iteration is 1: what was spent later bought none of its 20 points.
    assert costs["per_point"] == {"split": "test", "points": 20.0, "tokens": 1.3, "usd": 0.0375}
    text = Page(rows.html()).text
    assert "Each row that was kept took 13 tokens and $0.29." in text
    assert "of the 20.0 that the best iteration is ahead of the first, took 1 token and $0.037." in text
    assert r"3 teacher calls, 0 failed, \$0.88." in rows.markdown()


def test_the_judge_has_lines_of_its_own() -> None:
    rows = Rows()
    assert rows.summary["judge_calls"] is None
    assert "udge" not in rows.html() + rows.markdown()
    judged = {"judge_calls": 40, "judge_input_tokens": 4000, "judge_output_tokens": 400, "judge_usd": 0.25}
    rows.history = [replace(one, **judged) if one.split != "seeds" else one for one in rows.history]
    rows.decisions[1] = replace(rows.decisions[1], **judged)
    rows.calls = [replace(call("a"), usd=0.5)]
    costs = rows.summary["judge_calls"]
    assert {key: value for key, value in costs.items() if key != "by_iteration"} == {
        "total": 280, "input_tokens": 28000, "output_tokens": 2800, "usd": 1.75, "unpriced": 0,
    }  # fmt: skip
    assert [(one["iteration"], one["total"]) for one in costs["by_iteration"]] == [(0, 80), (1, 120), (2, 80)]
    assert rows.summary["teacher_calls"]["usd"] == 0.5, "what the teacher cost is the teacher's"
    text = Page(rows.html()).text
    assert "Teacher and judge calls" in text
    assert re.search(r"Judge, iteration 1\s+120\s+120\s+12,000\s+1,200\s+\$0\.75", text)
    assert re.search(r"Teacher, all\s+1\s+1\s+0\s+10\s+3\s+\$0\.50\s+Judge, all\s+280\s+280\s+28,000", text)
    assert r"280 answers of the judge, \$1.75." in rows.markdown()
    rows.calls = []
    text = Page(rows.html()).text
    assert "Judge, all" in text
    assert "Teacher, all" not in text
    rows.history = [replace(one, judge_usd=None) for one in rows.history]
    assert "not known" in Page(rows.html()).text
    assert "280 answers of the judge." in rows.markdown()


def test_a_price_that_is_not_known_is_said_so() -> None:
    rows = Rows()
    rows.calls = [replace(call("a"), usd=0.002), call("b")]
    assert "at least $0.002" in Page(rows.html()).text
    rows.calls = [call("a")]
    assert "not known" in Page(rows.html()).text


def test_without_a_gain_no_point_has_a_price() -> None:
    rows = with_test([500, 400], 1000)
    rows.calls = [replace(call("a"), usd=1.0)]
    assert rows.summary["teacher_calls"]["per_point"] is None
    assert "Each point" not in rows.html()


def test_a_run_that_was_asked_its_seeds_only_has_a_report_too() -> None:
    rows = Rows()
    rows.history = [one for one in rows.history if one.split == "seeds"]
    assert rows.summary["teacher_calls"]["per_point"] is None
    assert "Nothing to compare on" in rows.html()
    assert "Nothing to compare on" in rows.markdown()


def test_suspect_labels_are_listed_and_not_counted_as_errors() -> None:
    rows = Rows()
    rows.errors.append(replace(student_error(rows.seeds[2], 2, "what it wrote"), suspect=True, hardness=0.9))
    rows.decisions[2] = replace(rows.decisions[2], suspects=1)
    page = Page(rows.html())
    assert rows.summary["iterations"][2]["suspects"] == 1
    assert "Labels to look at" in page.text
    assert "the student needs help with no seed" in page.text


@pytest.mark.parametrize(
    ("leakage", "words"),
    [
        ({"checked": 7, "against": {"validation": 200, "test": 1000}, "matches": 0, "ids": []}, "none matches"),
        ({"checked": 7, "against": {"validation": 0, "test": 9}, "matches": 1, "ids": ["ab"]}, "1 matches a row that"),
    ],
)
def test_the_last_check_for_leaks_is_shown(leakage: dict[str, Any], words: str) -> None:
    rows = Rows()
    rows.leakage = leakage
    assert rows.summary["leakage"] == leakage
    assert words in Page(rows.html()).text
    assert words in rows.markdown()


def test_what_prepare_left_out_is_shown_apart_from_what_was_generated() -> None:
    rows = Rows()
    rows.rejects.append(reject(0, "in_test", "a seed that the test has, too", stage="prepare"))
    assert rows.summary["rows"]["left_out"] == 1
    assert rows.summary["rows"]["rejected"] == {"total": 3, "by_reason": {"near_copy": 2, "refused": 1}}
    page = Page(rows.html())
    assert "in_test: seeds and pool" in page.text
    assert "a seed that the test has, too" in page.text


def test_leaks_are_shown_as_a_random_sample() -> None:
    rejects = [reject(1, "in_test", f"row {i}", score=i / 100) for i in range(50)]
    (group,) = rejected_rows(rejects, limit=3, leaks=10)
    assert len(group.shown) == 10
    scores = [shown.score or 0.0 for shown in group.shown]
    assert scores != sorted(scores), "drawn by id, not by score"
    assert rejected_rows(rejects[::-1], limit=3, leaks=10)[0].shown == group.shown


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.decisions.pop(), r"iterations \[0, 1, 2\] and the decisions \[0, 1\]"),
        (lambda rows: rows.decisions.clear(), "decisions \\[\\]"),
        (lambda rows: rows.history.append(rows.history[0]), "twice"),
        (lambda rows: rows.errors.pop(), "counts 1 errors and the errors of that iteration are 0"),
        (lambda rows: rows.decisions.append(decision(2, 0)), "twice"),
        (lambda rows: rows.decisions.__setitem__(2, decision(2, 0, 9)), "names 9 the best"),
    ],
)
def test_rows_that_contradict_one_another_are_refused(spoil: Any, message: str) -> None:
    rows = Rows()
    spoil(rows)
    with pytest.raises(UserError, match=message):
        _ = rows.summary


# Verdict


def test_verdict_of_a_clear_gain() -> None:
    rows = Rows()
    assert verdict(rows.summary).outcome == "better"
    assert verdict(rows.summary).headline == "Better: 20.0 points higher on the test split"
    assert rows.words() == (
        "By validation, iteration 1 is the best, with 70.0% against 50.0% in iteration 0; its student was trained on "
        "6 rows, 2 generated rows among them. On the test split its accuracy is 70.0% (95% interval 67.1% to 72.8%, "
        "1,000 questions) against 50.0% (46.9% to 53.1%) in iteration 0: 20.0 points higher. The two intervals do not "
        "overlap. The loop stopped after iteration 2: no errors left on the seeds."
    )


def test_verdict_says_when_intervals_overlap() -> None:
    rows = with_test([50, 54], 100)
    assert verdict(rows.summary).outcome == "unclear"
    assert verdict(rows.summary).headline == "4.0 points higher on the test split, which may be chance"
    assert "The two intervals overlap" in rows.words()


def test_verdict_says_when_it_got_worse() -> None:
    rows = with_test([700, 500], 1000)
    assert verdict(rows.summary).outcome == "worse"
    assert verdict(rows.summary).headline == "Worse: 20.0 points lower on the test split"
    assert "it got worse, not better" in rows.words()
    assert "may be chance" not in rows.words()
    assert verdict(with_test([54, 50], 100).summary).headline.endswith("lower on the test split, which may be chance")


def test_verdict_says_when_there_is_no_difference() -> None:
    rows = with_test([50, 50], 100)
    assert verdict(rows.summary).outcome == "unclear"
    assert verdict(rows.summary).headline == "No difference on the test split"


def test_verdict_says_when_no_iteration_beats_the_first() -> None:
    rows = with_test([70, 90], 100, best=0)
    assert verdict(rows.summary).outcome == "worse"
    assert "iteration 0 is still the best" in verdict(rows.summary).headline
    assert "the one later iteration is not better than iteration 0" in rows.words()
    # The test split decides nothing, even where it says otherwise.
    assert "90.0%" not in rows.words()


def test_verdict_says_when_nothing_was_left_to_gain() -> None:
    rows = with_test([90, 70], 100, best=0)
    rows.history = [score(i, "validation", right, 200) for i, right in enumerate((200, 199))]
    assert verdict(rows.summary).outcome == "open"
    assert verdict(rows.summary).headline.startswith("Nothing left to gain")


@pytest.mark.parametrize(("unparseable", "outcome"), [(50, "unclear"), (51, "open")])
def test_verdict_says_when_the_student_has_not_learnt_to_answer(unparseable: int, outcome: str) -> None:
    rows = Rows()
    rows.history = [score(iteration, "validation", 10, 100, unparseable=unparseable) for iteration in range(3)]
    assert verdict(rows.summary).outcome == outcome
    assert ("has not learnt to answer" in verdict(rows.summary).headline) == (outcome == "open")
    assert ("train.learning_rate" in rows.words()) == (outcome == "open")


def test_verdict_without_a_test_split_says_what_it_rests_on() -> None:
    rows = Rows()
    rows.history = [one for one in rows.history if one.split != "test"]
    assert "There is no test split" in rows.words()
    assert "flatters" in rows.words()
    assert verdict(rows.summary).headline == "Better: 20.0 points higher on the validation split"


def test_verdict_of_one_iteration_and_of_a_loop_that_goes_on() -> None:
    rows = one_iteration()
    assert verdict(rows.summary).outcome == "open"
    assert rows.words() == (
        "Only iteration 0 has run so far: its student, trained on 4 rows, none of them generated, answers 50.0% of the "
        "test questions right (95% interval 46.9% to 53.1%, 1,000 questions). The loop goes on after iteration 0: "
        "2 seeds still need help."
    )
    rows.decisions, rows.errors = [decision(0, 0, 0, False, "no seed needs help")], []
    assert rows.words().startswith("Only iteration 0 has run: its student")


# What is shown


def test_the_page_shows_what_happened() -> None:
    text = Page(Rows().html()).text
    for shown in (
        "tickets", "Better: 20.0 points higher", "67.1% to 72.8%", "n = 1,000", "7 unparseable", "near_copy", "refused",
        "seed 0!", "ROUGE-L 0.970", "I cannot help with that", "generated from the second", "the wrong label",
        "a-teacher", "max_iterations: 2",
    ):  # fmt: skip
        assert shown in text, shown


def test_a_generated_row_stands_beside_its_parent_and_the_wrong_answer() -> None:
    rows = Rows()
    groups = kept_rows(rows.training_set, rows.errors, limit=5)
    assert [(group.iteration, group.total) for group in groups] == [(1, 2), (2, 1)]
    (later,) = groups[1].shown
    assert later.parent == rows.seeds[0]
    assert later.error == rows.errors[2], "the answer in the iteration before, not an earlier one"
    rows.errors = [one for one in rows.errors if one.example_id != rows.seeds[1].id]
    rows.decisions[0] = replace(rows.decisions[0], errors=1)
    assert "Not among the errors of iteration 0" in Page(rows.html()).text


def test_kept_rows_come_from_as_many_parents_as_possible() -> None:
    seeds = [example(f"seed {i}") for i in range(10)]
    made = [example(f"{s.question} {n}", parent_id=s.id, iteration=1) for s in seeds for n in range(3)]
    (group,) = kept_rows([*seeds, *made], [], limit=5)
    assert group.total == 30
    assert len({sample.row.parent_id for sample in group.shown}) == 5
    (group,) = kept_rows([*seeds[:2], *made[:6]], [], limit=5)
    assert len(group.shown) == 5
    assert len({sample.row.id for sample in group.shown}) == 5
    assert {sample.row.parent_id for sample in group.shown} == {seed.id for seed in seeds[:2]}


def test_rejects_are_shown_by_reason_the_most_frequent_first() -> None:
    rejects = [reject(1, "near_copy", f"row {i}", score=i / 10) for i in range(7)] + [reject(1, "in_test")]
    groups = rejected_rows(rejects, limit=3)
    assert [(group.reason, group.total) for group in groups] == [("near_copy", 7), ("in_test", 1)]
    assert [shown.score for shown in groups[0].shown] == [0.0, 0.3, 0.6]


def test_only_errors_of_the_last_iteration_are_shown() -> None:
    rows = Rows()
    assert [one.completion for one in last_errors(rows.errors, 1, 20)] == ["no label at all"]
    assert last_errors(rows.errors, 2, 20) == []
    assert "the student needs help with no seed" in Page(rows.html()).text


def test_unparseable_answers_are_marked() -> None:
    rows = one_iteration()
    rows.errors[0] = replace(rows.errors[0], parsed=None, outcome="unparseable")
    assert Page(rows.html()).texts.count("unparseable") == 1


def test_choices_and_rationales_are_shown() -> None:
    rows = one_iteration()
    seed = example("which one?", "B", choices=["this", "that"], rationale="because of that")
    rows.errors[0] = student_error(seed, 0)
    text = Page(rows.html()).text
    assert "A. this" in text
    assert "B. that" in text
    assert "because of that" in text


def test_many_reasons_share_a_last_column() -> None:
    rows = Rows()
    rows.rejects = [reject(1, f"reason {i:02}", f"row {i}") for i in range(30)]
    page, markdown = Page(rows.html()), rows.markdown()
    assert "all others" in page.text
    assert "all others" in markdown
    assert max(line.count("|") for line in markdown.splitlines()) < 16


@pytest.mark.parametrize("iterations", [1, 2, 9, 51])
def test_charts_have_room_for_any_number_of_iterations(iterations: int) -> None:
    rows = Rows()
    rows.training_set, rows.errors, rows.rejects, rows.calls = rows.seeds, [], [], []
    rows.history = [
        one for i in range(iterations) for one in (score(i, "validation", 50 + i, 101), score(i, "test", i, 60))
    ]
    rows.decisions = [decision(i, 0, iterations - 1, i < iterations - 1) for i in range(iterations)]
    html = rows.html()
    numbers = [float(x) for x in re.findall(r'<text class="[a-z ]+" x="(-?[\d.]+)"', html)]
    assert numbers
    assert all(0 <= x <= 360 for x in numbers)
    heights = [float(y) for y in re.findall(r'<text [^>]* y="(-?[\d.]+)"', html)]
    assert all(10 <= y <= 250 for y in heights)


def test_a_charts_words_are_text() -> None:
    drawing = bar_chart("n", "a <i>", [("<b>", "plain"), ("c", "hatched")], [Bar(0, [1, 2], "<u>")], "rows")
    assert not re.search("<[biu]>", drawing)
    assert drawing.count("&lt;b&gt;") == 2, "in the legend and in the description"
    assert "a &lt;i&gt;" in drawing
    assert "&lt;u&gt;" in drawing


def test_a_chart_says_in_words_what_it_draws() -> None:
    html = Rows().html()
    page = Page(html)
    assert page.tags.count("svg") == 6
    assert [value for tag, name, value in page.attributes if tag == "svg" and name == "role"] == ["img"] * 6
    assert "iteration 1: 70.0% (67.1% to 72.8%)" in html
    assert "iteration 2: 4 seeds, 2 generated before, 1 new" in html
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = {i for _, name, value in page.attributes if name == "aria-labelledby" for i in value.split()}
    assert named <= set(ids)


def test_table_headers_have_a_scope() -> None:
    page = Page(Rows().html())
    assert page.tags.count("th") == sum(tag == "th" and name == "scope" for tag, name, _ in page.attributes)


def test_long_texts_are_cut_and_whole_in_details() -> None:
    long = "word " * 200 + "END"
    short, whole = cut(long)
    assert short.endswith("word…")
    assert len(short) <= 281
    assert whole == long
    assert cut("short") == ("short", None)
    assert cut("\n".join("abcdefghij"))[0] == "a\nb\nc\nd\ne\nf…"
    endless = cut("x" * (WHOLE + 1_500))[1]
    assert endless is not None
    assert endless.endswith("… (1,500 more characters)")
    rows = one_iteration()
    rows.errors[0] = replace(rows.errors[0], completion=long)
    page = Page(rows.html())
    assert "details" in page.tags
    assert "END" in page.text


def test_spread_takes_both_ends() -> None:
    assert spread(range(10), 3) == [0, 4, 9]
    assert spread(range(2), 3) == [0, 1]
    assert spread(range(9), 1) == [0]


# Nothing to show


def test_one_iteration_reads_well() -> None:
    text = Page(one_iteration().html()).text
    for shown in (
        "Nothing was generated: iteration 0 trains on the seeds alone.",
        "Nothing was generated, so nothing was rejected.",
        "Nothing was generated yet.",
        "No call was made to a teacher.",
    ):
        assert shown in text, shown
    assert "None" not in re.sub(r"None: the student", "", text)
    assert "Nothing was generated" in one_iteration().markdown()


def test_no_rejects_and_nothing_kept_read_well() -> None:
    rows = Rows()
    rows.rejects = []
    assert "No row was rejected." in Page(rows.html()).text
    rows = Rows()
    rows.training_set = rows.seeds
    assert "No generated row was kept." in Page(rows.html()).text


def test_no_test_rows() -> None:
    rows = Rows()
    rows.history = [one for one in rows.history if one.split == "validation"]
    page = Page(rows.html())
    assert "No test rows were given." in page.text
    assert page.tags.count("svg") == 4
    assert "Test |" not in rows.markdown()


def test_a_split_that_came_later_is_shown_from_there() -> None:
    rows = Rows()
    rows.history = [one for one in rows.history if (one.iteration, one.split) != (0, "test")]
    assert "not asked" in Page(rows.html()).text
    assert "not asked" in rows.markdown()
    assert "rests on the validation split" in rows.words()


def test_an_empty_config_does_no_harm() -> None:
    assert "llm2llm run" in Page(Rows().html({})).text
    assert Rows().markdown({}).startswith("# llm2llm run\n")


# Safety

HOSTILE = [
    "<script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</style></pre></details></table></svg><h1>",
    "{{7*7}}{% raw %}${7*7}",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!-- ]]> &lt;b&gt; &#60;i&#62;",
    "javascript:alert(1) https://evil.example/ www.evil.example me@evil.example",
    "| a | b |\n| - | - |\r\n# heading\n```\n<b>\n```\n[x](https://evil.example) ![x](y) **b** ~~s~~ `c`",
    "1. one\x00\x07\x1b[31m\u202eevil\u2066\u0085\u2028",
    "half a pair: \ud800",
    "A\u0301" * 50 + " 🎉 日本語 العربية",
]


def hostile_rows(text: str) -> Rows:
    """The sample run with `text` in every field that holds text."""
    rows = Rows()
    seed = Example(
        id=text, question=text, choices=[text, text], rationale=text, answer=text, source=text, source_id=text
    )
    made = replace(
        seed, id=text + "!", parent_id=text, iteration=1, strategy=text, teacher=text, call_key=text, checks=[text]
    )
    orphan = replace(made, id=text + "?", parent_id=text + "-", iteration=2)
    rows.training_set = [seed, made, orphan]
    rows.errors = [replace(student_error(seed, i), completion=text, parsed=None if i else text + " ") for i in range(3)]
    rows.decisions = [decision(i, 1, 1, i < 2, text) for i in range(3)]
    rows.rejects = [
        Reject(
            iteration=i, stage="dedupe", reason=text, detail=text, score=0.5, neighbour_id=text, neighbour=text,
            id=f"{text}{i}", question=text, choices=[text], rationale=text, answer=text, parent_id=text, strategy=text,
            teacher=text, call_key=text,
        )
        for i in (1, 2)
    ]  # fmt: skip
    rows.calls = [Call(key=text, iteration=1, parent_id=text, teacher=text, model=text, outcome="answered", attempts=1)]
    return rows


def hostile_config(text: str) -> dict[str, Any]:
    return {"name": text, text: text, "student": text, "task": {"name": text, text: [text, {text: text}]},
            "teacher_augment": {"model": text, "strategy": text}}  # fmt: skip


def elements(html: str) -> set[tuple[str, str]]:
    """Every element and attribute of a page."""
    page = Page(html)
    return {(tag, "") for tag in page.tags} | {(tag, name) for tag, name, _ in page.attributes}


HARMLESS = elements(hostile_rows("harmless " * 100).html(hostile_config("harmless"))) | elements(
    hostile_rows("harmless").html(hostile_config("harmless"))
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts_in_html(text: str) -> None:
    html = hostile_rows(text).html(hostile_config(text))
    assert elements(html) <= HARMLESS
    if not re.search(r"[\x00-\x1f\ud800-\udfff\u0080-\u009f\u2028]", text):
        assert text in "".join(Page(html).texts)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", html)
    html.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts_in_markdown(text: str) -> None:
    markdown = hostile_rows(text).markdown(hostile_config(text))
    harmless = hostile_rows("harmless").markdown(hostile_config("harmless"))
    assert len(markdown.splitlines()) == len(harmless.splitlines())
    for line, expected in zip(markdown.splitlines(), harmless.splitlines(), strict=True):
        assert cells(line) == cells(expected)
    assert "<" not in markdown
    assert not re.search(r"(?<!\\)[`*_\[\]~$]", markdown.replace("**", ""))
    assert not re.search(r"https?://|www\.|\w@\w", markdown)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", markdown)


def cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_markdown_reader_finds_no_more_than_in_a_harmless_one(text: str) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    reader = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def kinds(rows: Rows, config: dict[str, Any]) -> list[str]:
        tokens = reader.parse(rows.markdown(config))
        inner = [child.type for token in tokens for child in token.children or []]
        assert not [kind for kind in inner if "link" in kind or "html" in kind or kind in ("image", "code_inline")]
        return [token.type for token in tokens]

    assert kinds(hostile_rows(text), hostile_config(text)) == kinds(
        hostile_rows("harmless"), hostile_config("harmless")
    )


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("12 seeds still need help (72.1%)", "12 seeds still need help (72.1%)"),
        ("near_copy", r"near\_copy"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("two\nlines", "two lines"),
        ("<b>", "&lt;b&gt;"),
        ("&lt;", "&amp;lt;"),
        ("# no heading", r"\# no heading"),
        ("- no item", r"\- no item"),
        ("1. no item", r"1\. no item"),
    ],
)
def test_markdown_is_escaped_and_still_legible(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped


pieces = [*HOSTILE, "<", ">", "&", '"', "'", "</", "<a href=", "-->", "{{", "x" * 300]
any_text = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(pieces), max_size=5).map("".join))


@settings(deadline=None, max_examples=60)
@given(question=any_text, completion=any_text, reason=any_text)
def test_no_text_yields_a_tag(question: str, completion: str, reason: str) -> None:
    rows = hostile_rows(question)
    rows.errors = [replace(one, completion=completion) for one in rows.errors]
    rows.decisions = [replace(one, reason=reason) for one in rows.decisions]
    rows.rejects = [replace(one, reason=reason) for one in rows.rejects]
    assert elements(rows.html(hostile_config(reason))) <= HARMLESS
    assert "<" not in rows.markdown(hostile_config(reason))


def test_the_page_asks_for_nothing() -> None:
    html = hostile_rows("https://evil.example/x.png").html(hostile_config("https://evil.example"))
    page = Page(html)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form", "a"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name in ("src", "href", "srcset", "style")]
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "@import" not in style
    assert "url(" not in style
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


# From artifacts to artifacts


def artifacts(folder: Path, rows: Rows) -> dict[str, Any]:
    given: dict[str, Any] = builders.artifacts(folder, "config", "training_set", "journal")
    folder.mkdir(parents=True, exist_ok=True)
    Path(given["config"].path).write_text(json.dumps(CONFIG), encoding="utf-8")
    write_artifact(given["training_set"], "examples", rows.training_set)
    write_journal(
        given["journal"],
        Journal(
            scores=rows.history, errors=rows.errors, decisions=rows.decisions, rejects=rows.rejects, calls=rows.calls
        ),
    )
    return given | builders.artifacts(folder / "out", "html", "markdown", "summary", "metrics", "manifest")


def test_run_writes_report_summary_and_metrics(tmp_path: Path) -> None:
    rows = Rows()
    given = artifacts(tmp_path, rows)
    report.python_func(**given, iteration=2)
    summary = json.loads(Path(given["summary"].path).read_text(encoding="utf-8"))
    assert without_record(summary) == rows.summary
    assert Path(given["html"].path).read_text(encoding="utf-8") == rows.html()
    assert Path(given["markdown"].path).read_text(encoding="utf-8") == rows.markdown()
    assert given["metrics"].metadata == {
        "iterations": 3,
        "best_iteration": 1,
        "best_seeds_accuracy": 0.75,
        "best_validation_accuracy": 0.7,
        "best_test_accuracy": 0.7,
        "training_rows": 7,
        "errors_left": 0,
        "rows_kept": 3,
        "rows_rejected": 3,
        "teacher_calls": 3,
        "teacher_calls_failed": 1,
    }
    sha256 = content_hash(given["summary"].path)
    assert given["summary"].metadata == {"kind": "summary", "schema_version": 3, "sha256": sha256[:DIGITS]}


def test_rows_that_the_training_cut_or_left_out_are_said(tmp_path: Path) -> None:
    rows = Rows()
    counts = {"rows_too_long": 1, "rows_truncated": 2, "rows_replayed": 0}
    rows.history = [replace(one, **counts) if one.iteration == 2 else one for one in rows.history]
    given = artifacts(tmp_path, rows)
    report.python_func(**given, iteration=2)
    said = "1 row had too many tokens and was left out, and 2 rows had the middle of the prompt cut out"
    assert said in Path(given["html"].path).read_text(encoding="utf-8")
    assert said in Path(given["markdown"].path).read_text(encoding="utf-8")
    summary = json.loads(Path(given["summary"].path).read_text(encoding="utf-8"))
    assert summary["training"] == counts | {"training_rows": 7}
    assert "left out" not in Rows().html(), "nothing is said where nothing was cut"


def test_run_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = artifacts(tmp_path / "a", Rows()), artifacts(tmp_path / "b", Rows())
    report.python_func(**first, iteration=2)
    report.python_func(**second, iteration=2)
    for name in ("html", "markdown", "summary"):
        assert Path(first[name].path).read_bytes() == Path(second[name].path).read_bytes()


def test_run_of_the_first_iteration_has_no_rejects_and_calls(tmp_path: Path) -> None:
    given = artifacts(tmp_path, one_iteration())
    report.python_func(**given, iteration=0)
    assert given["metrics"].metadata["teacher_calls"] == 0


@pytest.mark.parametrize("content", ["", "[1]", "{", "\ufeff{}"])
def test_run_refuses_a_config_that_is_no_json_object(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = artifacts(tmp_path, Rows())
    Path(given["config"].path).write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        report.python_func(**given, iteration=2)
    assert stopped.value.code == 2
    assert "config" in capsys.readouterr().err
    assert not Path(given["html"].path).exists()


def test_errors_that_were_not_looked_for_are_said_so() -> None:
    """At the limit of an `out_of_fold` run: no number, and the errors of the iteration before are shown."""
    rows = Rows()
    rows.errors = [one for one in rows.errors if one.iteration < 2]
    decisions = [*rows.decisions[:2], replace(rows.decisions[2], errors=None)]
    summary = summarise(rows.training_set, rows.history, rows.errors, decisions, rows.rejects, rows.calls)
    assert [one["errors"] for one in summary["iterations"]][2] is None
    page = render_html(CONFIG, summary, rows.training_set, rows.errors, rows.rejects)
    assert "not looked for" in page
    assert "Errors left after iteration 1" in page
    assert "After iteration 2 no errors were looked for" in page
    assert "not looked for" in render_markdown(CONFIG, summary, rows.rejects)
