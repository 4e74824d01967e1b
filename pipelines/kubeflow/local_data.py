"""Refuses a config that names files of this machine, before it is sent to a cluster whose pods have none of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.settings import IN_POD
from llm2llm.pipelines.config import Config

PLACES = {
    "data": ("seeds", "validation", "test", "pool", "replay"),
    "": ("student",),
    "teacher_augment": ("grammar", "eda_synonyms", "ledger"),
    "train": ("checkpoint_uri",),
    "promote": ("registry",),
}
"""The keys that name a file, a folder, a data set or a model, by section."""
SUFFIXES = (
    ".jsonl",
    ".json",
    ".csv",
    ".tsv",
    ".parquet",
    ".yaml",
    ".yml",
    ".txt",
    ".gz",
    ".zip",
    ".xlsx",
    ".safetensors",
)
"""What a file's name ends in; a name on the hub may have any other dot."""
WRITTEN = ("ledger", "checkpoint_uri", "registry")


def refuse_local_data(config: Config, resolved: Config | None = None) -> None:
    """Refuses what only this machine has.

    Args:
        config: As it goes to the cluster.
        resolved: The same config with its relative paths made absolute, where the folder that they are in is known.

    Raises:
        UserError: Names every such key, its value, and what to do.
    """
    here = dict(_places((resolved or config).model_dump(mode="json")))
    cache = config.placement.model_cache
    wrong = {
        key: value
        for key, value in _places(config.model_dump(mode="json"))
        if _is_local(value, here.get(key, value)) and not (cache and _is_model(key) and _is_under(value, cache.path))
    }
    if not wrong:
        return
    named = ", ".join(f"{key} ({value})" for key, value in wrong.items())
    name = PurePosixPath(next(iter(wrong.values()))).name or "folder"
    models = [key for key in wrong if _is_model(key)]
    if all(key.rsplit(".", 1)[-1] in WRITTEN for key in wrong):
        do = f"name a place in object storage, such as s3://bucket/{name}"
    else:
        kind = "a model" if models else "a data set"
        do = f"upload it and name it there (s3://bucket/{name}), or name {kind} of the Hub"
    if models:
        volume = f"the volume that stages have at {cache.path}" if cache else "the volume of placement.model_cache"
        do += f"; a model may also be a path on {volume}"
    raise UserError(f"{named}: on this machine, and no pod of a cluster sees it; {do}")


def _places(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(dotted key, value) of everything that names a place."""
    for section, names in PLACES.items():
        within = values.get(section) if section else values
        for name in names:
            yield from _named(f"{section}.{name}".removeprefix("."), (within or {}).get(name))
    for number, guard in enumerate((values.get("promote") or {}).get("guards") or []):
        yield from _named(f"promote.guards[{number}].file", guard.get("file"))
        if str(guard.get("lm_eval")).endswith((".yaml", ".yml")):
            yield from _named(f"promote.guards[{number}].lm_eval", guard["lm_eval"])
    yield from _models(values, "")


def _named(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value:
        yield key, value


def _models(values: Any, where: str) -> Iterator[tuple[str, str]]:
    """Models that a stage loads, wherever a section asks for one (at an endpoint it is a name); a judge's ledger."""
    if isinstance(values, list):
        for number, value in enumerate(values):
            yield from _models(value, f"{where}[{number}]")
    if not isinstance(values, Mapping):
        return
    if values.get("teacher") in IN_POD or where.endswith(("semantic", "coverage", "distill")):
        yield from _named(f"{where}.model", values.get("model"))
    if where == "evaluate.judge":
        yield from _named(f"{where}.ledger", values.get("ledger"))
    for key, value in values.items():
        if key not in ("placement", "task", "images"):
            yield from _models(value, f"{where}.{key}".removeprefix("."))


def _is_local(value: str, resolved: str) -> bool:
    if "://" in value:
        return value.startswith("file://")
    if value.startswith("builtin:") or value == "scratch":
        return False
    is_path = value.startswith(("/", "./", "../", "~")) or value in (".", "..")
    return is_path or value.endswith(SUFFIXES) or (resolved != value and Path(resolved).exists())


def _is_model(key: str) -> bool:
    """Whether what reads it loads models: those stages mount the cache, and no others."""
    return key == "student" or key.endswith(".model")


def _is_under(value: str, mount: str) -> bool:
    path = PurePosixPath(value)
    return ".." not in path.parts and path.is_relative_to(mount)
