"""Supervised fine-tuning: `encoding` and `packing` make the rows, `methods` picks weights, `trainer` steps."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed
from trl import SFTConfig

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.progress import Progress
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.classifier import context_of
from llm2llm.components.shared.models.heads import HEADS, Head
from llm2llm.components.shared.models.load import HeadName, device, load_config, load_model, precision
from llm2llm.components.shared.models.student_folder import TASK, TRAINING_FILE, save_losses
from llm2llm.components.shared.storage import is_remote
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.checkpoint_callbacks import (
    SaveCheckpoints,
    agreed,
    resume_from,
    shared_folder,
    step_of,
    whole_model,
)
from llm2llm.components.shared.training.checkpoints import (
    NO_WEIGHTS,
    Checkpoints,
    checkpoint_bytes,
    data_hash,
    room_for,
    versions,
)
from llm2llm.components.shared.training.devices import Share, share, share_weights_on_cpus, this_process
from llm2llm.components.shared.training.encoding import Encoding, draw_replay, encode_classified, encode_rows
from llm2llm.components.shared.training.methods import (
    attention,
    check_kernels,
    check_optimiser,
    in_float32,
    prepare,
    recomputes,
    refuse_quantised,
    save,
    stochastic,
    weights_dtype,
)
from llm2llm.components.shared.training.scratch import build_student
from llm2llm.components.shared.training.settings import OWN_ANSWERS, SCRATCH, FineTuneSettings, rate_hint
from llm2llm.components.shared.training.throughput import (
    check_loggers,
    device_names,
    flops_per_token,
    loss_curve,
    peak_memory,
    reset_peak_memory,
)
from llm2llm.components.shared.training.trainer import ClassifierTrainer, StudentTrainer, refuse_leaky_packing
from llm2llm.components.shared.training.training_log import TrainingLog


@dataclass(frozen=True, slots=True)
class Training:
    """What the training of a head has of its own."""

    encode_rows: Callable[..., Encoding]
    """See `encoding.encode_rows`."""
    trainer: Callable[..., Any]
    """See `trainer.RowTrainer`."""
    arguments: Callable[..., Any]
    """The class of its arguments."""
    own_arguments: Mapping[str, Any]
    """Those that only it takes."""


TRAININGS: Mapping[HeadName, Training] = {
    "language_model": Training(
        encode_rows,
        StudentTrainer,
        SFTConfig,
        # What is too long is already out or cut, and counted.
        {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}},
    ),
    "classifier": Training(encode_classified, ClassifierTrainer, TrainingArguments, {}),
}


def fine_tune(
    training_set: list[Example],
    task: Task,
    student: str,
    settings: FineTuneSettings,
    random_seed: int,
    output: Path,
    seeds: list[Example] | None = None,
    replay: list[Example] | None = None,
    iteration: int = 0,
    checkpoints: str | None = None,
    rows_in_one_pass: int | None = None,
    recompute: bool = False,
    weights: dict[str, float] | None = None,
    validation: list[Example] | None = None,
) -> TrainingLog:
    """Fine-tunes a student and saves it to the folder `output`: safetensors and tokenizer, or the PEFT adapter.

    Args:
        training_set: Rows to train on.
        task: Gives prompt and target.
        student: `scratch`, a Hugging Face name, or a folder (full weights or adapter), also in object storage.
        settings: See `FineTuneSettings`.
        random_seed: Seeds weights, order of rows and dropout.
        output: An existing empty folder.
        seeds: The rows that a scratch student's tokenizer is learnt from, and whose losses are recorded when the
            settings say so; default: those of `training_set` that no teacher wrote.
        replay: General rows, of which `settings.replay_fraction` are mixed in.
        iteration: Of the loop: with the random seed decides which general rows, and which half of the weights for hft.
        checkpoints: Where to keep checkpoints, and to look for one to go on from (`checkpoints_uri`); None: nowhere.
        rows_in_one_pass: The most rows at once, where fewer than `settings.batch_size` fit into memory.
        recompute: Whether to compute activations again on the way back, where the student's architecture can; the
            settings may ask for it as well.
        weights: What rows weigh in the loss, by id (`row_weights.weighted`); the others 1.

        validation: Rows whose mean loss is measured at the end of each epoch when the settings say so.

    In one of several processes (torchrun's environment variables say so) it trains with the others; the first saves.

    Raises:
        UserError: An empty training set, rows that are all too long, a student that cannot be loaded, a contradiction,
            a loss that is not a number, a disk without room for the student.
    """
    if not training_set:
        raise UserError("train: the training set is empty")
    check_loggers(settings)
    check_optimiser(settings)
    check_kernels(settings)
    if hint := rate_hint(settings, student):
        print(f"train: warning: {hint}", flush=True)
    here = this_process()
    part = share(settings, here.num_processes, rows_in_one_pass)
    set_seed(random_seed)
    seeds = seeds or _seeds(training_set)
    general = draw_replay(replay or [], len(training_set), settings.replay_fraction, random_seed, iteration)
    sharded = settings.sharding == "fsdp" and here.num_processes > 1
    # Of a student that is shared out the first process has the weights, in main memory; the others get their shares.
    place = ("cpu" if here.is_main_process else "empty") if sharded else None
    head, training = HEADS[settings.head], TRAININGS[settings.head]
    model, tokenizer, config = _begin(student, task, settings, random_seed, seeds)
    if task.chat.template:
        tokenizer.chat_template = task.chat.template  # saved with the student
    limit = longest_row(config, settings)
    if settings.classifies:
        tokenizer.model_max_length = limit  # saved with the student: whoever asks it cuts texts there
    encoding = training.encode_rows(tokenizer, task, training_set, general, limit, settings, weights)
    _say_what_is_missing(encoding, limit)
    rows = encoding.rows
    if model is None:  # rows that are refused, are refused before a large student is loaded
        set_seed(random_seed)  # of a new head
        model = load_for_training(student, settings, place, task.labels if settings.classifies else ())
    model = model.to("cpu") if place else model
    _refuse_other_tokenizer(model, tokenizer, encoding)
    if settings.classifies:  # by which a decoder finds a text's last token
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if settings.packing and place != "empty":
        refuse_leaky_packing(model, rows)

    model.config.use_cache = False
    early = _EarlyLosses(head, tokenizer, seeds, task, part.rows)
    unseen = _fitting(head, tokenizer, validation or [], task, limit) if settings.validation_loss else []
    held_out = _ValidationLosses(head, tokenizer, unseen, task, part.rows, sharded)
    measures = (early, held_out)
    wanted = (settings.record_losses, bool(unseen))
    if settings.record_losses and not sharded:
        early.base = early.measure(model)
    recompute = recomputes(model, settings, recompute)
    model, adapter = prepare(model, settings, random_seed, iteration, recompute)
    with shared_folder() as folder, closing(Checkpoints(checkpoints)) if checkpoints else nullcontext() as kept:
        trainer = training.trainer(
            rows,
            limit if settings.packing else None,
            _arguments(training, settings, part, here.num_processes, random_seed, str(folder), recompute),
            settings.batch_size * settings.gradient_accumulation,
            kept,
            model=model,
            processing_class=tokenizer,
            peft_config=adapter,
            optimizer_cls_and_kwargs=stochastic(settings, random_seed),
            callbacks=[ShowProgress(), *(one for one, asked in zip(measures, wanted, strict=True) if asked)],
        )
        assert trainer.is_fsdp_enabled == sharded
        in_float32(trainer.model)
        silence(trainer)
        resumed = None
        room = agreed(not here.is_main_process or _has_room(trainer.model, settings, output, folder, kept))
        if kept is not None:
            if room:
                trainer.add_callback(SaveCheckpoints(kept, trainer.order, measures, settings))
            resumed = resume_from(kept, trainer.order, measures, folder / "resumed")
        lengths = [len(row.tokens) for row in rows]
        flops = flops_per_token(trainer.model, lengths)
        reset_peak_memory()
        started = time.monotonic()
        trainer.train(resume_from_checkpoint=resumed)
        seconds = time.monotonic() - started
        if kept is not None:
            kept.close(seconds=None)  # nothing may be stored after the student's checkpoints have been removed
    steps, steps_before = trainer.state.global_step, step_of(resumed)
    log = TrainingLog(
        rows=len(rows) - encoding.second_tasks - encoding.soft,
        rows_too_long=encoding.left_out,
        rows_truncated=encoding.truncated,
        rows_replayed=len(general),
        sequences=trainer.sequences,
        steps=steps,
        tokens=round(sum(lengths) * (trainer.state.epoch or 0)),
        loss_curve=loss_curve(trainer.state),
        devices=here.num_processes,
        rows_in_one_pass=part.rows,
        activation_checkpointing=recompute,
        validation_losses=held_out.curve,
        seconds=seconds,
        share_timed=(steps - steps_before) / steps if steps else 0.0,
        flops_per_token=flops,
        gpus=device_names(),
        sixteen_bit=precision() is not torch.float32,
        peak_memory=peak_memory(),
        resumed_from_step=steps_before,
        checkpoints=kept.stored if kept else 0,
        checkpoints_failed=kept.failed if kept else 0,
        row_weights=weights or {},
        own_rows=sum(row.strategy == OWN_ANSWERS for row in training_set),
    )
    trained = whole_model(trainer)  # all processes have a part in it
    if here.is_main_process:
        trained.config.use_cache = True
        save(trained, settings, student, output)
        tokenizer.save_pretrained(output)
        data = data_hash(training_set, general)
        _save_log(output / TRAINING_FILE, log, student, task, settings, random_seed, iteration, data)
        if settings.record_losses:
            save_losses(output, early.base, early.losses)
    return log


def _has_room(model: Any, settings: FineTuneSettings, output: Path, folder: Path, kept: Checkpoints | None) -> bool:
    """Whether the disks hold the checkpoints of a training; where they do not it is said.

    Raises:
        UserError: They do not even hold the student.
    """
    alone = settings.adapts and not settings.merge
    student = sum(one.numel() * precision().itemsize for one in model.parameters() if one.requires_grad or not alone)
    if missing := room_for([(output, student)]):
        raise UserError(
            f"train: no room for the student, the disk is full: {missing}; free some, or choose another output"
        )
    if kept is None:
        return True
    each = checkpoint_bytes(model, settings.adapts)
    # Two at most are on this machine's disks: the newest, and the one that is being written.
    place = None if is_remote(kept.uri) else Path(kept.uri)
    there = sum(one.stat().st_size for one in place.rglob("*") if one.is_file()) if place else 0
    missing = room_for([(output, student), (folder, each), (place or folder, max(each - there, 0))])
    if missing:
        print(f"train: no checkpoints are kept, as there is no room for two: {missing}; free some, or name another "
              "place in train.checkpoint_uri", flush=True)  # fmt: skip
    return not missing


def _seeds(training_set: list[Example]) -> list[Example]:
    return [example for example in training_set if not example.generated]


def _begin(
    student: str, task: Task, settings: FineTuneSettings, random_seed: int, seeds: list[Example]
) -> tuple[Any, Any, Any]:
    """(model, tokenizer, config); the model of a pretrained student is not loaded yet, and None."""
    if student == SCRATCH:
        # A student this small gains a third from a second thread on an idle machine, and loses a factor of three on one
        # that does anything else, as the threads spin in wait for one another. One thread also gives the same weights
        # whatever the number of cores.
        torch.set_num_threads(1)
        if settings.adapts:
            raise UserError(
                f"train.method: {settings.method!r} adapts a pretrained model, and student 'scratch' has random "
                "weights; set train.method: full, or name a pretrained student"
            )
        model, tokenizer = build_student(seeds, task, settings.scratch, random_seed, settings.head)
        return model.to(device()), tokenizer, model.config
    refuse_quantised(student, settings)
    tokenizer = HEADS[settings.head].load_tokenizer(student, settings.trust_remote_code)
    return None, tokenizer, load_config(student, settings.trust_remote_code)


def load_for_training(
    student: str, settings: FineTuneSettings, place: str | None = None, labels: Sequence[str] = ()
) -> Any:
    """A student's weights as its method trains them; see `load_model` for the place and the labels."""
    model = load_model(
        student,
        settings.trust_remote_code,
        train_adapter=settings.adapts,
        dtype=weights_dtype(settings),
        four_bit=settings.method == "qlora",
        attention=attention(settings),
        place=place,
        head=settings.head,
        labels=labels,
    )
    if isinstance(model, PeftModel) and not settings.adapts:
        model = model.merge_and_unload()
        model.requires_grad_(True)  # PEFT froze the base
    if not settings.classifies:
        _name_parts(model.get_base_model() if isinstance(model, PeftModel) else model)
    return model


def _name_parts(model: Any) -> None:
    """Gives two things the names under which TRL looks for them: the decoder, where a class names a part that it does
    not have (Llama 4), and the number of experts (Granite, Phi and Llama 4)."""
    if model.base_model is model:
        inside = [name for name, part in model.named_children() if isinstance(part, PreTrainedModel)]
        model.base_model_prefix = inside[0] if len(inside) == 1 else model.base_model_prefix
    config = model.config.get_text_config()
    if hasattr(config, "num_local_experts") and not hasattr(config, "num_experts"):
        # As Mixtral's class maps it. On the class, since what an instance has is saved with the student.
        type(config).attribute_map = {**type(config).attribute_map, "num_experts": "num_local_experts"}


def longest_row(config: Any, settings: FineTuneSettings) -> int:
    """The most tokens that a row may have."""
    context: int | None
    if settings.classifies:
        context = context_of(config)
    else:
        context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(settings.max_length, context or settings.max_length)


def _fitting(head: Head, tokenizer: Any, rows: list[Example], task: Task, limit: int) -> list[Example]:
    """The rows that have at most `limit` tokens; what is left out is said. A classifier's texts are cut."""
    whole = [(row, head.encode(tokenizer, task, row)) for row in rows]
    kept = [row for row, one in whole if len(one.prompt) + len(one.completion) <= limit]
    if len(kept) < len(rows):
        print(f"train: {len(rows) - len(kept)} of {len(rows)} validation rows have more than {limit} tokens: the "
              "validation loss is of the others", flush=True)  # fmt: skip
    return kept


def _refuse_other_tokenizer(model: Any, tokenizer: Any, encoding: Encoding) -> None:
    """Checks that the student has an embedding for each token.

    Raises:
        UserError: It has not.
    """
    known = model.get_input_embeddings().num_embeddings
    highest = max(max(row.tokens) for row in encoding.rows)
    if highest >= known:
        raise UserError(
            f"train: the student's tokenizer gives token {highest}, and its weights know {known} tokens: tokenizer and "
            "weights are of two models; save the right tokenizer beside the weights"
        )
    if tokenizer.pad_token_id >= known:  # one that was added for padding alone; nothing is ever learnt from it
        tokenizer.pad_token = tokenizer.eos_token


def _say_what_is_missing(encoding: Encoding, limit: int) -> None:
    total = len(encoding.rows) + encoding.left_out
    if encoding.left_out:
        print(f"train: {encoding.left_out} of {total} rows have more than {limit} tokens and are left out", flush=True)
    if encoding.truncated:
        print(f"train: {encoding.truncated} of {total} rows have more than {limit} tokens; their prompts are cut in "
              "the middle", flush=True)  # fmt: skip


def silence(trainer: Any) -> None:
    """Takes the Trainer's own progress lines out: ours replaces them."""
    for name in ("ProgressCallback", "PrinterCallback"):
        for callback in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == name]:
            trainer.remove_callback(callback)


