"""What runs have left and nobody needs any more: found, listed, and removed when a person has said yes.

    found = find_leftovers(before, run_root="s3://bucket/runs", registry="s3://bucket/registry")
    print(found.text())
    remove(found.leftovers)

Only what is known by its form is ever named, and of that only what is older than a given time as a whole:

    run           an output folder of `llm2llm run` (its `run.json`), or the folder of a run in a cluster, which is
                  called by the run's id (`<pipeline>/<run id>/configure/...`)
    candidate     <registry>/candidates/<run>
    version       <registry>/versions/<version> to which the registry's pointer never pointed
    checkpoints   <checkpoints>/<key>, <checkpoints>/jobs/<name>

What a kept version needs stays: the runs that promoted it, and what its documents name, such as the model that its
adapter belongs to. So do a ledger, wherever it lies, the pointer, and what a user has put into an output folder.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llm2llm.components.problems import UserError
from llm2llm.components.registry.production import POINTER, Generation, current, generations
from llm2llm.components.registry.versions import CANDIDATES, VERSIONS, registry_uri
from llm2llm.components.storage import NotThere, Stored, delete, is_remote, join, list_objects, read_bytes
from llm2llm.components.storage.folders import MANIFEST
from llm2llm.pipelines.local import OURS

Kind = Literal["run", "candidate", "version", "checkpoints"]

WORKERS = 16
"""Objects removed at once."""

_RUN_FILE = "run.json"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_CLUSTER_RUN = re.compile(rf"((?:[^/]+/)*?({_UUID}))/configure(?:-[0-9]+)?/(?:[^/]+/)?config")
_LEDGER_ENTRY = re.compile(r"(?:.*/)?([0-9a-f]{2})/\1[0-9a-f]{14,}\.json\.gz")
_CHECKPOINTS = re.compile(r"([0-9a-f]{32})/step-[0-9]{8}/.+")
_JOB = re.compile(r"(jobs/[^/]+)/.+")
_DAYS = re.compile(r"([1-9][0-9]{0,4})([dw])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something that can go."""

    kind: Kind
    uri: str
    objects: list[str]
    """What is in it; last what it is known by, so that one that was removed in part is found again."""
    size: int
    """In bytes."""
    modified: float
    """When it was last written to, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is."""

    leftovers: list[Leftover]
    kept: dict[str, str] = field(default_factory=dict)
    """URI -> why it stays although it is old."""
    young: int = 0
    """How many are not old enough."""

    def text(self) -> str:
        """For a person."""
        lines = [
            f"{one.kind:<12}{_size(one.size):>10}  last written {_day(one.modified)}  {one.uri}"
            for one in self.leftovers
        ]
        lines += [f"{'kept':<12}{'':>10}  {why}: {uri}" for uri, why in sorted(self.kept.items())]
        total = sum(one.size for one in self.leftovers)
        objects = sum(len(one.objects) for one in self.leftovers)
        lines.append(
            f"{len(self.leftovers)} to remove, {_size(total)} in {objects:,} files; {len(self.kept)} old ones are "
            f"needed, {self.young} are not old enough"
        )
        return "\n".join(lines)


def age_in_seconds(text: str) -> float:
    """The seconds of an age such as `30d` or `6w`.

    Raises:
        UserError: It is none; a day is the least, as a run may take hours.
    """
    found = _DAYS.fullmatch(text)
    if not found:
        raise UserError(f"--older-than {text}: a whole number of days or weeks, such as 30d or 6w; 1d at least")
    return int(found[1]) * (86_400.0 if found[2] == "d" else 7 * 86_400.0)


