"""Tells how a run on this machine ended, once: also when it is interrupted or terminated."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm2llm.components.notify.notify import CONNECT_TRIES, message, told
from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry.notify_settings import NotifySettings, RunEnding

FILE = "notified.json"
"""The ending of the run in this folder that was told last, so that a finished run is not told of again."""


@dataclass
class Ending:
    """The ending of one call of `run_local`: told once, whoever finds it out first."""

    settings: NotifySettings
    pipeline: str
    run: str
    output: Path
    is_told: bool = False

    def done(self, summary: Mapping[str, Any]) -> None:
        """The run came to its end, with what `_collect` found."""
        if "nothing_new" in summary:
            self.tell("nothing_new", str(summary["nothing_new"]))
            return
        best = summary["best_iteration"]
        shown: Mapping[str, Any] = next(
            (one["accuracy"] for one in summary["iterations"] if one["iteration"] == best), {}
        )
        accuracy = {split: score["value"] for split, score in shown.items()}
        scores = ", ".join(f"{split} {value:.1%}" for split, value in accuracy.items())
        self.tell(
            "succeeded", f"iteration {best} is the best: {scores}", {"best_iteration": best, "accuracy": accuracy}
        )

    def tell(
        self, outcome: RunEnding, reason: str, figures: Mapping[str, Any] | None = None, in_haste: bool = False
    ) -> None:
        """Tells an ending, unless one has been told. Signals wait meanwhile: a message cut off would be none, and two
        signals would be two messages.

        Args:
            in_haste: Whether to try to connect only once, and print nothing: a signal handler may have interrupted a
                write to standard output.
        """
        if self.settings.kind == "none":
            return
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            if self.is_told or self._told_before(outcome):
                return
            self.is_told = True
            body = message(self.settings.kind, outcome, self.pipeline, self.run, reason, figures)
            url = os.environ.get(self.settings.url_env, "")
            line = told(self.settings, url, outcome, body, 1 if in_haste else CONNECT_TRIES)
            with suppress(OSError):
                write_text(self.output / FILE, json.dumps({"run": self.run, "outcome": outcome}) + "\n")
            if in_haste:
                os.write(2, (line + "\n").encode())
            else:
                print(line, file=sys.stderr, flush=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _told_before(self, outcome: RunEnding) -> bool:
        """Whether this was said of this run before: a finished run that is started again ends at once, as it did."""
        if outcome not in ("succeeded", "nothing_new"):
            return False
        try:
            before = json.loads((self.output / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(before == {"run": self.run, "outcome": outcome})


def check_address(settings: NotifySettings) -> None:
    """Refuses a run that could not tell how it ended.

    Raises:
        UserError: The address is not in the environment.
    """
    if settings.kind != "none" and not os.environ.get(settings.url_env):
        raise UserError(
            f"notify.url_env: the environment variable {settings.url_env} is not set; set it to the address, or "
            "notify.kind: none"
        )


@contextmanager
def ending_told(ending: Ending) -> Iterator[None]:
    """A block whose end by an exception is told as failed, or terminated; a good end is for `Ending.done`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        ending.tell("terminated", "interrupted or terminated")
        raise
    except Exception as problem:
        ending.tell("failed", str(problem) or type(problem).__name__)
        raise
