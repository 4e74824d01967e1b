"""Rows packed into sequences: none is cut, and none sees another."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, set_seed
from trl import SFTConfig

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.encoding import (
    IGNORED,
    Row,
    encode_rows,
)
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.packing import collate, items, pack
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.trainer import StudentTrainer, refuse_leaky_packing
from tests.support.tiny_models import save_tiny

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(LENGTHS, st.integers(50, 120))
def test_every_row_is_packed_once_and_none_is_cut(lengths: list[int], capacity: int) -> None:
    sequences = pack(lengths, capacity)
    assert sorted(place for sequence in sequences for place in sequence) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in sequence) <= capacity for sequence in sequences)
    fewest = math.ceil(sum(lengths) / capacity)
    assert (
        len(sequences) <= 11 / 9 * max(fewest, _fewest_by_size(lengths, capacity)) + 1 or len(sequences) <= 2 * fewest
    )
    assert pack(lengths, capacity) == sequences


def _fewest_by_size(lengths: list[int], capacity: int) -> int:
    """Rows of more than half a sequence need one each."""
    return sum(length > capacity / 2 for length in lengths)


def test_packing_takes_the_fullest_sequence_that_has_room() -> None:
    assert pack([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert pack([], 10) == []


@given(LENGTHS)
def test_a_packed_batch_holds_each_row_with_positions_of_its_own(lengths: list[int]) -> None:
    rows = [Row(str(n), [10 * n + i for i in range(size)], [IGNORED] * size) for n, size in enumerate(lengths)]
    batch = collate(items(rows, 64), pad_token_id=0, packed=True, weighted=False)
    assert "attention_mask" not in batch
    found: list[list[int]] = []
    for tokens, positions in zip(batch["input_ids"].tolist(), batch["position_ids"].tolist(), strict=True):
        for token, position in zip(tokens, positions, strict=True):
            if position == 0:
                found.append([])
            found[-1].append(token)
    assert Counter(map(tuple, found)) - Counter(tuple(row.tokens) for row in rows) <= Counter({(0,): len(found)})
    assert not Counter(tuple(row.tokens) for row in rows) - Counter(map(tuple, found))
    assert sorted(batch["places"].tolist()) == list(range(len(rows)))


def test_a_flat_batch_is_one_sequence_without_padding() -> None:
    rows = [Row("a", [1, 2, 3], [IGNORED, 2, 3]), Row("b", [4, 5], [IGNORED, 5]), Row("c", [6, 7], [IGNORED, 7])]
    batch = collate(items(rows, 4), pad_token_id=0, packed=True, weighted=True, flat=True)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3, IGNORED, 5, IGNORED, 7]]
    assert batch["weights"].shape == (1, 7)


def test_weights_stand_over_their_rows_tokens() -> None:
    rows = [Row("a", [1, 2, 3], [IGNORED, 2, 3], 0.5), Row("b", [4], [IGNORED], 2.0), Row("c", [5, 6], [IGNORED, 6])]
    batch = collate(items(rows, 4), pad_token_id=0, packed=True, weighted=True)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert batch["weights"].tolist() == [[0.5, 0.5, 0.5, 2.0], [1.0, 1.0, 0.0, 0.0]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3, IGNORED], [IGNORED, 6, IGNORED, IGNORED]]


def trainer_of(model: Any, tokenizer: Any, rows: list[Row], capacity: int | None, folder: Path, batch: int) -> Any:
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    return StudentTrainer(rows, capacity, arguments, batch, None, model=model, processing_class=tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "attention"),
    [("llama", "sdpa"), ("llama", "eager"), ("gpt2", "sdpa"), ("qwen3", "sdpa"), ("gemma2", "eager")],
)
def test_packed_rows_give_the_loss_and_gradients_of_rows_apart(
    architecture: str,
    attention: str,
    quick: FineTuneSettings,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    tmp_path: Path,
) -> None:
    tokenizer = load_tokenizer(tiny_student)
    folder = save_tiny(architecture, tokenizer, tmp_path / "model")
    settings = quick.model_copy(update={"loss_on": "all", "class_weights": "balanced"})
    encoded = encode_rows(tokenizer, colours, rows[:11], [], 64, settings).rows
    found = []
    for capacity in (None, 64):
        set_seed(0)
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
        refuse_leaky_packing(model, encoded)
        trainer = trainer_of(model, tokenizer, encoded, capacity, tmp_path / "out", batch=len(rows))
        trainer.model.eval()  # no dropout
        batch = next(iter(trainer.get_train_dataloader()))
        assert (batch["input_ids"].shape[0] < len(encoded)) == (capacity is not None)
        wanted = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=wanted)
        loss.backward()
        gradients = {name: weight.grad for name, weight in trainer.model.named_parameters()}
        found.append((loss.detach(), gradients))
    (apart, of_apart), (packed, of_packed) = found
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=0)
    for name, gradient in of_apart.items():
        torch.testing.assert_close(of_packed[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.slow
def test_packed_rows_have_the_logits_that_they_have_alone(
    rows: list[Example], colours: Task, quick: FineTuneSettings, taught_student: Path
) -> None:
    tokenizer, model = load_tokenizer(taught_student), load_model(taught_student).eval()
    encoded = encode_rows(tokenizer, colours, rows, [], 64, quick).rows
    for item in items(encoded, 64):
        batch = collate([item], tokenizer.pad_token_id, packed=True, weighted=False)
        with torch.inference_mode():
            together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[
                0
            ]
            start = 0
            for place in item["places"]:
                tokens = encoded[place].tokens
                alone = model(input_ids=torch.tensor([tokens])).logits[0]
                torch.testing.assert_close(together[start : start + len(tokens)], alone, atol=1e-5, rtol=0)
                start += len(tokens)


def test_packing_is_allowed_on_a_mixture_of_experts_whose_last_bits_differ(
    rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experts' sums may come in another order with another row before; a state that leaks is far larger."""
    tokenizer = load_tokenizer(tiny_student)
    model = load_model(save_tiny("qwen3_moe", tokenizer, tmp_path))
    encoded = encode_rows(tokenizer, colours, rows, [], 64, FineTuneSettings()).rows
    forward = type(model).forward
    shift = [0.0]

    def rounded(self: Any, **inputs: Any) -> Any:
        found = forward(self, **inputs)
        shift[0] = -shift[0] or size
        found.logits = found.logits + shift[0]
        return found

    monkeypatch.setattr(type(model), "forward", rounded)
    size = 1e-6
    refuse_leaky_packing(model, encoded)
    size, shift[0] = 0.1, 0.0
    with pytest.raises(UserError, match="packed rows see one another"):
        refuse_leaky_packing(model, encoded)


@pytest.mark.slow
def test_packing_is_refused_where_rows_would_see_one_another(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    student = save_tiny("mamba", load_tokenizer(tiny_student), tmp_path / "mamba")
    with pytest.raises(UserError, match=r"train.packing: in this student's architecture packed rows see one another"):
        fine_tune(rows, colours, str(student), quick.model_copy(update={"packing": True}), 0, tmp_path)


@pytest.mark.slow
def test_a_packed_training_teaches_and_counts_every_row(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    packed = quick.model_copy(update={"packing": True, "batch_size": 1, "epochs": 20})
    log = fine_tune(rows, colours, str(tiny_student), packed, 0, tmp_path)
    assert log.rows == len(rows)
    assert log.sequences < len(rows) / 3
    assert log.steps == 20 * log.sequences
    tokenizer = load_tokenizer(tiny_student)
    encoded = encode_rows(tokenizer, colours, rows, [], 64, quick).rows
    assert log.tokens == 20 * sum(len(row.tokens) for row in encoded)
    assert log.loss_curve[-1][1] < 0.5 * log.loss_curve[0][1]