def find_leftovers(
    before: float,
    run_root: str = "",
    registry: str = "",
    checkpoints: str = "",
    keep_promoted: bool = True,
) -> Found:
    """Looks for what can go.

    Args:
        before: What was written to at this time or later stays; in seconds since 1970.
        run_root: The folder or prefix below which runs are; empty: no runs are looked for.
        registry: The registry that says what was promoted; empty: none is looked at.
        checkpoints: The place of checkpoints, `train.checkpoint_uri`; empty: none are looked for.
        keep_promoted: Whether every version stays to which the registry's pointer ever pointed; else only the one in
            production now.

    Raises:
        UserError: Something cannot be read, or the registry is none: what is needed would not be known.
    """
    run_root, registry, checkpoints = _place(run_root), _place(registry), _place(checkpoints)
    if keep_promoted and not registry and run_root:
        raise UserError("--registry: missing; without it nobody knows which runs made what is in production")
    needs = _needs(registry, keep_promoted) if registry else _Needs()
    found = []
    if run_root:
        found += _runs(run_root, [uri for uri in (registry, checkpoints) if uri])
    if registry:
        found += _below(registry, CANDIDATES, "candidate", re.compile(r"([^/]+)/.+"))
        found += _below(registry, VERSIONS, "version", re.compile(r"([^/]+)/.+"))
    if checkpoints:
        found += _below(checkpoints, "", "checkpoints", _CHECKPOINTS)
        found += _below(checkpoints, "", "checkpoints", _JOB)
    leftovers, kept, young = [], {}, 0
    for one, run in found:
        if one.modified >= before:
            young += 1
        elif why := needs.reason(one, run):
            kept[one.uri] = why
        else:
            leftovers.append(one)
    return Found(sorted(leftovers, key=lambda one: (one.kind, one.uri)), kept, young)


def remove(leftovers: Iterable[Leftover], registry: str = "") -> None:
    """Removes what `find_leftovers` found. Cut off, it is done again by the next that looks.

    Args:
        leftovers: What to remove.
        registry: Looked at once more before a version goes: it may be in production since.

    Raises:
        UserError: Something cannot be removed.
    """
    for one in leftovers:
        if one.kind == "version" and registry:
            now = current(_place(registry))
            if now is not None and one.uri.endswith(f"/{now.version}"):
                print(f"kept: in production since: {one.uri}", flush=True)
                continue
        # A manifest first, so that no reader finds a part of its folder; what a run is known by last.
        manifests = [uri for uri in one.objects if uri.endswith(f"/{MANIFEST}")]
        others = [uri for uri in one.objects[:-1] if uri not in set(manifests)]
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(delete, manifests))
            list(threads.map(delete, others))
        delete(one.objects[-1])
        if not is_remote(one.uri):
            _remove_empty_folders(Path(one.uri))


@dataclass(frozen=True, slots=True)
class _Needs:
    """What the kept versions need."""

    versions: frozenset[str] = frozenset()
    runs: Mapping[str, str] = field(default_factory=dict)
    """The id of a run -> the version that it promoted."""
    named: Mapping[str, str] = field(default_factory=dict)
    """A place -> the version whose documents name it."""

    def reason(self, one: Leftover, run: str) -> str:
        """Why something stays; empty: nothing needs it."""
        if one.kind == "version" and run in self.versions:
            return "it is or was in production"
        if one.kind == "run" and run in self.runs:
            return f"version {self.runs[run]} comes from it"
        for place, version in self.named.items():
            if place == one.uri or place.startswith(f"{one.uri}/"):
                return f"version {version} names {place}"
        return ""


def _needs(registry: str, keep_promoted: bool) -> _Needs:
    history = generations(registry)
    if not history and not any(True for part in (CANDIDATES, VERSIONS) for _ in list_objects(join(registry, part))):
        raise UserError(
            f"--registry {registry}: there is no registry ({POINTER}, {VERSIONS} and {CANDIDATES} are not there); "
            "check the name"
        )
    kept = {one.version for one in history} if keep_promoted else {one.version for one in history[-1:]}
    named: dict[str, str] = {}
    below = join(registry, VERSIONS) + "/"
    waiting, seen = sorted(kept), set(kept)
    while waiting:
        version = waiting.pop()
        for place in _places_named(below + version):
            named[place] = version
            # An adapter's base may be a version that never was in production itself.
            base = place.removeprefix(below).split("/")[0]
            if place.startswith(below) and base not in seen:
                seen.add(base)
                waiting.append(base)
    return _Needs(frozenset(kept), _promoting_runs(history, kept), named)


