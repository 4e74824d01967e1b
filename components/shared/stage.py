"""What every stage does around its work: says that it starts and ends, keeps where its outputs come from, and shows a
user's mistake as one line.

The lines that begin with `@llm2llm ` are read by `llm2llm run`, which shows them as progress; in a pod's log they are
plain text.
"""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import EXIT_TERMINATED, EXIT_USER_ERROR, end_with_parent
from llm2llm.components.shared.data.artifacts import Artifact, Inputs
from llm2llm.components.shared.lineage.records import read_inputs, write_records

EVENT = "@llm2llm "


@contextmanager
def stage_lifecycle(
    name: str,
    *,
    iteration: int | None = None,
    fold: int | None = None,
    shard: int | None = None,
    inputs: Inputs | None = None,
    outputs: Mapping[str, Artifact] | None = None,
) -> Iterator[dict[str, Any]]:
    """Wraps a component's body.

    Args:
        name: The stage.
        iteration: Which iteration it is of, if it is of one.
        fold: Which fold, if it is of one.
        shard: Which shard, if it is of one.
        inputs: What it is handed, by name: artifacts, which are held against what their makers wrote, and the files
            that the user named.
        outputs: What it leaves behind, by name; said at the end with its hashes, so that a reader of the log finds it.
            It then says where it comes from; see `lineage.records`.

    Yields:
        An empty mapping: what the body puts there are the notes of the stage's record.

    Raises:
        SystemExit: With code 2, in place of a `UserError`, whose message has then been printed; with code 143 on
            SIGTERM, as when a spot node is taken away.
    """
    numbers = {"stage": name, "iteration": iteration, "fold": fold, "shard": shard}
    where = {key: value for key, value in numbers.items() if key != "shard" or value is not None}
    notes: dict[str, Any] = {}
    started = time.monotonic()
    end_with_parent()
    _say({"event": "started", **where})
    try:
        with _ended_by_sigterm():
            given, makers = read_inputs(inputs or {}, iteration)
            yield notes
            hashes = write_records(numbers, given, makers, outputs or {}, notes)
    except UserError as problem:
        _say({"event": "failed", **where, "user_error": str(problem)})
        print(f"error: {problem}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_USER_ERROR) from None
    except Exception as problem:
        _say({"event": "failed", **where, "error": f"{type(problem).__name__}: {problem}"})
        raise
    except SystemExit as ending:
        if ending.code == EXIT_TERMINATED:
            _say({"event": "failed", **where, "error": "terminated"})
        raise
    paths = {key: artifact.path for key, artifact in (outputs or {}).items()}
    seconds = round(time.monotonic() - started, 3)
    _say({"event": "finished", **where, "seconds": seconds, "outputs": paths, "sha256": hashes})


def _say(event: dict[str, object]) -> None:
    # Half a surrogate pair, as in the path of a file with a broken name, cannot be printed; its JSON escape can.
    line = json.dumps(event, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")
    print(EVENT + line, flush=True)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Ends the stage in an orderly way on SIGTERM: what is half written goes away, and what was finished is kept.

    As a container's first process it would otherwise not end at all: the kernel spares that one the signal's default.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
