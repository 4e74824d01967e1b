"""What the report says of gains, of the answers themselves and of the promotion."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.report.answers import confusion_table, count_answers, most_confused
from llm2llm.components.report.component import report
from llm2llm.components.report.controls import count_delivered
from llm2llm.components.report.promotion import read_promotion
from llm2llm.components.report.verdict import probability, signed_points, verdict
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import calibration_error
from llm2llm.components.shared.data.artifacts import LocalArtifact, write_artifact
from llm2llm.components.shared.data.schemas import Confusion, Example, Prediction, Score, Split
from llm2llm.components.shared.data.splits import write_splits
from llm2llm.components.shared.lineage.embedded import content_hash
from tests.components.report.test_report import (
    HARMLESS,
    HOSTILE,
    Page,
    Rows,
    artifacts,
    cells,
    elements,
    hostile_config,
)
from tests.components.report.test_report import hostile_rows as hostile_run
from tests.support import builders
from tests.support.builders import confusion, example
from tests.support.builders import score as plain_score
from tests.support.verdicts import comparison
from tests.support.verdicts import verdict as promotion_verdict


def with_gain(one: Score, gain: float, low: float, high: float, p: float) -> Score:
    return replace(one, gain=gain, gain_low=low, gain_high=high, gain_p=p)


def gaining(low: float, high: float, p: float) -> Rows:
    """The sample run, its best iteration compared with iteration 0."""
    rows = Rows()
    rows.history = [
        with_gain(one, 0.2, low, high, p) if (one.iteration, one.split) == (1, "test") else one for one in rows.history
    ]
    return rows


def prediction(row: Example, parsed: str | None, split: Split = "test", **fields: Any) -> Prediction:
    outcome = "unparseable" if parsed is None else "correct" if parsed == row.answer else "wrong"
    given: dict[str, Any] = {
        "example_id": row.id, "split": split, "iteration": 2, "completion": parsed or "?", "parsed": parsed,
        "outcome": outcome, **fields,
    }  # fmt: skip
    return Prediction(**given)


def scores_of(predictions: list[Prediction], **fields: Any) -> list[Score]:
    scores = []
    for split in ("seeds", "validation", "test"):
        some = [one for one in predictions if one.split == split]
        if some:
            correct = sum(one.outcome == "correct" for one in some)
            scores.append(replace(plain_score(2, split, correct, len(some), 7), **fields))
    return scores


def labelled(answers: list[tuple[str, str | None]]) -> tuple[list[Example], list[Prediction]]:
    """Test rows with these (right, given) labels."""
    rows = [example(f"test {i}", right) for i, (right, _) in enumerate(answers)]
    return rows, [prediction(row, given) for row, (_, given) in zip(rows, answers, strict=True)]


class Answered(Rows):
    """The sample run with the test answers of its last student: 6 right, 3 confused, 1 not read."""

    def __init__(self) -> None:
        super().__init__()
        right = ["A"] * 6 + ["B"] * 4
        given: list[str | None] = ["A", "A", "A", "A", "B", "B", "B", "B", "A", None]
        self.test, self.predictions = labelled(list(zip(right, given, strict=True)))
        self.predictions = [
            replace(one, confidence=0.55 + 0.04 * i, truncated=i == 0) for i, one in enumerate(self.predictions)
        ]
        ece = calibration_error(
            [one.confidence or 0.0 for one in self.predictions], [one.outcome == "correct" for one in self.predictions]
        )
        kept = [one for one in self.history if one.iteration < 2 and one.split == "test"]
        self.history = [*kept, *scores_of(self.predictions, calibration_error=ece)]
        self.promotion: dict[str, Any] | None = None
        self.confusions: list[Confusion] = []

    @property
    def summary(self) -> dict[str, Any]:
        answers = count_answers(self.predictions, {"test": self.test}, self.history, True)
        delivered = count_delivered(self.confusions, super().summary["best_iteration"])
        return {**super().summary, "answers": answers, "promotion": self.promotion, "delivered": delivered}


# Gains


def test_a_gain_is_shown_with_its_interval_and_p() -> None:
    rows = gaining(0.16, 0.24, 1e-9)
    test = rows.summary["iterations"][1]["accuracy"]["test"]
    assert test["gain"] == {"value": 0.2, "low": 0.16, "high": 0.24, "p": 1e-9}
    assert rows.summary["iterations"][0]["accuracy"]["test"]["gain"] is None
    text = Page(rows.html()).text
    assert "Against iteration 0, question by question" in text
    assert "+20.0 points +16.0 to +24.0 points p < 0.001" in text
    assert "not compared" in text
    assert "| 1 (best) | not compared | not compared | +20.0 points (+16.0 to +24.0 points), p &lt; 0.001 |" in (
        rows.markdown().replace("\\", "")
    )


def test_without_a_comparison_there_is_no_such_table() -> None:
    assert "question by question" not in Rows().html()
    assert "question by question" not in Rows().markdown()


@pytest.mark.parametrize(
    ("low", "high", "p", "outcome", "words"),
    [
        (0.16, 0.24, 1e-9, "better", "difference is +16.0 to +24.0 points (paired bootstrap; McNemar's exact "
                                     "test: p < 0.001)."),
        (-0.01, 0.41, 0.07, "unclear", "\u22121.0 to +41.0 points (paired bootstrap; McNemar's exact test: "
                                       "p = 0.07): it may be chance."),
    ],
)  # fmt: skip
def test_the_verdict_rests_on_the_paired_comparison(
    low: float, high: float, p: float, outcome: str, words: str
) -> None:
    """By the intervals of the two accuracies, which do not overlap, it would be better in either case."""
    rows = gaining(low, high, p)
    assert verdict(rows.summary).outcome == outcome
    assert words in rows.words()
    assert "intervals" not in rows.words()


@pytest.mark.parametrize(("n", "p", "outcome"), [(1, 1.0, "unclear"), (49, 0.05, "unclear"), (49, 0.04, "better"),
                                                 (50, 0.06, "better")])  # fmt: skip
def test_on_few_rows_an_interval_above_0_is_not_enough(n: int, p: float, outcome: str) -> None:
    """On one row that was wrong and is right now, the bootstrap interval is +100 to +100 points, and p is 1."""
    rows = gaining(0.16, 0.24, p)
    rows.history = [replace(one, n=n, correct=n * one.correct // one.n) for one in rows.history]
    assert verdict(rows.summary).outcome == outcome
    assert ("it may be chance" in rows.words()) == (outcome == "unclear")


def test_a_paired_gain_may_be_sure_where_intervals_overlap() -> None:
    rows = Rows()
    rows.history = [
        replace(with_gain(one, 0.02, 0.005, 0.035, 0.01), accuracy=0.52, correct=520, low=0.49, high=0.55)
        if (one.iteration, one.split) == (1, "test") else one for one in rows.history
    ]  # fmt: skip
    assert verdict(rows.summary).headline == "Better: 2.0 points higher on the test split"


@pytest.mark.parametrize(
    ("difference", "words"),
    [(0.2, "+20.0 points"), (-0.2, "\u221220.0 points"), (0.01, "+1.0 point"), (0.0, "0.0 points"),
     (0.0004, "0.0 points"), (-0.0004, "0.0 points")],
)  # fmt: skip
def test_signed_points(difference: float, words: str) -> None:
    assert signed_points(difference) == words


@pytest.mark.parametrize(
    ("p", "words"), [(0.0, "p < 0.001"), (0.0042, "p = 0.004"), (0.049, "p = 0.05"), (1.0, "p = 1.00")]
)
def test_probability(p: float, words: str) -> None:
    assert probability(p) == words


# Answers


def test_answers_are_counted() -> None:
    test = Answered().summary["answers"]["splits"]["test"]
    assert (test["n"], test["truncated"]) == (10, 1)
    assert test["confusion"] == [
        {"right": "A", "given": "A", "n": 4},
        {"right": "A", "given": "B", "n": 2},
        {"right": "B", "given": "A", "n": 1},
        {"right": "B", "given": "B", "n": 2},
        {"right": "B", "given": None, "n": 1},
    ]
    assert sum(one["n"] for one in test["reliability"]) == 10
    assert all(one["from"] < one["confidence"] <= one["to"] for one in test["reliability"])


def test_the_reliability_adds_up_to_the_calibration_error() -> None:
    rows = Answered()
    bins = rows.summary["answers"]["splits"]["test"]["reliability"]
    error = sum(one["n"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / 10
    assert error == pytest.approx(rows.summary["iterations"][2]["accuracy"]["test"]["calibration_error"])


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["A", "B", "C", "D", None])), min_size=1))
def test_every_answer_stands_in_the_confusion_once(answers: list[tuple[str, str | None]]) -> None:
    rows, predictions = labelled(answers)
    backwards = predictions[::-1]
    counted = count_answers(predictions, {"test": rows}, scores_of(predictions), True)
    assert counted == count_answers(backwards, {"test": rows[::-1]}, scores_of(predictions), True)
    confusion = counted["splits"]["test"]["confusion"]
    assert sum(cell["n"] for cell in confusion) == len(answers)
    table = confusion_table(confusion, 12)
    assert table is not None
    assert sum(cell["n"] for row in table["rows"] for cell in row["cells"]) == len(answers)
    right = sum(cell["n"] for row in table["rows"] for cell in row["cells"] if cell["kind"] == "right")
    assert right == sum(a == b for a, b in answers)
    assert all((cell["n"] == 0) == (cell["shade"] == 0) for row in table["rows"] for cell in row["cells"])
    assert all(0 <= cell["shade"] <= 4 for row in table["rows"] for cell in row["cells"])
    assert table["unread"] == any(given is None for _, given in answers)
    wrong = sum(given is not None and a != given for a, given in answers)
    assert sum(one["n"] for one in most_confused(confusion, 100)) == wrong


def test_free_answers_have_no_confusion() -> None:
    rows, predictions = labelled([("A", "A")])
    counted = count_answers(predictions, {"test": rows}, scores_of(predictions), False)
    test = counted["splits"]["test"]
    assert test == {"n": 1, "truncated": 0, "confusion": None, "reliability": None, "fields": None}


def test_a_split_whose_rows_are_not_given_is_counted_all_the_same() -> None:
    _, predictions = labelled([("A", "A"), ("A", "B")])
    test = count_answers(predictions, {}, scores_of(predictions), True)["splits"]["test"]
    assert (test["n"], test["confusion"]) == (2, None)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.predictions.pop(), r"on test are \(10, 6\) by the scores of iteration 2 and \(9, 6\)"),
        (lambda rows: rows.predictions.clear(), r"and None by its predictions"),
        (lambda rows: rows.predictions.append(replace(rows.predictions[0], iteration=1)), "are of iteration 1"),
        (lambda rows: rows.predictions.append(replace(rows.predictions[0], split="seeds")), "on seeds are None by"),
        (lambda rows: rows.test.pop(), "1 predictions on test are of rows that it does not hold, as "),
    ],
)
def test_predictions_of_another_run_are_refused(spoil: Callable[[Answered], Any], message: str) -> None:
    rows = Answered()
    spoil(rows)
    with pytest.raises(UserError, match=message):
        _ = rows.summary


def test_the_page_shows_the_answers() -> None:
    rows = Answered()
    page = Page(rows.html())
    for shown in (
        "After iteration 2: of 10 test answers 1 hit the token limit before it ended. Where many did, raise",
        "Which label the student of iteration 2 gives 10 test questions",
        "A B 2 of 6",
        "B A 1 of 4",
        "(unparseable)",
        "The expected calibration error is",
    ):
        assert shown in page.text, shown
    assert page.tags.count("svg") == 3 + 2, "three of rows and errors, test accuracy, reliability"
    assert "| A | B | 2 of 6 |" in rows.markdown()
    assert "Of 10 test answers 1 hit the token limit" in rows.markdown()
    assert "calibration error" in rows.markdown()
    rows.predictions = [replace(one, truncated=False, confidence=None) for one in rows.predictions]
    text = Page(rows.html()).text
    assert "After iteration 2, no answer hit the token limit" in text
    assert "Right answers by confidence" not in text
    assert "After iteration" not in Rows().html()


def test_the_matrix_is_that_of_the_delivered_student() -> None:
    """Iteration 1 is the best, and iteration 2 the last."""
    rows = Answered()
    rows.confusions = [confusion("A", "B", 5), confusion("B", "B", 5), confusion("A", "A", 9, iteration=2)]
    text = Page(rows.html()).text
    assert "Which label the delivered student (iteration 1) gives 10 test questions" in text
    assert "Right answer A B All A 5 5 B 5 5" in text
    assert "Labels that the delivered student (iteration 1) takes for one another most often" in text
    assert "Confidence of the student of iteration 2" in text


def test_long_labels_are_numbered_over_the_columns() -> None:
    assert "Right answer A B (unparseable) All A 4 2 6 B 1 2 1 4" in Page(Answered().html()).text
    rows = Answered()
    names: dict[str | None, str | None] = {"A": "AddToPlaylist", "B": "BookRestaurant", None: None}
    right = [names[row.answer] or "" for row in rows.test]
    rows.test, rows.predictions = labelled(
        [(label, names[one.parsed]) for label, one in zip(right, rows.predictions, strict=True)]
    )
    text = Page(rows.html()).text
    assert "Right answer 1 2 (unparseable) All 1. AddToPlaylist 4 2 6 2. BookRestaurant 1 2 1 4" in text


def test_many_labels_are_listed_and_not_drawn() -> None:
    rows = Answered()
    rows.test, rows.predictions = labelled([(f"label {i:02}", f"label {(i * 7) % 40:02}") for i in range(40)])
    rows.history = [one for one in rows.history if one.iteration < 2] + scores_of(rows.predictions)
    page = Page(rows.html())
    assert ("table", "class", "matrix") not in page.attributes
    assert (
        "Labels that the student of iteration 2 takes for one another most often 40 test questions, 40 labels"
        in page.text
    )
    assert page.text.count("1 of 1") == 8


# Promotion


@pytest.mark.parametrize(
    ("outcome", "headline"),
    [
        ("pending", "Nothing is promoted yet"),
        ("promoted", "Promoted: it is in production now"),
        ("would_promote", "It would be promoted"),
        ("kept", "Production stays as it is"),
    ],
)
def test_the_promotions_verdict_is_shown_whichever_way_it_falls(outcome: str, headline: str) -> None:
    rows = Answered()
    rows.promotion = promotion_verdict(outcome)
    assert rows.summary["promotion"] == rows.promotion
    for text in (Page(rows.html()).text, rows.markdown().replace("\\", "")):
        for shown in (
            headline,
            f"Promotion: this is why it is {outcome}.",
            "v-new",
            "v-old",
            "65.0%",
            "the candidate is at +15.0 points against the version in production (95% paired bootstrap interval +8.0 "
            "to +22.0 points; McNemar's exact test: p",
            "the paired bootstrap decides, at level 0.05.",
            "Both answer 90 of them right, only the candidate 40, only the version in production 10, neither 60.",
            "label: refund",
            "\u22125.0 points",
            "too few to count",
            "the interval lies above 0",
        ):
            assert shown in text, shown
        assert ("not passed" in text) == (outcome == "kept")


def test_a_first_version_and_a_run_that_goes_on_read_well() -> None:
    rows = Answered()
    rows.promotion = promotion_verdict("promoted", incumbent=None, comparison=None)
    for text in (Page(rows.html()).text, rows.markdown().replace("\\", "")):
        assert "v-new" in text
        assert "paired bootstrap interval" not in text.split("Promotion", 1)[1].split("Answers after")[0]
        assert "None" not in text.replace("None: the student", "")
    rows.promotion = promotion_verdict("pending", candidate=None, incumbent=None, comparison=None, checks=[])
    assert "Nothing is promoted yet" in Page(rows.html()).text
    assert "Candidate" not in rows.markdown()


def test_rows_that_the_incumbent_was_trained_on_are_told() -> None:
    rows = Answered()
    rows.promotion = promotion_verdict("kept", comparison=comparison(left_out=7, test="mcnemar", level=0.01))
    text = Page(rows.html()).text
    assert "The version in production was trained on 7 validation rows of this run, which count for neither." in text
    assert "(99% paired bootstrap interval" in text
    assert "McNemar's exact test decides, at level 0.01." in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "verdict is not JSON"),
        ("[]", "is no verdict of a promotion"),
        ('{"outcome": "maybe"}', "is no verdict of a promotion"),
        ('{"outcome": "kept", "schema_version": 9}', "has version 9, and this llm2llm knows 1"),
        (json.dumps(promotion_verdict("kept", iteration=1)), "is the verdict of iteration 1, not 2"),
    ],
)
def test_what_is_no_verdict_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "verdict"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_promotion(path, 2)


def test_a_verdict_is_read_as_promote_writes_it(tmp_path: Path) -> None:
    from llm2llm.components.promote.verdict import verdict_text

    written = promotion_verdict("kept")
    (tmp_path / "verdict").write_text(verdict_text(written), encoding="utf-8")
    assert read_promotion(tmp_path / "verdict", 2) == written


# Safety


class HostileAnswered(Rows):
    """The hostile run with `text` in every field of answers and promotion that holds text."""

    def __init__(self, text: str) -> None:
        rows = hostile_run(text)
        self.__dict__.update(rows.__dict__)
        right, given = text or "x", f"{text} too"
        self.test = [example("q1", right), example("q2", right), example("q3", given)]
        self.predictions = [
            prediction(row, answer, confidence=0.5, truncated=True)
            for row, answer in zip(self.test, [right, given, None], strict=True)
        ]
        self.history = [one for one in self.history if one.iteration < 2 and one.split == "test"]
        self.history += [with_gain(one, 0.1, 0.05, 0.15, 0.01) for one in scores_of(self.predictions)]
        self.promotion = promotion_verdict("kept", text)
        self.confusions = [confusion(right, given), confusion(given, right), confusion(given, None)]

    @property
    def summary(self) -> dict[str, Any]:
        answers = count_answers(self.predictions, {"test": self.test}, self.history, True)
        delivered = count_delivered(self.confusions, super().summary["best_iteration"])
        return {**super().summary, "answers": answers, "promotion": self.promotion, "delivered": delivered}


@cache
def harmless_elements() -> set[tuple[str, str]]:
    return HARMLESS.union(
        *(elements(HostileAnswered(t).html(hostile_config(t))) for t in ("harmless", "harmless " * 99))
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts(text: str) -> None:
    html = HostileAnswered(text).html(hostile_config(text))
    assert elements(html) <= harmless_elements()
    html.encode("utf-8")
    markdown = HostileAnswered(text).markdown(hostile_config(text))
    harmless = HostileAnswered("harmless").markdown(hostile_config("harmless"))
    assert [cells(line) for line in markdown.splitlines()] == [cells(line) for line in harmless.splitlines()]
    assert "<" not in markdown


# From artifacts to artifacts


def given(folder: Path, rows: Answered, promotion: dict[str, Any] | None) -> dict[str, Any]:
    inputs = artifacts(folder, rows) | builders.artifacts(folder, "splits", "predictions")
    write_splits(inputs["splits"], {"seeds": rows.seeds, "test": rows.test})
    write_artifact(inputs["predictions"], "predictions", rows.predictions)
    if promotion is not None:
        inputs["promotion"] = LocalArtifact(str(folder / "verdict"))
        Path(inputs["promotion"].path).write_text(json.dumps(promotion), encoding="utf-8")
    return inputs


def test_run_counts_the_answers_and_keeps_the_verdict(tmp_path: Path) -> None:
    rows, promotion = Answered(), promotion_verdict("kept")
    inputs = given(tmp_path, rows, promotion)
    report.python_func(**inputs, iteration=2)
    summary = json.loads(Path(inputs["summary"].path).read_text(encoding="utf-8"))
    assert summary["answers"] == rows.summary["answers"]
    assert summary["promotion"] == promotion
    manifest = json.loads(Path(inputs["manifest"].path).read_text(encoding="utf-8"))
    assert manifest["verdict"] == promotion
    assert [decision["iteration"] for decision in manifest["decisions"]] == [0, 1, 2]
    assert inputs["manifest"].metadata["kind"] == "manifest"


def test_run_twice_gives_the_same_whatever_the_order(tmp_path: Path) -> None:
    first, second = Answered(), Answered()
    random.Random(0).shuffle(second.predictions)
    one = given(tmp_path / "a", first, promotion_verdict("promoted"))
    other = given(tmp_path / "b", second, promotion_verdict("promoted"))
    report.python_func(**one, iteration=2)
    report.python_func(**other, iteration=2)
    for name in ("html", "markdown", "summary"):
        assert content_hash(one[name].path) == content_hash(other[name].path)


def test_run_holds_the_training_set_against_the_rows_held_out(tmp_path: Path) -> None:
    rows = Answered()
    inputs = given(tmp_path, rows, None)
    leaked = [*rows.training_set[:-1], replace(rows.training_set[-1], question=rows.test[0].question)]
    write_artifact(inputs["training_set"], "examples", leaked)
    report.python_func(**inputs, iteration=2)
    leakage = json.loads(Path(inputs["summary"].path).read_text(encoding="utf-8"))["leakage"]
    assert (leakage["against"], leakage["matches"]) == ({"validation": 0, "test": 10}, 1)
    assert leakage["ids"] == [leaked[-1].id]


def test_run_refuses_a_verdict_of_another_iteration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = given(tmp_path, Answered(), promotion_verdict("kept", iteration=0))
    with pytest.raises(SystemExit) as stopped:
        report.python_func(**inputs, iteration=2)
    assert stopped.value.code == 2
    assert "is the verdict of iteration 0, not 2" in capsys.readouterr().err
    assert not Path(inputs["html"].path).exists()
