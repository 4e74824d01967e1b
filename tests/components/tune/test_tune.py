"""Students are trained with each of several settings, and the loop's stages get the best."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.journal import Journal, read_journal
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.stages import STAGES
from llm2llm.components.tune.component import tune as stage
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.config.stage_settings import stage_settings
from tests.support.builders import journal_artifact, outputs_of, prediction, reject, splits_artifact

GRID = {"learning_rate": [1e-6, 5e-3], "epochs": [1, 30]}


class Tuning:
    """Calls the stage."""

    def __init__(self, folder: Path, rows: list[Example], task: Task, quick: FineTuneSettings) -> None:
        self.folder, self.rows, self.task, self.quick = folder, rows, task, quick
        self.trained: list[dict[str, Any]] = []
        """The learning rate, epochs and rows of every training."""
        self.texts: Any = None

    def __call__(self, tune: dict[str, Any], validation: int = 9, **train: Any) -> Journal:
        outputs = outputs_of("tune", self.folder / "out")
        quick = self.quick.model_dump(mode="json", exclude={"learning_rate", "epochs"})
        self.texts = stage.python_func(
            splits=splits_artifact(self.folder, seeds=self.rows[:15], validation=self.rows[15 : 15 + validation]),
            previous_journal=journal_artifact(self.folder, rejects=[reject(0, "in_test")]),
            settings=settings_text(
                {
                    "task": self.task.model_dump(mode="json"),
                    "student": "scratch",
                    "train": {**quick, "checkpoint_uri": str(self.folder / "checkpoints"), **train},
                    "tune": tune,
                    "handed_on": {"controls": {"shots": 2}, "out_of_fold": {"folds": 4}},
                }
            ),
            **outputs,
        )
        return read_journal(outputs["journal"])


@pytest.fixture
def tuning(
    tmp_path: Path, rows: list[Example], colours: Task, quick: FineTuneSettings, monkeypatch: pytest.MonkeyPatch
) -> Tuning:
    """With every training counted."""
    from llm2llm.components.shared.training import torchrun

    made, train = Tuning(tmp_path, rows, colours, quick), torchrun.train_on_devices

    def watched(job: TrainingJob, output: Path) -> Any:
        keys = {key: getattr(job.settings, key) for key in ("learning_rate", "epochs")}
        made.trained.append({**keys, "rows": len(job.training_set)})
        return train(job, output)

    monkeypatch.setattr(torchrun, "train_on_devices", watched)
    return made


@pytest.fixture
def answering(tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[float, float], int]:
    """In place of students: how many of its rows one of a learning rate and a number of epochs answers right."""
    from llm2llm.components.shared.inference import predict
    from llm2llm.components.shared.training import torchrun

    right: dict[tuple[float, float], int] = {}

    def train(job: TrainingJob, output: Path) -> None:
        keys = {key: getattr(job.settings, key) for key in ("learning_rate", "epochs")}
        tuning.trained.append({**keys, "rows": len(job.training_set)})
        (output / "values.json").write_text(json.dumps(keys))

    def ask(student: Path, splits: Any, iteration: int, fold: int | None, *_: Any) -> list[Prediction]:
        values = json.loads((student / "values.json").read_text())
        ((split, rows),) = splits.items()
        many = right[values["learning_rate"], values["epochs"]]
        return [
            prediction(row, row.answer if place < many else None, split, fold=fold) for place, row in enumerate(rows)
        ]

    monkeypatch.setattr(torchrun, "train_on_devices", train)
    monkeypatch.setattr(predict, "predict_beside_training", ask)
    return right


@pytest.mark.slow
def test_settings_that_teach_win_over_those_that_do_not(tuning: Tuning) -> None:
    found = tuning(GRID)
    assert [json.loads(trial.settings) for trial in found.trials] == [
        {"learning_rate": 1e-6, "epochs": 1.0},
        {"learning_rate": 1e-6, "epochs": 30.0},
        {"learning_rate": 5e-3, "epochs": 1.0},
        {"learning_rate": 5e-3, "epochs": 30.0},
    ]
    assert [trial.chosen for trial in found.trials] == [False, False, False, True]
    assert [trial.split for trial in found.trials] == ["validation"] * 4
    assert found.trials[3].correct > found.trials[0].correct
    assert all(len(trial.correct_ids) == trial.correct for trial in found.trials)
    assert len(found.rejects) == 1, "what was in the journal stays"
    assert not list((tuning.folder / "checkpoints").iterdir()), "nothing is left behind"


def test_each_stage_that_trains_gets_the_best_and_keeps_the_rest(
    tuning: Tuning, answering: dict[tuple[float, float], int]
) -> None:
    answering |= {(1e-6, 1): 3, (1e-6, 30): 8, (5e-3, 1): 5, (5e-3, 30): 7}
    tuning(GRID, batch_size=2)
    assert STAGES["tune"].hands_on == type(tuning.texts)._fields
    for name, text in tuning.texts._asdict().items():
        handed = json.loads(text)
        assert (handed["train"]["learning_rate"], handed["train"]["epochs"]) == (1e-6, 30), name
        assert handed["train"]["batch_size"] == 2
        assert handed.keys() <= set(STAGES[name].sections)
    assert json.loads(tuning.texts.controls)["controls"] == {"shots": 2}
    assert json.loads(tuning.texts.out_of_fold)["out_of_fold"] == {"folds": 4}


def test_what_is_handed_on_is_what_configure_would_have_written() -> None:
    from llm2llm.components.shared.data.schemas import Trial
    from llm2llm.components.tune.tune import handed_on

    free = ["train.learning_rate=2e-5", "filter_errors.selection=out_of_fold"]
    texts = stage_settings(load_config("quickstart", [*free, "tune.learning_rate=[0.1, 0.2]"]))
    trial = Trial(number=0, settings='{"learning_rate": 0.2}', chosen=True, split="validation", n=1, correct=1,
                  unparseable=0, accuracy=1, low=0, high=1)  # fmt: skip
    expected = stage_settings(load_config("quickstart", ["train.learning_rate=0.2", free[1]]))
    assert handed_on(json.loads(texts["tune"]), [trial]) == {name: expected[name] for name in STAGES["tune"].hands_on}


def test_of_equals_the_first_in_the_given_order_is_taken(
    tuning: Tuning, answering: dict[tuple[float, float], int]
) -> None:
    answering |= {(1e-6, 1): 2, (1e-6, 30): 8, (5e-3, 1): 8, (5e-3, 30): 8}
    assert [trial.chosen for trial in tuning(GRID).trials] == [False, True, False, False]
    other = {key: values[::-1] for key, values in GRID.items()}
    chosen = next(trial for trial in tuning(other).trials if trial.chosen)
    assert json.loads(chosen.settings) == {"learning_rate": 5e-3, "epochs": 30}


def test_with_folds_every_seed_is_asked_once_by_a_student_trained_without_it(
    tuning: Tuning, answering: dict[tuple[float, float], int]
) -> None:
    answering |= {(1e-6, 3): 2, (5e-3, 3): 4}
    found = tuning({"learning_rate": [1e-6, 5e-3], "folds": 3}, validation=0, epochs=3)
    assert [(trial.split, trial.folds, trial.n, trial.correct) for trial in found.trials] == [
        ("seeds", 3, 15, 6),
        ("seeds", 3, 15, 12),
    ]
    assert [one["rows"] for one in tuning.trained] == [10] * 6


def test_without_validation_rows_and_folds_it_ends_in_one_message(
    tuning: Tuning, capsys: pytest.CaptureFixture[str]
) -> None:
    for tune, said in (
        (
            GRID,
            "tune: there are no validation rows to score trials on; name some in data.validation, or set tune.folds",
        ),
        ({**GRID, "folds": 16}, "tune.folds: 16 folds of 15 seeds"),
    ):
        with pytest.raises(SystemExit) as ended:
            tuning(tune, validation=0)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    assert tuning.trained == []


def test_a_stage_that_is_run_again_trains_what_is_missing(
    tuning: Tuning, answering: dict[tuple[float, float], int]
) -> None:
    answering |= {(1e-6, 1): 2, (1e-6, 30): 4}
    with pytest.raises(KeyError):  # the third student cannot answer: as if the pod had died
        tuning(GRID)
    answering |= {(5e-3, 1): 8, (5e-3, 30): 3}
    assert len(tuning.trained) == 3
    again = tuning(GRID)
    assert [(one["learning_rate"], one["epochs"]) for one in tuning.trained[3:]] == [(5e-3, 1), (5e-3, 30)]
    assert [trial.correct for trial in again.trials] == [2, 4, 8, 3]
    tuning(GRID)
    assert len(tuning.trained) == 9, "what had been kept is gone"


@pytest.mark.slow
def test_a_learning_rate_that_ends_in_no_number_is_a_trial_without_a_student(
    tuning: Tuning, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tuning({"learning_rate": [1e30, 5e-3]}, epochs=4)
    assert [bool(trial.failed) for trial in found.trials] == [True, False]
    assert "is nan" in found.trials[0].failed or "is inf" in found.trials[0].failed
    assert [trial.chosen for trial in found.trials] == [False, True]
    with pytest.raises(SystemExit):
        tuning({"learning_rate": [1e30, 1e31]}, epochs=4)
    assert "no trial has ended with a student" in capsys.readouterr().err
