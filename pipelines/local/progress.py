"""Progress of a local run: the stages' events as lines, and what a stage says of its own progress.

iteration 1   train                           12.3 s
"""

import json
import re
import shutil
import time
from dataclasses import dataclass, field
from typing import Any, TextIO

from llm2llm.components.shared.stage import EVENT

SECONDS_BETWEEN = 30.0
"""How often a running stage's progress is shown where there is no terminal, such as in the log of a CI job."""
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


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
    last_shown: float = field(default_factory=time.monotonic)
    """When a line was last shown."""


class LogLines:
    """Takes what KFP and the stages print, line by line: as plain text into the log, without colours and without what
    a progress bar has drawn over; stages' events become progress."""

    encoding = "utf-8"
    """As any stream has one: that of the log."""

    def __init__(self, log: TextIO, watch: Watch) -> None:
        self._log = log
        self._watch = watch
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            plain = _COLOURS.sub("", line).rstrip().rpartition("\r")[2]
            self._log.write((_take(plain.strip(), self._watch) or plain) + "\n")
        return len(text)

    def flush(self) -> None:
        self._log.flush()

    def isatty(self) -> bool:
        return False


def _take(line: str, watch: Watch) -> str:
    """Shows what a line means; what the log says in place of an event."""
    if line.startswith(EVENT):
        try:
            event = json.loads(line.removeprefix(EVENT))
        except json.JSONDecodeError:
            return ""  # two stages wrote into one line; the log has it
        return _take_event(event, watch)
    if not watch.running or " left" not in line:
        return ""
    if watch.shown.isatty():
        watch.shown.write(f"\r\x1b[K    {line[: shutil.get_terminal_size().columns - 5]}")  # a wrapped line would stay
        watch.shown.flush()
    elif time.monotonic() - watch.last_shown >= SECONDS_BETWEEN:
        _show(watch, f"    {line}")
    return ""


def _take_event(event: dict[str, Any], watch: Watch) -> str:
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
        return f"  {label} started"
    watch.running.pop(key, None)
    if event["event"] == "finished":
        said = f"  {label:<40}{event['seconds']:>8.1f} s"
    else:
        watch.failure = event
        said = f"  {label:<40}  failed"
    _show(watch, said)
    return said


def _show(watch: Watch, line: str) -> None:
    watch.shown.write(("\r\x1b[K" if watch.shown.isatty() else "") + line + "\n")
    watch.shown.flush()
    watch.last_shown = time.monotonic()
