"""What is in a registry, as plain values for `llm2llm registry`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry.production import Generation, generations, rolled_back, way_back
from llm2llm.components.shared.registry.records import Record
from llm2llm.components.shared.registry.versions import (
    candidate_uri,
    candidates,
    damage,
    find_version,
    read_document,
    verify_version,
    version_of,
    version_uri,
    versions,
)
from llm2llm.components.shared.storage import NotThere, list_uris, read_manifest


def list_registry(registry: str) -> dict[str, Any]:
    """Everything in a registry: `registry`, `production` (a version or null), `generation`, `versions` (the one in
    production first, then those that were, newest first, then the rest), `candidates`.

    Raises:
        UserError: There is no registry, or a part of it cannot be read.
    """
    history, stored, runs = generations(registry), versions(registry), candidates(registry)
    if not history and not stored and not runs:
        raise UserError(
            f"{registry}: holds no registry; give the folder or s3:// prefix that promote.registry names in the config"
        )
    newest = {generation.version: generation.number for generation in history}
    known = sorted({*stored, *newest}, key=lambda version: (-newest.get(version, 0), version))
    return {
        "registry": registry,
        "production": history[-1].version if history else None,
        "generation": history[-1].number if history else 0,
        "versions": [_version(registry, version, history) for version in known],
        "candidates": [_candidate(registry, run) for run in runs],
    }


def show_version(registry: str, version: str | None, check: bool = False) -> dict[str, Any]:
    """All about one version: its record, its files, how it came to production and why.

    Args:
        registry: Folder or s3:// prefix.
        version: Its name; None: the one in production.
        check: Whether to read every file and hold it against its hash.

    Raises:
        UserError: There is none, or it is damaged.
    """
    history = generations(registry)
    if version is None:
        if not history:
            list_registry(registry)
            raise UserError(f"{registry}: nothing is in production; name a version, or see `llm2llm registry list`")
        version = history[-1].version
    uri = find_version(registry, version)
    if check:
        verify_version(registry, version)
    entries = read_manifest(uri)
    verdicts = [one.verdict for one in history if one.version == version and one.verdict]
    return {
        "version": version,
        "uri": uri,
        "in_production": bool(history) and history[-1].version == version,
        "rolled_back": version in rolled_back(history),
        "files": {name: asdict(entry) for name, entry in entries.items()},
        "checked": check,
        "generations": _moves(history, version),
        "verdict": verdicts[-1] if verdicts else None,
        **_record(uri),
    }


def verify_registry(registry: str, version: str | None = None) -> list[dict[str, Any]]:
    """Reads every byte of every version again and holds it against its hash: `version`, `in_production`, `files` (how
    many), `bytes` and `damage` (empty: none) of each; the one in production first.

    Args:
        registry: Folder or s3:// prefix.
        version: This one only; None: all that there are, and the one in production.

    Raises:
        UserError: There is no registry or no such version, or it cannot be read.
    """
    if version is not None and version not in versions(registry):
        find_version(registry, version)
    known = {one["version"]: one for one in list_registry(registry)["versions"] if not one["removed"]}
    checked = []
    for name in known if version is None else [version]:
        found: dict[str, Any] = {"version": name, "in_production": known[name]["in_production"]}
        try:
            entries = verify_version(registry, name)
        except UserError as problem:
            checked.append(found | {"files": 0, "bytes": 0, "damage": str(problem)})
        else:
            size = sum(entry.size for entry in entries.values())
            checked.append(found | {"files": len(entries), "bytes": size, "damage": ""})
    return checked


def rollback_target(registry: str, version: str | None) -> tuple[str, Generation]:
    """(the version that a rollback would bring back, the newest generation).

    Args:
        registry: Folder or s3:// prefix.
        version: Any version of the registry; None: the one that was in production before.

    Raises:
        UserError: Nothing is in production, nothing was before, no such version, a damaged one.
    """
    history = generations(registry)
    if not history:
        list_registry(registry)
        raise UserError(f"{registry}: nothing is in production, so there is nothing to go back from")
    now = history[-1]
    if version is None:
        way = way_back(history)
        if len(way) < 2:
            raise UserError(f"{now.version} is the first version in production: there is nothing to go back to")
        version = way[-2]
    find_version(registry, version)
    if version == now.version:
        raise UserError(f"{version} is in production already")
    return version, now


def _version(registry: str, version: str, history: Sequence[Generation]) -> dict[str, Any]:
    uri, in_production = version_uri(registry, version), bool(history) and history[-1].version == version
    damaged = damage(uri)
    # `llm2llm clean --keep-production` takes away what was in production before.
    removed = bool(damaged) and not in_production and not any(True for _ in list_uris(uri))
    return {
        "version": version,
        "uri": uri,
        "in_production": in_production,
        "rolled_back": version in rolled_back(history),
        "removed": removed,
        "damage": "" if removed else damaged,
        "generations": _moves(history, version),
        **_record(uri),
    }


def _record(uri: str) -> dict[str, Any]:
    """`record` of a version; null where it is damaged, which is said elsewhere."""
    try:
        return {"record": asdict(read_document(uri, Record))}
    except UserError:
        return {"record": None}


def _candidate(registry: str, run: str) -> dict[str, Any]:
    uri = candidate_uri(registry, run)
    try:
        return {"run": run, "uri": uri, "version": version_of(registry, run), **_record(uri)}
    except NotThere:  # the run is storing a better one just now
        return {"run": run, "uri": uri, "version": None, "record": None}


def _moves(history: Sequence[Generation], version: str) -> list[dict[str, Any]]:
    return [
        {"number": one.number, "kind": one.kind, "at": one.at, "run": one.run, "previous": one.previous}
        for one in history
        if one.version == version
    ]
