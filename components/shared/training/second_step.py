"""What the steps after the supervised one have in common: a loss that is checked, a run, its log, the student saved."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.models.load import precision
from llm2llm.components.shared.training.devices import Share, this_process
from llm2llm.components.shared.training.fine_tune import silence
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.methods import in_float32, save
from llm2llm.components.shared.training.throughput import device_names, loss_curve, peak_memory, reset_peak_memory
from llm2llm.components.shared.training.training_log import TrainingLog


class CheckedTrainer(Trainer):
    """Goes before one of TRL's trainers in a class's bases: a loss or gradient that is not a number ends the step."""

    hint: str
    """Which step it is, and which setting to lower."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss.

        Raises:
            UserError: It is not a number.
        """
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._check("loss", float((loss[0] if return_outputs else loss).detach()), self.state.global_step + 1)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs a step.

        Raises:
            UserError: Its gradient is not a number.
        """
        self._check("gradient", logs.get("grad_norm", 0.0), self.state.global_step)
        super().log(logs, start_time)

    def _check(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise UserError(f"train: the {what} is {value} at step {step} of {self.hint}")


def run_step(
    trainer: Any, part: Share, recompute: bool, *, rows: int, left_out: int, sequences: int, lengths: Sequence[int]
) -> TrainingLog:
    """Runs a trainer.

    Args:
        trainer: Of transformers, ready to train.
        part: What each process trains at once.
        recompute: Whether activations are computed again on the way back.
        rows: How many it is given, and `left_out` how many were too long.
        sequences: How many texts they are, and `lengths` the tokens of each row.
    """
    in_float32(trainer.model)
    silence(trainer)
    reset_peak_memory()
    started = time.monotonic()
    trainer.train()
    return TrainingLog(
        rows=rows,
        rows_too_long=left_out,
        rows_truncated=0,
        rows_replayed=0,
        sequences=sequences,
        steps=trainer.state.global_step,
        tokens=round(sum(lengths) * (trainer.state.epoch or 0)),
        loss_curve=loss_curve(trainer.state),
        devices=this_process().num_processes,
        rows_in_one_pass=part.rows,
        activation_checkpointing=recompute,
        seconds=time.monotonic() - started,
        gpus=device_names(),
        sixteen_bit=precision() is not torch.float32,
        peak_memory=peak_memory(),
    )


def save_step(model: Any, tokenizer: Any, job: TrainingJob, output: Path) -> None:
    """Saves what a step has trained, beside its tokenizer."""
    model.config.use_cache = True
    save(model, job.settings, job.student, output)
    tokenizer.save_pretrained(output)
