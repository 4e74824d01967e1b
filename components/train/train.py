"""Fine-tunes a student on a training set."""

from pathlib import Path

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.load import refuse_other_base
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.checkpoints import checkpointed
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.row_weights import weighted
from llm2llm.components.shared.training.settings import SCRATCH, FineTuneSettings
from llm2llm.components.shared.training.throughput import flops_utilisation
from llm2llm.components.shared.training.torchrun import train_on_devices
from llm2llm.components.shared.training.training_log import TrainingLog


def train(
    training_set: list[Example],
    task: Task,
    student: str,
    previous: Path | None,
    settings: FineTuneSettings,
    random_seed: int,
    model: Path,
    replay: list[Example] | None = None,
    iteration: int = 0,
    validation: list[Example] | None = None,
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
        replay: General rows, of which `settings.replay_fraction` are mixed in.
        iteration: Of the loop.
        validation: Whose mean loss is measured with `settings.validation_loss`.

    An attempt that was cut off is taken up from its newest checkpoint; when the student is saved they are removed.

    Raises:
        UserError: See `fine_tune` and `train_on_devices`.
    """
    start = student
    if settings.start_from == "previous" and previous is not None:
        if not previous.is_dir():
            raise UserError(f"train: the previous student {previous} is no folder")
        refuse_other_base(previous, student)
        start = str(previous)
    job = TrainingJob(
        training_set, task, start, settings, random_seed, replay=replay, iteration=iteration, validation=validation
    )
    if settings.nodes > 1:
        from llm2llm.components.train.kubeflow_trainjob import train_on_nodes as train_on
    else:
        train_on = train_on_devices
    job = weighted(job, student, train_on)
    with checkpointed(job) as resumable, atomic_folder(model) as partial:
        if settings.own_answers.samples:
            from llm2llm.components.train.own_answers import train_on_own_answers

            log = train_on_own_answers(resumable, train_on, partial)
        elif settings.distill.model:
            from llm2llm.components.train.distilled import train_and_distil

            log = train_and_distil(resumable, train_on, partial)
        else:
            log = train_on(resumable, partial)
    print(
        f"train: {log.rows} rows, {log.steps} steps, {log.tokens_per_second:,.0f} tokens/s, "
        f"loss {log.loss_curve[0][1]:.3f} to {log.loss_curve[-1][1]:.3f}"
        + (f"; base model {SCRATCH}" if start == SCRATCH else ""),
        flush=True,
    )
    return log


def figures(log: TrainingLog) -> dict[str, float]:
    """What Kubeflow shows of a training; `flops_utilisation` only for a GPU that the table in `measure` has."""
    shown = {
        "training_rows": log.rows,
        "rows_too_long": log.rows_too_long,
        "rows_truncated": log.rows_truncated,
        "rows_replayed": log.rows_replayed,
        "sequences": log.sequences,
        "steps": log.steps,
        "first_loss": log.loss_curve[0][1],
        "last_loss": log.loss_curve[-1][1],
        "devices": log.devices,
        "rows_in_one_pass": log.rows_in_one_pass,
        "tokens_per_second": round(log.tokens_per_second, 1),
        "peak_memory_mib": round(log.peak_memory / 2**20, 1),
        "resumed_from_step": log.resumed_from_step,
        "own_rows": log.own_rows,
        "preference_pairs": log.preference_pairs,
        "distilled_rows": log.distilled_rows,
        "checkpoints": log.checkpoints,
        "checkpoints_failed": log.checkpoints_failed,
    }
    if log.validation_losses:
        shown["last_validation_loss"] = log.validation_losses[-1][1]
        shown["lowest_validation_loss"] = min(loss for _, loss in log.validation_losses)
    used = flops_utilisation(log.tokens_per_second, log.flops_per_token, log.gpus, log.sixteen_bit)
    return shown if used is None else {**shown, "flops_utilisation": round(used, 4)}
