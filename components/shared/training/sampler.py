"""Row order in training: independent of the number of devices, and restored on resume.

Rows of similar length go together, so that little is padding; see transformers' `get_length_grouped_indices`. That
order decides which rows an optimiser step sees: a *global batch*. `devices.Share` says how the devices split one.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from llm2llm.components.shared.training.devices import Share
from llm2llm.components.shared.training.encoding import IGNORED


class Order(Sampler[int]):
    """Gives the rows of an epoch in the order in which the devices' forward passes take them.

    Each epoch's order is drawn from torch's global generator, as transformers' own sampler does it. A rank gets every
    `devices`-th pass (accelerate's BatchSamplerShard). Where the last passes of an epoch cannot be filled, the row
    number `filler` stands in, whose tokens count nothing: accelerate would repeat rows of the epoch's beginning, and
    the steps would differ from those of one device.

    Args:
        lengths: Tokens of each row.
        global_batch: Rows in one optimiser step.
        share: Of one device.
        devices: How many there are.
        filler: What stands in for a row.
    """

    def __init__(self, lengths: list[int], global_batch: int, share: Share, devices: int, filler: int) -> None:
        self._lengths, self._global_batch, self._filler = lengths, global_batch, filler
        self._round = share.rows * devices if devices > 1 else 1
        self._devices = devices
        self._drawn_with: torch.Tensor | None = None
        self._next: torch.Tensor | None = None

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._round) * self._round

    def __iter__(self) -> Iterator[int]:
        if self._next is not None:
            torch.set_rng_state(self._next)
            self._next = None
        elif self._devices > 1:
            self._shared_by_all()
        self._drawn_with = torch.get_rng_state()
        indices = get_length_grouped_indices(self._lengths, self._global_batch)
        return iter(indices + [self._filler] * (len(self) - len(indices)))

    def _shared_by_all(self) -> None:
        """Gives every process the first one's generator: dropout may have taken more from one than from another."""
        shared = [torch.get_rng_state()]
        torch.distributed.broadcast_object_list(shared, src=0)
        torch.set_rng_state(shared[0])

    def state(self) -> str:
        """What the order of the epoch that is under way was drawn with, for `resume`."""
        assert self._drawn_with is not None, "no epoch has begun"
        return bytes(self._drawn_with.tolist()).hex()

    def resume(self, state: str) -> None:
        """Makes the next epoch's order that of an interrupted one."""
        self._next = torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8)


def filler_item(pad_token_id: int) -> dict[str, Any]:
    """What `packing.collate` takes for an item, and nothing is learnt from."""
    return {
        "input_ids": [pad_token_id] * 2,
        "labels": [IGNORED] * 2,
        "lengths": [2],
        "weights": [0.0],
        "floors": [0.0],
        "places": [],
    }
