"""Process-level state of a stage: its run's id, and how it handles signals."""

import os
import threading
import time

from llm2llm.components.shared.base.errors import UserError

EXIT_USER_ERROR = 2
EXIT_TERMINATED = 143
RUN_VARIABLE = "LLM2LLM_RUN_ID"
"""Tells a stage which run it is of: set by `llm2llm run`, and in a cluster by the placement."""
POD_VARIABLE = "KFP_POD_NAME"
"""Set by Kubeflow in every stage: the name of its pod."""
PARENT_VARIABLE = "LLM2LLM_PARENT_PID"
"""Set by `llm2llm run`: a stage on the same machine ends when that process is gone."""


def run_id(name: str) -> str:
    """Which run this process is part of.

    Raises:
        UserError: The environment does not say; names the stage.
    """
    if not (found := os.environ.get(RUN_VARIABLE, "")):
        raise UserError(
            f"{name}: {RUN_VARIABLE} is not set: give the run an id, the same in all its stages, so that what it has "
            "kept is found again"
        )
    return found


def beside_others() -> bool:
    """Whether this is one machine's local run, where KFP runs the items of a `ParallelFor` two at a time.

    Two trainings that both use every core take far longer than one after the other: their threads spin in wait for
    one another. In a cluster each has a pod, and cores, of its own.
    """
    return PARENT_VARIABLE in os.environ


def end_with_parent() -> None:
    """Without this a stage of a killed run would go on for hours, with nobody to take its result.

    It is not a child of the run: KFP starts it through a shell, so signals and process groups do not reach it.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return

    def watch() -> None:
        while True:
            try:
                os.kill(int(parent), 0)
            except ProcessLookupError:
                os._exit(EXIT_TERMINATED)
            time.sleep(1.0)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
