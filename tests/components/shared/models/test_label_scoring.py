"""Mode `score`: the likeliest label, its probability, and what a text could never tell apart."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.generate import load_student
from llm2llm.components.shared.inference.predict import predict
from llm2llm.components.shared.inference.row_losses import hardness
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.label_scoring import likeliest, probabilities
from llm2llm.components.shared.tasks import TASKS, Task
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import FineTuneSettings

SCORE = AnswerSettings(mode="score", batch_size=5)


def test_probabilities_are_a_softmax() -> None:
    assert probabilities([-1000.0, -1000.0]) == [0.5, 0.5]
    assert probabilities([math.log(0.2) - 50, math.log(0.6) - 50]) == pytest.approx([0.25, 0.75])
    assert likeliest(["a", "b", "c"], [-2.0, -1.0, -1.0])[0] == "b", "of equals the first"
    assert likeliest(["a", "b"], [-math.inf, -3.0]) == ("b", 1.0)


@pytest.mark.parametrize("broken", [[math.nan, -1.0], [-math.inf, -math.inf]])
def test_a_broken_student_is_one_clear_error(broken: list[float]) -> None:
    with pytest.raises(UserError, match="its weights are broken"):
        probabilities(broken)


@pytest.mark.slow
def test_the_answer_is_the_likeliest_label(rows: list[Example], colours: Task, tiny_student: Path) -> None:
    splits: Any = {"seeds": rows[:10], "validation": rows[10:17], "test": rows[17:]}
    found = {p.example_id: p for p in predict(tiny_student, splits, 3, None, colours, SCORE)}
    model, tokenizer = load_student(tiny_student, SCORE)
    as_label = {
        label: hardness(model, tokenizer, [replace(row, answer=label) for row in rows], colours, 8)
        for label in colours.labels
    }
    for place, row in enumerate(rows):
        shares = {label: as_label[label][place].label_probability or 0.0 for label in colours.labels}
        best = max(shares, key=lambda label: shares[label])
        p = found[row.id]
        assert (p.completion, p.parsed, p.truncated, p.samples) == (best, best, False, 1)
        assert p.outcome == ("correct" if best == row.answer else "wrong")
        assert p.confidence == pytest.approx(shares[best], abs=1e-5)
        assert p.label_probability == pytest.approx(shares[row.answer], abs=1e-5)
        assert p.margin == pytest.approx(
            shares[row.answer] - max(v for label, v in shares.items() if label != row.answer), abs=1e-5
        )
        assert p.loss is not None


@pytest.mark.slow
def test_a_label_that_begins_another_is_not_favoured(
    tmp_path: Path, example: Callable[..., Example], quick: FineTuneSettings
) -> None:
    """`art` begins `art show` and every token of it: only its end token tells them apart."""
    task = Task(name="prefixes", form="classification", labels=["art", "art show", "art show tent"], max_new_tokens=12)
    shapes = ["one {}", "the {} here", "my {}!", "{} again", "see {}", "so {}"]
    words = {"leaf": "art", "stone": "art show", "cloud": "art show tent"}
    rows = [example(shape.format(word), label) for shape in shapes for word, label in words.items()]
    fine_tune(rows, task, "scratch", quick.model_copy(update={"epochs": 40.0}), 0, tmp_path)
    found = predict(tmp_path, {"seeds": rows}, 0, None, task, SCORE)
    assert [p.outcome for p in found] == ["correct"] * len(rows)
    assert min(p.confidence or 0 for p in found) > 0.8


@pytest.mark.slow
def test_choices_are_the_rows_own(example: Callable[..., Example], tiny_student: Path) -> None:
    task = Task(name="choose", form="multiple_choice")
    rows = [example("Which?", "B", choices=["x", "y"]), example("Which?", "D", choices=["1", "2", "3", "4"])]
    found = {p.example_id: p for p in predict(tiny_student, {"test": rows}, 0, None, task, SCORE)}
    assert found[rows[0].id].parsed in ("A", "B")
    assert found[rows[1].id].parsed in ("A", "B", "C", "D")
    assert (found[rows[0].id].confidence or 0) >= 0.5


@pytest.mark.slow
def test_a_row_that_fills_the_context_is_not_asked(
    rows: list[Example], colours: Task, tiny_student: Path, example: Callable[..., Example], capsys: Any
) -> None:
    """The tiny student's context has 128 tokens."""
    long = example("red " * 300, "red")
    for settings in (SCORE, AnswerSettings(), AnswerSettings(samples=3, hardness=True)):
        found = {p.example_id: p for p in predict(tiny_student, {"seeds": [*rows, long]}, 0, None, colours, settings)}
        p = found.pop(long.id)
        assert (p.completion, p.outcome, p.truncated, p.confidence, p.loss) == ("", "unparseable", True, None, None)
        assert (p.samples, p.samples_unparseable) == (settings.samples, settings.samples)
        without = predict(tiny_student, {"seeds": rows}, 0, None, colours, settings)
        assert list(found.values()) == without
        assert f"1 rows leave no room for an answer in the student's context and count as truncated: {long.id}" in (
            capsys.readouterr().out
        )


def test_only_labels_and_choices_can_be_scored(tmp_path: Path, rows: list[Example]) -> None:
    with pytest.raises(UserError, match=r"evaluate\.mode: 'score' compares labels or choices, and task 'gsm8k'"):
        predict(tmp_path, {"seeds": rows}, 0, None, TASKS["gsm8k"], SCORE)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mode": "score", "samples": 4}, "samples: 4 answers are drawn only with mode 'generate'"),
    ],
)
def test_contradictions_name_the_key_and_the_fix(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        AnswerSettings.load(values, "evaluate")
