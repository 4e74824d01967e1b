"""Thresholds for a label: the false-positive rate holds, and no lower threshold would hold it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.evaluate.evaluate import threshold_figures, thresholds, with_flags
from llm2llm.components.promote.promote import keep_candidate
from llm2llm.components.report.report import render_html, render_markdown
from llm2llm.components.report.summary import summarise
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import SPLITS, Example, Split
from llm2llm.components.shared.inference.predict import predict
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.registry.card import render_card
from llm2llm.components.shared.registry.records import Record
from llm2llm.components.shared.registry.versions import candidate_uri, read_document
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.tasks.threshold import ThresholdSettings, choose_threshold, flagged
from llm2llm.pipelines.config import load_config
from tests.support.builders import decision, example, prediction, score
from tests.support.registry_makers import CONFIG, SEEDS, model_folder

TASK = Task(name="safety", form="classification", labels=["safe", "unsafe"])
SCORES = st.lists(st.sampled_from([place / 10 for place in range(11)]), max_size=30)


@given(SCORES.filter(bool), SCORES, st.sampled_from([0.0, 0.01, 0.1, 0.29, 0.5, 0.99]))
def test_the_lowest_that_keeps_the_rate(negatives: list[float], positives: list[float], most: float) -> None:
    threshold = choose_threshold(negatives, positives, most)
    found = flagged("unsafe", threshold, positives, negatives)
    assert found.false_alarms <= most * len(negatives) + 1e-9
    for lower in {one for one in [*negatives, *positives] if one < threshold}:
        other = flagged("unsafe", lower, positives, negatives)
        # A lower one flags too many of the others, or no row more.
        assert other.false_alarms > most * len(negatives) + 1e-9 or other.found == found.found


def test_by_hand() -> None:
    negatives, positives = [0.9, 0.5, 0.4, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], [0.95, 0.6, 0.45, 0.3]
    found = flagged("unsafe", choose_threshold(negatives, positives, 0.1), positives, negatives)
    assert (found.threshold, found.found, found.false_alarms) == (pytest.approx(0.55), 2, 1)
    assert (found.recall, found.false_positive_rate) == (0.5, 0.1)
    none = flagged("unsafe", choose_threshold(negatives, positives, 0.0), positives, negatives)
    assert (none.recall, none.false_positive_rate) == (0.25, 0.0)
    with pytest.raises(ValueError, match="no rows without the label"):
        choose_threshold([], positives, 0.1)


def answers(split: Split, safe: list[float], unsafe: list[float]) -> tuple[list[Any], list[Any]]:
    """Rows and answers, by the probability of `unsafe`."""
    rows, said = [], []
    for label, chances in (("safe", safe), ("unsafe", unsafe)):
        for number, chance in enumerate(chances):
            rows.append(example(f"{split} {label} {number}", label))
            given, sure = ("unsafe", chance) if chance > 0.5 else ("safe", 1 - chance)
            said.append(prediction(rows[-1], given, split, confidence=sure))
    return rows, said


def test_it_is_chosen_on_validation_and_told_of_test(tmp_path: Any) -> None:
    validation, said = answers("validation", [0.1] * 9 + [0.7], [0.2, 0.6, 0.8, 0.9])
    test, more = answers("test", [0.1, 0.9], [0.74, 0.76])
    settings = AnswerSettings.model_validate(
        {"mode": "score", "threshold": {"label": "unsafe", "max_false_positive_rate": 0.0}}
    )
    found = thresholds(settings, TASK, {"validation": validation, "test": test}, [*said, *more])
    assert threshold_figures(found) == {
        "threshold": 0.75, "validation_recall_at_threshold": 0.5, "validation_false_positive_rate": 0.0,
        "test_recall_at_threshold": 0.5, "test_false_positive_rate": 0.5,
    }  # fmt: skip
    assert thresholds(AnswerSettings(), TASK, {"validation": validation}, said) == {}
    scores = [score(0, "validation", 12, 14)]
    config = CONFIG | {"task": TASK.model_dump(mode="json"), "evaluate": settings.model_dump(mode="json")}
    keep_candidate(
        str(tmp_path / "r"),
        "run",
        model_folder(tmp_path / "m"),
        said,
        scores,
        SEEDS,
        SEEDS,
        validation,
        [],
        config,
        0,
        0,
    )
    record = read_document(candidate_uri(str(tmp_path / "r"), "run"), Record)
    assert record.threshold is not None
    assert (record.threshold.threshold, record.threshold.recall) == (0.75, 0.5)
    assert "Flag a row as `unsafe` when that label's probability is at least 0.7500" in render_card(record)
    assert "probability is at least" not in render_card(replace(record, threshold=None))


def test_one_label_of_several_is_held_against_all_others() -> None:
    """The probability counts, not whether the label is the likeliest: 0.4 beside 0.35 and 0.25 and 0.3 beside 0.7."""
    task = TASK.model_copy(update={"labels": ["safe", "rude", "unsafe"]})
    chances = {"safe": [0.05, 0.1, 0.3], "rude": [0.2, 0.3], "unsafe": [0.4, 0.8, 0.1]}
    rows, said = [], []
    for label, of_unsafe in chances.items():
        for number, chance in enumerate(of_unsafe):
            rows.append(example(f"{label} {number}", label))
            given, sure = ("unsafe", chance) if chance >= 0.4 else ("safe", 0.65)
            said.append(prediction(rows[-1], given, "validation", confidence=sure, flag_probability=chance))
    settings = AnswerSettings.model_validate(
        {"mode": "score", "threshold": {"label": "unsafe", "max_false_positive_rate": 0.0}}
    )
    found = thresholds(settings, task, {"validation": rows}, said)["validation"]
    assert (found.threshold, found.found, found.positives) == (pytest.approx(0.35), 2, 3)
    assert (found.false_alarms, found.negatives) == (0, 5)
    lower = settings.model_copy(update={"threshold": ThresholdSettings(label="unsafe", max_false_positive_rate=0.4)})
    found = thresholds(lower, task, {"validation": rows}, said)["validation"]
    assert (found.threshold, found.found, found.false_alarms) == (pytest.approx(0.25), 2, 2)


def test_the_students_probability_of_the_label_is_kept(
    taught_student: Path, rows: list[Example], colours: Task
) -> None:
    values = {"mode": "score", "threshold": {"label": "green"}}
    said = predict(taught_student, {"test": rows[:9]}, 0, None, colours, AnswerSettings.model_validate(values))
    plain = predict(taught_student, {"test": rows[:9]}, 0, None, colours, AnswerSettings(mode="score"))
    right = {row.id: row.answer for row in rows}
    for one, other in zip(said, plain, strict=True):
        assert one.flag_probability is not None
        assert 0 <= one.flag_probability <= 1
        assert replace(one, flag_probability=None) == other
        if one.parsed == "green":
            assert one.flag_probability == one.confidence
        if right[one.example_id] == "green":
            assert one.flag_probability == one.label_probability
    assert {one.parsed for one in said} == {"red", "green", "blue"}


def test_the_report_shows_it() -> None:
    validation, said = answers("validation", [0.1] * 9 + [0.7], [0.2, 0.6, 0.8, 0.9])
    settings = AnswerSettings.model_validate({"mode": "score", "threshold": {"label": "unsafe"}})
    flags = thresholds(settings, TASK, {"validation": validation}, said)
    scores = [with_flags(score(0, split, 2, 14), flags) for split in SPLITS]
    numbers = summarise([example("seed")], scores, [], [decision(0, 0, 0, False)], [], [])
    assert numbers["threshold"]["label"] == "unsafe"
    assert list(numbers["threshold"]["splits"]) == ["validation"]
    recall = numbers["threshold"]["splits"]["validation"]["recall"]
    assert (recall["value"], recall["k"], recall["n"]) == (0.5, 2, 4)
    assert recall["low"] < 0.5 < recall["high"]
    html = render_html({"name": "x"}, numbers, [], [], [])
    assert "Flagging rows as <bdi>unsafe</bdi>" in html
    assert "2 of 4 rows with the label" in html
    assert "0 of 10 other rows" in html
    assert "| Validation | 50.0%" in render_markdown({"name": "x"}, numbers, [])
    without = summarise([example("seed")], [score(0, "test", 2, 14)], [], [decision(0, 0, 0, False)], [], [])
    assert without["threshold"] is None
    assert "Flagging" not in render_html({"name": "x"}, without, [], [], [])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task=snips"], r"evaluate.threshold.label: 'unsafe' is none of the labels \['AddToPlaylist'"),
        (
            ["task=casehold", "teacher_augment={teacher: openai, model: m}"],
            r"evaluate.threshold: for tasks with labels, and task 'casehold' has none",
        ),
        (
            ["task=sst2", *["evaluate.mode=generate", "evaluate.threshold.label=negative"]],
            "threshold: answers have a probability with mode 'score' only",
        ),
        (["task=sst2"], r"threshold.label: 'unsafe' is none of the labels \['negative', 'positive'\]"),
    ],
)
def test_what_has_no_probabilities_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config("quickstart", ["evaluate={mode: score, threshold: {label: unsafe}}", *overrides])
