"""What generated rows weigh in the loss.

confidence  the share of blind solutions that agree with a row, or how sure its judge is; 1 for a row not verified
imp         P(y|x) / Q(y|x), IMP-Loss. P, the quality checker, is the student trained on the seeds; Q, the diversity
            checker, is the student trained on the generated rows
dimp        P(y|x), which `trainer` divides by what the student in training gives at that step, DIMP-Loss

IMP- and DIMP-Loss: Kuo et al., "Not all LLM-generated data are equal: rethinking data weighting in text
classification" (arXiv:2410.21526). Their models are classifiers, which give a label at least about 1 / labels before
they have learnt anything; a language model that has not learnt the labels gives much less. So what is divided by is 1 /
labels at least, and a row weighs no more than there are labels. Seeds and general rows weigh 1.
"""

import dataclasses
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.label_scoring import labels_of, probabilities
from llm2llm.components.shared.training.checkpoints import checkpointed
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import check_task
from llm2llm.components.shared.training.training_log import TrainingLog

Train = Callable[[TrainingJob, Path], TrainingLog]
"""Trains a job's student into an empty folder."""

SHOWN_ROWS = 5


def weighted(job: TrainingJob, base: str, train: Train) -> TrainingJob:
    """The job with the weights of its generated rows, where the settings ask for weights.

    Args:
        job: The training to come.
        base: The student before any training: the checkers start from it, whatever the job starts from.
        train: Trains the checkers. `imp` has two, `dimp` has one.

    Raises:
        UserError: Checkers for a task without labels, or without seeds to train one on; or see `fine_tune`.
    """
    try:
        check_task(job.settings, job.task)
    except ValueError as problem:
        raise UserError(f"train.{problem}") from None
    generated = [row for row in job.training_set if row.generated]
    if job.settings.row_weights == "none" or not generated:
        return job
    weights = WEIGHINGS[job.settings.row_weights](job, base, train, generated)
    found = sorted((weight, name) for name, weight in weights.items())
    print(
        f"train: {len(found)} generated rows weigh {found[0][0]:.3g} to {found[-1][0]:.3g}, on average "
        f"{sum(weight for weight, _ in found) / len(found):.3g} ({job.settings.row_weights}); the least: "
        f"{', '.join(name for _, name in found[:SHOWN_ROWS])}",
        flush=True,
    )
    return dataclasses.replace(job, weights=weights)


def _confidence(job: TrainingJob, base: str, train: Train, generated: list[Example]) -> dict[str, float]:
    return {row.id: 1.0 if row.confidence is None else row.confidence for row in generated}


def _imp(job: TrainingJob, base: str, train: Train, generated: list[Example]) -> dict[str, float]:
    quality = _quality(job, base, train, generated)
    diversity = _checked(job, base, train, generated, generated)
    labels = {row.id: len(labels_of(job.task, row)) for row in generated}
    return {name: value / max(diversity[name], 1 / labels[name]) for name, value in quality.items()}


def _quality(job: TrainingJob, base: str, train: Train, generated: list[Example]) -> dict[str, float]:
    seeds = [row for row in job.training_set if not row.generated]
    if not seeds:
        raise UserError(
            f"train.row_weights: {job.settings.row_weights!r} trains a checker on the seeds, and the training set has "
            "none; set row_weights: none or confidence"
        )
    return _checked(job, base, train, seeds, generated)


def _checked(
    job: TrainingJob, base: str, train: Train, taught: list[Example], asked: list[Example]
) -> dict[str, float]:
    """The probability of each row's answer among its labels, by the student trained on `taught`."""
    off = {"row_weights": "none", "record_losses": False, "validation_loss": False, "start_from": "base"}
    settings = job.settings.model_copy(update=off)
    seeds = job.seeds or [row for row in job.training_set if not row.generated]
    checker = dataclasses.replace(job, training_set=taught, student=base, settings=settings, seeds=seeds)
    print(f"train: a checker of generated rows, on {len(taught)} rows", flush=True)
    with checkpointed(checker) as resumable, TemporaryDirectory(prefix="llm2llm-checker-") as folder:
        trained = Path(folder) / "student"
        with atomic_folder(trained) as partial:
            train(resumable, partial)
        return label_probabilities(trained, job, asked)


def label_probabilities(student: Path, job: TrainingJob, rows: list[Example]) -> dict[str, float]:
    """The probability of each row's answer among its labels, by row id; nothing of the student stays in memory."""
    import torch

    from llm2llm.components.shared.models.heads import HEADS
    from llm2llm.components.shared.models.load import load_model

    head = HEADS[job.settings.head]
    tokenizer = head.load_tokenizer(student, job.settings.trust_remote_code)
    model = load_model(student, job.settings.trust_remote_code, head=job.settings.head)
    measured = [head.completions(tokenizer, job.task, row) for row in rows]
    flat = [completion for one in measured for completion in one]
    values = iter(head.log_likelihoods(model, tokenizer, flat, job.settings.batch_size))
    found = {}
    for row, completions in zip(rows, measured, strict=True):
        shares = probabilities([next(values) for _ in completions])
        found[row.id] = shares[labels_of(job.task, row).index(row.answer)]
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


WEIGHINGS: Mapping[str, Callable[[TrainingJob, str, Train, list[Example]], dict[str, float]]] = {
    "confidence": _confidence,
    "imp": _imp,
    "dimp": _quality,
}
"""`train.row_weights` -> the weight of each generated row, by its id."""
