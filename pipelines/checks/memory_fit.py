"""Which settings train a student on a device: the config's own, or the nearest ones that fit.

As a table of usual students and devices (components/train/README.md):

    python -m llm2llm.pipelines.checks.memory_fit
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared.training.devices import share
from llm2llm.components.shared.training.settings import USUAL_RATES, FineTuneSettings
from llm2llm.pipelines.checks.student_memory import Memory, Shape, training_memory

USABLE = 0.9
"""The share of a device's memory that an estimate may fill."""

CHANGES: tuple[dict[str, Any], ...] = (
    {"sharding": "fsdp"},
    {"bf16_weights": True},
    {"method": "lora"},
    {"method": "lora", "sharding": "fsdp"},
    {"method": "qlora"},
)
"""What is proposed where a config's own settings do not fit, the nearest first."""


@dataclass(frozen=True)
class Fit:
    """How a training fits onto a device, once it has stepped down as far as it must."""

    rows: int
    """In one pass."""
    recompute: bool
    """Whether with activation checkpointing."""
    need: Memory


def fit(shape: Shape, parameters: int, settings: FineTuneSettings, gib: float, devices: int = 1) -> Fit | None:
    """The first step of a training that fits: as `torchrun.until_it_fits` takes them, activation checkpointing and then
    ever fewer rows at once; None where not even one row does.

    Args:
        shape: The student's.
        parameters: As counted, where the exact number is known; else `shape.parameters`.
        settings: What to train with.
        gib: Memory of one device.
        devices: GPUs of all nodes together.

    Raises:
        UserError: The global batch cannot be divided by the number of devices.
    """
    rows = share(settings, devices).rows
    recompute = settings.activation_checkpointing
    while True:
        need = training_memory(shape, parameters, settings, rows, devices, recompute)
        if need.total <= USABLE * gib:
            return Fit(rows, recompute, need)
        if not recompute:
            recompute = True
        elif rows == 1:
            return None
        else:
            rows = share(settings, devices, rows // 2).rows


def proposals(
    shape: Shape, parameters: int, settings: FineTuneSettings, gib: float, devices: int = 1
) -> Iterator[tuple[dict[str, Any], Fit]]:
    """(changes of the train section, how it fits then) of each of `CHANGES` that makes a training fit."""
    for changes in CHANGES:
        if changes.get("method") == settings.method:
            continue
        whole = {"bf16_weights": False, "sharding": "ddp"} if "method" in changes else {}
        changed = {**settings.model_dump(), **whole, **changes}
        said = dict(changes)
        if "method" in changes and settings.learning_rate < USUAL_RATES[changes["method"]] / 4:
            said["learning_rate"] = changed["learning_rate"] = USUAL_RATES[changes["method"]]
        if settings.bf16_weights and "method" in changes:
            said["bf16_weights"] = False
        try:
            wanted = FineTuneSettings.model_validate(changed)
        except ValueError:  # a change that the other settings rule out
            continue
        if wanted.sharding == "fsdp" and devices == 1:
            continue
        if (found := fit(shape, parameters, wanted, gib, devices)) is not None:
            yield said, found


def as_overrides(changes: dict[str, Any]) -> str:
    """Changes of the train section as the command line takes them."""
    shown = {key: str(value).lower() if isinstance(value, bool) else value for key, value in changes.items()}
    return " ".join(f"train.{key}={value}" for key, value in shown.items())


def _shape(*numbers: int, tied: bool) -> Shape:
    hidden, layers, heads, key_value_heads, width, mlp, words = numbers
    return Shape(hidden, layers, words, heads, key_value_heads, width, mlp, experts=1, active=1, gated=True, tied=tied)


STUDENTS = {
    "Qwen3-0.6B": _shape(1024, 28, 16, 8, 128, 3072, 151936, tied=True),
    "Llama-3.2-1B": _shape(2048, 16, 32, 8, 64, 8192, 128256, tied=True),
    "Llama-3.2-3B": _shape(3072, 28, 24, 8, 128, 8192, 128256, tied=True),
    "Llama-2-7B": _shape(4096, 32, 32, 32, 128, 11008, 32000, tied=False),
    "Qwen3-14B": _shape(5120, 40, 40, 8, 128, 17408, 151936, tied=False),
    "Qwen3-32B": _shape(5120, 64, 64, 8, 128, 25600, 151936, tied=False),
}
"""The students of the table, by the numbers in their config.json."""

DEVICES = ((1, 24), (1, 40), (1, 80), (8, 24), (8, 80))
"""(GPUs, GiB of each) of the table."""

METHODS: dict[str, tuple[dict[str, Any], ...]] = {
    "full": ({}, {"sharding": "fsdp"}, {"bf16_weights": True}),
    "lora": ({}, {"sharding": "fsdp"}),
    "qlora": ({},),
}
"""The methods of the table, and what each tries in turn."""


def table() -> str:
    """Students, methods and devices as a Markdown table: what fits, with eight rows of 1024 tokens in a step."""
    names = [f"{count} x {gib} GB" if count > 1 else f"{gib} GB" for count, gib in DEVICES]
    lines = ["| student | method | " + " | ".join(names) + " |", "| --- | --- |" + " --- |" * len(names)]
    for student, shape in STUDENTS.items():
        for method in METHODS:
            cells = [_cell(shape, method, gib, count) for count, gib in DEVICES]
            lines.append(f"| {student} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(shape: Shape, method: str, gib: int, devices: int) -> str:
    for changes in METHODS[method]:
        if devices == 1 and "sharding" in changes:
            continue
        settings = FineTuneSettings.model_validate({"method": method, **changes})
        if (found := fit(shape, shape.parameters, settings, gib, devices)) is not None:
            names = ["fsdp" if key == "sharding" else f"`{key}`" for key in changes]
            rows = f"{found.rows} row{'s' if found.rows > 1 else ''}"
            return ", ".join([*names, rows, *(["recomputed"] if found.recompute else [])])
    return "-"


if __name__ == "__main__":
    print(table(), end="")
