"""Rationales of labels and letters: before the answer, or as a second task beside it."""

from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared import tasks
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.settings import AnswerSettings, check_mode
from llm2llm.components.shared.tasks import Task, load_task
from llm2llm.components.shared.training.encoding import encode_rows
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.teacher_augment.strategies import STRATEGIES

LABELS: dict[str, Any] = {"name": "mail", "form": "classification", "labels": ["refund", "delivery"], "rationale": True}
BEFORE = load_task(LABELS)
SECOND = load_task({**LABELS, "rationale_as": "second_task"})
LETTERS = load_task({"name": "quiz", "form": "multiple_choice", "rationale": True})
WHY = "It speaks of delivery, but asks for money back."


def test_before_the_answer_only_what_stands_after_the_mark_counts() -> None:
    answer, rationale = tasks.normalise(BEFORE, "refund", [], f" {WHY}\n")
    assert (answer, rationale) == ("refund", WHY)
    written = tasks.target(BEFORE, answer, rationale)
    assert written == f"{WHY}\n#### refund"
    assert tasks.grade(BEFORE, written, "refund") == ("refund", "correct")
    assert tasks.grade(BEFORE, f"{WHY}\n#### delivery", "refund")[1] == "wrong"
    assert tasks.grade(BEFORE, "It is a refund.\n#### none of them", "refund")[1] == "unparseable"
    assert tasks.grade(BEFORE, "refund", "refund")[1] == "correct"
    assert tasks.rationale_in(BEFORE, written) == WHY
    assert tasks.target(BEFORE, "refund", None) == "#### refund"


def test_as_a_second_task_the_student_writes_the_label_alone() -> None:
    assert tasks.normalise(SECOND, "refund", [], WHY) == ("refund", WHY)
    assert tasks.target(SECOND, "refund", WHY) == "refund"
    assert tasks.rationale_in(SECOND, "refund") is None
    assert tasks.rationale_prompt(SECOND, "Where is it?", []) == "Question: Where is it?\nRationale:"


def test_letters_have_rationales_too() -> None:
    assert tasks.normalise(LETTERS, "b", ["one", "two"], "A is odd.") == ("B", "A is odd.")
    assert tasks.grade(LETTERS, "A is odd.\n#### B", "B") == ("B", "correct")


def test_without_rationales_rows_keep_none() -> None:
    plain = load_task({**LABELS, "rationale": False})
    assert tasks.normalise(plain, "refund", [], WHY) == ("refund", None)


def test_a_rationale_with_the_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="the rationale holds ####, after which the answer is read"):
        tasks.normalise(BEFORE, "refund", [], "so: #### delivery")


@pytest.mark.parametrize("task", [BEFORE, SECOND, LETTERS], ids=["before", "second_task", "letters"])
def test_the_teacher_returns_a_rationale_before_the_answer(task: Task) -> None:
    fields = list(tasks.answer_schema(task)["properties"])
    assert fields == ["rationale", "answer"]


def test_the_second_task_is_trained_beside_the_first(tiny_student: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    rows = [
        Example(id="1", question="red", answer="refund", rationale=WHY),
        Example(id="2", question="blue", answer="delivery"),
    ]
    found = encode_rows(tokenizer, SECOND, rows, [], 500, FineTuneSettings())
    assert [row.id for row in found.rows] == ["1", "2", "1:rationale"]
    assert found.second_tasks == 1
    texts = [tokenizer.decode(row.tokens, skip_special_tokens=True) for row in found.rows]
    assert texts[0].endswith("Answer: refund")
    assert texts[2].endswith(f"Rationale: {WHY}")
    first = encode_rows(tokenizer, BEFORE, rows, [], 500, FineTuneSettings())
    assert (len(first.rows), first.second_tasks) == (2, 0)
    assert tokenizer.decode(first.rows[0].tokens, skip_special_tokens=True).endswith(f"Answer: {WHY}\n#### refund")


@pytest.mark.parametrize("settings", [AnswerSettings(mode="score"), AnswerSettings(hardness=True)])
def test_labels_are_not_measured_behind_the_right_rationale(settings: AnswerSettings) -> None:
    with pytest.raises(ValueError, match=r"writes a rationale first; set task\.rationale_as: second_task"):
        check_mode(BEFORE, settings)
    check_mode(SECOND, settings)


def test_star_needs_rationales_that_the_student_writes() -> None:
    assert not STRATEGIES["star"].unfit(BEFORE)
    assert "set task.rationale_as: before" in STRATEGIES["star"].unfit(SECOND)
    assert not STRATEGIES["cot"].unfit(SECOND)
