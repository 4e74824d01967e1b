"""From examples to what goes through the student at once: token ids, what is learnt of them, and rows packed together.

Without packing one item is one row, and the trainer puts rows of like length into one batch, padded on the right.
With packing one item is a sequence of several rows, one after the other:

    tokens     a a a a b b b c c     three rows
    positions  0 1 2 3 0 1 2 0 1     start again with each row; the attention mask is made of them
    labels     - - a a - b b - c     what a row's first token would be predicted from is of another row, so it has none
"""

import bisect
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.prompts import Encoded, encode, encode_general
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.training.settings import FineTuneSettings

IGNORED = -100
"""The label of a token that nothing is learnt from, as PyTorch's losses and transformers have it."""

SHORTEST_PROMPT = 16
"""Tokens of a prompt that truncation leaves at least; what is left of a shorter one asks nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example in tokens."""

    id: str
    tokens: list[int]
    labels: list[int]
    """The tokens to learn, `IGNORED` elsewhere."""
    weight: float = 1.0
    """What the row's loss is multiplied with."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The rows of a training, and what had to be left out or cut."""

    rows: list[Row]
    left_out: int
    truncated: int


def encode_rows(
    tokenizer: Any,
    task: Task,
    examples: Sequence[Example],
    replay: Sequence[Example],
    limit: int,
    settings: FineTuneSettings,
) -> Encoding:
    """The rows to train on, in the order of `examples`, then of `replay`.

    Args:
        tokenizer: The student's.
        task: Gives prompt and completion of `examples`.
        examples: The training set.
        replay: General rows, which have neither the task's words around them nor a class weight.
        limit: The longest row in tokens.
        settings: `too_long`, `loss_on` and `class_weights` are looked at.

    Raises:
        UserError: Class weights for a task without labels; a row that is too long when that is refused, or every row.
    """
    weights = balanced_weights(examples, task) if settings.class_weights == "balanced" else {}
    encoded = [(row, encode(tokenizer, task, row), weights.get(row.answer, 1.0)) for row in examples]
    encoded += [(row, encode_general(tokenizer, row), 1.0) for row in replay]
    long = [(row.id, size) for row, one, _ in encoded if (size := len(one.prompt) + len(one.completion)) > limit]
    if long and settings.too_long == "refuse":
        shown = ", ".join(f"{name} ({size})" for name, size in long[:5])
        raise UserError(
            f"train: {len(long)} of {len(encoded)} rows have more than {limit} tokens: {shown}; shorten them, raise "
            "train.max_length, or set train.too_long to drop or truncate"
        )
    rows: list[Row] = []
    truncated = 0
    for example, whole, weight in encoded:
        fitting = fitted(whole, limit, truncate=settings.too_long == "truncate")
        if fitting is not None:
            truncated += fitting is not whole
            rows.append(_row(example.id, fitting, settings.loss_on, weight))
    if not rows:
        raise UserError(f"train: every row has more than {limit} tokens; raise train.max_length or shorten the rows")
    return Encoding(rows, left_out=len(encoded) - len(rows), truncated=truncated)


def fitted(row: Encoded, limit: int, truncate: bool) -> Encoded | None:
    """The row itself if it has at most `limit` tokens; else one without the middle of its prompt, or None.

    A prompt begins with the instruction and ends with the cue to answer, and a completion that is cut teaches to stop
    half way, so neither end is touched.
    """
    room = limit - len(row.completion)
    if len(row.prompt) <= room:
        return row
    if not truncate or room < SHORTEST_PROMPT:
        return None
    head = (room + 1) // 2
    return Encoded(row.prompt[:head] + row.prompt[len(row.prompt) - (room - head) :], row.completion)


def balanced_weights(examples: Sequence[Example], task: Task) -> dict[str, float]:
    """The weight of each label: rows / (labels x rows with it), so that the mean over the rows is 1.

    Raises:
        UserError: The task has no labels.
    """
    if not FORMS[task.form].has_classes:
        raise UserError(
            f"train.class_weights: 'balanced' weighs labels, and task {task.name!r} of form {task.form!r} has none; "
            "set train.class_weights: none"
        )
    counts = Counter(row.answer for row in examples)
    return {label: len(examples) / (len(counts) * count) for label, count in sorted(counts.items())}


