"""The controls: what a delivered student must be better than before its rows get the credit.

steps      the base student on the seeds alone, for as many optimiser steps. A larger training set means more steps in
           as many epochs, and more steps alone may be what helped
untrained  the base student as it is: what it knew before
few_shot   the same, with a few seeds in its prompt: what needs no training at all
teacher    the teacher on the validation rows (`ceiling`): what the rows that it writes can hardly lead beyond
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from llm2llm.components.controls.settings import ControlsStage
from llm2llm.components.shared.base.sampling import seeded_key
from llm2llm.components.shared.base.statistics import wilson_interval
from llm2llm.components.shared.data.schemas import Control, ControlName, Example, Prediction, Score, Split
from llm2llm.components.shared.judge.cost import total
from llm2llm.components.shared.tasks import FORMS, Task

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
    """The scores of every control of a student that the settings ask for.

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
    if stage.controls.with_untrained(stage.train, stage.student, stage.task):
        found += _untrained(seeds, asked, best, stage)
    say(found)
    return found


def say(found: Sequence[Control]) -> None:
    """A line for each control and split."""
    for one in found:
        print(
            f"controls: {one.name}: {one.split} {one.accuracy:.1%} ({one.low:.1%} to {one.high:.1%}), "
            f"{one.correct} of {one.n} correct",
            flush=True,
        )


def choose_shots(seeds: Sequence[Example], task: Task, count: int, random_seed: int) -> list[Example]:
    """Seeds for a prompt, drawn at random; of tasks with labels or choices one for each answer by turns."""
    drawn = sorted(seeds, key=lambda row: seeded_key(random_seed, "shots", row.id))
    if not FORMS[task.form].has_classes:
        return drawn[:count]
    turns: dict[str, int] = {}
    ranked = []
    for row in drawn:
        turns[row.answer] = turns.get(row.answer, -1) + 1
        ranked.append((turns[row.answer], row))
    return [row for _, row in sorted(ranked, key=lambda one: one[0])][:count]


def _untrained(
    seeds: Sequence[Example], asked: Mapping[Split, Sequence[Example]], best: int, stage: ControlsStage
) -> list[Control]:
    """The base student as it is, and with seeds in its prompt."""
    from llm2llm.components.shared.inference.predict import fitting_shots, predict_beside_training
    from llm2llm.components.shared.models.load import local_name

    base = Path(local_name(stage.student))
    answered = predict_beside_training(base, asked, best, None, stage.task, stage.evaluate)
    found = scored("untrained", best, answered)
    shots = choose_shots(seeds, stage.task, stage.controls.shots, stage.random_seed)
    fitting = fitting_shots(base, asked, stage.task, stage.evaluate, shots)
    if len(fitting) < len(shots):
        print(
            f"controls: few_shot: the student's context has room for {len(fitting)} of {len(shots)} seeds", flush=True
        )
    if fitting:
        answered = predict_beside_training(base, asked, best, None, stage.task, stage.evaluate, fitting)
        found += scored("few_shot", best, answered, shots=len(fitting))
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
    return scored("steps", best, answered, steps=log.steps)


def scored(
    name: ControlName, best: int, answered: Sequence[Prediction], steps: int = 0, shots: int = 0, part: bool = False
) -> list[Control]:
    """A control's score on each split that it was asked; `part`: it may not have been asked all rows."""
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
                asked_ids=sorted(row.example_id for row in rows) if part else [],
                shots=shots,
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
