"""The controls: what a delivered student must be better than before its rows get the credit.

steps    the base student on the seeds alone, for as many optimiser steps. A larger training set means more steps in as
         many epochs, and more steps alone may be what helped
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from llm2llm.components.controls.settings import ControlsStage
from llm2llm.components.shared.base.statistics import wilson_interval
from llm2llm.components.shared.data.schemas import Control, ControlName, Example, Prediction, Score, Split
from llm2llm.components.shared.judge.cost import total

ASKED: tuple[Split, ...] = ("validation", "test")
"""What a control is asked: it is compared on these, and the seeds it was trained on say nothing."""


def measure(
    seeds: Sequence[Example],
    splits: Mapping[Split, Sequence[Example]],
    history: Sequence[Score],
    best: int,
    stage: ControlsStage,
    replay: list[Example] | None = None,
) -> list[Control]:
    """The scores of every control that the settings ask for.

    Args:
        seeds: The seed examples.
        splits: What to ask; validation and test are looked at.
        history: All scores of the run.
        best: The iteration whose student is delivered.
        stage: The stage's settings.
        replay: General rows, mixed in as by `train`.

    Raises:
        UserError: See `train_on_devices` and `predict`.
    """
    asked = {split: rows for split in ASKED if (rows := splits.get(split))}
    found = []
    if stage.controls.with_steps(stage.train):
        found += _equal_steps(seeds, asked, history, best, stage, replay)
    for one in found:
        print(
            f"controls: {one.name}: {one.split} {one.accuracy:.1%} ({one.low:.1%} to {one.high:.1%}), "
            f"{one.correct} of {one.n} correct",
            flush=True,
        )
    return found


def steps_of(history: Sequence[Score], iteration: int, from_previous: bool) -> int:
    """The optimiser steps that an iteration's student has had since the base model; 0 where that is not known."""
    steps = {score.iteration: score.steps for score in history}
    counted = [steps[one] for one in sorted(steps) if one <= iteration] if from_previous else [steps[iteration]]
    return sum(counted) if all(counted) else 0


def _equal_steps(
    seeds: Sequence[Example],
    asked: Mapping[Split, Sequence[Example]],
    history: Sequence[Score],
    best: int,
    stage: ControlsStage,
    replay: list[Example] | None,
) -> list[Control]:
    wanted = steps_of(history, best, stage.train.start_from == "previous")
    if best == min(score.iteration for score in history):
        print("controls: the delivered student is the one trained on the seeds alone", flush=True)
        return []
    if not wanted:
        print("controls: how many steps the delivered student had is not known, so none is trained for it", flush=True)
        return []
    first = [score for score in history if score.iteration == 0 and score.split in ASKED]
    if first and first[0].steps == wanted:
        print(f"controls: iteration 0 has had {wanted} steps, too: it is the control of equal compute", flush=True)
        return [_of_score(score, best) for score in first]
    from llm2llm.components.shared.base.atomic import atomic_folder
    from llm2llm.components.shared.inference.predict import predict_beside_training
    from llm2llm.components.shared.training.checkpoints import checkpointed
    from llm2llm.components.shared.training.job_folder import TrainingJob
    from llm2llm.components.shared.training.torchrun import train_on_devices

    unasked = {"record_losses": False, "validation_loss": False}
    settings = stage.train.model_copy(update={"max_steps": wanted, "start_from": "base", **unasked})
    job = TrainingJob(
        list(seeds), stage.task, stage.student, settings, stage.random_seed, replay=replay, iteration=best
    )
    with checkpointed(job) as resumable, TemporaryDirectory(prefix="llm2llm-control-") as folder:
        trained = Path(folder) / "student"
        with atomic_folder(trained) as partial:
            log = train_on_devices(resumable, partial)
        answered = predict_beside_training(trained, asked, best, None, stage.task, stage.evaluate)
    return _scored("steps", best, answered, log.steps)


def _scored(name: ControlName, best: int, answered: Sequence[Prediction], steps: int) -> list[Control]:
    """A control's score on each split that it was asked."""
    found = []
    for split in ASKED:
        rows = [row for row in answered if row.split == split]
        if not rows:
            continue
        right = sorted(row.example_id for row in rows if row.outcome == "correct")
        low, high = wilson_interval(len(right), len(rows))
        found.append(
            Control(
                name=name,
                iteration=best,
                split=split,
                n=len(rows),
                correct=len(right),
                unparseable=sum(row.outcome == "unparseable" for row in rows),
                accuracy=len(right) / len(rows),
                low=low,
                high=high,
                steps=steps,
                correct_ids=right,
                **total(rows),
            )
        )
    return found


def _of_score(score: Score, best: int) -> Control:
    """What an iteration scored, as a control; its judge is on the iteration's bill."""
    return Control(
        name="steps",
        iteration=best,
        split=score.split,
        n=score.n,
        correct=score.correct,
        unparseable=score.unparseable,
        accuracy=score.accuracy,
        low=score.low,
        high=score.high,
        steps=score.steps,
        correct_ids=score.correct_ids,
    )
