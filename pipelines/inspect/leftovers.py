"""Finds what old runs have left and nothing needs, lists it, and removes it after confirmation.

    found = find_leftovers(before, run_root="s3://bucket/runs", registry="s3://bucket/registry")
    print(found.text())
    remove(found.leftovers)

Only what is known by its form is ever named, and of that only what is older than a given time as a whole:

    run           an output folder of `llm2llm run` (its `run.json`), or the folder of a run in a cluster, which is
                  called by the run's id (`<pipeline>/<run id>/configure/...`)
    candidate     <registry>/candidates/<run>
    version       <registry>/versions/<version> to which the registry's pointer never pointed; with it goes
                  <registry>/serving/<version>.yaml
    checkpoints   <checkpoints>/<key>, <checkpoints>/jobs/<name>

What a kept version needs stays: the runs that promoted it, and what its documents name, such as the model that its
adapter belongs to. So does what a younger run, candidate or version names, and a younger run's candidate; and a ledger,
wherever it lies, the pointer, and what a user has put into an output folder.
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

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry.production import POINTER, Generation, generations
from llm2llm.components.shared.registry.serving import manifest_uri
from llm2llm.components.shared.registry.versions import CANDIDATES, VERSIONS, registry_uri
from llm2llm.components.shared.storage import NotThere, Stored, delete, is_remote, join, list_objects, read_bytes
from llm2llm.components.shared.storage.folders import MANIFEST
from llm2llm.pipelines.inspect.run_files import OURS

Kind = Literal["run", "candidate", "version", "checkpoints"]

WORKERS = 16
"""Objects removed at once."""

_RUN_FILE = "run.json"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_CLUSTER_RUN = re.compile(rf"((?:[^/]+/)*?({_UUID}))/configure(?:-[0-9]+)?/(?:[^/]+/)?config")
_LEDGER_ENTRY = re.compile(r"(?:.*/)?([0-9a-f]{2})/\1[0-9a-f]{14,}\.json\.gz")
_CHECKPOINTS = re.compile(r"([0-9a-f]{32})/step-[0-9]{8}/.+")
_JOB = re.compile(r"(jobs/[^/]+)/.+")
_DOCUMENT = re.compile(
    r"(.*/)?(llm2llm|adapter_config)\.json|run\.json|configure(-[0-9]+)?/([^/]+/)?config|input/job\.json"
)
"""What names places: of a version, a candidate or a student; of a run; of a training's job."""
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
class Leftovers:
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
) -> Leftovers:
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
    stays = _staying(found, before, needs)
    kept = {uri: why for uri, why in stays.items() if why}
    leftovers = sorted((one for one, _ in found if one.uri not in stays), key=lambda one: (one.kind, one.uri))
    return Leftovers(leftovers, kept, len(stays) - len(kept))


def remove(leftovers: Iterable[Leftover], registry: str = "") -> int:
    """Removes what `find_leftovers` found. Cut off, it is done again by the next that looks.

    Each is looked at once more before it goes, as a person may have thought about the list for hours: what was written
    to since stays, and so does a version that has been in production since.

    Args:
        leftovers: What to remove.
        registry: Says what has been in production.

    Returns:
        How many of them it removed.

    Raises:
        UserError: Something cannot be removed.
    """
    removed = 0
    for one in leftovers:
        if why := _since(one, registry):
            print(f"kept: {why} since: {one.uri}", flush=True)
            continue
        if one.kind == "version":
            delete(manifest_uri(*one.uri.rsplit(f"/{VERSIONS}/", 1)))
        # A manifest first, so that no reader finds a part of its folder; what a run is known by last.
        manifests = [uri for uri in one.objects if uri.endswith(f"/{MANIFEST}")]
        others = [uri for uri in one.objects[:-1] if uri not in set(manifests)]
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(delete, manifests))
            list(threads.map(delete, others))
        delete(one.objects[-1])
        if not is_remote(one.uri):
            _remove_empty_folders(Path(one.uri))
        removed += 1
    return removed


