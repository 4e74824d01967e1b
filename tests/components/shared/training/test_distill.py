"""The distillation: TRL's own losses, which weights change, what it teaches, and teachers that do not fit."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError
from safetensors.torch import load_file
from trl.experimental.gkd import GKDConfig, GKDTrainer

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.likelihood import log_likelihoods
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.models.prompts import encode
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.distill import Collator, distil
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.job_folder import TrainingJob, read_job, write_job
from llm2llm.components.shared.training.scratch import build_student
from llm2llm.components.shared.training.settings import FineTuneSettings, ScratchSettings
from llm2llm.components.shared.training.torchrun import train_on_devices
from llm2llm.components.train.train import figures, train
from tests.support.tiny_models import save_tiny


@pytest.fixture(scope="module")
def teacher(
    tmp_path_factory: pytest.TempPathFactory,
    quick: FineTuneSettings,
    other_rows: list[Example],
    colours: Task,
    taught_student: Path,
) -> Path:
    """It answers each question with the next colour."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    folder.mkdir()
    fine_tune(other_rows, colours, str(taught_student), quick, 0, folder)
    return folder


def with_teacher(settings: FineTuneSettings, teacher: Path, **step: Any) -> FineTuneSettings:
    given = {"distill": {"model": str(teacher), "epochs": 2, "learning_rate": 0.2, **step}}
    return FineTuneSettings.load(settings.model_dump() | given, "train")


