"""Device count, per-device batch, and out-of-memory detection."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.training.settings import FineTuneSettings

PATIENCE = timedelta(hours=2)
"""How long processes that train together wait for one another: the first one fetches and stores what is large alone,
and PyTorch would end the others after ten minutes on GPUs."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one device does of a global batch: `passes` forward passes of `rows` rows."""

    rows: int
    passes: int


def share(settings: FineTuneSettings, devices: int, at_most: int | None = None) -> Share:
    """How a global batch, `batch_size * gradient_accumulation` rows, is split.

    Args:
        settings: Names the global batch, and how many rows a device may be given at once.
        devices: How many there are.
        at_most: Fewer rows at once than the settings allow, as after running out of memory.

    Raises:
        UserError: The global batch cannot be divided by the number of devices.
    """
    batch = settings.batch_size * settings.gradient_accumulation
    if batch % devices:
        raise UserError(
            f"train.batch_size {settings.batch_size} * train.gradient_accumulation {settings.gradient_accumulation} = "
            f"{batch} rows in one optimiser step cannot be divided by {devices} devices (train.gpus * train.nodes): "
            f"make the product a multiple of {devices}"
        )
    of_device = batch // devices
    most = min(of_device, settings.batch_size, at_most or settings.batch_size)
    rows = next(rows for rows in range(most, 0, -1) if of_device % rows == 0)
    return Share(rows, of_device // rows)


def devices_here(settings: FineTuneSettings) -> int:
    """How many devices of this machine train: its GPUs; without one, so many processes on its CPU.

    Raises:
        UserError: More GPUs are asked for than there are.
    """
    import torch

    # Without initialising CUDA, so that processes which are started from here can.
    visible = torch.cuda.device_count()
    if visible and settings.gpus > visible:
        raise UserError(
            f"train.gpus: {settings.gpus} GPUs are asked for, and {visible} can be seen here: ask the cluster for as "
            "many (placement), or set train.gpus lower"
        )
    return settings.gpus or visible or 1


def this_process() -> Any:
    """accelerate's `PartialState`: which of the processes that train together this one is; the only one, else."""
    import torch
    from accelerate import PartialState

    # Without the flag processes on a CPU would not join.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def share_weights_on_cpus() -> None:
    """Lets processes on a CPU hold a part of the student each (FSDP2), as on GPUs.

    accelerate shards for kinds of devices that it lists; on a CPU each process would hold the whole student, and
    nothing would say so. PyTorch itself shards over gloo as well.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    state = PartialState()
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU
