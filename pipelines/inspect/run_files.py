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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llm2llm.components.shared import storage
from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.hashing import hash_of_bytes
from llm2llm.components.shared.data.artifacts import without_record
from llm2llm.components.shared.data.journal import FILES as JOURNAL_KINDS
from llm2llm.components.shared.data.parquet import METADATA_KEY, with_default
from llm2llm.components.shared.data.schemas import KINDS, SPLITS
from llm2llm.components.shared.data.schemas import VERSION as ROWS_VERSION
from llm2llm.components.shared.lineage.embedded import content_hash_of_bytes, content_hash_of_entries
from llm2llm.components.shared.lineage.manifest import checked_manifest
from llm2llm.components.shared.lineage.records import label_of
from llm2llm.components.shared.storage.folders import refuse_outside
from llm2llm.components.shared.storage.uris import parse
from llm2llm.components.stages import STAGES

R = TypeVar("R")

EVENTS = "events.jsonl"
OURS = ("artifacts", "cache", "checkpoints", "student", "pipeline.yaml", "run.json", "events.jsonl", "run.log",
        "report.html", "report.md", "summary.json", "manifest.json", "notified.json")  # fmt: skip
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
"""What is looked for, by stage: files of their own in runs of llm2llm before 0.2, some now parts of a folder."""
NO_ROWS = {"config", "model", "verdict", "summary", "manifest"}
"""Outputs that are no rows."""
PARTS = {
    ("prepare", "splits"): {
        "seeds_set": "seeds.parquet",
        "validation_set": "validation.parquet",
        "test_set": "test.parquet",
    },
    ("prepare", "journal"): {"rejects": "rejects.parquet"},
    ("evaluate", "journal"): {"history": "scores.parquet"},
    ("filter_errors", "journal"): {"errors": "errors.parquet", "decisions": "decisions.parquet"},
    ("teacher_augment", "journal"): {"rejects": "rejects.parquet", "calls": "calls.parquet"},
    ("dedupe", "journal"): {"all_rejects": "rejects.parquet"},
}
"""The files of a folder that a stage leaves, by what they are looked for as."""
FOLDERS = {
    "splits": tuple(f"{split}.parquet" for split in SPLITS),
    "journal": tuple(f"{kind}.parquet" for kind in JOURNAL_KINDS),
}
"""All rows in such a folder, which its hash is of."""
READABLE = (4, ROWS_VERSION)
"""Schema versions of rows of which the columns that are read here are the same."""
AFTER_ERRORS = tuple(name for name, stage in STAGES.items() if stage.from_iteration == 1)
"""The stages that iteration 0 has not: Kubeflow's first task of that name belongs to iteration 1."""
_TASK = re.compile(r"([a-z-]+?)(?:-(\d+|end))?")
"""How a cluster calls a stage: `train`, `train-2`; `report-end` once the loop has ended."""
BEFORE_THE_LOOP = tuple(name for name, stage in STAGES.items() if stage.from_iteration is None)


@dataclass(frozen=True)
class RunFile:
    """One output of one stage."""

    uri: str
    stage: str
    output: str
    iteration: int | None
    fold: int | None = None
    sha256: str | None = None
    """As its maker wrote it; None where that is not known. Of a part of a folder, that of the folder."""
    folder: str = ""
    """The artifact that the file is a part of; empty for a file that is one itself."""


