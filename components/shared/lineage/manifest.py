"""A run's manifest: inputs, each stage's artifacts with hashes, and each decision with its reason.

Each iteration's report makes one of what its inputs say; `llm2llm run` leaves the last as `manifest.json`:

    schema_version  1
    name            the run's
    iteration       the last one that it holds
    config          the run's settings, without secrets, as there are none in them
    code            the versions of llm2llm that its stages had: one, unless the images differ
    libraries       by package, the versions that its stages had
    images          by name (`cpu`, `train`, `vllm`), as the config names them; and by digest under `digests`, where the
                    cluster's operator has told the pods their own as LLM2LLM_IMAGE_DIGEST (Kubernetes tells no pod)
    data            the user's own `seeds`, `validation`, `test`, `pool`: `source` and `sha256`; and the `student`
    stages          every stage that ran, in order: the public part of its record (`records`)
    decisions       one for each iteration: the row that `filter_errors` wrote, with the reason
    verdict         what `promote` decided, as it wrote it; null where it has not run

A hash is a content hash (`embedded`). The report's own outputs are in no manifest, which is one of them; their metadata
has them. The same run has the same manifest, byte for byte: there is no time in it, and no path but those in the
config.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import Inputs, without_record
from llm2llm.components.shared.data.schemas import Decision
from llm2llm.components.shared.lineage.records import label_of, public_part, record_of
from llm2llm.components.stages import STAGES

VERSION = 1

SOURCES = ("seeds", "validation", "test", "pool", "replay")
# In the order in which they run within an iteration.
ORDER = tuple(STAGES)


def manifest_of(
    config: Mapping[str, Any],
    inputs: Inputs,
    decisions: Sequence[Decision],
    verdict: Mapping[str, Any] | None,
    iteration: int,
) -> dict[str, Any]:
    """The manifest of all iterations so far.

    Args:
        config: The run's settings.
        inputs: The artifacts that the report is handed, by name: their records hold those of all that came before.
        decisions: All so far.
        verdict: What `promote` wrote, if it ran.
        iteration: This one.
    """
    stages: dict[str, Any] = {}
    for artifact in _artifacts(inputs):
        record = record_of(artifact)
        if record is not None:
            stages |= {**record["makers"], label_of(record): public_part(record)}
    ordered = sorted(stages.values(), key=_place)
    return {
        "schema_version": VERSION,
        "name": str(config.get("name", "")),
        "iteration": iteration,
        "config": dict(config),
        "code": sorted({one["code"] for one in ordered}),
        "libraries": _versions(ordered),
        "images": {
            **(config.get("images") or {}),
            "digests": sorted({one["image_digest"] for one in ordered if one.get("image_digest")}),
        },
        "data": _data(ordered),
        "stages": ordered,
        "decisions": [dataclasses.asdict(decision) for decision in decisions],
        "verdict": dict(verdict) if verdict is not None else None,
    }


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest as the JSON that is stored."""
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"


def checked_manifest(manifest: Any, where: str) -> dict[str, Any]:
    """A manifest that was read from JSON; `where` says from which file.

    Raises:
        UserError: Of another version of llm2llm, or none.
    """
    if not isinstance(manifest, dict) or manifest.get("schema_version") != VERSION:
        raise UserError(f"{where}: no run's manifest of schema version {VERSION}; use the llm2llm that wrote it")
    return without_record(manifest)


def _artifacts(inputs: Inputs) -> list[Any]:
    found: list[Any] = []
    for value in inputs.values():
        if isinstance(value, Sequence) and not isinstance(value, str):
            found += value
        elif value is not None and not isinstance(value, str):
            found.append(value)
    return found


def _place(record: Mapping[str, Any]) -> tuple[int, int, int, str]:
    stage = record["stage"]
    iteration = -1 if record["iteration"] is None else record["iteration"]
    number = record["fold"] or record.get("shard") or 0
    return iteration, ORDER.index(stage) if stage in ORDER else len(ORDER), number, stage


def _versions(stages: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    versions: dict[str, set[str]] = {}
    for one in stages:
        for name, version in [("python", one["python"]), *one["libraries"].items()]:
            versions.setdefault(name, set()).add(version)
    return {name: sorted(some) for name, some in sorted(versions.items())}


def _data(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    prepared: Mapping[str, Any] = next((one["inputs"] for one in stages if one["stage"] == "prepare"), {})
    trained: Mapping[str, Any] = next((one["inputs"] for one in stages if one["stage"] == "train"), {})
    data = {name: prepared[name] for name in SOURCES if name in prepared}
    return data | ({"student": trained["student"]} if "student" in trained else {})
