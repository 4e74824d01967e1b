"""What a training run measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingLog:
    """What a training run measured; saved beside the model as `training.json`, without the times."""

    rows: int
    """Rows trained on, general ones among them."""
    rows_too_long: int
    """Rows left out for their length."""
    rows_truncated: int
    """Rows whose prompt was cut."""
    rows_replayed: int
    """General rows drawn from the replay set."""
    sequences: int
    """What the trainer takes for rows: as many, or fewer where they are packed."""
    steps: int
    tokens: int
    """Tokens seen, padding not counted."""
    loss_curve: list[tuple[int, float]]
    """(step, mean loss since the point before)."""
    devices: int
    """Processes that trained together."""
    rows_in_one_pass: int
    """The most that one of them was given at once."""
    seconds: float = field(metadata={"saved": False})
    """Of training, since it began or was taken up again."""
    share_timed: float = field(default=1.0, metadata={"saved": False})
    """Which share of the steps was taken in that time."""
    flops_per_token: float = field(default=0.0, metadata={"saved": False})
    gpus: list[str] = field(default_factory=list, metadata={"saved": False})
    """The name of each device, if it is a GPU."""
    sixteen_bit: bool = field(default=False, metadata={"saved": False})
    """Whether it computed in bfloat16 or float16."""
    peak_memory: int = field(default=0, metadata={"saved": False})
    """Bytes, of the first process."""
    resumed_from_step: int = field(default=0, metadata={"saved": False})
    """0: it began at the beginning."""
    activation_checkpointing: bool = False
    """Whether activations were computed again on the way back: asked for, or since the memory did not suffice."""
    row_weights: dict[str, float] = field(default_factory=dict)
    """What rows weighed in the loss, by id; the others 1."""
    validation_losses: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss on the validation rows) at the end of each epoch, and of the training; empty where it was not
    asked for."""
    own_rows: int = 0
    """Right answers of the student's own that joined as rows."""
    preference_pairs: int = 0
    preference_loss_curve: list[tuple[int, float]] = field(default_factory=list)
    """Of the preference step, as `loss_curve`. Its optimiser steps count in `steps`, too."""
    distilled_rows: int = 0
    distill_loss_curve: list[tuple[int, float]] = field(default_factory=list)
    """Likewise, of the distillation."""
    checkpoints: int = field(default=0, metadata={"saved": False})
    checkpoints_failed: int = field(default=0, metadata={"saved": False})
    """How many were stored, and how many could not be."""

    @property
    def tokens_per_second(self) -> float:
        """Of all devices together, padding not counted."""
        return self.tokens * self.share_timed / self.seconds if self.seconds > 0 else 0.0


CURVES = ("loss_curve", "validation_losses", "preference_loss_curve", "distill_loss_curve")
"""The fields that are pairs, which JSON has as lists."""


def read_log(values: Mapping[str, Any]) -> TrainingLog:
    """The log whose fields these are, as `dataclasses.asdict` and JSON leave them."""
    curves = {name: [(step, loss) for step, loss in values[name]] for name in CURVES}
    return TrainingLog(**{**values, **curves})
