"""Progress of long work: one line that changes on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from typing import TextIO

EVERY_SECONDS = 5.0


class Progress:
    """Shows how many of `total` are done, the rate, and the time that is left.

    Args:
        stage: What is going on, such as `train`.
        total: How many there are to do.
        unit: What is counted, such as `rows`.
        stream: Where to write; default: standard output.
        before: How many of them were done before this process began; the rate is of the others.
    """

    def __init__(self, stage: str, total: int, unit: str, stream: TextIO | None = None, before: int = 0) -> None:
        self._stage, self._total, self._unit, self._before = stage, total, unit, before
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._started = self._shown = time.monotonic()

    def show(self, done: int) -> None:
        """Says that `done` are done; cheap enough to call for each."""
        now = time.monotonic()
        finished = done >= self._total
        if not finished and now - self._shown < (0.2 if self._terminal else EVERY_SECONDS):
            return
        self._shown = now
        seconds = now - self._started
        rate = (done - self._before) / seconds if seconds > 0 else 0.0
        line = f"{self._stage}: {done:,}/{self._total:,} {self._unit}"
        if rate > 0:
            line += f", {rate:,.1f} {self._unit}/s"
            line += f", {seconds:.0f} s" if finished else f", {(self._total - done) / rate:.0f} s left"
        if self._terminal:
            self._stream.write(f"\r\x1b[K{line}" + ("\n" if finished else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
