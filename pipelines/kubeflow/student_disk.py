"""How much disk a student needs in a stage's pod: an estimate, made without a look at its weights.

A model's weights are 4 bytes each at worst, as float32. Training has two checkpoints at most at once, the newest and
one that it writes, each of the weights and AdamW's two moments: 12 bytes for each parameter that is trained, 6 with
`bf16_weights`.
"""

import re
from dataclasses import dataclass

from llm2llm.components.shared.training.settings import FineTuneSettings, ScratchSettings

GIB = 2**30
CHECKPOINTS = 2
ADAPTED = 0.05
"""The share of weights that an adapter has at most: rank 128 on all linear layers."""

_SIZE_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Disk:
    """GiB that a stage writes at most."""

    scratch: float
    """Downloaded weights, checkpoints and copies beside them, in the temporary folder."""
    downloads: float
    """Artifacts that it reads and writes."""


def named_parameters(name: str) -> int:
    """How many weights a model has by its name, such as Qwen2.5-1.5B, SmolLM2-135M-Instruct or Mixtral-8x7B; 0: the
    name does not say."""
    found = _SIZE_IN_NAME.search(name.rstrip("/").rpartition("/")[2])
    if not found:
        return 0
    experts, number, unit = found.groups()
    return round(int(experts or 1) * float(number) * (1e9 if unit.lower() == "b" else 1e6))


def scratch_parameters(settings: ScratchSettings) -> int:
    """How many weights the student from random weights has, but for norms: embeddings, which are tied, attention and
    a gated MLP four times as wide."""
    return settings.vocabulary * settings.hidden_size + 16 * settings.layers * settings.hidden_size**2


def training_disk(parameters: int, settings: FineTuneSettings) -> Disk:
    """What the train stage writes: the student as it was downloaded, and checkpoints. Its artifacts are the student
    before and this one, which is moved into place."""
    model = 4 * parameters / GIB
    checkpoint = (6 if settings.bf16_weights else 12) * parameters / GIB * (ADAPTED if settings.adapts else 1.0)
    saved = CHECKPOINTS * checkpoint if settings.checkpoint_steps or settings.checkpoint_minutes else 0.0
    return Disk(scratch=model + saved, downloads=2 * model)


def answering_disk(parameters: int, models: int = 1) -> Disk:
    """What a stage writes that loads students: each downloaded, and a copy that an adapter is merged into."""
    model = 4 * parameters / GIB
    return Disk(scratch=2 * models * model, downloads=models * model)
