"""The stage `out_of_fold`: its students are trained as `train`'s are."""

from pathlib import Path

import pytest

from llm2llm.components.out_of_fold import out_of_fold as module
from llm2llm.components.out_of_fold.run import run
from llm2llm.components.shared.base.sampling import fold_of
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.parquet import read_rows, write_rows
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.training_log import TrainingLog


@pytest.mark.slow
def test_general_rows_are_mixed_in(
    tmp_path: Path,
    rows: list[Example],
    other_rows: list[Example],
    colours: Task,
    quick: FineTuneSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifacts = {}
    for name, some in (("training_set", rows), ("replay_set", other_rows)):
        write_rows(tmp_path / name, "examples", some)
        artifacts[name] = LocalArtifact(str(tmp_path / name))
    logs = []
    train = module.train_on_devices

    def watched(job: TrainingJob, output: Path) -> TrainingLog:
        logs.append(train(job, output))
        return logs[-1]

    monkeypatch.setattr(module, "train_on_devices", watched)
    settings = {"batch_size": 4, "max_length": 64, "replay_fraction": 0.5, "scratch": quick.scratch.model_dump()}
    run(
        **artifacts,
        history=None,
        only_above=0.0,
        student="scratch",
        task=colours.model_dump(mode="json"),
        fold=0,
        folds=3,
        iteration=1,
        epochs=1.0,
        learning_rate=1e-3,
        random_seed=0,
        train_settings=settings,
        evaluate_settings={},
        predictions=LocalArtifact(str(tmp_path / "predictions")),
    )
    held_out = [row for row in rows if fold_of({one.id: one.answer for one in rows}, 3, 0)[row.id] == 0]
    ((replayed, trained_on),) = [(log.rows_replayed, log.rows) for log in logs]
    assert (replayed, trained_on) == (round((24 - len(held_out)) / 2), 24 - len(held_out) + replayed)
    answered = read_rows(tmp_path / "predictions", "predictions", Prediction)
    assert {one.example_id for one in answered} == {row.id for row in held_out}