def job_of(settings: FineTuneSettings, rows: list[Example], task: Task, student: Path) -> TrainingJob:
    return TrainingJob(rows, task, str(student), settings, 0, distils=True)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def likelihood(student: Path, rows: list[Example], task: Task) -> float:
    model, tokenizer = load_model(student), load_tokenizer(student)
    return sum(log_likelihoods(model, tokenizer, [encode(tokenizer, task, row) for row in rows], 8))


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_every_step_has_the_loss_of_trls_own_trainer(
    quick: FineTuneSettings,
    rows: list[Example],
    colours: Task,
    taught_student: Path,
    teacher: Path,
    tmp_path: Path,
    beta: float,
) -> None:
    """On the rows' completions, whose number of tokens TRL divides by."""
    settings = with_teacher(quick, teacher, on_policy=0, beta=beta)
    (tmp_path / "ours").mkdir()
    ours = distil(job_of(settings, rows[:6], colours, taught_student), tmp_path / "ours")
    tokenizer = load_tokenizer(taught_student)
    encoded = [encode(tokenizer, colours, row) for row in rows[:6]]
    arguments = GKDConfig(
        output_dir=str(tmp_path / "theirs"),
        lmbda=0.0,
        beta=beta,
        num_train_epochs=2,
        learning_rate=quick.learning_rate * 0.2,
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
    theirs = GKDTrainer(
        model=load_model(taught_student),
        teacher_model=load_model(teacher),
        args=arguments,
        data_collator=Collator(tokenizer.pad_token_id),
        train_dataset=Dataset.from_list(
            [{"prompt_ids": one.prompt, "completion_ids": one.completion} for one in encoded]
        ),
        processing_class=tokenizer,
    )
    theirs.train()
    losses = [entry["loss"] for entry in theirs.state.log_history if "loss" in entry]
    assert [loss for _, loss in ours.loss_curve] == pytest.approx(losses, rel=1e-3)
    assert len(losses) == 4


@pytest.mark.slow
def test_every_weight_changes_towards_the_teacher_on_what_the_student_writes(
    quick: FineTuneSettings,
    rows: list[Example],
    other_rows: list[Example],
    colours: Task,
    taught_student: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    """The training set holds the old answers, and is asked for its questions alone."""
    long = dataclasses.replace(rows[0], id="long", question="a red ball " * 40)
    job = job_of(with_teacher(quick, teacher, epochs=6), [*rows, long], colours, taught_student)
    write_job(str(tmp_path / "job"), job)
    read = read_job(tmp_path / "job")
    assert read.distils
    held = {path.name: path.read_bytes() for path in teacher.iterdir()}
    (tmp_path / "model").mkdir()
    log = distil(read, tmp_path / "model")
    assert (log.rows, log.rows_too_long, log.steps) == (len(rows), 1, 36)
    before, after = weights(taught_student), weights(tmp_path / "model")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert not torch.equal(tensor, after[name]), f"{name} did not change"
    assert {path.name: path.read_bytes() for path in teacher.iterdir()} == held
    assert likelihood(tmp_path / "model", other_rows, colours) > likelihood(taught_student, other_rows, colours)
    assert log.loss_curve[-1][1] < log.loss_curve[0][1]
    supervised = json.loads((taught_student / "training.json").read_text())
    said = json.loads((tmp_path / "model" / "training.json").read_text())
    assert (said["steps"], said["distilled_rows"]) == (supervised["steps"] + 36, len(rows))
    assert said["loss_curve"] == supervised["loss_curve"]
    with pytest.raises(UserError, match=r"none of 1 rows leaves room for \d+ tokens"):
        distil(dataclasses.replace(job, training_set=[long]), tmp_path / "model")


@pytest.mark.slow
def test_an_adapter_is_trained_further_and_saved_alone(
    quick_lora: FineTuneSettings,
    rows: list[Example],
    colours: Task,
    taught_student: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    """As a stage does it: the supervised step, then the distillation, into one student."""
    base = {path.name: path.read_bytes() for path in taught_student.iterdir()}
    plain = quick_lora.model_copy(update={"epochs": 1})
    supervised = train(rows, colours, str(taught_student), None, plain, 0, tmp_path / "plain")
    settings = with_teacher(plain, teacher, epochs=1)
    log = train(rows, colours, str(taught_student), None, settings, 0, tmp_path / "model")
    assert (log.steps, log.distilled_rows) == (2 * supervised.steps, len(rows))
    assert figures(log)["distilled_rows"] == len(rows)
    before, after = weights(tmp_path / "plain"), weights(tmp_path / "model")
    assert before.keys() == after.keys()
    assert all("lora_" in name and not torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {path.name: path.read_bytes() for path in taught_student.iterdir()} == base
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing is left beside it"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="processes on a CPU")
def test_two_processes_take_the_step_together(
    quick: FineTuneSettings,
    rows: list[Example],
    other_rows: list[Example],
    colours: Task,
    taught_student: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    settings = with_teacher(quick.model_copy(update={"gpus": 2}), teacher, epochs=3)
    (tmp_path / "model").mkdir()
    log = train_on_devices(job_of(settings, rows, colours, taught_student), tmp_path / "model")
    assert (log.devices, log.rows, log.steps) == (2, len(rows), 18)
    assert likelihood(tmp_path / "model", other_rows, colours) > likelihood(taught_student, other_rows, colours)


def test_batches_are_padded_on_the_left_and_only_completions_are_learnt() -> None:
    batch = Collator(0)(
        [{"prompt_ids": [5, 6], "completion_ids": [7]}, {"prompt_ids": [8], "completion_ids": [9, 1, 2]}]
    )
    assert batch["input_ids"].tolist() == [[0, 5, 6, 7], [8, 9, 1, 2]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 7], [-100, 9, 1, 2]]
    assert batch["prompts"].tolist() == [[5, 6], [0, 8]]
    assert batch["prompt_attention_mask"].tolist() == [[1, 1], [0, 1]]


class TestTeachers:
    def test_another_tokenizer_is_refused(
        self, quick: FineTuneSettings, rows: list[Example], colours: Task, taught_student: Path, tmp_path: Path
    ) -> None:
        other = ScratchSettings(vocabulary=280, hidden_size=32, layers=1, heads=2)
        model, tokenizer = build_student(rows, colours, other, random_seed=1)
        model.save_pretrained(tmp_path / "other")
        tokenizer.save_pretrained(tmp_path / "other")
        with pytest.raises(UserError, match=r"train.distill.model: .* has another tokenizer than the student: \d+ tok"):
            distil(job_of(with_teacher(quick, tmp_path / "other"), rows, colours, taught_student), tmp_path)

    def test_more_probabilities_than_the_student_has_are_refused(
        self, quick: FineTuneSettings, rows: list[Example], colours: Task, taught_student: Path, tmp_path: Path
    ) -> None:
        padded = load_model(taught_student)
        padded.resize_token_embeddings(padded.config.vocab_size + 4)
        padded.save_pretrained(tmp_path / "padded")
        load_tokenizer(taught_student).save_pretrained(tmp_path / "padded")
        with pytest.raises(UserError, match="though they have one tokenizer, and TRL compares those of one size alone"):
            distil(job_of(with_teacher(quick, tmp_path / "padded"), rows, colours, taught_student), tmp_path)

    def test_one_that_is_not_there_is_named_by_its_key(
        self, quick: FineTuneSettings, rows: list[Example], colours: Task, taught_student: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match=r"train.distill.model: .*nowhere"):
            distil(job_of(with_teacher(quick, tmp_path / "nowhere"), rows, colours, taught_student), tmp_path)

    @pytest.mark.slow
    def test_of_another_architecture_and_absolute_positions_one_row_at_a_time(
        self, quick: FineTuneSettings, rows: list[Example], colours: Task, taught_student: Path, tmp_path: Path
    ) -> None:
        """A student whose positions padding would move."""
        student = save_tiny("gpt2", load_tokenizer(taught_student), tmp_path / "gpt2")
        (tmp_path / "supervised").mkdir()
        fine_tune(rows, colours, str(student), quick.model_copy(update={"max_steps": 1}), 0, tmp_path / "supervised")
        settings = with_teacher(quick.model_copy(update={"batch_size": 2}), taught_student, epochs=1)
        (tmp_path / "model").mkdir()
        log = distil(job_of(settings, rows[:4], colours, tmp_path / "supervised"), tmp_path / "model")
        assert (log.rows_in_one_pass, log.steps) == (1, 2)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"distill": {"epochs": 2}}, "distill.model: missing"),
        ({"head": "classifier"}, "not with head: classifier, as distillation needs a student that writes"),
        ({"method": "qlora"}, "not with method: qlora, as distillation has no base in 4 bits; set method: lora"),
        ({"sharding": "fsdp"}, "not with sharding: fsdp"),
        ({"nodes": 2}, "not with nodes: 2"),
        ({"bf16_weights": True}, "not with bf16_weights: true"),
        ({"own_answers": {"samples": 4, "join": 1}}, "not with own_answers.samples: 4"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        FineTuneSettings(**{"distill": {"model": "org/teacher"}, **settings})


def test_row_weights_soft_labels_and_packing_are_the_supervised_steps() -> None:
    settings = {"row_weights": "imp", "soft_labels": True, "packing": True, "replay_fraction": 0.1}
    assert FineTuneSettings(distill={"model": "org/teacher"}, **settings).packing
