"""Own answers: right ones join, wrong ones are rejected sides, and a training with both leaves one student."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.load import load_tokenizer
from llm2llm.components.shared.tasks import TASKS, Task
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.train import own_answers as module
from llm2llm.components.train.own_answers import pairs_of, right_rows
from llm2llm.components.train.train import train


def with_own(settings: FineTuneSettings, **own: object) -> FineTuneSettings:
    return FineTuneSettings.load(settings.model_dump() | own, "train")


def test_right_answers_that_say_something_new_join(example: Callable[..., Example]) -> None:
    row = example("Tom has 2 cups and buys 3. How many?", "5", rationale="He has 2+3=5 cups.")
    answers = {
        row.id: [
            "He has 2+3=5  cups.\n#### 5",  # its own rationale
            "2 and 3 are 5.\n#### 6",
            "2 and 3 are 5.\n#### 5",
            "2 and 3\nare 5.\n#### 5",  # the same words
            "5",
            "Five, as 3+2=5.\n#### 5",
            "It is 5 = 2+3.\n#### 5.0",
        ]
    }
    found = right_rows([row], answers, TASKS["gsm8k"], 2)
    assert [(one.rationale, one.answer) for one in found] == [("2 and 3 are 5.", "5"), ("Five, as 3+2=5.", "5")]
    assert {(one.parent_id, one.strategy, one.teacher) for one in found} == {(row.id, "own_answers", None)}
    assert len({row.id, *(one.id for one in found)}) == 3
    assert right_rows([row], answers, TASKS["gsm8k"], 0) == []
    written = example("q", "5", rationale="r", parent_id="seed", strategy="llm2llm", call_key="k", confidence=0.5)
    (own,) = right_rows([written], {written.id: ["s\n#### 5"]}, TASKS["gsm8k"], 3)
    assert (own.parent_id, own.call_key, own.confidence) == ("seed", None, None)


def test_each_wrong_answer_once_is_held_against_the_rows_own(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path
) -> None:
    settings = with_own(quick, own_answers={"samples": 4}, preference={"epochs": 1, "pairs": 2})
    job = TrainingJob(rows[:3], colours, str(tiny_student), settings, 0)
    answers = {
        rows[0].id: ["red", "blue", "blue", "mauve", "green"],  # red
        rows[1].id: ["green"],
        rows[2].id: [],
    }
    found = pairs_of(tiny_student, job, answers)
    tokenizer = load_tokenizer(tiny_student)
    assert [
        (one.id, tokenizer.decode(one.chosen), tokenizer.decode(one.rejected)) for one in found
    ] == [(rows[0].id, " red</s>", " blue</s>"), (rows[0].id, " red</s>", " mauve</s>")]  # fmt: skip
    assert tokenizer.decode(found[0].prompt).endswith(f"{rows[0].question}\nColour:")


@pytest.mark.slow
def test_a_student_learns_from_its_own_wrong_answers(
    quick: FineTuneSettings,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[int] = []

    def counted(student: Path, job: TrainingJob) -> module.Answers:
        found = real(student, job)
        asked.extend(len(some) for some in found.values())
        return found

    real = module.own_answers
    monkeypatch.setattr(module, "own_answers", counted)
    # After one epoch it knows that colours are asked for, and not which.
    settings = with_own(
        quick,
        epochs=4,
        own_answers={"samples": 4, "temperature": 1.0},
        preference={"epochs": 1},
        checkpoint_uri=str(tmp_path / "checkpoints"),
    )
    log = train(rows, colours, str(tiny_student), None, settings, 0, tmp_path / "model")
    assert len(asked) == len(rows)
    assert 0 < log.preference_pairs <= len(rows)
    said = json.loads((tmp_path / "model" / "training.json").read_text())
    assert said["steps"] == log.steps == 24 + len(log.preference_loss_curve)
    assert said["preference_pairs"] == log.preference_pairs
    assert said["own_rows"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) in (["checkpoints", "model"], ["model"])
    assert f"train: {log.preference_pairs} pairs of a right and a wrong completion" in capsys.readouterr().out


@pytest.mark.slow
def test_right_answers_join_a_second_training_from_where_the_first_began(
    quick: FineTuneSettings, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    example: Callable[..., Example],
) -> None:  # fmt: skip
    rows = [example(f"{n} and 1?", str(n + 1), rationale=f"{n}+1={n + 1}") for n in range(4)]
    said = {row.id: [f"1 more than {n} is {n + 1}\n#### {n + 1}", "no idea"] for n, row in enumerate(rows)}
    monkeypatch.setattr(module, "own_answers", lambda student, job: said)
    task = TASKS["gsm8k"].model_copy(update={"instruction": ""})
    settings = with_own(quick, max_steps=2, max_length=128, own_answers={"samples": 2, "join": 1})
    log = train(rows, task, str(tiny_student), None, settings, 0, tmp_path / "model")
    assert (log.rows, log.own_rows, log.preference_pairs, log.steps) == (8, 4, 0, 2)
    assert json.loads((tmp_path / "model" / "training.json").read_text())["own_rows"] == 4
    plain = train(
        [*rows, *right_rows(rows, said, task, 1)], task, str(tiny_student), None,
        with_own(settings, own_answers={}), 0, tmp_path / "plain",
    )  # fmt: skip
    assert plain.loss_curve == log.loss_curve
