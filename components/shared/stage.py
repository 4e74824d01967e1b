"""Stage lifecycle: emits start and end events, records lineage, reports user errors in one line.

The lines that begin with `@llm2llm ` are read by `llm2llm run`, which shows them as progress; in a pod's log they are
plain text.
"""

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import EXIT_TERMINATED, EXIT_USER_ERROR, end_with_parent
from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.shared.base.settings_text import read_settings_text
from llm2llm.components.shared.data.artifacts import Artifact, Inputs
from llm2llm.components.shared.lineage.records import read_inputs, write_records
from llm2llm.components.stages import STAGES

S = TypeVar("S", bound=StageSettings)

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
) -> Iterator[dict[str, str]]:
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
        An empty mapping: files and names that the body finds in its settings, by what to call them, are recorded as
        inputs.

    Raises:
        SystemExit: With code 2, in place of a `UserError`, whose message has then been printed; with code 143 on
            SIGTERM, as when a spot node is taken away.
    """
    numbers = {"stage": name, "iteration": iteration, "fold": fold, "shard": shard}
    where = {key: value for key, value in numbers.items() if key != "shard" or value is not None}
    started = time.monotonic()
    end_with_parent()
    _say({"event": "started", **where})
    try:
        with _ended_by_sigterm():
            given, makers = read_inputs(inputs or {})
            named: dict[str, str] = {}
            yield named
            given |= read_inputs(named)[0]
            hashes = write_records(numbers, given, makers, outputs or {})
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
    say_finished(where, time.monotonic() - started, outputs or {}, hashes)


def say_finished(
    where: Mapping[str, object], seconds: float, outputs: Mapping[str, Artifact], hashes: Mapping[str, str | None]
) -> None:
    """The event of a stage that has ended well, also of one whose work was taken over from a run that is alike.

    Args:
        where: `stage`, `iteration`, `fold`, and `shard` where it has one.
        seconds: What the work took.
        outputs: By name.
        hashes: Of the outputs, by name.
    """
    paths = {key: artifact.path for key, artifact in outputs.items()}
    _say({"event": "finished", **where, "seconds": round(seconds, 3), "outputs": paths, "sha256": dict(hashes)})


@contextmanager
def running_stage(name: str, given: Mapping[str, Any], settings: type[S]) -> Iterator[S]:
    """Wraps a component's body, whose arguments say all that `stage_lifecycle` asks for.

        with running_stage("train", locals(), TrainStage) as stage: ...

    Args:
        name: The stage, one of `STAGES`, which names its outputs.
        given: The component's arguments: artifacts, `settings` as text, `iteration`, `fold` and `shard` where it has
            them. Called before anything else is defined, `locals()` is just that.
        settings: What the text holds; its `named_sources` are recorded as inputs.

    Yields:
        The settings.
    """
    outputs = {output: given[output] for output in STAGES[name].outputs}
    inputs: dict[str, Any] = {
        key: value for key, value in given.items() if key not in outputs and not isinstance(value, _PLAIN)
    }
    numbers = {key: given.get(key) for key in ("iteration", "fold", "shard")}
    # On a CPU it recommends a package that nothing here uses, in every process that imports PEFT.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    with stage_lifecycle(name, **numbers, inputs=inputs, outputs=outputs) as named:
        loaded = settings.load(read_settings_text(given.get("settings", ""), "settings"), "settings")
        named.update(loaded.named_sources())
        yield loaded


_PLAIN = (str, int, float, type(None), dict)


def _say(event: dict[str, object]) -> None:
    # Half a surrogate pair, as in the path of a file with a broken name, cannot be printed; its JSON escape can.
    # Of what a terminal of another encoding lacks too: its `backslashreplace` would leave no JSON.
    unicode = (sys.stdout.encoding or "utf-8").lower().replace("-", "").startswith("utf8")
    line = json.dumps(event, ensure_ascii=not unicode).encode("utf-8", "backslashreplace").decode("utf-8")
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
