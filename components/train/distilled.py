"""A student that is fine-tuned, and then learns an open teacher's distributions on what it writes itself.

supervised step ─► student ─► answers its training questions ─► the teacher's distribution at each token ─► student
"""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.row_weights import Train
from llm2llm.components.shared.training.training_log import TrainingLog


def train_and_distil(job: TrainingJob, train: Train, output: Path) -> TrainingLog:
    """The supervised step and the distillation, into the empty folder `output`.

    Args:
        job: The supervised training.
        train: Trains a job into an empty folder.
        output: An existing empty folder.

    Returns:
        The log of the supervised step, with the steps and rows of the distillation.
    """
    with TemporaryDirectory(prefix=".supervised-", dir=output.parent) as beside:
        student = Path(beside) / "student"
        with atomic_folder(student) as partial:
            log = train(job, partial)
        print(f"train: distillation from {job.settings.distill.model}", flush=True)
        distillation = dataclasses.replace(job, student=str(student), distils=True, checkpoints=None, weights=None)
        step = train(distillation, output)
    return dataclasses.replace(
        log,
        steps=log.steps + step.steps,
        distilled_rows=step.rows,
        distill_loss_curve=step.loss_curve,
        peak_memory=max(log.peak_memory, step.peak_memory),
    )
