"""Whatever the number of devices, an optimiser step sees the same rows."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.models.memory import out_of_memory
from llm2llm.components.shared.training.devices import PATIENCE, Share, devices_here, share
from llm2llm.components.shared.training.sampler import Order
from llm2llm.components.shared.training.settings import FineTuneSettings

sizes = st.integers(1, 24)


@given(sizes, sizes, st.integers(1, 8), st.integers(1, 24))
def test_the_shares_make_up_the_global_batch(rows: int, accumulation: int, devices: int, at_most: int) -> None:
    settings = FineTuneSettings(batch_size=rows, gradient_accumulation=accumulation)
    if rows * accumulation % devices:
        with pytest.raises(UserError, match=f"cannot be divided by {devices} devices"):
            share(settings, devices, at_most)
        return
    of_one = share(settings, devices, at_most)
    assert of_one.rows * of_one.passes * devices == rows * accumulation
    assert of_one.rows <= min(rows, at_most)


def test_one_device_does_what_the_settings_say() -> None:
    assert share(FineTuneSettings(batch_size=6, gradient_accumulation=5), 1) == Share(6, 5)


def test_a_batch_that_cannot_be_divided_names_keys_and_values() -> None:
    with pytest.raises(UserError, match=r"train.batch_size 3 \* train.gradient_accumulation 1 = 3 .* 2 devices"):
        share(FineTuneSettings(batch_size=3), 2)


def test_halving_goes_down_to_one_row() -> None:
    settings = FineTuneSettings(batch_size=12, gradient_accumulation=2)
    rows, seen = 12, []
    while rows >= 1:
        of_one = share(settings, 2, rows)
        seen.append(of_one)
        rows = of_one.rows // 2
    assert seen == [Share(12, 1), Share(6, 2), Share(3, 4), Share(1, 12)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts processes on a CPU")
def test_a_cpu_is_one_device_unless_more_are_asked_for() -> None:
    assert devices_here(FineTuneSettings()) == 1
    assert devices_here(FineTuneSettings(gpus=3)) == 3


def test_processes_wait_for_one_another_while_the_first_stores_a_large_student() -> None:
    """Ten minutes, which PyTorch gives them on GPUs, are too few for 140 GB."""
    code = """
import torch
from llm2llm.components.shared.training.devices import this_process
this_process()
print(torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout.total_seconds())
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
           "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | one, capture_output=True, text=True)
    assert float(done.stdout) == PATIENCE.total_seconds() == 7200, done.stderr


@pytest.mark.parametrize(
    ("problem", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory."), False),
    ],
)
def test_what_is_out_of_memory(problem: Exception, is_one: bool) -> None:
    assert out_of_memory(problem) == is_one


@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_steps_see_the_same_rows_on_any_number_of_devices(
    lengths: list[int], rows: int, passes: int, devices: int
) -> None:
    batch, filler = rows * passes * devices, len(lengths)

    def steps(devices: int, rows: int) -> list[list[int]]:
        """As accelerate deals passes: every `devices`-th to each, so that a step takes them one after the other."""
        torch.manual_seed(3)
        order = Order(lengths, batch, Share(rows, batch // rows // devices), devices, filler)
        order._shared_by_all = lambda: None  # there are no other processes here
        indices = list(order)
        assert len(indices) == len(order)
        assert devices == 1 or len(indices) % (rows * devices) == 0, "every device has as many passes"
        return [sorted(i for i in indices[at : at + batch] if i != filler) for at in range(0, len(indices), batch)]

    alone = steps(1, batch)
    assert sorted(index for step in alone for index in step) == list(range(len(lengths)))
    assert [step for step in steps(devices, rows) if step] == alone


def test_an_order_is_found_again() -> None:
    lengths = list(range(1, 30))
    torch.manual_seed(0)
    order = Order(lengths, 4, Share(4, 1), 1, len(lengths))
    list(order)
    second = list(order)
    state = order.state()
    torch.manual_seed(5)
    again = Order(lengths, 4, Share(4, 1), 1, len(lengths))
    again.resume(state)
    assert list(again) == second
    third = list(order)
    assert third != second
