"""What a run has left in object storage, read from where `llm2llm submit` runs.

Kubeflow's launcher writes

    <pipeline root>/<pipeline>/<run id>/<task>/<execution>/<output>           when the stage has ended well
    <pipeline root>/<pipeline>/<run id>/<task>/<execution>/executor-logs-<n>  of the n-th try, however it ended

A task is called by its key: `train`, `train-2`, `train-3`.
"""

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.stage import EVENT
from llm2llm.components.shared.storage import join, list_objects, list_uris, read_bytes
from llm2llm.components.shared.storage.uris import parse

LOGS = re.compile(r"executor-logs(-\d+)?")
"""With the number of the try from Kubeflow 2.17 on."""

Read = TypeVar("Read")


class RunRoot:
    """The folder of a run's artifacts. Once it cannot be read, which takes half a minute to find out, it is not tried
    again: `problem` says why.

    Args:
        folder: `<pipeline root>/<pipeline>/<run id>`; empty: not known.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.problem = "" if folder else "where its artifacts are is not known here; give --pipeline-root"
        if folder:
            try:
                self.folder = str(parse(folder))  # listings know minio:// as s3://
            except UserError as problem:
                self.problem = str(problem)

    def finished(self) -> set[str]:
        """The tasks that have left outputs."""

        def read() -> set[str]:
            parts = [uri.removeprefix(self.folder).strip("/").split("/") for uri in list_uris(self.folder)]
            return {one[0] for one in parts if len(one) > 2 and not LOGS.fullmatch(one[2])}

        return self._try(read, set())

    def log(self, task: str) -> str:
        """The log of a task's last try; empty where there is none."""

        def read() -> str:
            found = [
                stored
                for stored in list_objects(join(self.folder, task))
                if LOGS.fullmatch(stored.uri.rsplit("/", 1)[-1])
            ]
            last = max(found, key=lambda stored: (stored.modified, stored.uri), default=None)
            return read_bytes(last.uri).decode("utf-8", "replace") if last else ""

        return self._try(read, "")

    def text(self, task: str, output: str) -> str:
        """A small output of a task; empty where there is none."""

        def read() -> str:
            uris = [uri for uri in list_uris(join(self.folder, task)) if uri.rsplit("/", 1)[-1] == output]
            return read_bytes(uris[-1]).decode("utf-8", "replace") if uris else ""

        return self._try(read, "")

    def summary(self) -> dict[str, Any] | None:
        """The summary that the latest report has left; None where there is none."""

        def read() -> dict[str, Any] | None:
            best: dict[str, Any] | None = None
            for uri in list_uris(self.folder):
                task, _, output = uri.split("/")[-3:]
                if output == "summary" and task.startswith("report"):
                    summary = json.loads(read_bytes(uri))
                    if best is None or len(summary["iterations"]) > len(best["iterations"]):
                        best = summary
            return best

        return self._try(read, None)

    def _try(self, read: Callable[[], Read], nothing: Read) -> Read:
        if self.problem:
            return nothing
        try:
            return read()
        except ModuleNotFoundError as problem:
            self.problem = f"reading {self.folder} needs the package {problem.name}: pip install 'llm2llm[cpu]'"
        except (UserError, ValueError, KeyError, TypeError) as problem:
            self.problem = str(problem)
        return nothing


def run_folder(pipeline_root: str, pipeline: str, run_id: str) -> str:
    """Where a run's artifacts are under a pipeline root, whose `?region=...` is for Kubeflow only."""
    return f"{pipeline_root.partition('?')[0].rstrip('/')}/{pipeline}/{run_id}" if pipeline_root else ""


def error_of(log: str) -> str:
    """Why a stage failed, from its log: what it says itself, else the last line of a traceback or of a driver."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(EVENT):
            try:
                event = json.loads(line.removeprefix(EVENT))
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("event") == "failed":
                return _one_line(event.get("user_error") or event.get("error") or "")
    for line in reversed(lines):
        if line.startswith("error: "):
            return _one_line(line.removeprefix("error: "))
    for line in reversed(lines):
        # KFP's drivers and launcher: `F1128 19:02:11.123456   1 main.go:86] KFP driver: ...: no execution found`.
        if found := re.search(r"\] (KFP (?:driver|launcher).*)|^(\w*(?:Error|Exception): .*)", line):
            return _one_line(found[1] or found[2])
    return ""


def _one_line(text: object) -> str:
    said = "".join(one for one in " ".join(str(text).split()) if one.isprintable())
    return said if len(said) <= 600 else said[:597] + "..."
