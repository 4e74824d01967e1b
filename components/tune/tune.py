"""Trials: students trained on the seeds with other settings each, and which settings are best.

A grid, or a random part of it (Bergstra and Bengio 2012): a handful of values needs no search that learns from its
trials. A trial that has ended is kept beside the checkpoints until all have, so that a stage that is run again trains
what is missing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.sampling import fold_of
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.base.statistics import bootstrapped, wilson_interval
from llm2llm.components.shared.data.parquet import read_rows, write_rows
from llm2llm.components.shared.data.schemas import Example, Prediction, Split, Trial
from llm2llm.components.shared.judge.cost import total
from llm2llm.components.shared.storage import NotThere, delete_folder, download_folder, upload_folder
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.tasks.measured import matrix, measured, metric_of
from llm2llm.components.shared.training.checkpoints import checkpointed, checkpoints_uri
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.stages import STAGES
from llm2llm.components.tune.settings import TuneStage

ANSWERS = "answers.parquet"
"""What is kept of a training that has ended."""


def tune(
    seeds: Sequence[Example],
    validation: Sequence[Example],
    stage: TuneStage,
    replay: list[Example] | None = None,
    kept: list[str] | None = None,
) -> list[Trial]:
    """Every trial with its score, in the order in which they were tried; one of them is chosen.

    Args:
        seeds: What the students are trained on.
        validation: What they are asked, unless there are folds.
        stage: The stage's settings.
        replay: General rows, mixed in as by `train`.
        kept: Longer by the places of what is kept of trainings that have ended, for `discard`.

    Raises:
        UserError: Nothing to ask, more folds than seeds, no trial that ends with a student; or see `train_on_devices`
            and `predict`.
    """
    folds = stage.tune.folds
    if not folds and not validation:
        raise UserError(
            "tune: there are no validation rows to score trials on; name some in data.validation, or set tune.folds"
        )
    if folds > len(seeds):
        raise UserError(f"tune.folds: {folds} folds of {len(seeds)} seeds; set no more folds than seeds")
    rows = list(seeds if folds else validation)
    combinations = stage.tune.combinations(stage.random_seed)
    trials: list[Trial] = []
    for number, values in enumerate(combinations):
        print(f"tune: trial {number + 1} of {len(combinations)}: {words(values)}", flush=True)
        trials.append(_trial(number, values, list(seeds), rows, stage, replay, kept if kept is not None else []))
        print(f"tune: {said(trials[-1])}", flush=True)
    if all(trial.failed for trial in trials):
        raise UserError(f"tune: no trial has ended with a student; the first: {trials[0].failed}")
    # The first of equals: `max` keeps it.
    best = max((trial for trial in trials if not trial.failed), key=lambda trial: trial.decides)
    print(f"tune: the loop trains with {words(json.loads(best.settings))}", flush=True)
    return [replace(trial, chosen=trial is best) for trial in trials]


def discard(kept: Sequence[str]) -> None:
    """Removes what is kept of trainings that have ended; what cannot be removed is said."""
    for uri in kept:
        try:
            delete_folder(uri)
        except UserError as problem:
            print(f"tune: could not be removed: {problem}", flush=True)


def handed_on(handed: Mapping[str, Any], trials: Sequence[Trial]) -> dict[str, str]:
    """The settings of the stages that train, as `configure` writes them, with the chosen values in `train`.

    Args:
        handed: What stage `tune` is handed.
        trials: One of them is chosen.
    """
    (chosen,) = [json.loads(trial.settings) for trial in trials if trial.chosen]
    values = {**handed, **handed.get("handed_on", {}), "train": {**handed.get("train", {}), **chosen}}
    return {
        name: settings_text({section: values[section] for section in STAGES[name].sections if values.get(section)})
        for name in STAGES["tune"].hands_on
    }


def words(values: Mapping[str, Any]) -> str:
    """Settings in a line: `learning_rate 0.0001, epochs 2`."""
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


def said(trial: Trial) -> str:
    """A trial's score in a line."""
    if trial.failed:
        return f"no student: {trial.failed}"
    low, high = (trial.low, trial.high) if trial.value is None else (trial.value_low or 0.0, trial.value_high or 0.0)
    return (
        f"{trial.metric} {trial.decides:.1%} ({low:.1%} to {high:.1%}), {trial.correct} of {trial.n} "
        f"{trial.split} rows right"
    )