def _arguments(
    training: Training,
    settings: FineTuneSettings,
    part: Share,
    devices: int,
    random_seed: int,
    folder: str,
    recompute: bool,
) -> Any:
    sharded = settings.sharding == "fsdp" and devices > 1
    # The first process writes checkpoints whole: what the others wrote would stay on the disks of other nodes.
    whole = {"version": 2, "state_dict_type": "FULL_STATE_DICT", "cpu_ram_efficient_loading": True}
    arguments = training.arguments(
        **training.own_arguments,
        **common_arguments(settings, part, random_seed, folder, recompute and not sharded),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        neftune_noise_alpha=settings.neftune_alpha or None,
        fsdp=sharded,
        fsdp_config=whole | {"activation_checkpointing": recompute} if sharded else None,
        report_to=list(settings.report_to) or "none",
    )
    if sharded:
        share_weights_on_cpus()  # after the arguments, which look for the devices anew
    return arguments


def common_arguments(
    settings: FineTuneSettings, part: Share, random_seed: int, folder: str, recompute: bool
) -> dict[str, Any]:
    """What the Trainer of every step is told alike: schedule, batches, precision, seeds, no files of its own."""
    return {
        "output_dir": folder,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "per_device_train_batch_size": part.rows,
        "gradient_accumulation_steps": part.passes,
        "remove_unused_columns": False,
        "gradient_checkpointing": None,  # the old name of the next, which TRL still sets
        "activation_checkpointing": recompute,
        "use_liger_kernel": settings.liger,
        "ddp_find_unused_parameters": False,
        "bf16": precision() is torch.bfloat16,
        "fp16": precision() is torch.float16,
        "use_cpu": device() == "cpu",
        "dataloader_pin_memory": device() != "cpu",
        "seed": random_seed,
        "data_seed": random_seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        **({"optim": settings.optim, "optim_args": settings.optim_args or None} if settings.optim else {}),
    }


