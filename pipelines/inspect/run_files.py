"""The files that a run has left, found again: in the output folder of `llm2llm run`, or under a prefix where Kubeflow
keeps a run's artifacts.

    events.jsonl                          an output folder: what every stage has written, with its hashes
    <run>/<task>/<id>/<output>            Kubeflow: a task is called after its stage, `train`, `train-2`, `train-3`

Rows are read by column, and a file only when a question needs it. Where its hash is known, it is checked.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llm2llm.components.shared import storage
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import without_record
from llm2llm.components.shared.data.parquet import METADATA_KEY
from llm2llm.components.shared.data.schemas import KINDS
from llm2llm.components.shared.data.schemas import VERSION as ROWS_VERSION
from llm2llm.components.shared.lineage.embedded import content_hash_of_bytes
from llm2llm.components.shared.lineage.manifest import checked_manifest
from llm2llm.components.shared.lineage.records import label_of
from llm2llm.components.shared.storage.folders import refuse_outside
from llm2llm.components.shared.storage.uris import parse

R = TypeVar("R")

EVENTS = "events.jsonl"
OURS = ("artifacts", "cache", "checkpoints", "student", "pipeline.yaml", "run.json", "events.jsonl", "run.log",
        "report.html", "report.md", "summary.json", "manifest.json")  # fmt: skip
"""Everything that `llm2llm run` leaves in its output folder; its `--fresh` removes these and nothing else."""
OUTPUTS = {
    "configure": ("config",),
    "prepare": ("seeds_set", "validation_set", "test_set", "pool_set", "replay_set", "rejects"),
    "train": ("model",),
    "evaluate": ("predictions", "history"),
    "out_of_fold": ("predictions",),
    "filter_errors": ("errors", "decisions"),
    "teacher_augment": ("candidates", "rejects", "calls"),
    "dedupe": ("next_training_set", "all_rejects"),
    "promote": ("verdict",),
    "report": ("summary", "manifest"),
}
"""What is looked for, by stage."""
AFTER_ERRORS = ("teacher_augment", "dedupe")
"""The stages that iteration 0 has not: Kubeflow's first task of that name belongs to iteration 1."""


@dataclass(frozen=True)
class RunFile:
    """One output of one stage."""

    uri: str
    stage: str
    output: str
    iteration: int | None
    fold: int | None = None
    sha256: str | None = None
    """As its maker wrote it; None where that is not known."""


