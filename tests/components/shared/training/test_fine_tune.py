"""Fine-tuning changes what it should, leaves what it should, and teaches."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trl import SFTConfig

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.generate import answer
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.tasks import Task, grade
from llm2llm.components.shared.training import fine_tune as fine_tune_module
from llm2llm.components.shared.training.encoding import encode_rows
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.trainer import MOST_SKIPPED, StudentTrainer
from llm2llm.components.train.train import train

pytestmark = pytest.mark.slow


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def trained(
    tmp_path: Path, rows: list[Example], task: Task, student: str, settings: FineTuneSettings, **kw: Any
) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    fine_tune(rows, task, student, settings, kw.pop("random_seed", 0), folder, **kw)
    return folder


def accuracy(folder: Path, rows: list[Example], task: Task) -> float:
    answers = answer(folder, rows, task, AnswerSettings())
    outcomes = [grade(task, given.completion, row.answer)[1] for given, row in zip(answers, rows, strict=True)]
    return outcomes.count("correct") / len(rows)


def test_full_fine_tuning_changes_every_weight_and_teaches(
    quick: FineTuneSettings, tmp_path: Path, rows: list[Example], colours: Task, tiny_student: Path
) -> None:
    before = weights(tiny_student)
    folder = trained(tmp_path, rows, colours, str(tiny_student), quick)
    after = weights(folder)
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert not torch.equal(tensor, after[name]), f"{name} did not change"
    assert accuracy(tiny_student, rows, colours) < 0.5
    assert accuracy(folder, rows, colours) > 0.9
    log = json.loads((folder / "training.json").read_text())
    assert log["loss_curve"][-1][1] < 0.2 * log["loss_curve"][0][1]
    assert log["rows"] == len(rows)
    assert log["rows_too_long"] == 0
    assert log["steps"] == 180


def test_lora_saves_an_adapter_with_its_base_named_and_the_base_stays(
    tmp_path: Path,
    quick_lora: FineTuneSettings,
    other_rows: list[Example],
    colours: Task,
    taught_student: Path,
) -> None:
    before = weights(taught_student)
    assert accuracy(taught_student, other_rows, colours) < 0.1
    folder = trained(tmp_path, other_rows, colours, str(taught_student), quick_lora)
    saved = weights(folder)
    assert saved
    assert all("lora_" in name for name in saved), "an adapter holds nothing of the base"
    assert all(tensor.abs().sum() > 0 for name, tensor in saved.items() if "lora_B" in name), "B starts at zero"
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(taught_student)
    loaded = {n.replace(".base_layer", ""): v for n, v in load_model(folder).base_model.model.named_parameters()}
    for name, tensor in before.items():
        assert torch.equal(loaded[name].cpu(), tensor), f"{name} of the base changed"
    assert accuracy(folder, other_rows, colours) > 0.9


@pytest.mark.parametrize("method", ["full", "lora"])
def test_going_on_from_the_previous_student(
    method: str,
    tmp_path: Path,
    quick: FineTuneSettings,
    quick_lora: FineTuneSettings,
    other_rows: list[Example],
    colours: Task,
    taught_student: Path,
) -> None:
    settings = quick if method == "full" else quick_lora
    again = settings.model_copy(update={"start_from": "previous", "max_steps": 2, "learning_rate": 1e-5})
    first, second, fresh = (tmp_path / name for name in ("first", "second", "fresh"))
    train(other_rows, colours, str(taught_student), None, settings, 0, first)
    going_on = train(other_rows, colours, str(taught_student), first, again, 0, second)
    from_base = train(other_rows, colours, str(taught_student), None, again, 0, fresh)
    assert going_on.loss_curve[0][1] < 0.3 * from_base.loss_curve[0][1], "it did not start from the trained student"
    assert accuracy(second, other_rows, colours) > 0.9
    assert (second / "adapter_config.json").is_file() == (method == "lora")


def test_same_seed_same_weights_other_seed_other_weights(
    quick: FineTuneSettings, tmp_path: Path, rows: list[Example], colours: Task
) -> None:
    quick = quick.model_copy(update={"epochs": 2.0})
    folders = [tmp_path / str(i) for i in range(3)]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        folder.mkdir()
        fine_tune(rows, colours, "scratch", quick, seed, folder)
    one, same, other = (weights(folder) for folder in folders)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_scratch_student_has_one_tokenizer_whatever_the_teacher_wrote(
    quick: FineTuneSettings, tmp_path: Path, rows: list[Example], colours: Task
) -> None:
    written = [dataclasses.replace(rows[0], id="x" * 20, question="zzzz zzzz zzzz", parent_id=rows[0].id)]
    quick = quick.model_copy(update={"max_steps": 1})
    texts = []
    for name, training_set in (("seeds", rows), ("more", [*rows, *written * 20])):
        folder = tmp_path / name
        folder.mkdir()
        fine_tune(training_set, colours, "scratch", quick, 0, folder)
        texts.append((folder / "tokenizer.json").read_bytes())
    assert texts[0] == texts[1]


def test_only_safetensors_are_written_and_read(
    quick: FineTuneSettings, tmp_path: Path, rows: list[Example], colours: Task, tiny_student: Path
) -> None:
    folder = trained(tmp_path, rows, colours, "scratch", quick.model_copy(update={"max_steps": 1}))
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle")]
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    model = load_model(tiny_student)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    model.config.save_pretrained(pickled)
    load_tokenizer(tiny_student).save_pretrained(pickled)
    with pytest.raises(UserError, match="is a pickle, and pickles are not loaded"):
        load_model(pickled)


def test_rows_that_are_too_long_are_left_out_and_counted(
    quick: FineTuneSettings, tmp_path: Path, rows: list[Example], colours: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    long = dataclasses.replace(rows[0], id="l" * 20, question="word " * 200)
    folder = trained(tmp_path, [*rows, long], colours, "scratch", quick.model_copy(update={"max_steps": 1}))
    log = json.loads((folder / "training.json").read_text())
    assert (log["rows"], log["rows_too_long"]) == (len(rows), 1)
    assert "1 of 25 rows have more than 64 tokens" in capsys.readouterr().out
    with pytest.raises(UserError, match="every row has more than"):
        fine_tune([long], colours, "scratch", quick, 0, folder)


@pytest.mark.parametrize(
    ("student", "method", "message"),
    [
        ("/no/such/folder", "full", "student /no/such/folder: no such folder"),
        ("./nowhere", "lora", "no such folder"),
        ("scratch", "lora", "'lora' adapts a pretrained model"),
    ],
)
def test_bad_students(
    quick: FineTuneSettings, tmp_path: Path, rows: list[Example], colours: Task, student: str, method: str, message: str
) -> None:
    settings = quick.model_copy(update={"method": method})
    with pytest.raises(UserError, match=message):
        train(rows, colours, student, None, settings, 0, tmp_path / "model")
    assert list(tmp_path.iterdir()) == [], "a failed training leaves nothing behind"


def test_a_folder_without_a_model_is_named(
    quick: FineTuneSettings, tmp_path: Path, rows: list[Example], colours: Task
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="the folder holds no model"):
        train(rows, colours, str(empty), None, quick, 0, tmp_path / "model")


def test_an_empty_training_set_is_refused(quick: FineTuneSettings, tmp_path: Path, colours: Task) -> None:
    with pytest.raises(UserError, match="training set is empty"):
        train([], colours, "scratch", None, quick, 0, tmp_path / "model")


def test_a_loss_that_is_not_a_number_stops_training(
    quick: FineTuneSettings, tmp_path: Path, rows: list[Example], colours: Task
) -> None:
    with pytest.raises(UserError, match=r"is (nan|inf) at step \d+; lower train.learning_rate.*: (.+)$") as caught:
        train(rows, colours, "scratch", None, quick.model_copy(update={"learning_rate": 1e30}), 0, tmp_path / "model")
    named = str(caught.value).rsplit(": ", 1)[1].split(", ")
    assert len(named) == quick.batch_size
    assert set(named) <= {row.id for row in rows}
    assert list(tmp_path.iterdir()) == []


def test_in_float16_steps_are_skipped_until_the_scale_of_the_loss_fits(
    tmp_path: Path, rows: list[Example], colours: Task, tiny_student: Path, quick: FineTuneSettings
) -> None:
    """The trainer of a GPU without bfloat16, told of gradients that are no numbers; no CPU trains in float16."""
    model, tokenizer = load_model(tiny_student), load_tokenizer(tiny_student)
    encoded = encode_rows(tokenizer, colours, rows, [], 64, quick).rows
    arguments = SFTConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", max_length=None,
                          dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False)  # fmt: skip
    trainer = StudentTrainer(encoded, None, arguments, 4, None, model=model, processing_class=tokenizer)
    bad = {"loss": 1.0, "grad_norm": float("inf")}
    with pytest.raises(UserError, match="the gradient is inf at step 0"):
        trainer.log(dict(bad))
    trainer.args.fp16, trainer._skipped = True, 0
    for _ in range(MOST_SKIPPED):
        trainer.log(dict(bad))
    trainer.log({"loss": 1.0, "grad_norm": 1.0})
    assert "grad_norm" not in trainer.state.log_history[-2], "nothing that JSON has no word for"
    for _ in range(MOST_SKIPPED):
        trainer.log(dict(bad))
    with pytest.raises(UserError, match="the gradient is inf"):
        trainer.log(dict(bad))


def test_rows_that_are_refused_are_refused_before_the_student_is_loaded(
    rows: list[Example], colours: Task, tiny_student: Path, quick: FineTuneSettings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def loads(*_: object, **__: object) -> None:
        raise AssertionError("the weights are read")

    monkeypatch.setattr(fine_tune_module, "load_model", loads)
    settings = quick.model_copy(update={"too_long": "refuse", "max_length": 16})
    long = [dataclasses.replace(rows[0], question=rows[0].question * 20), *rows[1:]]
    with pytest.raises(UserError, match="rows have more than 16 tokens"):
        fine_tune(long, colours, str(tiny_student), settings, 0, tmp_path)
    with pytest.raises(AssertionError, match="the weights are read"):
        fine_tune(rows, colours, str(tiny_student), quick, 0, tmp_path)