class ShowProgress(TrainerCallback):
    """Prints progress."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress = Progress("train", state.max_steps, "steps", before=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.show(state.global_step)


class _EarlyLosses(TrainerCallback):
    """Measures each seed's loss when the first epoch ends, or the training if it is shorter."""

    def __init__(self, head: Head, tokenizer: Any, seeds: list[Example], task: Task, batch_size: int) -> None:
        self.base: dict[str, float] = {}
        """Before training; of a student that is shared out as it begins."""
        self.losses: dict[str, float] = {}
        self._head = head
        self._tokenizer, self._seeds, self._task, self._batch_size = tokenizer, seeds, task, batch_size

    def measured(self) -> dict[str, Any]:
        return {"early_losses": self.losses, "base_losses": self.base}

    def resume(self, measured: Mapping[str, Any]) -> None:
        self.losses, self.base = measured["early_losses"], measured["base_losses"]

    def measure(self, model: Any) -> dict[str, float]:
        """The loss of each seed, by its id."""
        measured = self._head.losses(model, self._tokenizer, self._seeds, self._task, self._batch_size)
        return {seed.id: loss for seed, loss in zip(self._seeds, measured, strict=True)}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.base:  # not known by now
            self.base = self.measure(model)
        # A checkpoint of the first epoch's last step is written before that epoch has ended.
        if state.epoch == 1:
            self.on_epoch_end(args, state, control, model)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.losses:
            self.losses = self.measure(model)


