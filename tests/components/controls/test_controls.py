"""The controls: trained once, at the end, on the seeds alone, for as many steps as the delivered student had."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.controls.component import controls as stage
from llm2llm.components.controls.controls import steps_of
from llm2llm.components.controls.settings import ControlSettings
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.journal import Journal, read_journal
from llm2llm.components.shared.data.schemas import Example, Score
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.training_log import TrainingLog
from tests.support.builders import (
    control,
    decision,
    journal_artifact,
    outputs_of,
    score,
    splits_artifact,
)

HISTORY = [
    replace(score(iteration, split, right, 6, rows), steps=steps)
    for iteration, right, rows, steps in ((0, 2, 24, 6), (1, 5, 40, 10), (2, 4, 56, 14))
    for split in ("seeds", "validation", "test")
]


class Ran:
    """One call of the stage, with what it trained."""

    def __init__(self, folder: Path, rows: list[Example], task: Task, quick: FineTuneSettings) -> None:
        self.folder, self.rows, self.task, self.quick = folder, rows, task, quick
        self.jobs: list[TrainingJob] = []
        self.logs: list[TrainingLog] = []

    def __call__(self, best: int = 1, history: list[Score] = HISTORY, **train: Any) -> Journal:
        last = max(one.iteration for one in history)
        so_far = {"scores": history, "decisions": [decision(last, 3, best, go_on=False)]}
        outputs = outputs_of("controls", self.folder / "out")
        stage.python_func(
            splits=splits_artifact(self.folder, seeds=self.rows, validation=self.rows[:6], test=self.rows[6:12]),
            previous_journal=journal_artifact(self.folder, **so_far),
            settings=settings_text(
                {
                    "task": self.task.model_dump(mode="json"),
                    "student": "scratch",
                    "train": {**self.quick.model_dump(mode="json"), "batch_size": 4, **train},
                    "controls": {"steps": True},
                }
            ),
            iteration=last,
            **outputs,
        )
        return read_journal(outputs["journal"])


@pytest.fixture
def ran(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> Ran:
    from llm2llm.components.shared.training import torchrun

    ran = Ran(tmp_path, rows, colours, quick)
    train = torchrun.train_on_devices

    def watched(job: TrainingJob, output: Path) -> TrainingLog:
        ran.jobs.append(job)
        ran.logs.append(train(job, output))
        return ran.logs[-1]

    monkeypatch.setattr(torchrun, "train_on_devices", watched)
    return ran


@pytest.mark.slow
def test_the_seeds_alone_have_as_many_steps_as_the_delivered_student(ran: Ran) -> None:
    found = ran()
    ((job, log),) = zip(ran.jobs, ran.logs, strict=True)
    assert (log.steps, job.student, job.iteration) == (10, "scratch", 1)
    assert [row.id for row in job.training_set] == [row.id for row in ran.rows], "no generated row"
    same = job.settings.model_copy(update={"max_steps": 0, "record_losses": False})
    assert same == ran.quick.model_copy(update={"batch_size": 4, "record_losses": False, "max_steps": 0})
    assert [(one.name, one.iteration, one.split, one.n, one.steps) for one in found.controls] == [
        ("steps", 1, "validation", 6, 10),
        ("steps", 1, "test", 6, 10),
    ]
    assert all(len(one.correct_ids) == one.correct for one in found.controls)
    assert list(found.scores) == HISTORY, "the loop's own scores stay as they are"


def test_iteration_0_is_the_control_where_it_had_as_many_steps(ran: Ran) -> None:
    equal = [replace(one, steps=14) for one in HISTORY]
    found = ran(best=2, history=equal, max_steps=14)
    assert ran.jobs == []
    expected = [one for one in equal if one.iteration == 0 and one.split != "seeds"]
    assert [(one.split, one.correct, one.steps) for one in found.controls] == [
        (one.split, one.correct, 14) for one in expected
    ]


def test_a_delivered_student_of_the_seeds_alone_has_no_such_control(ran: Ran) -> None:
    assert ran(best=0).controls == []
    assert ran.jobs == []


def test_unknown_steps_are_not_guessed(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(history=[replace(one, steps=0) for one in HISTORY]).controls == []
    assert "is not known" in capsys.readouterr().out


def test_a_student_that_was_trained_on_and_on_has_had_the_steps_of_all_iterations() -> None:
    assert [steps_of(HISTORY, 2, from_previous) for from_previous in (False, True)] == [14, 30]
    assert steps_of([replace(one, steps=one.iteration) for one in HISTORY], 2, True) == 0, "one of them is not known"


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({}, True),
        ({"max_steps": 100}, True),
        ({"start_from": "previous"}, False),
        ({"nodes": 2}, False),
    ],
)
def test_whether_they_are_on_is_known_before_the_run(train: dict[str, Any], expected: bool) -> None:
    settings = FineTuneSettings.model_validate(train)
    assert ControlSettings().with_steps(settings) is expected
    assert ControlSettings(steps=True).with_steps(settings)
    assert not ControlSettings(steps=False).with_steps(settings)


def test_a_journal_of_before_there_were_controls_is_read(tmp_path: Path) -> None:
    one = control(["a"], 6)
    made = journal_artifact(tmp_path, scores=HISTORY, controls=[one])
    assert read_journal(made).controls == [one]
    (Path(made.path) / "controls.parquet").unlink()
    assert read_journal(made).controls == []
