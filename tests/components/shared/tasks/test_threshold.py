"""Thresholds for a label: the false-positive rate holds, and no lower threshold would hold it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.evaluate.evaluate import threshold_figures, thresholds
from llm2llm.components.promote.promote import keep_candidate
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Split
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.registry.card import render_card
from llm2llm.components.shared.registry.records import Record
from llm2llm.components.shared.registry.versions import candidate_uri, read_document
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.tasks.threshold import choose_threshold, flagged
from llm2llm.pipelines.config import load_config
from tests.support.builders import example, prediction, score
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


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task=snips"], r"evaluate.threshold: for tasks of two labels, and task 'snips' has 7"),
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
