"""The stage `out_of_fold`: its students are trained as `train`'s are."""

from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.out_of_fold import out_of_fold as module
from llm2llm.components.out_of_fold.component import out_of_fold as stage
from llm2llm.components.shared.base.sampling import fold_of
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.training_log import TrainingLog
from tests.support.builders import outputs_of, rows_artifact


@pytest.mark.slow
def test_general_rows_are_mixed_in(
    tmp_path: Path,
    rows: list[Example],
    other_rows: list[Example],
    small_training: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logs = []
    train = module.train_on_devices

    def watched(job: TrainingJob, output: Path) -> TrainingLog:
        logs.append(train(job, output))
        return logs[-1]

    monkeypatch.setattr(module, "train_on_devices", watched)
    outputs = outputs_of("out_of_fold", tmp_path)
    stage.python_func(
        training_set=rows_artifact(tmp_path, "training_set", "examples", rows),
        replay_set=rows_artifact(tmp_path, "replay_set", "examples", other_rows),
        settings=settings_text({**small_training, "out_of_fold": {"folds": 3}}),
        fold=0,
        iteration=1,
        **outputs,
    )
    held_out = [row for row in rows if fold_of({one.id: one.answer for one in rows}, 3, 0)[row.id] == 0]
    ((replayed, trained_on),) = [(log.rows_replayed, log.rows) for log in logs]
    assert (replayed, trained_on) == (round((24 - len(held_out)) / 2), 24 - len(held_out) + replayed)
    answered = read_rows(outputs["predictions"].path, "predictions", Prediction)
    assert {one.example_id for one in answered} == {row.id for row in held_out}


def test_the_journal_is_needed_to_train_only_sometimes(
    tmp_path: Path, rows: list[Example], colours: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "task": colours.model_dump(mode="json"),
        "student": "scratch",
        "out_of_fold": {"folds": 3, "only_above": 0.98},
    }
    with pytest.raises(SystemExit) as caught:
        stage.python_func(
            training_set=rows_artifact(tmp_path, "training_set", "examples", rows),
            settings=settings_text(settings),
            fold=0,
            **outputs_of("out_of_fold", tmp_path / "out"),
        )
    assert caught.value.code == 2
    assert "error: out_of_fold.only_above: needs the journal" in capsys.readouterr().err