def _since(one: Leftover, registry: str) -> str:
    """What has happened to something since it was listed; empty: nothing."""
    name = one.uri.rpartition("/")[2]
    if one.kind == "version" and registry and any(name == moved.version for moved in generations(_place(registry))):
        return "in production"
    # A user's own files in an output folder are none of the run's.
    ours = set(one.objects) if one.objects[-1].endswith(f"/{_RUN_FILE}") else None
    for stored in list_objects(one.uri):
        if stored.modified > one.modified and (ours is None or stored.uri in ours):
            return "written to"
    return ""


@dataclass(frozen=True, slots=True)
class _Needs:
    """What the registry's pointer needs."""

    versions: frozenset[str] = frozenset()
    runs: Mapping[str, str] = field(default_factory=dict)
    """The id of a run -> the version that it promoted."""

    def reason(self, one: Leftover, name: str, live: set[str]) -> str:
        """Why something stays although it is old; empty: it is not known to be needed.

        Args:
            one: It.
            name: The version's, or the id of the run.
            live: The ids of runs that are not old.
        """
        if one.kind == "version" and name in self.versions:
            return "it is or was in production"
        if one.kind == "run" and name in self.runs:
            return f"version {self.runs[name]} comes from it"
        if one.kind == "candidate" and name in live:
            return "its run was written to since"
        return ""


def _needs(registry: str, keep_promoted: bool) -> _Needs:
    history = generations(registry)
    if not history and not any(True for part in (CANDIDATES, VERSIONS) for _ in list_objects(join(registry, part))):
        raise UserError(
            f"--registry {registry}: there is no registry ({POINTER}, {VERSIONS} and {CANDIDATES} are not there); "
            "check the name"
        )
    kept = {one.version for one in history} if keep_promoted else {one.version for one in history[-1:]}
    return _Needs(frozenset(kept), _promoting_runs(history, kept))


def _staying(found: Sequence[tuple[Leftover, str]], before: float, needs: _Needs) -> dict[str, str]:
    """The URIs of what stays, and why: empty for what is not old enough.

    What stays keeps what its documents name, and so on: an adapter's base may be a version that never was in production
    itself, and a run that goes on may train what an old one has left.
    """
    at = {one.uri: (one, name) for one, name in found}
    stays = {one.uri: "" for one, _ in found if one.modified >= before}
    live = {name for one, name in found if one.kind == "run" and one.uri in stays}
    stays |= {one.uri: why for one, name in found if one.uri not in stays and (why := needs.reason(one, name, live))}
    waiting = list(stays)
    with ThreadPoolExecutor(WORKERS) as threads:
        while waiting:
            looked_at, waiting = waiting, []
            named = threads.map(lambda uri: _places_named(at[uri][0]), looked_at)
            for uri, places in zip(looked_at, named, strict=True):
                one, name = at[uri]
                for place in places:
                    parts = place.split("/")
                    for above in ("/".join(parts[:end]) for end in range(1, len(parts) + 1)):
                        if above in at and above not in stays and _holds(at[above][0], place):
                            stays[above] = f"{one.kind} {name} names {place}"
                            waiting.append(above)
    return stays


def _holds(one: Leftover, place: str) -> bool:
    """Whether a place would go with something; a ledger in an output folder would not."""
    return any(uri == place or uri.startswith(f"{place}/") for uri in one.objects)


def _promoting_runs(history: Sequence[Generation], kept: set[str]) -> dict[str, str]:
    return {one.run: one.version for one in history if one.run and one.version in kept}


def _places_named(one: Leftover) -> list[str]:
    """The places that the JSON documents in something name."""
    named = []
    for uri in one.objects:
        if _DOCUMENT.fullmatch(uri.removeprefix(f"{one.uri}/")):
            try:
                content = json.loads(read_bytes(uri))
            except NotThere:  # somebody is writing it anew
                continue
            except ValueError as problem:
                if one.kind not in ("version", "candidate"):  # no other has ever to be restored for what it names
                    continue
                raise UserError(f"{uri}: damaged ({problem}), so what it needs is not known; restore it") from None
            for text in _texts(content):
                if text.startswith(("/", "~", "s3://", "minio://")):
                    with suppress(UserError):  # a text that only looks like a place
                        named.append(_place(text))
    return named


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
