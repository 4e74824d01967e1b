"""Losses, label probabilities, margin and EL2N are those of a direct computation, one row at a time."""

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.generate import load_student
from llm2llm.components.shared.inference.predict import predict
from llm2llm.components.shared.inference.row_losses import hardness
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.label_scoring import completions_of
from llm2llm.components.shared.models.likelihood import log_likelihoods, losses
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.models.prompts import Encoded, encode
from llm2llm.components.shared.models.student_folder import LOSSES_FILE, read_losses
from llm2llm.components.shared.tasks import TASKS, Task
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import FineTuneSettings
from tests.support.tiny_models import ARCHITECTURES, save_tiny

pytestmark = pytest.mark.slow


def direct(model: Any, tokenizer: Any, task: Task, row: Example) -> tuple[float, int]:
    """(log-likelihood, tokens) of the right completion."""
    encoded = encode(tokenizer, task, row)
    return direct_tokens(model, encoded), len(encoded.completion)


def direct_tokens(model: Any, encoded: Encoded) -> float:
    """The log-likelihood of a completion, token by token, without padding or batches."""
    total = 0.0
    for place, token in enumerate(encoded.completion):
        before = torch.tensor([encoded.prompt + encoded.completion[:place]])
        with torch.no_grad():
            total += float(model(before).logits[0, -1].log_softmax(-1)[token])
    return total


def loaded(folder: Path) -> tuple[Any, Any]:
    return load_student(folder, AnswerSettings())


def test_numbers_are_those_of_a_direct_computation(rows: list[Example], colours: Task, taught_student: Path) -> None:
    model, tokenizer = loaded(taught_student)
    mixed = [replace(row, answer="green") if place % 5 == 0 else row for place, row in enumerate(rows)]
    found = hardness(model, tokenizer, mixed, colours, batch_size=7)
    for row, value in zip(mixed, found, strict=True):
        total, tokens = direct(model, tokenizer, colours, row)
        assert value.loss == pytest.approx(-total / tokens, abs=1e-4)
        of_labels = [direct(model, tokenizer, colours, replace(row, answer=label))[0] for label in colours.labels]
        probabilities = torch.tensor(of_labels, dtype=torch.float64).softmax(0)
        right = colours.labels.index(row.answer)
        target = torch.nn.functional.one_hot(torch.tensor(right), 3)
        others = probabilities.clone()
        others[right] = -1
        assert value.label_probability == pytest.approx(float(probabilities[right]), abs=1e-4)
        assert value.margin == pytest.approx(float(probabilities[right] - others.max()), abs=1e-4)
        assert value.rival == colours.labels[int(others.argmax())]
        assert value.el2n == pytest.approx(float((probabilities - target).norm()), abs=1e-4)
    mislabelled = [value.el2n or 0 for row, value in zip(mixed, found, strict=True) if row not in rows]
    assert min(mislabelled) > 1 > max(v.el2n or 0 for row, v in zip(mixed, found, strict=True) if row in rows)


def test_batches_and_order_change_nothing(rows: list[Example], colours: Task, tiny_student: Path) -> None:
    model, tokenizer = loaded(tiny_student)
    one = losses(model, tokenizer, rows, colours, 1)
    many = losses(model, tokenizer, rows[::-1], colours, 24)[::-1]
    assert one == pytest.approx(many, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_a_prompt_that_labels_share_is_read_once(
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    example: Callable[..., Example],
    tiny_student: Path,
    architecture: str,
    batch_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Padded on the left, in batches that part a row's labels, beyond the sliding window: as each row on its own."""
    task = colours.model_copy(update={"labels": ["red", "green", "blue", "x", "red wine"]})
    asked = [*rows[:7], example("so red " * 20, "red"), example("x", "x")]
    model, tokenizer = loaded(save_tiny(architecture, load_tokenizer(tiny_student), tmp_path))
    encoded = [one for row in asked for one in completions_of(tokenizer, task, row)]
    assert min(len(one.completion) for one in encoded) < max(len(one.completion) for one in encoded)
    assert max(len(one.prompt) for one in encoded) > 64, "the sliding window"
    expected = [direct_tokens(model, one) for one in encoded]
    read = 0
    forward = model.forward

    def counting(*args: Any, **values: Any) -> Any:
        nonlocal read
        read += int(values["attention_mask"][:, -values["input_ids"].shape[1] :].sum())
        return forward(*args, **values)

    counting.__signature__ = inspect.signature(forward)  # what it takes is looked at
    monkeypatch.setattr(model, "forward", counting)
    found = log_likelihoods(model, tokenizer, encoded, batch_size)
    assert found == pytest.approx(expected, abs=1e-4)
    whole = sum(len(one.prompt) + len(one.completion) for one in encoded)
    if architecture == "mamba":
        assert read == whole, "it keeps a state, of which no row can be taken"
    elif batch_size == 32:
        assert read < whole / 2


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_short_completion_beside_a_long_one_may_fill_the_context(
    tmp_path: Path, tiny_student: Path, architecture: str
) -> None:
    """A position embedding has no entry for the padding beyond the context."""
    model, tokenizer = loaded(save_tiny(architecture, load_tokenizer(tiny_student), tmp_path))
    long, short = [5 + i % 90 for i in range(126)], [7, 8, 9]
    encoded = [Encoded(long, [20, 2]), Encoded(long, [21, 2]), Encoded(short, [30] * 40), Encoded(short, [31] * 40)]
    alone = [direct_tokens(model, one) for one in encoded]
    assert log_likelihoods(model, tokenizer, encoded, 4) == pytest.approx(alone, abs=1e-4)


def test_an_adapters_labels_share_their_prompt_too(
    tmp_path: Path, rows: list[Example], colours: Task, tiny_student: Path, quick_lora: FineTuneSettings
) -> None:
    fine_tune(rows, colours, str(tiny_student), quick_lora.model_copy(update={"max_steps": 3}), 0, tmp_path)
    model, tokenizer = loaded(tmp_path)
    encoded = [one for row in rows for one in completions_of(tokenizer, colours, row)]
    alone = [direct_tokens(model, one) for one in encoded]
    assert log_likelihoods(model, tokenizer, encoded, 32) == pytest.approx(alone, abs=1e-4)


def test_the_loss_is_the_one_that_training_lowers(rows: list[Example], colours: Task, tiny_student: Path) -> None:
    """transformers' own loss on the labels that the trainer gets."""
    model, tokenizer = loaded(tiny_student)
    encoded = encode(tokenizer, colours, rows[3])
    labels = torch.tensor([[-100] * len(encoded.prompt) + encoded.completion])
    expected = model(torch.tensor([encoded.prompt + encoded.completion]), labels=labels).loss
    assert losses(model, tokenizer, [rows[3]], colours, 8) == pytest.approx([float(expected.detach())], abs=1e-5)


def test_choices_are_the_rows_own(example: Callable[..., Example], tiny_student: Path) -> None:
    model, tokenizer = loaded(tiny_student)
    task = Task(name="choose", form="multiple_choice")
    two, four = example("Which?", "B", choices=["x", "y"]), example("Which?", "D", choices=["1", "2", "3", "4"])
    found = hardness(model, tokenizer, [two, four], task, 3)
    assert found[0].rival == "A"
    assert found[1].rival in ("A", "B", "C")
    assert found[0].label_probability == pytest.approx((1 + (found[0].margin or 0)) / 2)


def test_open_answers_have_a_loss_only(example: Callable[..., Example], tiny_student: Path) -> None:
    model, tokenizer = loaded(tiny_student)
    row = example("How many?", "72", rationale="48 + 24 = 72")
    (found,) = hardness(model, tokenizer, [row], TASKS["gsm8k"], 3)
    assert found.loss > 0
    assert (found.label_probability, found.margin, found.rival, found.el2n) == (None, None, None, None)


def test_an_answer_outside_the_labels_is_refused(rows: list[Example], colours: Task, tiny_student: Path) -> None:
    with pytest.raises(UserError, match="the answer 'pink' is none of the labels"):
        hardness(*loaded(tiny_student), [replace(rows[0], answer="pink")], colours, 3)


def test_predictions_hold_what_was_asked_for(rows: list[Example], colours: Task, taught_student: Path) -> None:
    splits: Any = {"seeds": rows[:4], "test": rows[4:6]}
    plain = predict(taught_student, splits, 0, None, colours, AnswerSettings())
    measured = predict(taught_student, splits, 0, None, colours, AnswerSettings(hardness=True))
    numbers = ("loss", "label_probability", "margin", "rival", "el2n")
    for p in measured:
        assert all((getattr(p, name) is not None) == (p.split == "seeds") for name in numbers)
    assert [replace(p, **dict.fromkeys(numbers)) for p in measured] == plain


class TestLossesOfTraining:
    def train(self, folder: Path, rows: list[Example], task: Task, student: Path, settings: FineTuneSettings) -> Path:
        folder.mkdir()
        fine_tune(rows, task, str(student), settings, 0, folder)
        return folder

    @pytest.mark.parametrize("method", ["full", "lora"])
    def test_base_and_first_epoch_are_those_of_the_students_of_then(
        self,
        tmp_path: Path,
        quick: FineTuneSettings,
        quick_lora: FineTuneSettings,
        rows: list[Example],
        colours: Task,
        tiny_student: Path,
        method: str,
    ) -> None:
        settings = (quick if method == "full" else quick_lora).model_copy(
            update={"epochs": 3.0, "record_losses": True, "scheduler": "constant", "warmup": 0.0}
        )
        written = replace(rows[0], id="w" * 20, question="written", parent_id=rows[0].id)
        folder = self.train(tmp_path / "three", [*rows, written], colours, tiny_student, settings)
        base, early = read_losses(folder)
        assert base.keys() == early.keys() == {row.id for row in rows}, "seeds only"
        tokenizer = load_tokenizer(tiny_student)
        before = losses(load_model(tiny_student), tokenizer, rows, colours, 4)
        assert [base[row.id] for row in rows] == pytest.approx(before, abs=1e-5)
        one = self.train(
            tmp_path / "one", [*rows, written], colours, tiny_student, settings.model_copy(update={"epochs": 1.0})
        )
        after_one = losses(load_model(one), tokenizer, rows, colours, 4)
        assert [early[row.id] for row in rows] == pytest.approx(after_one, abs=1e-4)
        assert sum(early.values()) < sum(base.values())
        found = predict(folder, {"seeds": rows, "test": rows[:2]}, 0, None, colours, AnswerSettings())
        for p in found:
            known = p.split == "seeds"
            assert (p.base_loss, p.early_loss) == ((base[p.example_id], early[p.example_id]) if known else (None, None))

    def test_recording_changes_no_weight(
        self, tmp_path: Path, quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path
    ) -> None:
        short = quick.model_copy(update={"epochs": 2.0})
        recorded = self.train(
            tmp_path / "with", rows, colours, tiny_student, short.model_copy(update={"record_losses": True})
        )
        plain = self.train(tmp_path / "without", rows, colours, tiny_student, short)
        name = "model.safetensors"
        assert (recorded / name).read_bytes() == (plain / name).read_bytes()
        assert not (plain / LOSSES_FILE).exists()

    def test_a_training_shorter_than_an_epoch_is_measured_at_its_end(
        self, tmp_path: Path, quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path
    ) -> None:
        short = quick.model_copy(update={"max_steps": 2, "record_losses": True})
        folder = self.train(tmp_path / "short", rows, colours, tiny_student, short)
        _, early = read_losses(folder)
        last = losses(load_model(folder), load_tokenizer(folder), rows, colours, 4)
        assert [early[row.id] for row in rows] == pytest.approx(last, abs=1e-5)

    @pytest.mark.parametrize("text", ["", "[]", '{"base": {}}', '{"base": {"a": "x"}, "early": {}}'])
    def test_a_broken_record_is_one_clear_error(self, tmp_path: Path, text: str) -> None:
        (tmp_path / LOSSES_FILE).write_text(text)
        with pytest.raises(UserError, match=r"seed_losses\.json: not written by llm2llm"):
            read_losses(tmp_path)

    def test_the_record_is_plain_json(
        self, tmp_path: Path, quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path
    ) -> None:
        short = quick.model_copy(update={"max_steps": 1, "record_losses": True})
        folder = self.train(tmp_path / "short", rows, colours, tiny_student, short)
        values = json.loads((folder / LOSSES_FILE).read_text())
        assert list(values) == ["base", "early"]
        assert list(values["base"]) == sorted(values["base"])
        assert all(math.isfinite(value) for value in values["base"].values())
