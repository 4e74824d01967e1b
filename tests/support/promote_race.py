"""Many processes that promote at the same moment: python -m tests.support.promote_race REGISTRY PROCESSES.

Prints each one's verdict as a line of JSON. Process n, the run `run-n`, has a student that answers the first 40 + 3n of
100 validation rows right, so that later ones beat earlier ones, whichever comes first; every fifth has the very student
of process 0. They are forked from a process of their own, which has imported everything and has no threads.
"""

import json
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3  # noqa: F401  # imported late elsewhere, so every process would do it by itself
import numpy as np  # noqa: F401
import scipy.stats  # noqa: F401

from tests.support.registry_makers import finish, keep


def right_of(number: int) -> int:
    """How many rows run `number` answers right."""
    return 40 if number % 5 == 0 else 40 + 3 * number


def _promote(registry: str, number: int, together: Any, verdicts: Any) -> None:
    limit = right_of(number)
    with tempfile.TemporaryDirectory() as folder:
        keep(registry, f"run-{number}", Path(folder), lambda i: i < limit, content=b"%d" % limit)
    together.wait()
    verdicts.put(finish(registry, f"run-{number}", max_slice_drop=1.0)[0])


def main(registry: str, count: str) -> None:
    fork = multiprocessing.get_context("fork")
    together, verdicts = fork.Barrier(int(count)), fork.Queue()
    processes = [
        fork.Process(target=_promote, args=(registry, number, together, verdicts)) for number in range(int(count))
    ]
    for process in processes:
        process.start()
    for _ in processes:
        print(json.dumps(verdicts.get(timeout=240)), flush=True)
    for process in processes:
        process.join()
        assert process.exitcode == 0, f"a process ended with {process.exitcode}"


if __name__ == "__main__":
    main(*sys.argv[1:])