def _trial(
    number: int,
    values: Mapping[str, Any],
    seeds: list[Example],
    rows: Sequence[Example],
    stage: TuneStage,
    replay: list[Example] | None,
    kept: list[str],
) -> Trial:
    from llm2llm.components.shared.training.trainer import NotANumber

    # Nobody would read these of a student that is not kept, and only `train` has students answer themselves.
    plain = {"record_losses": False, "validation_loss": False, "own_answers": {}, "preference": {}, "distill": {}}
    settings = FineTuneSettings.model_validate({**stage.train.model_dump(), **plain, **values})
    folds = stage.tune.folds
    split: Split = "seeds" if folds else "validation"
    answered: list[Prediction] = []
    failed = ""
    try:
        if folds:
            fold_by_id = fold_of({seed.id: seed.answer for seed in seeds}, folds, stage.random_seed)
            for fold in range(folds):
                held_out = [seed for seed in seeds if fold_by_id[seed.id] == fold]
                rest = [seed for seed in seeds if fold_by_id[seed.id] != fold]
                # A scratch student's tokenizer comes from all seeds: the folds differ in what they train on alone.
                job = TrainingJob(rest, stage.task, stage.student, settings, stage.random_seed, seeds, replay)
                answered += _answers(job, split, held_out, fold, stage, kept)
        else:
            job = TrainingJob(seeds, stage.task, stage.student, settings, stage.random_seed, replay=replay)
            answered = _answers(job, split, rows, None, stage, kept)
    except NotANumber as problem:
        answered, failed = [], str(problem)
    return _scored(Trial(
        number=number, settings=json.dumps(values), chosen=False, split=split, folds=folds, n=len(rows), correct=0,
        unparseable=0, accuracy=0.0, low=0.0, high=0.0, metric=stage.task.metric, failed=failed,
    ), stage.task, rows, answered)  # fmt: skip


def _scored(trial: Trial, task: Task, rows: Sequence[Example], answered: Sequence[Prediction]) -> Trial:
    """The trial with the grades of its answers; none of a training that failed."""
    right = sorted(one.example_id for one in answered if one.outcome == "correct")
    low, high = wilson_interval(len(right), trial.n)
    trial = replace(
        trial,
        correct=len(right),
        unparseable=sum(one.outcome == "unparseable" for one in answered),
        accuracy=len(right) / trial.n,
        low=low,
        high=high,
        correct_ids=right,
        **total(answered),
    )
    if (metric := metric_of(task)) is None or not answered:
        return trial
    figure = bootstrapped(matrix(metric, measured(task, metric, rows, answered)), value=metric.value)
    return replace(trial, value=figure.value, value_low=figure.low, value_high=figure.high)


def _answers(
    job: TrainingJob, split: Split, rows: Sequence[Example], fold: int | None, stage: TuneStage, kept: list[str]
) -> list[Prediction]:
    """What the student of a training answers; what an attempt before has kept, where there is any."""
    from llm2llm.components.shared.inference.predict import predict_beside_training
    from llm2llm.components.shared.training.torchrun import train_on_devices

    place = _place(job, rows, fold, stage)
    with TemporaryDirectory(prefix="llm2llm-trial-") as folder:
        before = Path(folder) / "before"
        if place is not None:
            kept += [place, checkpoints_uri(job) or place]
            try:
                download_folder(place, before)
                found = read_rows(before / ANSWERS, "predictions", Prediction)
                print("tune: this training had ended before; its answers are taken over", flush=True)
                return found
            except NotThere:
                pass
            except UserError as problem:
                print(f"tune: what an attempt before has kept is passed over: {problem}", flush=True)
        with checkpointed(job) as resumable:
            trained = Path(folder) / "student"
            with atomic_folder(trained) as partial:
                train_on_devices(resumable, partial)
            answered = predict_beside_training(trained, {split: rows}, 0, fold, stage.task, stage.evaluate)
            if place is not None:
                written = Path(folder) / "answers"
                written.mkdir()
                write_rows(written / ANSWERS, "predictions", answered)
                try:
                    upload_folder(written, place)
                except UserError as problem:
                    print(f"tune: the answers could not be kept for another attempt: {problem}", flush=True)
    return answered


def _place(job: TrainingJob, rows: Sequence[Example], fold: int | None, stage: TuneStage) -> str | None:
    """Where the answers of a training are kept; beside its checkpoints, and None where it has none."""
    uri = checkpoints_uri(job)
    if uri is None:
        return None
    asked = [[row.id for row in rows], fold, stage.evaluate.model_dump(mode="json")]
    return f"{uri}-answers-{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]}"
