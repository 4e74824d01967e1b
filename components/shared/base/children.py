"""Child processes that end with this one, however it ends."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

POLL_SECONDS = 0.05


def run_children(commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]]) -> list[int | None]:
    """Runs commands beside one another until all have ended, or one has failed; then every process group of theirs is
    ended, whatever happens.

    Each gets a pipe as its standard input, which closes when this process dies, even by SIGKILL; `end_with_parent_pipe`
    waits for that.

    Args:
        commands: Lists of our own making, which no shell reads.
        environments: The whole environment of each.

    Returns:
        Each one's exit code; None for those that were ended because another one failed.
    """
    children: list[subprocess.Popen[bytes]] = []
    try:
        for command, environment in zip(commands, environments, strict=True):
            children.append(
                subprocess.Popen(  # noqa: S603
                    list(command), env=dict(environment), stdin=subprocess.PIPE, start_new_session=True
                )
            )
        if len(children) == 1:
            return [children[0].wait()]
        while True:
            codes = [child.poll() for child in children]
            if None not in codes or any(codes):
                return codes
            time.sleep(POLL_SECONDS)
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if child.stdin is not None:
                child.stdin.close()


def end_with_parent_pipe() -> None:
    """In a child: ends its process group once whoever started it is gone."""

    def wait() -> None:
        while os.read(0, 1):  # unbuffered: a reader that still holds a lock at the end would spoil it
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="end-with-parent").start()
