"""From a training set to a student."""

from pathlib import Path

from llm2llm.components.problems import UserError
from llm2llm.components.rows.kinds import Example
from llm2llm.components.students.fine_tune import TrainingLog, fine_tune
from llm2llm.components.students.settings import SCRATCH, FineTuneSettings
from llm2llm.components.tasks import Task
from llm2llm.components.whole import whole_folder


def train(
    training_set: list[Example],
    task: Task,
    student: str,
    previous: Path | None,
    settings: FineTuneSettings,
    random_seed: int,
    model: Path,
) -> TrainingLog:
    """Fine-tunes the student into the folder `model`, which appears whole or not at all.

    Args:
        training_set: Seeds and generated rows.
        task: Gives prompt and target.
        student: The base model: `scratch`, a Hugging Face name or a folder.
        previous: The student of the iteration before; trained on only if `settings.start_from` is `previous`.
        settings: See `FineTuneSettings`.
        random_seed: The same seed and rows give the same weights on the same machine.
        model: Where to save: safetensors, tokenizer and `training.json`.

    Raises:
        UserError: See `fine_tune`.
    """
    start = student
    if settings.start_from == "previous" and previous is not None:
        if not previous.is_dir():
            raise UserError(f"train: the previous student {previous} is no folder")
        start = str(previous)
    with whole_folder(model) as partial:
        log = fine_tune(training_set, task, start, settings, random_seed, partial)
    print(
        f"train: {log.rows} rows, {log.steps} steps, {log.tokens_per_second:,.0f} tokens/s, "
        f"loss {log.loss_curve[0][1]:.3f} to {log.loss_curve[-1][1]:.3f}"
        + (f"; base model {SCRATCH}" if start == SCRATCH else ""),
        flush=True,
    )
    return log