def draw_replay(
    replay: Sequence[Example], rows: int, fraction: float, random_seed: int, iteration: int
) -> list[Example]:
    """The general rows to mix into `rows` training rows: `fraction` times as many, or all if there are fewer.

    Drawn anew in each iteration, whatever the order of `replay`.

    Raises:
        UserError: A fraction, but no rows.
    """
    if fraction and not replay:
        raise UserError(
            f"train.replay_fraction: {fraction} asks for general rows, and there are none; name some in data.replay, "
            "or set it to 0"
        )

    def order(row: Example) -> bytes:
        return hashlib.sha256(f"{random_seed}:{iteration}:replay:{row.id}".encode()).digest()

    return sorted(replay, key=order)[: round(rows * fraction)]


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The places of rows in sequences of at most `capacity` tokens, by best fit decreasing.

    The longest row first, each into the fullest sequence that still has room: never more than 11/9 of the fewest
    possible sequences, and 1 (Johnson 1974). Of equal rows the first is first, so the same lengths give the same
    sequences.
    """
    sequences: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, sequence), sorted
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        found = bisect.bisect_left(room, (lengths[place], -1))
        if found < len(room):
            left, sequence = room.pop(found)
        else:
            left, sequence = capacity, len(sequences)
            sequences.append([])
        sequences[sequence].append(place)
        bisect.insort(room, (left - lengths[place], sequence))
    return sequences


def items(rows: Sequence[Row], capacity: int | None) -> list[dict[str, Any]]:
    """What a data loader hands to `collate`: rows, or with a capacity sequences of packed rows.

    Each has `input_ids`, `labels`, and of its rows the `lengths`, `weights` and `places` in `rows`.
    """
    sequences = (
        pack([len(row.tokens) for row in rows], capacity) if capacity else [[place] for place in range(len(rows))]
    )
    return [
        {
            "input_ids": [token for place in sequence for token in rows[place].tokens],
            "labels": [label for place in sequence for label in rows[place].labels],
            "lengths": [len(rows[place].tokens) for place in sequence],
            "weights": [rows[place].weight for place in sequence],
            "places": sequence,
        }
        for sequence in sequences
    ]  # fmt: skip


def collate(
    batch: Sequence[dict[str, Any]], pad_token_id: int, packed: bool, weighted: bool, flat: bool = False
) -> dict[str, torch.Tensor]:
    """One batch of `items`, padded on the right.

    Packed rows come with `position_ids` and no attention mask: transformers then keeps them apart. A padding token is
    a row of its own there.

    Args:
        batch: The items.
        pad_token_id: What fills up.
        packed: Whether an item may be of several rows.
        weighted: Whether to give the weight of each token.
        flat: Whether all items make one sequence, as flash attention takes packed rows; dense attention would compare
            every token with every other one.
    """
    if flat:
        batch = [{key: [value for one in batch for value in one[key]] for key in batch[0]}]
    made = {
        "input_ids": _padded([one["input_ids"] for one in batch], pad_token_id),
        "labels": _padded([one["labels"] for one in batch], IGNORED),
        "places": torch.tensor([place for one in batch for place in one["places"]], dtype=torch.long),
    }
    if packed:
        positions = [[position for length in one["lengths"] for position in range(length)] for one in batch]
        made["position_ids"] = _padded(positions, 0)
    else:
        made["attention_mask"] = _padded([[1] * len(one["input_ids"]) for one in batch], 0)
    if weighted:
        of_tokens = [
            [weight for weight, length in zip(one["weights"], one["lengths"], strict=True) for _ in range(length)]
            for one in batch
        ]
        made["weights"] = _padded(of_tokens, 0.0)
    return made


def _row(name: str, encoded: Encoded, loss_on: str, weight: float) -> Row:
    tokens = encoded.prompt + encoded.completion
    # Nothing comes before a row's first token that it could be predicted from.
    unlearnt = len(encoded.prompt) if loss_on == "completion" else 1
    return Row(name, tokens, [IGNORED] * unlearnt + tokens[unlearnt:], weight)


def _padded(rows: Sequence[Sequence[float]], value: float) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
