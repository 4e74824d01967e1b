"""Progress of a local run: the stages' events as lines.

iteration 1   train                           12.3 s
"""

import json
import shutil
from dataclasses import dataclass, field
from typing import Any, TextIO

from llm2llm.components.shared.stage import EVENT


@dataclass
class Watch:
    """What the stages have said so far."""

    events: TextIO
    """Every event, as a line of JSON."""
    shown: TextIO
    """Where a person reads along."""
    running: dict[tuple[str, int | None, int | None, int | None], None] = field(default_factory=dict)
    """Stage, iteration, fold and shard, in the order in which they started."""
    failure: dict[str, Any] | None = None
    """The last event of a stage that failed."""


class LogLines:
    """Takes what KFP and the stages print: all of it goes to the log, stages' events become progress."""

    encoding = "utf-8"
    """As any stream has one: that of the log."""

    def __init__(self, log: TextIO, watch: Watch) -> None:
        self._log = log
        self._watch = watch
        self._rest = ""

    def write(self, text: str) -> int:
        self._log.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            _take(line.strip(), self._watch)
        return len(text)

    def flush(self) -> None:
        self._log.flush()

    def isatty(self) -> bool:
        return False


def _take(line: str, watch: Watch) -> None:
    if line.startswith(EVENT):
        try:
            event = json.loads(line.removeprefix(EVENT))
        except json.JSONDecodeError:
            return  # two stages wrote into one line; the log has it
        _take_event(event, watch)
    elif watch.shown.isatty() and watch.running and " left" in line:
        watch.shown.write(f"\r\x1b[K    {line[: shutil.get_terminal_size().columns - 5]}")  # a wrapped line would stay
        watch.shown.flush()


def _take_event(event: dict[str, Any], watch: Watch) -> None:
    key = (event["stage"], event.get("iteration"), event.get("fold"), event.get("shard"))
    watch.events.write(json.dumps(event, ensure_ascii=False) + "\n")
    watch.events.flush()
    name, iteration, fold, shard = key
    label = f"{'' if iteration is None else f'iteration {iteration}':<14}{name}"
    label += ("" if fold is None else f" fold {fold}") + ("" if shard is None else f" shard {shard}")
    if event["event"] == "started":
        watch.running[key] = None
        if watch.shown.isatty():
            watch.shown.write(f"\r\x1b[K  {label} ...")
            watch.shown.flush()
        return
    watch.running.pop(key, None)
    if event["event"] == "finished":
        _show(watch, f"  {label:<40}{event['seconds']:>8.1f} s")
    else:
        watch.failure = event
        _show(watch, f"  {label:<40}  failed")


def _show(watch: Watch, line: str) -> None:
    watch.shown.write(("\r\x1b[K" if watch.shown.isatty() else "") + line + "\n")
    watch.shown.flush()
