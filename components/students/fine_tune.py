"""Supervised fine-tuning with TRL, on the completion only."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from llm2llm.components.problems import UserError
from llm2llm.components.progress import Progress
from llm2llm.components.rows.kinds import Example
from llm2llm.components.students.hardness import losses, save_losses
from llm2llm.components.students.load import device, load_model, load_tokenizer, precision
from llm2llm.components.students.prompts import encode
from llm2llm.components.students.scratch import build_student
from llm2llm.components.students.settings import SCRATCH, TRAINING_FILE, FineTuneSettings
from llm2llm.components.tasks import Task


@dataclass(frozen=True)
class TrainingLog:
    """What a training run measured; saved beside the model as `training.json`, without the times."""

    rows: int
    rows_too_long: int
    steps: int
    tokens: int
    """Tokens seen, padding not counted."""
    loss_curve: list[tuple[int, float]]
    """(step, mean loss since the point before)."""
    seconds: float = field(metadata={"saved": False})

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def fine_tune(
    training_set: list[Example],
    task: Task,
    student: str,
    settings: FineTuneSettings,
    random_seed: int,
    output: Path,
    seeds: list[Example] | None = None,
) -> TrainingLog:
    """Fine-tunes a student and saves it to the folder `output`: safetensors and tokenizer, or the PEFT adapter.

    Args:
        training_set: Rows to train on.
        task: Gives prompt and target.
        student: `scratch`, a Hugging Face name, or a folder (full weights or adapter).
        settings: See `FineTuneSettings`.
        random_seed: Seeds weights, order of rows and dropout.
        output: An existing empty folder.
        seeds: The rows that a scratch student's tokenizer is learnt from, and whose losses are recorded when the
            settings say so; default: those of `training_set` that no teacher wrote.

    Raises:
        UserError: An empty training set, rows that are all too long, a student that cannot be loaded, a contradiction.
        FloatingPointError: The loss is not a number.
    """
    if not training_set:
        raise UserError("train: the training set is empty")
    set_seed(random_seed)
    seeds = seeds or _seeds(training_set)
    model, tokenizer = _base(student, task, settings, random_seed, seeds)
    encoded = [encode(tokenizer, task, example) for example in training_set]
    limit = min(settings.max_length, getattr(model.config, "max_position_embeddings", settings.max_length))
    rows = [
        {"input_ids": e.prompt + e.completion, "labels": [-100] * len(e.prompt) + e.completion}
        for e in encoded
        if len(e.prompt) + len(e.completion) <= limit
    ]
    too_long = len(encoded) - len(rows)
    if too_long:
        print(f"train: {too_long} of {len(encoded)} rows have more than {limit} tokens and are left out", flush=True)
    if not rows:
        raise UserError(f"train: every row has more than {limit} tokens; raise train.max_length or shorten the rows")

    model.config.use_cache = False
    recorder = _Recorder(len(rows))
    early = _EarlyLosses(tokenizer, seeds, task, settings.batch_size)
    base_losses = early.measure(model) if settings.record_losses else {}
    with TemporaryDirectory(prefix="llm2llm-train-") as scratch_folder:
        trainer = SFTTrainer(
            model=model,
            args=_arguments(settings, random_seed, scratch_folder),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=_new_adapter(settings)
            if settings.method == "lora" and not isinstance(model, PeftModel)
            else None,
            callbacks=[recorder, early] if settings.record_losses else [recorder],
        )
        for name in ("ProgressCallback", "PrinterCallback"):  # our own progress line replaces theirs
            for callback in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == name]:
                trainer.remove_callback(callback)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
    steps = trainer.state.global_step
    trained = trainer.model
    trained.config.use_cache = True
    trained.save_pretrained(output, safe_serialization=True)
    tokenizer.save_pretrained(output)
    log = TrainingLog(
        rows=len(rows),
        rows_too_long=too_long,
        steps=steps,
        tokens=round(sum(len(row["input_ids"]) for row in rows) * (trainer.state.epoch or 0)),
        loss_curve=recorder.curve,
        seconds=seconds,
    )
    _save_log(output / TRAINING_FILE, log, student, settings, random_seed)
    if settings.record_losses:
        save_losses(output, base_losses, early.losses)
    return log


def _seeds(training_set: list[Example]) -> list[Example]:
    return [example for example in training_set if not example.generated]


def _base(
    student: str, task: Task, settings: FineTuneSettings, random_seed: int, seeds: list[Example]
) -> tuple[Any, Any]:
    if student == SCRATCH:
        # A student this small gains a third from a second thread on an idle machine, and loses a factor of three on one
        # that does anything else, as the threads spin in wait for one another. One thread also gives the same weights
        # whatever the number of cores.
        torch.set_num_threads(1)
        if settings.method == "lora":
            raise UserError(
                "train.method: 'lora' adapts a pretrained model, and student 'scratch' has random weights; "
                "set train.method: full, or name a pretrained student"
            )
        model, tokenizer = build_student(seeds, task, settings.scratch, random_seed)
        return model.to(device()), tokenizer
    tokenizer = load_tokenizer(student, settings.trust_remote_code)
    model = load_model(student, settings.trust_remote_code, train_adapter=settings.method == "lora")
    if isinstance(model, PeftModel) and settings.method == "full":
        model = model.merge_and_unload()
    return model, tokenizer


def _new_adapter(settings: FineTuneSettings) -> LoraConfig:
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _arguments(settings: FineTuneSettings, random_seed: int, folder: str) -> SFTConfig:
    return SFTConfig(
        output_dir=folder,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_length=None,  # rows that are too long are already out, and counted
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False,
        bf16=precision() is torch.bfloat16,
        use_cpu=device() == "cpu",
        dataloader_pin_memory=device() != "cpu",
        seed=random_seed,
        data_seed=random_seed,
        train_sampling_strategy="group_by_length",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class _Recorder(TrainerCallback):  # type: ignore[misc]  # transformers ships no types for it
    """Keeps the loss curve, prints progress, and stops at the first loss that is not a number."""

    POINTS = 100

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.curve: list[tuple[int, float]] = []
        self._since: list[float] = []
        self._progress: Progress | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise FloatingPointError(
                f"train: the loss is {loss} at step {state.global_step}; lower train.learning_rate"
            )
        self._since.append(loss)
        every = max(1, state.max_steps // self.POINTS)
        if state.global_step % every == 0 or state.global_step == state.max_steps:
            self.curve.append((state.global_step, round(sum(self._since) / len(self._since), 6)))
            self._since = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._progress is None:
            self._progress = Progress("train", state.max_steps, "steps")
        self._progress.show(state.global_step)


class _EarlyLosses(TrainerCallback):  # type: ignore[misc]  # as above
    """Measures each seed's loss when the first epoch ends, or the training if it is shorter."""

    def __init__(self, tokenizer: Any, seeds: list[Example], task: Task, batch_size: int) -> None:
        self.losses: dict[str, float] = {}
        self._tokenizer, self._seeds, self._task, self._batch_size = tokenizer, seeds, task, batch_size

    def measure(self, model: Any) -> dict[str, float]:
        """The loss of each seed, by its id."""
        measured = losses(model, self._tokenizer, self._seeds, self._task, self._batch_size)
        return {seed.id: loss for seed, loss in zip(self._seeds, measured, strict=True)}

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.losses:
            self.losses = self.measure(model)


def _save_log(path: Path, log: TrainingLog, student: str, settings: FineTuneSettings, random_seed: int) -> None:
    values = {
        "student": student,
        "settings": settings.model_dump(),
        "random_seed": random_seed,
        "rows": log.rows,
        "rows_too_long": log.rows_too_long,
        "steps": log.steps,
        "tokens": log.tokens,
        "loss_curve": log.loss_curve,
    }
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
