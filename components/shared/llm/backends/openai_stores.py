"""Ledger writes in threads, for an event loop that receives the answers.

    with store_threads() as store:
        stored = await store(lambda: tracker.store(...))

An executor's futures, and a wake-up of the loop for each of them, cost more processor time than the write itself. Here
the loop is woken once for all that was written by then.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from llm2llm.components.shared.llm.requests import LLMResponse

THREADS = 16
"""Answers written at once: each waits for a disk or an object store."""

Job = Callable[[], LLMResponse]
Store = Callable[[Job], Awaitable[LLMResponse]]


@contextmanager
def store_threads() -> Iterator[Store]:
    """Opens the threads, within a running loop. When the block ends, every job is done.

    Returns:
        A function that runs a job in a thread and gives what it returns or raises. The job is done even when the task
        that waits for it is cancelled: what is paid for is stored.
    """
    loop = asyncio.get_running_loop()
    jobs: SimpleQueue[tuple[Job, asyncio.Future[LLMResponse]] | None] = SimpleQueue()
    done: deque[tuple[asyncio.Future[LLMResponse], LLMResponse | None, BaseException | None]] = deque()
    woken = False

    def hand_back() -> None:
        nonlocal woken
        woken = False  # before the look: what is done after it wakes the loop again
        while done:
            future, stored, problem = done.popleft()
            if future.done():  # cancelled
                continue
            if problem is not None:
                future.set_exception(problem)
            else:
                assert stored is not None
                future.set_result(stored)

    def work() -> None:
        nonlocal woken
        while (item := jobs.get()) is not None:
            job, future = item
            try:
                done.append((future, job(), None))
            except BaseException as problem:
                done.append((future, None, problem))
            if not woken:
                woken = True
                loop.call_soon_threadsafe(hand_back)

    threads: list[threading.Thread] = []

    def store(job: Job) -> asyncio.Future[LLMResponse]:
        if len(threads) < THREADS:
            threads.append(threading.Thread(target=work, name=f"ledger-{len(threads)}", daemon=True))
            threads[-1].start()
        future = loop.create_future()
        jobs.put((job, future))
        return future

    try:
        yield store
    finally:
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join()
        hand_back()
