"""Out-of-memory detection, and work in pieces that are halved until they fit."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TypeVar

import torch

from llm2llm.components.shared.base.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


def out_of_memory(problem: BaseException) -> bool:
    """Whether it says that a device, or the machine, has no memory left."""
    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    # Other words for the same, as accelerate knows them; vLLM's image, which trains nothing, does without it.
    if not isinstance(problem, Exception) or find_spec("accelerate") is None:
        return False
    from accelerate.utils.memory import should_reduce_batch_size

    return bool(should_reduce_batch_size(problem))


def in_pieces(
    items: Sequence[T], size: int, work: Callable[[Sequence[T]], list[R]], what: str, advice: str
) -> tuple[list[R], int]:
    """(results of `work` on pieces of `items`, the size of a piece that fits): `size`, halved on out-of-memory.

    Args:
        items: What to work on.
        size: The largest piece to begin with.
        work: Gives one result for each item of a piece.
        what: The stage, for messages.
        advice: What to do when not even one item fits.

    Raises:
        UserError: Not even one item fits.
    """
    results: list[R] = []
    while len(results) < len(items):
        piece = items[len(results) : len(results) + size]
        try:
            found: list[R] | None = work(piece)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
            found = None
        if found is not None:
            assert len(found) == len(piece), "as many results as items"
            results += found
            continue
        # Here, and not in the except clause: the exception holds on to the memory of what failed.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(piece) == 1:
            raise UserError(f"{what}: not even one row fits into memory; {advice}")
        size = len(piece) // 2
        print(f"{what}: out of memory with {len(piece)} rows at once; going on with {size}", flush=True)
    return results, size