def _promoting_runs(history: Sequence[Generation], kept: set[str]) -> dict[str, str]:
    return {one.run: one.version for one in history if one.run and one.version in kept}


def _places_named(version: str) -> Iterator[str]:
    """The places that the JSON documents of a version name."""
    for stored in list_objects(version):
        name = stored.uri.rpartition("/")[2]
        if name in ("llm2llm.json", "adapter_config.json"):
            try:
                content = json.loads(read_bytes(stored.uri))
            except ValueError as problem:
                raise UserError(
                    f"{stored.uri}: damaged ({problem}), so what it needs is not known; restore it"
                ) from None
            for text in _texts(content):
                if text.startswith(("/", "~", "s3://", "minio://")):
                    with suppress(UserError):  # a text that only looks like a place
                        yield _place(text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _runs(root: str, not_below: Sequence[str]) -> list[tuple[Leftover, str]]:
    """The runs below a folder, each with its id."""
    objects = [
        (stored.uri.removeprefix(root).lstrip("/"), stored)
        for stored in list_objects(root)
        if not stored.uri.startswith(tuple(f"{uri}/" for uri in not_below))
    ]
    ids: dict[str, str] = {}
    for name, stored in objects:
        if name.rpartition("/")[2] == _RUN_FILE and (run := _run_id(stored.uri)):
            ids[name.rpartition("/")[0]] = run
        elif cluster := _CLUSTER_RUN.fullmatch(name):
            ids[cluster[1]] = cluster[2]
    inside: dict[str, list[tuple[str, Stored]]] = {folder: [] for folder in ids}
    for name, stored in objects:
        # The outermost: an output folder's own artifacts may look like a run in a cluster.
        parts = name.split("/")
        folder = next((at for end in range(len(parts)) if (at := "/".join(parts[:end])) in ids), None)
        if folder is not None and not _LEDGER_ENTRY.fullmatch(name):
            inside[folder].append((name.removeprefix(folder).lstrip("/"), stored))
    found = []
    for folder, names in inside.items():
        known_by = _RUN_FILE if any(name == _RUN_FILE for name, _ in names) else "configure/"
        if known_by == _RUN_FILE:
            names = [(name, stored) for name, stored in names if name.split("/")[0] in OURS]
        if names:
            ordered = sorted(names, key=lambda one: one[0].startswith(known_by))  # last, so that it is found again
            found.append((_leftover("run", join(root, folder) if folder else root, ordered), ids[folder]))
    return found


def _run_id(uri: str) -> str | None:
    """The id that the `run.json` of an output folder holds; None for another file of that name."""
    try:
        content = json.loads(read_bytes(uri))
    except (ValueError, NotThere):
        return None
    ours = isinstance(content, dict) and {"run_id", "llm2llm", "config"} <= content.keys()
    return str(content["run_id"]) if ours else None


def _below(place: str, part: str, kind: Kind, form: re.Pattern[str]) -> list[tuple[Leftover, str]]:
    """The folders in a place whose objects have a form; its first group is the folder."""
    root = join(place, part) if part else place
    inside: dict[str, list[tuple[str, Stored]]] = {}
    for stored in list_objects(root):
        name = stored.uri.removeprefix(f"{root}/")
        if (found := form.fullmatch(name)) and not _LEDGER_ENTRY.fullmatch(name):
            inside.setdefault(found[1], []).append((name, stored))
    return [(_leftover(kind, join(root, folder), names), folder) for folder, names in inside.items()]


def _leftover(kind: Kind, uri: str, names: Sequence[tuple[str, Stored]]) -> Leftover:
    return Leftover(
        kind=kind,
        uri=uri,
        objects=[stored.uri for _, stored in names],
        size=sum(stored.size for _, stored in names),
        modified=max(stored.modified for _, stored in names),
    )


def _remove_empty_folders(folder: Path) -> None:
    """The folder and those in it, as far as they are empty."""
    for at, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(at)


def _place(uri: str) -> str:
    """In the one form that places are compared in."""
    if not uri:
        return ""
    place = registry_uri(uri)
    return place if is_remote(place) else os.path.realpath(place)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(when))
