"""What tells one set of rows, one config, one way of grading from another."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from llm2llm.components.shared.data.artifacts import Artifact
from llm2llm.components.shared.data.schemas import content_id
from llm2llm.components.shared.lineage.records import record_of
from llm2llm.components.shared.registry.settings import PromoteSettings

_NOT_THE_STUDENT = {
    "": ("name", "images", "placement", "promote", "notify", "report", "controls"),
    # The rows themselves are compared, wherever they lie.
    "data": ("seeds", "validation", "test"),
    "train": ("checkpoint_uri", "checkpoint_minutes", "checkpoint_steps", "report_to"),
}
"""Keys of a config that have no say in what the student becomes, by section; nor has a `ledger` in any."""

_NOT_THE_GRADE = (
    *("backend", "gpus", "shards", "batch_size", "samples", "temperature", "sampling_seed", "hardness", "threshold"),
    *("trust_remote_code", "ledger", "budget", "prices"),
)
"""Keys of `evaluate`, and of its judge, that do not change the one answer to a validation row or its grade."""

_CONDITIONS = {"test", "level", "min_gain", "max_slice_drop", "slice_level", "min_slice_rows", "slices", "guards"}
"""Keys of `promote` that say what is good enough."""


def of_ids(ids: Iterable[str]) -> str:
    """A digest of a set of ids, whatever their order: 64 hexadecimal digits."""
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(ids)).encode()).hexdigest()


def of_question(question: str, choices: list[str]) -> str:
    """A digest of what a row asks, whatever its answer and rationale."""
    return content_id(question, choices, None, "")


def with_rows(config: Mapping[str, Any], prepared: Artifact) -> dict[str, Any]:
    """A config with the hashes of the rows, besides the seeds, that it makes a student from: the pool that its teacher
    draws from, the replay rows. Under the same name there may be others by tomorrow.

    Args:
        config: A run's.
        prepared: Any of the run's sets from `prepare`, whose record says what lies beside it; without one nothing is
            added.
    """
    augment, data = config.get("teacher_augment") or {}, config.get("data") or {}
    draws = augment.get("teacher") == "pool" and augment.get("strategy") != "eda"
    used = [name for name, is_used in (("pool_set", draws), ("replay_set", bool(data.get("replay")))) if is_used]
    beside = (record_of(prepared) or {}).get("outputs", {})
    hashes = {name: beside[name]["sha256"] for name in used if name in beside}
    return {**config, "rows": hashes} if hashes else dict(config)


def of_config(config: Mapping[str, Any]) -> str:
    """A digest of what in a config decides what the student becomes, besides its seeds: 64 hexadecimal digits.

    Two runs on one machine keep their inputs in folders of their own, so of an absolute path the last two parts count.
    """
    decides = {key: value for key, value in config.items() if key not in _NOT_THE_STUDENT[""]}
    for section, keys in _NOT_THE_STUDENT.items():
        if section and isinstance(decides.get(section), Mapping):
            decides[section] = {key: value for key, value in decides[section].items() if key not in keys}
    return _of_json(_portable(decides))


def of_grading(config: Mapping[str, Any]) -> str:
    """A digest of how a config has validation rows asked and graded: 64 hexadecimal digits."""
    task = config.get("task")
    if isinstance(task, Mapping):  # what decides changes no grade
        task = {key: value for key, value in task.items() if key != "metric"}
    return _of_json(_portable({"task": task, "evaluate": _graded(config.get("evaluate"))}))


def of_conditions(settings: PromoteSettings) -> str:
    """A digest of what a student must reach to enter production: 64 hexadecimal digits."""
    values = settings.model_dump(mode="json", include=_CONDITIONS) | {"slices": sorted(settings.slices)}
    return _of_json(_portable(values))


def _graded(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _graded(one) for key, one in value.items() if key not in _NOT_THE_GRADE}


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _portable(one) for key, one in value.items() if key != "ledger"}
    if isinstance(value, list):
        return [_portable(one) for one in value]
    if isinstance(value, str) and value.startswith("/") and "\n" not in value:
        return "/".join(value.rstrip("/").split("/")[-2:])
    return value


def _of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()