@dataclass
class Run:
    """A run's files, and what has been read of them."""

    uri: str
    files: list[RunFile]
    """Sorted by stage, output, iteration and fold."""
    run_id: str = ""
    _read: dict[str, pq.ParquetFile] = field(default_factory=dict)

    def all(self, stage: str, output: str) -> list[RunFile]:
        """Every iteration's, in order."""
        return [file for file in self.files if (file.stage, file.output) == (stage, output)]

    def last(self, stage: str, output: str) -> RunFile | None:
        """That of the last iteration, which of many kinds holds all iterations' rows."""
        found = self.all(stage, output)
        return found[-1] if found else None

    def at(self, stage: str, output: str, iteration: int) -> RunFile | None:
        """That of one iteration."""
        return next((file for file in self.all(stage, output) if file.iteration == iteration), None)

    def training_sets(self) -> list[RunFile]:
        """The training set of every iteration, in order; that of iteration 0 is the seeds."""
        return [*self.all("prepare", "seeds_set")[:1], *self.all("dedupe", "next_training_set")]

    def last_training_set(self) -> RunFile | None:
        """That of the last iteration, which holds the rows of all."""
        found = self.training_sets()
        return found[-1] if found else None

    def rejects(self) -> RunFile | None:
        """All rejects of the run: what `dedupe` has left last, or where it has not run after it, another stage."""
        written, kept = self.last("teacher_augment", "rejects"), self.last("dedupe", "all_rejects")
        if written and (kept is None or (written.iteration or 0) > (kept.iteration or 0)):
            return written
        return kept or self.last("prepare", "rejects")

    def json(self, file: RunFile | None) -> dict[str, Any] | None:
        """A file's JSON object; None for no file.

        Raises:
            UserError: It is missing or damaged.
        """
        if file is None:
            return None
        try:
            value = json.loads(_content(file))
        except ValueError as problem:
            raise _damaged(file, f"not JSON: {problem}") from None
        if not isinstance(value, dict):
            raise _damaged(file, "not a JSON object")
        return without_record(value)

    def config(self) -> dict[str, Any]:
        """The run's settings; empty when they are not there."""
        return self.json(self.last("configure", "config")) or {}

    def manifest(self) -> dict[str, Any]:
        """The last manifest that a report has left; empty before the first.

        Raises:
            UserError: It is missing or damaged, or of another version of llm2llm.
        """
        file = self.last("report", "manifest")
        return {} if file is None else checked_manifest(self.json(file), file.uri)

    def best_iteration(self) -> int | None:
        """The iteration with the best validation accuracy, as the last decision names it."""
        file = self.last("filter_errors", "decisions")
        rows = self.table(file, "decisions", ["iteration", "best_iteration"]).to_pylist() if file else []
        return max(rows, key=lambda row: row["iteration"])["best_iteration"] if rows else None

    def table(self, file: RunFile, kind: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a file of rows.

        Raises:
            UserError: It is missing or damaged, or holds other rows.
        """
        return _columns(self._opened(file, kind), file, columns)

    def count(self, file: RunFile, kind: str) -> int:
        """How many rows a file holds."""
        return int(self._opened(file, kind).metadata.num_rows)

    def rows(self, file: RunFile | None, kind: str, row_type: type[R], column: str, value: str) -> list[R]:
        """The rows of a file whose column has a value, in the file's order; none for no file.

        Raises:
            UserError: As `table`.
        """
        assert KINDS[kind] is row_type, f"{kind} rows are {KINDS[kind].__name__}"
        if file is None:
            return []
        parquet = self._opened(file, kind)
        found: list[R] = []
        # Of the other columns only the groups of rows are read that have such a row. By what values begin with, as
        # Arrow imports pandas, where it is installed, to compare them with a value from Python.
        for group in range(parquet.num_row_groups):
            begins = pc.starts_with(_columns(parquet, file, [column], group).column(column), value)
            if pc.any(begins).as_py():
                rows = _columns(parquet, file, parquet.schema_arrow.names, group).filter(begins)
                found += [row_type(**row) for row in rows.to_pylist() if row[column] == value]
        return found

    def _opened(self, file: RunFile, kind: str) -> pq.ParquetFile:
        if file.uri not in self._read:
            self._read[file.uri] = _open_rows(file)
        opened = self._read[file.uri]
        try:
            label = json.loads((opened.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
        except ValueError:
            label = {}
        if label.get("kind") != kind:
            raise UserError(f"{file.uri}: expected {kind!r} rows, found {label.get('kind')!r} rows")
        if label.get("version") != ROWS_VERSION:
            raise UserError(
                f"{file.uri}: {kind!r} rows of schema version {label.get('version')}, this llm2llm reads version "
                f"{ROWS_VERSION}; use the llm2llm that the run was made with"
            )
        return opened


def open_run(uri: str) -> Run:
    """The run at a place: the output folder of `llm2llm run`, or the folder or prefix of one run's artifacts.

    Raises:
        UserError: No run is there, or more than one.
    """
    uri = str(parse(os.path.expanduser(uri)))
    if not storage.is_remote(uri) and not Path(uri).is_dir():
        raise UserError(f"--run {uri}: no such folder")
    is_output_folder = storage.exists(storage.join(uri, EVENTS))
    files = list(_from_events(uri) if is_output_folder else _from_names(uri))
    if not files:
        raise UserError(
            f"{uri}: holds no run: give the output folder of `llm2llm run`, or the folder or s3:// prefix of one run "
            "in Kubeflow's object storage, <pipeline root>/<pipeline>/<run id>"
        )
    order = sorted(
        files,
        key=lambda f: (f.stage, f.output, -1 if f.iteration is None else f.iteration, f.fold or 0, f.uri),
    )
    run = Run(uri, order, _run_id(uri) if is_output_folder else uri.rsplit("/", 1)[-1])
    if not is_output_folder:
        run.files = _with_hashes(run)
    return run


def _from_events(uri: str) -> Iterator[RunFile]:
    """By what the stages have said: the last time each has ended well."""
    finished: dict[tuple[str, int | None, int | None, int | None], Mapping[str, Any]] = {}
    for line in storage.read_bytes(storage.join(uri, EVENTS)).decode("utf-8", "replace").splitlines():
        with suppress(ValueError, KeyError, TypeError):  # a run that was killed may have left half a line
            event = json.loads(line)
            if event["event"] == "finished":
                finished[event["stage"], event["iteration"], event["fold"], event.get("shard")] = event
    for (stage, iteration, fold, _), event in finished.items():
        for output in OUTPUTS.get(stage, ()):
            if path := event["outputs"].get(output):
                # The folder may have been moved or copied since.
                _, _, within = str(path).rpartition("/artifacts/")
                refuse_outside(within, storage.join(uri, EVENTS))
                place = storage.join(uri, "artifacts", within)
                yield RunFile(place, stage, output, iteration, fold, (event.get("sha256") or {}).get(output))


def _from_names(uri: str) -> Iterator[RunFile]:
    """By how Kubeflow names what it stores. Of a task that was tried again, what was written last counts."""
    found: dict[tuple[str, str, str], tuple[float, str]] = {}
    for stored in storage.list_objects(uri):
        parts = stored.uri.removeprefix(uri).strip("/").split("/")
        task = re.fullmatch(r"([a-z-]+?)(?:-(\d+))?", parts[0])
        stage = task[1].replace("-", "_") if task else ""
        if not task or stage not in OUTPUTS:
            if any(re.sub(r"-\d+$", "", part).replace("-", "_") in OUTPUTS for part in parts[1:2]):
                raise UserError(f"{uri}: holds several runs, such as {parts[0]}; give one of them: {uri}/{parts[0]}")
            continue
        if task[2] == "0":  # `--runner process` counts from 0: its folders would be taken for the iteration before
            raise UserError(f"{uri}: holds what the stages of a run on one machine wrote; give the run's output folder")
        # <task>/<id>/<output> in a cluster, <task>/<output> on one machine; a model's files come below that.
        at = next((place for place in (1, 2) if len(parts) > place and parts[place] in OUTPUTS[stage]), None)
        if at is not None:
            place = storage.join(uri, *parts[: at + 1])
            attempt = parts[1] if at == 2 and stage == "out_of_fold" else ""
            key = parts[0], parts[at], attempt
            found[key] = max(found.get(key, (0.0, "")), (stored.modified, place))
    for (name, output, _), (_, place) in found.items():
        number = int(re.sub(r"\D", "", name) or 1)
        stage = re.sub(r"-\d+$", "", name).replace("-", "_")
        iteration = None if stage in ("configure", "prepare") else number - 1 + (stage in AFTER_ERRORS)
        yield RunFile(place, stage, output, iteration)


def _with_hashes(run: Run) -> list[RunFile]:
    """A run's files with the hashes that its last manifest names."""
    hashes = {
        (label_of(stage), output): entry.get("sha256")
        for stage in run.manifest().get("stages", [])
        for output, entry in stage["outputs"].items()
        if stage["fold"] is None  # Kubeflow's names do not tell the folds apart
    }
    return [
        RunFile(f.uri, f.stage, f.output, f.iteration, f.fold, hashes.get((label_of(vars(f)), f.output)))
        for f in run.files
    ]


def _run_id(uri: str) -> str:
    try:
        return str(json.loads(storage.read_bytes(storage.join(uri, "run.json")))["run_id"])
    except (UserError, ValueError, KeyError, TypeError):
        return ""


def _content(file: RunFile) -> bytes:
    try:
        content = storage.read_bytes(file.uri)
    except storage.NotThere:
        raise UserError(f"{file.uri}: is missing: {_label(file)} had written it") from None
    if file.sha256 and content_hash_of_bytes(content) != file.sha256:
        raise _damaged(file, "its bytes are not those that were written")
    return content


def _open_rows(file: RunFile) -> pq.ParquetFile:
    content = _content(file)
    try:
        return pq.ParquetFile(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as problem:
        raise _damaged(file, f"not a whole Parquet file: {problem}") from None


def _columns(parquet: pq.ParquetFile, file: RunFile, columns: Sequence[str], group: int | None = None) -> pa.Table:
    if missing := set(columns) - set(parquet.schema_arrow.names):
        raise _damaged(file, f"it has no column {', '.join(sorted(missing))}")
    # A few columns at a time: threads cost more than they save.
    try:
        if group is None:
            return parquet.read(columns=list(columns), use_threads=False)
        return parquet.read_row_group(group, columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as problem:
        raise _damaged(file, str(problem)) from None


def _label(file: RunFile) -> str:
    return label_of({"stage": file.stage, "iteration": file.iteration, "fold": file.fold})


def _damaged(file: RunFile, what: str) -> UserError:
    return UserError(f"{file.uri}: damaged ({what}); restore it, or run {_label(file)} again")
