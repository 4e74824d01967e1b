"""A distillation step after the supervised one: TRL's GKD, on what the student itself writes.

    loss = JSD_beta(teacher || student), token by token over the vocabulary

The student answers the questions of its training set, and learns the teacher's distribution at each token of its own
answer; on the other rows, at each token of their completions (Agarwal et al. 2024, arXiv:2306.13649). The teacher is an
open model in this process: its whole distribution is needed, and it reads the student's token ids.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import set_seed
from trl.experimental.gkd import GKDConfig, GKDTrainer

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.models.load import load_config, load_model, load_tokenizer, precision
from llm2llm.components.shared.models.prompts import encode
from llm2llm.components.shared.models.student_folder import carry_over
from llm2llm.components.shared.models.vocabulary import refuse_other_vocabulary
from llm2llm.components.shared.training.devices import share, this_process
from llm2llm.components.shared.training.fine_tune import (
    ShowProgress,
    common_arguments,
    load_for_training,
    longest_row,
)
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.methods import prepare, recomputes
from llm2llm.components.shared.training.second_step import CheckedTrainer, run_step, save_step
from llm2llm.components.shared.training.training_log import TrainingLog


class DistillTrainer(CheckedTrainer, GKDTrainer):
    """TRL's trainer on rows in token ids: encoded as `fine_tune` encodes rows, not as TRL would encode messages."""

    hint = "the distillation; lower train.distill.learning_rate"

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """TRL's step, with the mean over the tokens of the batch that is learnt. TRL would divide by the number of
        tokens in the rows' completions, and the student's own answers have another."""
        return super().training_step(model, inputs, None)


class Collator:
    """Batches as TRL's trainer takes them, padded on the left: whole rows, and their prompts alone."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels` (rows, longest row); `prompts` and `prompt_attention_mask` (rows,
        longest prompt)."""
        whole = [row["prompt_ids"] + row["completion_ids"] for row in rows]
        labels = [[-100] * len(row["prompt_ids"]) + row["completion_ids"] for row in rows]
        prompts = [row["prompt_ids"] for row in rows]
        return {
            "input_ids": _padded(whole, self._pad),
            "attention_mask": _padded([[1] * len(one) for one in whole], 0),
            "labels": _padded(labels, -100),
            "prompts": _padded(prompts, self._pad),
            "prompt_attention_mask": _padded([[1] * len(one) for one in prompts], 0),
        }


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[value] * (longest - len(row)) + row for row in rows])


def distil(job: TrainingJob, output: Path) -> TrainingLog:
    """Trains a student on a teacher's distributions and saves it to the empty folder `output`, with its log brought up
    to date.

    Args:
        job: Its student is a folder that `fine_tune` saved; its method trains the same weights here. Rows that do not
            fit into `train.max_length` or the student's context, with room for an answer of the student's own, are left
            out.
        output: An existing empty folder.

    In one of several processes it trains with the others; the first saves.

    Raises:
        UserError: No row fits; a student or a teacher that cannot be loaded, or with another vocabulary; a loss that is
            not a number.
    """
    settings, wanted = job.settings, job.settings.distill
    here = this_process()
    config = load_config(job.student, settings.trust_remote_code)
    # Padding moves the tokens of a model with absolute positions.
    part = share(settings, here.num_processes, job.rows_in_one_pass if _is_rotary(config) else 1)
    set_seed(job.random_seed)
    tokenizer = load_tokenizer(job.student, settings.trust_remote_code)
    rows, longest = _rows(job, tokenizer, longest_row(config, settings))
    model = load_for_training(job.student, settings)
    teacher = load_teacher(wanted.model, settings.trust_remote_code, tokenizer, model)
    model.config.use_cache = False
    recompute = recomputes(model, settings, job.recompute)
    model, adapter = prepare(model, settings, job.random_seed, job.iteration, recompute)
    with TemporaryDirectory(prefix="llm2llm-distill-") as folder:
        arguments = GKDConfig(
            **common_arguments(settings, part, job.random_seed, folder, recompute),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            lmbda=wanted.on_policy,
            beta=wanted.beta,
            temperature=wanted.temperature,
            max_new_tokens=longest,
            disable_dropout=False,  # as the supervised step
            num_train_epochs=wanted.epochs,
            learning_rate=settings.learning_rate * wanted.learning_rate,
            report_to="none",
        )
        trainer = DistillTrainer(
            model=model,
            teacher_model=teacher,
            args=arguments,
            data_collator=Collator(tokenizer.pad_token_id),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[ShowProgress()],
        )
        log = run_step(
            trainer,
            part,
            recompute,
            rows=len(rows),
            left_out=len(job.training_set) - len(rows),
            sequences=len(rows),
            lengths=[len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows],
        )
    if here.is_main_process:
        save_step(trainer.accelerator.unwrap_model(trainer.model), tokenizer, job, output)
        carry_over(Path(job.student), output, log.steps, distilled_rows=log.rows, distill_loss_curve=log.loss_curve)
    return log


def load_teacher(named: str, trust_remote_code: bool, tokenizer: Any, student: Any) -> Any:
    """The teacher, in 16 bits where the device computes in them; it is not trained.

    Raises:
        UserError: It cannot be loaded, or has another vocabulary than the student.
    """
    try:
        others = load_tokenizer(named, trust_remote_code)
        config = load_config(named, trust_remote_code)
        sizes = (student.config.get_text_config().vocab_size, config.get_text_config().vocab_size)
        refuse_other_vocabulary(tokenizer, others, sizes, named)
        teacher = load_model(named, trust_remote_code, dtype=precision())
    except UserError as problem:
        said = str(problem)
        raise UserError(said if said.startswith("train.") else f"train.distill.model: {said}") from None
    teacher.requires_grad_(False)
    return teacher.eval()


def _rows(job: TrainingJob, tokenizer: Any, limit: int) -> tuple[list[dict[str, list[int]]], int]:
    """(the rows that fit, the most tokens that the student may answer with: as many as the longest of them has, and no
    fewer than the task says)."""
    encoded = [encode(tokenizer, job.task, row) for row in job.training_set]
    least = job.task.max_new_tokens
    rows = [
        {"prompt_ids": one.prompt, "completion_ids": one.completion}
        for one in encoded
        if len(one.prompt) + max(len(one.completion), least) <= limit
    ]
    if not rows:
        raise UserError(
            f"train: none of {len(encoded)} rows leaves room for {least} tokens "
            f"(task.max_new_tokens) within train.max_length {job.settings.max_length}; raise it"
        )
    return rows, max(job.task.max_new_tokens, *(len(row["completion_ids"]) for row in rows))


def _is_rotary(config: Any) -> bool:
    """Whether positions are relative, so that where a row begins in a padded batch changes nothing."""
    text = config.get_text_config()
    return bool(getattr(text, "rope_parameters", None) or getattr(text, "rope_theta", None))
