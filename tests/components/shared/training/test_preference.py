"""The preference step: TRL's own losses, which weights change, and what it teaches."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from trl import DPOConfig, DPOTrainer

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.likelihood import log_likelihoods
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.models.prompts import Encoded, encode, encode_completion
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.job_folder import Pair, TrainingJob, read_job, write_job
from llm2llm.components.shared.training.preference import prefer
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.torchrun import train_on_devices

FOLLOWING = {"red": "green", "green": "blue", "blue": "red"}
STEP = {"epochs": 2, "learning_rate": 0.1, "beta": 0.3, "nll": 0.7}


def pairs_of(student: Path, rows: list[Example], task: Task) -> list[Pair]:
    """Each row's answer against the next colour."""
    tokenizer = load_tokenizer(student)
    found = []
    for row in rows:
        right = encode(tokenizer, task, row)
        wrong = encode_completion(tokenizer, task, row, FOLLOWING[row.answer])
        found.append(Pair(row.id, right.prompt, right.completion, wrong.completion))
    return found


def job_of(settings: FineTuneSettings, rows: list[Example], task: Task, student: Path, **step: Any) -> TrainingJob:
    given = settings.model_dump() | {"own_answers": {"samples": 2}, "preference": STEP | step}
    pairs = pairs_of(student, rows, task)
    return TrainingJob(rows, task, str(student), FineTuneSettings.load(given, "train"), 0, pairs=pairs)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def margins(student: Path, pairs: list[Pair]) -> list[float]:
    """By how much the right completion is likelier than the wrong one, in nats."""
    model, tokenizer = load_model(student), load_tokenizer(student)
    sides = [Encoded(one.prompt, side) for one in pairs for side in (one.chosen, one.rejected)]
    found = log_likelihoods(model, tokenizer, sides, 8)
    return [right - wrong for right, wrong in zip(found[::2], found[1::2], strict=True)]


@pytest.mark.slow
def test_every_step_has_the_loss_of_trls_own_trainer(
    quick: FineTuneSettings, rows: list[Example], colours: Task, taught_student: Path, tmp_path: Path
) -> None:
    """The same pairs as texts, tokenised, referred and trained by TRL alone."""
    job = job_of(quick, rows[:6], colours, taught_student)
    (tmp_path / "ours").mkdir()
    ours = prefer(job, tmp_path / "ours")
    tokenizer = load_tokenizer(taught_student)
    assert job.pairs is not None
    texts = [
        {
            "prompt": tokenizer.decode(one.prompt),
            "chosen": tokenizer.decode(one.chosen),
            "rejected": tokenizer.decode(one.rejected),
        }
        for one in job.pairs
    ]
    arguments = DPOConfig(
        output_dir=str(tmp_path / "theirs"),
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.7],
        beta=0.3,
        num_train_epochs=2,
        learning_rate=quick.learning_rate * 0.1,
        lr_scheduler_type=quick.scheduler,
        warmup_steps=quick.warmup,
        per_device_train_batch_size=quick.batch_size,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
        seed=0,
        data_seed=0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    theirs = DPOTrainer(
        model=load_model(taught_student),
        ref_model=load_model(taught_student),
        args=arguments,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
    )
    for place, one in enumerate(job.pairs):
        assert theirs.train_dataset[place]["prompt_ids"] == one.prompt
        assert theirs.train_dataset[place]["rejected_ids"] == one.rejected
    theirs.train()
    losses = [entry["loss"] for entry in theirs.state.log_history if "loss" in entry]
    assert [loss for _, loss in ours.loss_curve] == pytest.approx(losses, rel=1e-3)
    assert len(losses) == 4


@pytest.mark.slow
def test_every_weight_changes_and_the_right_completions_win(
    quick: FineTuneSettings, rows: list[Example], colours: Task, taught_student: Path, tmp_path: Path
) -> None:
    job = job_of(quick, rows, colours, taught_student)
    assert job.pairs is not None
    unfit = dataclasses.replace(job.pairs[0], id="long", prompt=job.pairs[0].prompt * 20)
    write_job(str(tmp_path / "job"), dataclasses.replace(job, pairs=[*job.pairs, unfit]))
    read = read_job(tmp_path / "job")
    assert read.pairs == [*job.pairs, unfit]
    (tmp_path / "model").mkdir()
    log = prefer(read, tmp_path / "model")
    assert (log.rows, log.rows_too_long, log.steps) == (len(rows), 1, 12)
    before, after = weights(taught_student), weights(tmp_path / "model")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert not torch.equal(tensor, after[name]), f"{name} did not change"
    assert sum(margins(tmp_path / "model", job.pairs)) > sum(margins(taught_student, job.pairs))
    supervised = json.loads((taught_student / "training.json").read_text())
    said = json.loads((tmp_path / "model" / "training.json").read_text())
    assert said["steps"] == supervised["steps"] + 12
    assert said["preference_pairs"] == len(rows)
    assert said["loss_curve"] == supervised["loss_curve"]
    with pytest.raises(UserError, match=r"none of 1 pairs has at most train.max_length 64 tokens"):
        prefer(dataclasses.replace(job, pairs=[unfit]), tmp_path / "model")


@pytest.mark.slow
def test_an_adapter_is_trained_further_and_saved_alone(
    quick_lora: FineTuneSettings,
    rows: list[Example],
    other_rows: list[Example],
    colours: Task,
    taught_student: Path,
    tmp_path: Path,
) -> None:
    adapter, output = tmp_path / "adapter", tmp_path / "model"
    adapter.mkdir()
    output.mkdir()
    fine_tune(other_rows, colours, str(taught_student), quick_lora, 0, adapter)
    base = {path.name: path.read_bytes() for path in taught_student.iterdir()}
    job = job_of(quick_lora, other_rows, colours, adapter)
    prefer(job, output)
    before, after = weights(adapter), weights(output)
    assert before.keys() == after.keys()
    assert all("lora_" in name and not torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert json.loads((output / "adapter_config.json").read_text())["base_model_name_or_path"] == str(taught_student)
    assert not [path for path in output.iterdir() if path.is_dir()], "TRL's copy of the adapter is not saved"
    assert {path.name: path.read_bytes() for path in taught_student.iterdir()} == base
    assert job.pairs is not None
    assert sum(margins(output, job.pairs)) > sum(margins(adapter, job.pairs))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="processes on a CPU")
def test_two_processes_take_the_step_together(
    quick: FineTuneSettings, rows: list[Example], colours: Task, taught_student: Path, tmp_path: Path
) -> None:
    """Each pair has the reference's likelihoods in each process; a step sees as many pairs as with one."""
    job = job_of(quick.model_copy(update={"gpus": 2}), rows, colours, taught_student)
    (tmp_path / "model").mkdir()
    log = train_on_devices(job, tmp_path / "model")
    assert (log.devices, log.rows, log.steps) == (2, len(rows), 12)
    # Before the first step the student is the reference: log 2, and the right completions' likelihood.
    assert 0.69 < log.loss_curve[0][1] < 1.0
    assert job.pairs is not None
    assert sum(margins(tmp_path / "model", job.pairs)) > sum(margins(taught_student, job.pairs))
    assert (tmp_path / "model" / "model.safetensors").is_file()
