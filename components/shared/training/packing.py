"""Rows for the data loader: one item a row, or several rows packed into one sequence.

Without packing the trainer puts rows of like length into one batch, padded on the right. With packing:

    tokens     a a a a b b b c c     three rows
    positions  0 1 2 3 0 1 2 0 1     start again with each row; the attention mask is made of them
    labels     - - a a - b b - c     a row's first token would be predicted from another row's, so it has no label
"""

import bisect
from collections.abc import Sequence
from typing import Any

import torch

from llm2llm.components.shared.training.encoding import IGNORED, Row


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

    Each has `input_ids`, `labels`, and of its rows the `lengths`, `weights`, `floors` and `places` in `rows`.
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
            "floors": [rows[place].floor for place in sequence],
            "places": sequence,
        }
        for sequence in sequences
    ]  # fmt: skip


def collate(
    batch: Sequence[dict[str, Any]],
    pad_token_id: int,
    packed: bool,
    weighted: bool,
    flat: bool = False,
    dynamic: bool = False,
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
        dynamic: Whether to give the floor of each token's row (`Row.floor`).
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
        made["weights"] = _of_tokens(batch, "weights")
    if dynamic:
        made["floors"] = _of_tokens(batch, "floors")
    return made


def collate_classified(batch: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """One batch of `items` of a classifier, padded on the right, with one label, weight and floor for each text."""

    def of_texts(what: str) -> torch.Tensor:
        return torch.tensor([one[what][0] for one in batch])

    return {
        "input_ids": _padded([one["input_ids"] for one in batch], pad_token_id),
        "attention_mask": _padded([[1] * len(one["input_ids"]) for one in batch], 0),
        "labels": of_texts("labels"),
        "weights": of_texts("weights"),
        "floors": of_texts("floors"),
        "places": torch.tensor([place for one in batch for place in one["places"]], dtype=torch.long),
    }


def _of_tokens(batch: Sequence[dict[str, Any]], what: str) -> torch.Tensor:
    """What each token's row has."""
    return _padded(
        [
            [value for value, length in zip(one[what], one["lengths"], strict=True) for _ in range(length)]
            for one in batch
        ],
        0.0,
    )


def _padded(rows: Sequence[Sequence[float]], value: float) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