@dataclass
class Run:
    """A run's files, and what has been read of them."""

    uri: str
    files: list[RunFile]
    """Sorted by stage, output, iteration and fold."""
    run_id: str = ""
    _read: dict[str, pq.ParquetFile] = field(default_factory=dict)
    _hashes: dict[str, str] = field(default_factory=dict)
    """Of the folders that have been looked at."""

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

    def named(self, name: str, iteration: int | None = None) -> RunFile:
        """The rows that a person asks for by an output's name, such as `predictions`; `training_set` is that of any
        iteration.

        Args:
            name: Of the output.
            iteration: Whose; None: the last one that there is.

        Raises:
            UserError: The run has no such rows, or not of that iteration.
        """
        found = self.training_sets() if name == "training_set" else [one for one in self.files if one.output == name]
        if name == "rejects" and iteration is None and (all_of_them := self.rejects()) is not None:
            return all_of_them
        if not found or name in NO_ROWS:
            names = sorted({one.output for one in self.files} - NO_ROWS | {"training_set"})
            near = did_you_mean(name, names) or ";"
            raise UserError(f"{self.uri}: has no rows called {name!r}{near} it has {', '.join(names)}")
        if iteration is None:
            return max(found, key=lambda one: (one.iteration or 0, one.fold is None))
        of_iteration = [one for one in found if (one.iteration or 0) == iteration]
        if not of_iteration:
            known = sorted({one.iteration or 0 for one in found})
            raise UserError(
                f"{self.uri}: has {name!r} of iterations {', '.join(map(str, known))}, and not of {iteration}"
            )
        return max(of_iteration, key=lambda one: one.fold is None)

    def every_row(self, file: RunFile) -> list[dict[str, Any]]:
        """All rows of a file of any kind, in its order.

        Raises:
            UserError: As `table`.
        """
        return list(self._opened(file).read().to_pylist())

    def json(self, file: RunFile | None) -> dict[str, Any] | None:
        """A file's JSON object; None for no file.

        Raises:
            UserError: It is missing or damaged.
        """
        if file is None:
            return None
        try:
            value = json.loads(_content(file, self._hashes))
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
        """Some columns of a file of rows, without those that an older file may lack and does.

        Raises:
            UserError: It is missing or damaged, or holds other rows.
        """
        opened = self._opened(file, kind)
        lacks = with_default(kind) - {*opened.schema_arrow.names}
        return _columns(opened, file, [name for name in columns if name not in lacks])

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

    def _opened(self, file: RunFile, kind: str = "") -> pq.ParquetFile:
        if file.uri not in self._read:
            self._read[file.uri] = _open_rows(file, self._hashes)
        opened = self._read[file.uri]
        try:
            label = json.loads((opened.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
        except ValueError:
            label = {}
        kind = kind or str(label.get("kind"))
        if label.get("kind") != kind or kind not in KINDS:
            raise UserError(f"{file.uri}: expected {kind!r} rows, found {label.get('kind')!r} rows")
        if label.get("version") not in READABLE:
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
        raise UserError(f"{uri}: no such folder")
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
        for output, path in event["outputs"].items():
            if output in OUTPUTS.get(stage, ()) or (stage, output) in PARTS:
                # The folder may have been moved or copied since.
                _, _, within = str(path).rpartition("/artifacts/")
                refuse_outside(within, storage.join(uri, EVENTS))
                place = storage.join(uri, "artifacts", within)
                sha256 = (event.get("sha256") or {}).get(output)
                yield from _files(RunFile(place, stage, output, iteration, fold, sha256))


def _from_names(uri: str) -> Iterator[RunFile]:
    """By how Kubeflow names what it stores. Of a task that was tried again, what was written last counts."""
    found: dict[tuple[str, str, str], tuple[float, str]] = {}
    for stored in storage.list_objects(uri):
        parts = stored.uri.removeprefix(uri).strip("/").split("/")
        task = _TASK.fullmatch(parts[0])
        stage = task[1].replace("-", "_") if task else ""
        if not task or stage not in OUTPUTS:
            if any(re.sub(r"-\d+$", "", part).replace("-", "_") in OUTPUTS for part in parts[1:2]):
                raise UserError(f"{uri}: holds several runs, such as {parts[0]}; give one of them: {uri}/{parts[0]}")
            continue
        if task[2] == "0":  # `--runner process` counts from 0: its folders would be taken for the iteration before
            raise UserError(f"{uri}: holds what the stages of a run on one machine wrote; give the run's output folder")
        # <task>/<id>/<output> in a cluster, <task>/<output> on one machine; a model's files come below that.
        at = next((place for place in (1, 2) if len(parts) > place and _is_output(stage, parts[place])), None)
        if at is not None:
            place = storage.join(uri, *parts[: at + 1])
            attempt = parts[1] if at == 2 and stage == "out_of_fold" else ""
            key = parts[0], parts[at], attempt
            found[key] = max(found.get(key, (0.0, "")), (stored.modified, place))
    tasks = {name: task for name, _, _ in found if (task := _TASK.fullmatch(name))}
    last = max((int(task[2] or 1) - 1 for task in tasks.values() if task[1] == "train"), default=0)
    for (name, output, _), (_, place) in found.items():
        stage, number = tasks[name][1].replace("-", "_"), tasks[name][2]
        iteration = last if number == "end" else int(number or 1) - 1 + (stage in AFTER_ERRORS)
        yield from _files(RunFile(place, stage, output, None if stage in BEFORE_THE_LOOP else iteration))


def _is_output(stage: str, name: str) -> bool:
    return name in OUTPUTS[stage] or (stage, name) in PARTS


def _files(found: RunFile) -> Iterator[RunFile]:
    """An artifact as the files that are looked for: itself, or the parts of a folder."""
    parts = PARTS.get((found.stage, found.output))
    if parts is None:
        yield found
        return
    for output, name in parts.items():
        yield replace(found, uri=storage.join(found.uri, name), output=output, folder=found.uri)


def _with_hashes(run: Run) -> list[RunFile]:
    """A run's files with the hashes that its last manifest names."""
    hashes = {
        (label_of(stage), output): entry.get("sha256")
        for stage in run.manifest().get("stages", [])
        for output, entry in stage["outputs"].items()
        if stage["fold"] is None  # Kubeflow's names do not tell the folds apart
    }
    return [
        replace(f, sha256=hashes.get((label_of(vars(f)), f.folder.rsplit("/", 1)[-1] or f.output))) for f in run.files
    ]


def _run_id(uri: str) -> str:
    try:
        return str(json.loads(storage.read_bytes(storage.join(uri, "run.json")))["run_id"])
    except (UserError, ValueError, KeyError, TypeError):
        return ""


def _content(file: RunFile, hashes: dict[str, str]) -> bytes:
    try:
        content = storage.read_bytes(file.uri)
    except storage.NotThere:
        raise UserError(f"{file.uri}: is missing: {_label(file)} had written it") from None
    if file.folder and file.folder not in hashes:
        hashes[file.folder] = _hash_of_folder(file.folder)
    found = hashes[file.folder] if file.folder else content_hash_of_bytes(content)
    if file.sha256 and found != file.sha256:
        # Of a folder only the whole is known: another file of it may be the damaged one.
        raise _damaged(replace(file, uri=file.folder or file.uri), "its bytes are not those that were written")
    return content


def _hash_of_folder(uri: str) -> str:
    """By the names that its files have, so that it need not be listed: who may read objects need not be let do that."""
    entries = {}
    for name in FOLDERS[uri.rsplit("/", 1)[-1]]:
        with suppress(storage.NotThere):
            content = storage.read_bytes(storage.join(uri, name))
            entries[name] = (len(content), hash_of_bytes(content))
    return content_hash_of_entries(entries)


def _open_rows(file: RunFile, hashes: dict[str, str]) -> pq.ParquetFile:
    content = _content(file, hashes)
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
