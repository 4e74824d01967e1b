"""The controls that need no training: the student as it was, and the same with seeds in its prompt."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.controls.component import controls as stage
from llm2llm.components.controls.controls import choose_shots
from llm2llm.components.controls.settings import ControlSettings
from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.journal import Journal, read_journal
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.predict import fitting_shots, predict
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.settings import FineTuneSettings
from tests.support.builders import (
    decision,
    example,
    journal_artifact,
    outputs_of,
    score,
    splits_artifact,
)


def measured(folder: Path, rows: list[Example], task: Task, student: str, **settings: Any) -> Journal:
    """What the stage leaves at the end of a loop of one iteration."""
    history = [score(i, split, 1, 6) for i in (0, 1) for split in ("seeds", "validation", "test")]
    outputs = outputs_of("controls", folder / "out")
    values = {
        "task": task.model_dump(mode="json"),
        "student": student,
        "controls": {"steps": False},
        "random_seed": 3,
    }
    stage.python_func(
        splits=splits_artifact(folder, seeds=rows, validation=rows[:6], test=rows[6:12]),
        previous_journal=journal_artifact(folder, scores=history, decisions=[decision(1, 3, 1, False)]),
        settings=settings_text({**values, **settings}),
        iteration=1,
        **outputs,
    )
    return read_journal(outputs["journal"])


@pytest.mark.parametrize("mode", ["generate", "score"])
def test_the_student_is_asked_as_it_was_and_with_seeds_in_its_prompt(
    mode: str, taught_student: Path, rows: list[Example], colours: Task, tmp_path: Path
) -> None:
    found = measured(tmp_path, rows, colours, str(taught_student), evaluate={"mode": mode})
    assert [(one.name, one.split, one.n, one.steps, one.shots) for one in found.controls] == [
        ("untrained", "validation", 6, 0, 0),
        ("untrained", "test", 6, 0, 0),
        ("few_shot", "validation", 6, 0, 4),
        ("few_shot", "test", 6, 0, 4),
    ]
    settings = AnswerSettings.model_validate({"mode": mode})
    shots = choose_shots(rows, colours, 4, 3)
    for name, given in (("untrained", []), ("few_shot", shots)):
        asked = predict(taught_student, {"validation": rows[:6]}, 1, None, colours, settings, given)
        (one,) = [one for one in found.controls if (one.name, one.split) == (name, "validation")]
        assert one.correct_ids == sorted(row.example_id for row in asked if row.outcome == "correct")


def test_a_few_shot_prompt_has_the_instruction_once_and_each_seed_with_its_answer() -> None:
    task = Task(name="exam", form="multiple_choice", instruction="Choose.")
    shot = example("1 + 1?", "B", choices=["1", "2"])
    row = example("2 + 2?", "A", choices=["4", "5"])
    shown = tasks.with_shots(task, [shot], row)
    assert (shown.id, shown.answer, shown.choices) == (row.id, "A", ["4", "5"])
    assert tasks.prompt(task, shown.question, shown.choices) == (
        "Choose.\nQuestion: 1 + 1?\nA. 1\nB. 2\nAnswer: B\n\nQuestion: 2 + 2?\nA. 4\nB. 5\nAnswer:"
    )
    assert tasks.with_shots(task, [], row) == row
    # What a base model writes beyond its answer is the next question, which is not looked at.
    assert tasks.grade(task, "A\n\nQuestion: 3 + 3?\nAnswer: B", "A") == ("A", "correct")


def test_shots_are_of_each_label_by_turns_and_do_not_depend_on_the_order_of_the_rows(
    rows: list[Example], colours: Task
) -> None:
    shots = choose_shots(rows, colours, 6, 0)
    assert Counter(row.answer for row in shots[:3]) == Counter({"red": 1, "green": 1, "blue": 1})
    assert Counter(row.answer for row in shots) == Counter({"red": 2, "green": 2, "blue": 2})
    assert choose_shots(rows[::-1], colours, 6, 0) == shots
    assert choose_shots(rows, colours, 6, 1) != shots
    assert len(choose_shots(rows, colours, 100, 0)) == len(rows)


def test_as_many_shots_are_shown_as_leave_room_for_an_answer(
    taught_student: Path, rows: list[Example], colours: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm2llm.components.shared.inference import predict as inference

    splits, settings = {"test": rows[:6]}, AnswerSettings()

    def fitting(context: int) -> int:
        monkeypatch.setattr(inference, "_context", lambda student, settings: context)
        return len(fitting_shots(taught_student, splits, colours, settings, rows[6:14]))

    found = [fitting(context) for context in (4096, 60, 40, 8)]
    assert found[0] == 8
    assert 8 > found[1] > found[2] > 0
    assert found[3] == 8, "rows that have no room without shots either do not count against them"


def test_they_are_on_where_they_cost_nothing_but_answers(colours: Task) -> None:
    judged = Task(name="open", form="text", match="judge", rubric="Right when it is.")
    assert ControlSettings().with_untrained(FineTuneSettings(), "org/model", colours)
    assert not ControlSettings().with_untrained(FineTuneSettings(), "scratch", colours)
    assert not ControlSettings().with_untrained(FineTuneSettings(), "org/model", judged)
    assert ControlSettings(untrained=True).with_untrained(FineTuneSettings(), "org/model", judged)
    assert not ControlSettings(untrained=False).with_untrained(FineTuneSettings(), "org/model", colours)
    several = FineTuneSettings(nodes=2, checkpoint_uri="s3://bucket/folder")
    assert ControlSettings().any_wanted(several, "org/model", colours)
    assert not ControlSettings(untrained=False).any_wanted(several, "org/model", colours)


def test_no_shots_leave_one_control(taught_student: Path, rows: list[Example], colours: Task, tmp_path: Path) -> None:
    one = replace(rows[0], id="generated", parent_id=rows[1].id)
    found = measured(
        tmp_path, [*rows, one], colours, str(taught_student), controls={"steps": False, "shots": 0}
    ).controls
    assert {one.name for one in found} == {"untrained"}