class _ValidationLosses(TrainerCallback):
    """Measures the mean loss on the validation rows whenever an epoch ends, and when the training does."""

    def __init__(
        self, head: Head, tokenizer: Any, rows: list[Example], task: Task, batch_size: int, sharded: bool
    ) -> None:
        self.curve: list[tuple[int, float]] = []
        """(step, mean loss)."""
        self.rows = rows
        self._head = head
        self._tokenizer, self._task, self._batch_size, self._sharded = tokenizer, task, batch_size, sharded

    def measured(self) -> dict[str, Any]:
        return {"validation_losses": self.curve}

    def resume(self, measured: Mapping[str, Any]) -> None:
        self.curve = [(step, loss) for step, loss in measured["validation_losses"]]

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        # A checkpoint of an epoch's last step is written before that epoch has ended.
        if state.global_step and state.epoch % 1 == 0:
            self.on_epoch_end(args, state, control, model)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.curve and self.curve[-1][0] == state.global_step:
            return
        # Each process that holds the whole student measures a part of the rows; one with a part of it, all of them.
        here = this_process()
        alone = here.num_processes == 1 or self._sharded
        rows = self.rows if alone else self.rows[here.process_index :: here.num_processes]
        found = self._head.losses(model, self._tokenizer, rows, self._task, self._batch_size) if rows else []
        found = found if alone else gather_object(found)
        self.curve.append((state.global_step, round(math.fsum(found) / len(found), 6)))
        print(f"train: loss on {len(found)} validation rows after step {state.global_step}: {self.curve[-1][1]:.4f}",
              flush=True)  # fmt: skip


def _save_log(
    path: Path,
    log: TrainingLog,
    student: str,
    task: Task,
    settings: FineTuneSettings,
    random_seed: int,
    iteration: int,
    data: str,
) -> None:
    values: dict[str, Any] = {
        "student": student,
        TASK: task.model_dump(mode="json"),  # `llm2llm predict` asks the student as it was trained to be asked
        "settings": settings.model_dump(exclude=NO_WEIGHTS),
        "random_seed": random_seed,
        "iteration": iteration,
        "data_sha256": data,
        "versions": versions(),
    }
    saved = [one.name for one in fields(log) if one.metadata.get("saved", True)]
    values |= {name: getattr(log, name) for name in saved}
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
