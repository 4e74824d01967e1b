"""A training on all the devices of this machine: one process for each, started with torchrun's own agent.

With one device the training runs in this process. With several, each process is a `worker` on a job's folder; what ends
one of them ends all, and comes through here: a user's mistake with its message, SIGTERM and Ctrl-C as such. A training
that runs out of memory is begun again, or taken up from its newest checkpoint: first with activation checkpointing,
then with half as many rows at once, and so on. The optimiser's steps see the same rows.
"""

import dataclasses
import gc
import os
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import EXIT_TERMINATED, PARENT_VARIABLE
from llm2llm.components.shared.models.memory import out_of_memory
from llm2llm.components.shared.training.devices import devices_here, share
from llm2llm.components.shared.training.job_folder import (
    Failed,
    TrainingJob,
    raise_failure,
    read_result,
    run_job,
    take_model,
    write_job,
)
from llm2llm.components.shared.training.training_log import TrainingLog

GRACE_SECONDS = 20
"""How long the processes may take to end after SIGTERM; Kubernetes gives a pod 30 seconds unless told otherwise."""


def train_on_devices(job: TrainingJob, output: Path) -> TrainingLog:
    """Fine-tunes a student on `settings.gpus` devices of this machine and saves it to the empty folder `output`.

    Raises:
        UserError: As `fine_tune`; also more GPUs than there are, a global batch that cannot be divided among them, and
            no memory for a single row.
    """
    devices = devices_here(job.settings)
    alone = devices == 1 and not _several_visible()
    return until_it_fits(job, devices, output, _in_this_process if alone else partial(_in_processes, devices))


def until_it_fits(
    job: TrainingJob, devices: int, output: Path, train: Callable[[TrainingJob, Path], TrainingLog]
) -> TrainingLog:
    """Trains, and where the memory does not suffice again: with activation checkpointing, then also with half as many
    rows at once. The first costs a third more time; fewer rows at once may cost more on a GPU, and save less.

    Args:
        job: What to train.
        devices: How many share a global batch.
        output: An empty folder; what a try has left in it is removed before the next.
        train: Trains a job into a folder. A MemoryError says that a device has no memory left.

    Raises:
        UserError: No memory for a single row, or a global batch that cannot be divided among the devices.
    """
    at_most: int | None = None
    recompute = job.settings.activation_checkpointing
    while True:
        rows = share(job.settings, devices, at_most).rows
        try:
            return train(dataclasses.replace(job, rows_in_one_pass=rows, recompute=recompute), output)
        except MemoryError as problem:
            reason = str(problem).split("\n", 1)[0]
        if not recompute:
            recompute = True
            said = "again with activation checkpointing"
        elif rows == 1:
            raise UserError(
                f"train: no memory left with one row at once and activation checkpointing ({reason}): set a lower "
                "train.max_length, method: lora or qlora, bf16_weights: true with method full, sharding: fsdp on "
                "several GPUs, or take larger GPUs; llm2llm preflight names what fits"
            )
        else:
            at_most = rows // 2
            said = f"again with at most {at_most}"
        print(f"train: no memory left with {rows} rows at once; {said} ({reason})", flush=True)
        _empty(output)


def _several_visible() -> bool:
    """Whether transformers would spread one process over several GPUs (`DataParallel`)."""
    import torch

    return bool(torch.cuda.device_count() > 1)


def _in_this_process(job: TrainingJob, output: Path) -> TrainingLog:
    try:
        return run_job(job, output)
    except Exception as problem:
        if not out_of_memory(problem):
            raise
        reason = str(problem)
    # Here nothing holds the traceback any more, and with it the student.
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise MemoryError(reason)


def _in_processes(devices: int, job: TrainingJob, output: Path) -> TrainingLog:
    folder = output / ".job"
    try:
        write_job(str(folder), job)
        ended_well = _run_workers(devices, str(folder))
        result = read_result(str(folder))
        if isinstance(result, Failed):
            raise_failure(result)
        if not ended_well or result is None:
            raise RuntimeError("train: a process ended without a word; the kernel kills one that takes too much memory")
        take_model(str(folder), output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _run_workers(devices: int, job: str) -> bool:
    """Runs a worker for each device to their end; whether all ended well.

    Raises:
        SystemExit: With code 143, on SIGTERM; the workers have been ended.
        KeyboardInterrupt: On Ctrl-C; the same.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        shutdown_timeout=GRACE_SECONDS,
    )
    with _environment(), _signals_restored():
        try:
            elastic_launch(config, sys.executable)("-m", "llm2llm.components.shared.training.torchrun_worker", job)
        except ChildFailedError:
            return False
        except SignalException as given:
            if given.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(EXIT_TERMINATED) from None
    return True


@contextmanager
def _environment() -> Iterator[None]:
    """What the workers find in their environment: whose end is theirs, and that they are on one machine."""
    ours = {PARENT_VARIABLE: str(os.getpid())}
    if sys.platform == "linux":
        # A pod's own name need not resolve, and no worker is elsewhere.
        ours |= {"GLOO_SOCKET_IFNAME": "lo"}
    # Each process would else start a thread for each core; torchrun sets the same, with a warning.
    ours |= {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Puts back the handlers that torchrun's agent replaces by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
