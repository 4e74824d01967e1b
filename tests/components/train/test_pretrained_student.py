"""A real pretrained student through train, evaluate (generate and score), LoRA and merge.

Every figure here must hold on any CPU: losses fall and answers can be read; which answers come is not asserted.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.predict import predict
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.models.prompts import encode_prompt
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import FineTuneSettings
from tests.support.pretrained import pretrained_student

__all__ = ["pretrained_student"]

pytestmark = pytest.mark.slow

STEPS = {"max_steps": 12, "batch_size": 4, "max_length": 128, "scheduler": "constant", "warmup": 0.0}


def trained(folder: Path, student: Path, rows: list[Example], colours: Task, **settings: object) -> list[float]:
    """Trains into a folder; the losses of the first and the last steps."""
    folder.mkdir()
    fine_tune(rows, colours, str(student), FineTuneSettings.load({**STEPS, **settings}, "train"), 0, folder)
    losses = [loss for _, loss in json.loads((folder / "training.json").read_text())["loss_curve"]]
    return [losses[0], losses[-1]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}


def test_full_training_learns_and_its_answers_are_read_in_both_modes(
    pretrained_student: Path, rows: list[Example], colours: Task, tmp_path: Path
) -> None:
    first, last = trained(tmp_path / "model", pretrained_student, rows, colours, learning_rate=5e-5)
    assert last < first / 2
    before, after = weights(pretrained_student), weights(tmp_path / "model")
    assert after.keys() == before.keys()
    assert [name for name, one in before.items() if torch.equal(one, after[name])] == []
    splits = {"test": rows[:12]}
    untrained = predict(pretrained_student, splits, 0, None, colours, AnswerSettings())
    generated = predict(tmp_path / "model", splits, 0, None, colours, AnswerSettings())
    assert sum(one.outcome == "correct" for one in generated) > sum(one.outcome == "correct" for one in untrained)
    assert all(one.parsed in colours.labels for one in generated)
    scored = predict(tmp_path / "model", splits, 0, None, colours, AnswerSettings(mode="score"))
    assert all(one.confidence is not None and 1 / 3 < one.confidence <= 1 for one in scored)
    assert sum(one.outcome == "correct" for one in scored) >= 8, "chance would give 4 of 12"


def test_an_adapter_learns_at_its_default_rate_and_merges_into_its_base(
    pretrained_student: Path, rows: list[Example], colours: Task, tmp_path: Path
) -> None:
    settings = {"method": "lora", "lora_dropout": 0.0}
    first, last = trained(tmp_path / "adapter", pretrained_student, rows, colours, **settings, learning_rate=1e-3)
    assert last < first / 2
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    trained(tmp_path / "merged", pretrained_student, rows, colours, **settings, learning_rate=1e-3, merge=True)
    assert weights(tmp_path / "merged").keys() == weights(pretrained_student).keys()
    tokenizer = load_tokenizer(pretrained_student)
    ids = torch.tensor([encode_prompt(tokenizer, colours, rows[0])])
    with torch.no_grad():
        adapted, merged = (load_model(tmp_path / name)(ids).logits[0, -1] for name in ("adapter", "merged"))
        base = load_model(pretrained_student)(ids).logits[0, -1]
    assert (adapted - merged).abs().max() < 0.05 * (adapted - base).abs().max()
