"""The points of a sweep on this machine: a process for each, as many at once as cores and memory allow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from llm2llm.components.shared.base.errors import cannot_write
from llm2llm.components.shared.base.process import EXIT_TERMINATED, PARENT_VARIABLE
from llm2llm.pipelines.sweep.points import Point
from llm2llm.pipelines.sweep.settings import SweepSettings

KIB, GIB = 1024, 1024**3
POLL_SECONDS = 0.2
COMMAND = (sys.executable, "-m", "llm2llm.pipelines.sweep.point")
KEPT = {"report.html", "report.md", "summary.json", "manifest.json", "run.json", "run.log", "events.jsonl", "ledger"}
"""What a point leaves with `keep: report`."""


@dataclass
class _Running:
    point: Point
    process: subprocess.Popen[bytes]
    began: float


def summary_of(output: Path, point: Point) -> dict[str, Any] | None:
    """What a finished point came to; None where it has not finished. `summary.json` is what a run writes last."""
    path = folder_of(output, point) / "summary.json"
    if not path.is_file():
        return None
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def folder_of(output: Path, point: Point) -> Path:
    """The point's output folder."""
    return output / "points" / point.key


def run_points(
    sweep: SweepSettings,
    points: Sequence[Point],
    output: Path,
    say: Callable[[str], None],
    then: Callable[[], object] = lambda: None,
) -> list[str]:
    """Runs the points that have not finished.

    Args:
        sweep: Its limits, runner, and what to keep.
        points: All of them; those that have finished in `output` stay as they are.
        output: The sweep's folder.
        say: Shows a line to a person.
        then: Called after each point that has finished.

    Returns:
        A line for each point that failed, with the reason; the others are finished all the same.

    Raises:
        KeyboardInterrupt, SystemExit: Interrupted or terminated; the points that were running are stopped, and go on
            when the sweep is started again.
    """
    waiting = [point for point in points if summary_of(output, point) is None]
    cores = sweep.limits.cores or len(os.sched_getaffinity(0))
    memory = sweep.limits.memory_gib * GIB or available_memory()
    needed = sweep.point.memory_gib * GIB
    failed: list[str] = []
    running: list[_Running] = []
    told = 0
    with _sigterm_raises():
        try:
            while waiting or running:
                fit = at_once(sweep, cores, memory, needed)
                if waiting and fit != told:
                    told = fit
                    what = "core" if cores == 1 else "cores"
                    say(f"{fit} at once: {cores} {what}, {memory / GIB:.1f} GiB, {needed / GIB:.1f} GiB a point")
                while waiting and len(running) < fit:
                    running.append(_started(waiting.pop(0), sweep, output))
                    point = running[-1].point
                    say(f"started   {point.label}: {_log(folder_of(output, point))}")
                time.sleep(POLL_SECONDS)
                for one in list(running):
                    # Popen's own wait tells nothing of memory.
                    pid, status, used = os.wait4(one.process.pid, os.WNOHANG)
                    if not pid:
                        continue
                    running.remove(one)
                    one.process.returncode = os.waitstatus_to_exitcode(status)
                    peak = used.ru_maxrss * KIB
                    needed = max(needed, peak)
                    took = f"{time.monotonic() - one.began:.0f} s, {peak / GIB:.1f} GiB"
                    if summary_of(output, one.point) is None:
                        failed.append(_failure(one, output))
                        say(f"failed    {failed[-1]}")
                    else:
                        _tidied(folder_of(output, one.point), sweep)
                        if all(summary_of(output, other) is not None for other in points if _alike(other, one.point)):
                            shutil.rmtree(_shared(output, one.point), ignore_errors=True)
                        left = len(waiting) + len(running)
                        say(f"finished  {one.point.label} ({took}; {left} to go)")
                        then()
        except SystemExit:
            say("terminated; run the same command again to go on")
            raise
        finally:
            for one in running:
                one.process.terminate()
            for one in running:
                one.process.wait()
    return failed


def at_once(sweep: SweepSettings, cores: int, memory: float, needed: float) -> int:
    """How many points run at the same time; one at least.

    Args:
        sweep: Cores of a point, and the most points at once.
        cores: For all of them.
        memory: Bytes for all of them.
        needed: Bytes that a point takes at its peak.
    """
    fit = min(cores // sweep.point.cores, int(memory // needed))
    return max(1, min(fit, sweep.limits.points or fit))


def available_memory() -> int:
    """Bytes that new processes can have, by the machine and by the limit of this process's control group."""
    free = next(
        int(line.split()[1]) * KIB
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        if line.startswith("MemAvailable:")
    )
    group = Path("/sys/fs/cgroup")
    try:
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such group, or no limit: `max`
        return free
    return min(free, left)


def _started(point: Point, sweep: SweepSettings, output: Path) -> _Running:
    folder = folder_of(output, point)
    environment: Mapping[str, str] = {
        **os.environ,
        "OMP_NUM_THREADS": str(sweep.point.cores),
        "TOKENIZERS_PARALLELISM": "false",
        PARENT_VARIABLE: str(os.getpid()),
    }
    command = [*COMMAND, point.source, str(folder), sweep.runner, str(_shared(output, point))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(_log(folder), "ab") as log:
            process = subprocess.Popen(  # noqa: S603  # this Python, and arguments that were checked
                [*command, *point.overrides], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
    except OSError as problem:
        raise cannot_write(folder, problem) from None
    return _Running(point, process, time.monotonic())


def _shared(output: Path, point: Point) -> Path:
    """What the arms of a pair of seeds begin with, until the last of them has finished."""
    return output / "shared" / f"{point.config}-d{point.data_seed}-t{point.training_seed}"


def _alike(one: Point, other: Point) -> bool:
    seeds = (one.data_seed, one.training_seed) == (other.data_seed, other.training_seed)
    return one.config == other.config and seeds


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def _failure(one: _Running, output: Path) -> str:
    log = _log(folder_of(output, one.point))
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    code = one.process.returncode
    if code in (1, 2) and lines:
        why = lines[-1].removeprefix("error: ")
    elif code == 0:
        why = "it ended early, as nothing was new (promote.only_if_new), and has no scores"
    else:
        why = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        why += " (out of memory?)" if code in (-9, 137) else ""
    return f"{one.point.label}: {why}; its output is in {log}"


def _tidied(folder: Path, sweep: SweepSettings) -> None:
    if sweep.keep == "all":
        return
    for path in folder.iterdir():
        if path.is_dir() and path.name not in KEPT:
            shutil.rmtree(path)
        elif path.name not in KEPT and not path.name.startswith("."):
            path.unlink()


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM ends the sweep in order, its points first."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
