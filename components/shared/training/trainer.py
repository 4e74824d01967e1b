"""Trainers, TRL's for language models and transformers' for classifiers, with what `packing` puts into a batch: weights
of rows, and whose they are.

A loss that is not a number ends the training before it reaches a weight, and the rows of its batch are named.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.models.experts import experts_of
from llm2llm.components.shared.models.load import precision
from llm2llm.components.shared.training.checkpoints import Checkpoints
from llm2llm.components.shared.training.devices import Share
from llm2llm.components.shared.training.encoding import IGNORED, Row
from llm2llm.components.shared.training.packing import collate, collate_classified, items
from llm2llm.components.shared.training.sampler import Order, filler_item

SHOWN_ROWS = 20

MOST_SKIPPED = 20
"""Steps in a row that float16's loss scaling may leave out: each halves the scale, which begins at 65,536."""


class NotANumber(UserError):
    """A training whose loss or gradient is no number; another learning rate may train."""


class RowTrainer(Trainer):
    """What trainers of every head have in common.

    Args:
        rows: What to train on.
        capacity: With packing the longest sequence in tokens, else None.
        args: The trainer's own settings.
        global_batch: Items in one optimiser step, of all devices together.
        checkpoints: Where they are kept; None: nowhere.
        collator: Makes a batch of `packing.items`.
        others: See `Trainer`.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        capacity: int | None,
        args: TrainingArguments,
        global_batch: int,
        checkpoints: Checkpoints | None,
        collator: Any,
        **others: Any,
    ) -> None:
        self._rows, self._checkpoints = rows, checkpoints
        self._step, self._places = -1, list[int]()
        self._skipped = 0
        whole = items(rows, capacity)
        self.sequences = len(whole)
        share = Share(args.per_device_train_batch_size, args.gradient_accumulation_steps)
        lengths = [len(item["input_ids"]) for item in whole]
        self.order = Order(lengths, global_batch, share, args.world_size, filler=len(whole))
        filler = filler_item(others["processing_class"].pad_token_id)
        dataset = Dataset.from_list([*whole, filler])
        super().__init__(args=args, train_dataset=dataset, data_collator=collator, **others)

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return self.order

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        assert self._checkpoints is not None, "only SaveCheckpoints asks for one"
        # All take turns in writing one of sharded weights: the others would wait for one that had given up.
        step = self.state.global_step
        if self.args.process_index == 0:
            self._checkpoints.make_room()
        with nullcontext() if self.is_fsdp_enabled else self._checkpoints.tolerated(step):
            super()._save_checkpoint(model, trial)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean loss of what is to be learnt, each weighted as its row is.

        Raises:
            NotANumber: It is not one.
        """
        places = inputs.pop("places").tolist()
        loss = self._loss(model, inputs, return_outputs, num_items_in_batch)
        value = (loss[0] if return_outputs else loss).detach()
        if not torch.isfinite(value):
            raise NotANumber(self._not_a_number("loss", float(value), self.state.global_step + 1, places))
        if self._step != self.state.global_step:
            self._step, self._places = self.state.global_step, []
        self._places += places
        return loss

    def _loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool, num_items_in_batch: Any) -> Any:
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs a step.

        Raises:
            NotANumber: Its gradient is not one, which a loss that is one does not rule out. In float16 that skips a
                step while the scale of the loss is too large; it is an error where it goes on.
        """
        if math.isfinite(norm := logs.get("grad_norm", 0.0)):
            self._skipped = 0
        else:
            self._skipped += 1
            if not self.args.fp16 or self._skipped > MOST_SKIPPED:
                raise NotANumber(self._not_a_number("gradient", norm, self.state.global_step, self._places))
            logs = {name: value for name, value in logs.items() if name != "grad_norm"}
        super().log(logs, start_time)

    def _not_a_number(self, what: str, value: float, step: int, places: Sequence[int]) -> str:
        names = [self._rows[place].id for place in places]
        more = f" and {len(names) - SHOWN_ROWS} more" if len(names) > SHOWN_ROWS else ""
        return (
            f"train: the {what} is {value} at step {step}; lower train.learning_rate, or look at the rows of that "
            f"batch: {', '.join(names[:SHOWN_ROWS])}{more}"
        )


class StudentTrainer(RowTrainer, SFTTrainer):
    """Trains a language model on rows; the arguments are those of `RowTrainer` and `SFTTrainer`."""

    def __init__(
        self,
        rows: Sequence[Row],
        capacity: int | None,
        args: SFTConfig,
        global_batch: int,
        checkpoints: Checkpoints | None,
        **others: Any,
    ) -> None:
        dynamic = any(row.floor for row in rows)
        weighted = dynamic or any(row.weight != 1.0 for row in rows)
        packed = capacity is not None
        collator = partial(
            collate,
            pad_token_id=others["processing_class"].pad_token_id,
            packed=packed,
            weighted=weighted,
            flat=packed and _flash(others["model"]),
            dynamic=dynamic,
        )
        super().__init__(rows, capacity, args, global_batch, checkpoints, collator, **others)

    def _loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool, num_items_in_batch: Any) -> Any:
        weights, floors = inputs.pop("weights", None), inputs.pop("floors", None)
        asked = model if weights is None else partial(_weighted, model, weights, floors)
        return super()._loss(asked, inputs, return_outputs, num_items_in_batch)


class ClassifierTrainer(RowTrainer):
    """Trains a classifier on rows; the arguments are those of `RowTrainer` and `Trainer`, and the adapter to put onto
    the model, if any."""

    def __init__(
        self,
        rows: Sequence[Row],
        capacity: int | None,
        args: TrainingArguments,
        global_batch: int,
        checkpoints: Checkpoints | None,
        *,
        model: Any,
        peft_config: LoraConfig | None,
        **others: Any,
    ) -> None:
        assert capacity is None, "settings refuse packing"
        collator = partial(collate_classified, pad_token_id=others["processing_class"].pad_token_id)
        adapted = model if peft_config is None else get_peft_model(model, peft_config)
        for weight in adapted.parameters() if peft_config is not None else ():
            if weight.requires_grad:  # the head, too: in 16 bits small steps would be lost
                weight.data = weight.data.float()
        super().__init__(rows, None, args, global_batch, checkpoints, collator, model=adapted, **others)
        self.model_accepts_loss_kwargs = True  # so that texts are counted in all passes of a step

    def _loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool, num_items_in_batch: Any) -> Any:
        labels, weights, floors = (inputs.pop(name) for name in ("labels", "weights", "floors"))
        outputs = model(**inputs)
        learnt = labels != IGNORED
        logs = outputs.logits.float().log_softmax(dim=-1).gather(1, labels.clamp_min(0)[:, None])[:, 0]
        divided = weights / torch.maximum(logs.detach().exp(), floors).clamp_min(1e-30)
        weights = torch.where(floors > 0, divided, weights)
        # A mean over the texts of a step, of all passes and devices; DDP divides by the number of devices once more.
        loss = -(logs * weights * learnt).sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def _flash(model: Any) -> bool:
    return str(model.config._attn_implementation).startswith("flash")


def _weighted(model: Any, weights: torch.Tensor, floors: torch.Tensor | None, **inputs: Any) -> Any:
    """What the model makes of its inputs, the log-probability of each token times its weight."""
    outputs = model(**inputs)
    weights = weights[:, 1:]  # a token's is where it is predicted, one place before it
    if floors is not None:
        weights = _divided(weights, floors[:, 1:], outputs.log_probs.detach(), inputs.get("position_ids"))
    outputs.log_probs = outputs.log_probs * weights
    return outputs


def _divided(
    weights: torch.Tensor, floors: torch.Tensor, log_probs: torch.Tensor, positions: torch.Tensor | None
) -> torch.Tensor:
    """The weights of rows that have a floor over the probability of what of them is learnt, the floor at least.

    All are (sequences, tokens); with positions a sequence is of several rows, each from position 0.
    """
    places = torch.zeros_like(log_probs, dtype=torch.long)
    if positions is not None:
        places = (positions == 0).cumsum(1)[:, 1:] - 1
    of_rows = torch.zeros_like(log_probs).scatter_add(1, places, log_probs)
    given = of_rows.gather(1, places).exp()
    return torch.where(floors > 0, weights / torch.maximum(given, floors).clamp_min(1e-30), weights)


def refuse_leaky_packing(model: Any, rows: Sequence[Row]) -> None:
    """Checks that in this student a packed row does not see the one before it.

    Two rows are packed twice, with different tokens in the first one: the second one's logits must stay the same to
    the last bit. Attention that is masked gives exactly nothing; a state that is carried along, as in recurrent
    architectures, gives something. In a mixture of experts the first row's tokens decide how many others an expert
    computes at once, which changes the last bits: there the logits must be close.

    Raises:
        UserError: It does.
    """
    first, second = (row.tokens[:8] for row in (rows[0], rows[-1]))
    known = model.get_input_embeddings().num_embeddings
    others = [(token + 1) % known for token in first]
    positions = torch.tensor([[*range(len(first)), *range(len(second))]], device=model.device)

    def of_second(before: list[int]) -> torch.Tensor:
        tokens = torch.tensor([[*before, *second]], device=model.device)
        logits: torch.Tensor = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
        return logits[0, len(first) :]

    was_training = model.training
    model.eval()
    half = precision() is not torch.float32
    with torch.inference_mode(), torch.autocast(model.device.type, precision() if half else None, enabled=half):
        one, other = of_second(first), of_second(others)
    close = (0.05 if half else 1e-4) * float(one.std())
    apart = float((one - other).abs().max()) <= close if experts_of(model) else torch.equal(one, other)
    model.train(was_training)
    if not apart:
        raise UserError(
            "train.packing: in this student's architecture packed rows see one another; set train.packing: false"
        )
