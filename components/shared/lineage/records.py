"""A stage's record: what went in, what came out, by which code. It is part of what came out; see `embedded` for where.

    version     2
    output      which of the outputs this artifact is
    stage, iteration, fold, shard       null where there is none
    code        version of llm2llm, `+`, and the first digits of the SHA-256 of its source
    python      version
    libraries   the versions of the packages that the stage works with, those that are installed
    image_digest    of the container image, only where LLM2LLM_IMAGE_DIGEST names it
    inputs      by name: `sha256`, and `made_by` and `output`: the stage that made it and what it is called there; of a
                file or name that the user gave, `source` instead. Of several under one name: `name[0]`, `name[1]`, ...
    outputs     by name: `sha256`, and `rows` where it holds rows; without metrics, which hold times
    makers      by `made_by`: the records of all stages that came before, without their `makers`: so the report, which
                gets the last artifacts of an iteration, sees all stages of the run

Nothing in it depends on when or where the stage ran. A hash is a content hash (`embedded`), and null
where it could not be computed. An artifact's metadata holds its hash once more, as `sha256`: small enough for Kubeflow,
which copies it into every task, and there even for what can hold no record.

Runs of before have records of version 1 in their artifacts' metadata, under `lineage`, as compact JSON without `shard`.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.hashing import size_of, source_hash
from llm2llm.components.shared.data.artifacts import LINEAGE, Artifact, Inputs
from llm2llm.components.shared.lineage.embedded import (
    VERSION,
    can_hold,
    content_hash,
    content_hash_of_bytes,
    content_hash_of_entries,
    content_hash_once_embedded,
    embed_record,
    read_embedded,
)

SHA256 = "sha256"
"""The key of an artifact's metadata that holds the first `DIGITS` of its content hash."""
DIGITS = 8
"""Enough to see damage, as a CRC-32 is. Kubeflow writes the metadata of each input six times into a run's Workflow, and
a hash is what compresses least of it: 16 digits were 17 KB more in ten iterations with folds, shards and a registry."""
DIGEST_VARIABLE = "LLM2LLM_IMAGE_DIGEST"
"""Set by whoever runs the images by digest: no pod is told its own."""

ROWS = ("pyarrow", "numpy", "pydantic", "scipy", "rapidfuzz", "rensa")
MODELS = ("torch", "transformers", "tokenizers", "safetensors", "peft", "trl", "accelerate", "vllm")
LIBRARIES = {
    "configure": ("pydantic", "kfp"),
    "train": ROWS + MODELS,
    "predict": ROWS + MODELS,
    "evaluate": ROWS + MODELS,
    "out_of_fold": ROWS + MODELS,
    "tune": ROWS + MODELS,
    "controls": (*ROWS, *MODELS, "openai"),
    "teacher_augment": (*ROWS, *MODELS, "openai"),
}
"""By stage, whichever of them is installed; `ROWS` for the others. Not what happens to be loaded: the same stage then
has the same record in a process of its own and in one that has run others before."""


FIGURES = ("metrics", "confusion")
"""Outputs that carry neither record nor hash: Kubeflow shows their metadata as figures."""


def record_of(artifact: Artifact) -> dict[str, Any] | None:
    """The record of the stage that made an artifact; None for one that carries none, as the user's own files."""
    if (record := read_embedded(artifact.path)) is not None:
        return record
    text = artifact.metadata.get(LINEAGE)
    try:
        old = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return old if isinstance(old, dict) and old.get("version") == 1 else None


def label_of(record: Mapping[str, Any]) -> str:
    """A stage's name with its iteration and its fold or shard, such as `out_of_fold 1 fold 2`."""
    numbers = (("", "iteration"), ("fold ", "fold"), ("shard ", "shard"))
    given = [f" {word}{record[key]}" for word, key in numbers if record.get(key) is not None]
    return str(record["stage"]) + "".join(given)


def public_part(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says about its stage, whichever output it is in: all but `version`, `output`, `makers`."""
    return {key: record[key] for key in record if key not in ("version", "output", "makers")}


def read_inputs(inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
    """`inputs` and `makers` of a record: hashes what a stage is handed, and checks it against what its maker wrote.

    Raises:
        UserError: An artifact is not what its maker left: damaged, truncated, or changed by somebody. Names it.
    """
    given: dict[str, Any] = {}
    makers: dict[str, Any] = {}
    for name, artifact in _flat(inputs):
        if isinstance(artifact, str):
            given[name] = {"source": _short_source(artifact), "sha256": _hash_of_source(artifact)}
            continue
        sha256 = _hash(artifact, name)
        given[name] = {"sha256": sha256}
        record = record_of(artifact)
        maker = "its stage" if record is None else label_of(record)
        written = artifact.metadata.get(SHA256)
        if written is None and record is not None:
            written = record["outputs"].get(record["output"], {}).get("sha256")
            if record["version"] == VERSION and None not in (sha256, written) and sha256 != written:
                # A file that came by hand, and was made from another with all its keys.
                print(f"lineage: {name} is not as {maker} wrote it: taken for a file of your own", flush=True)
                continue
        _check(artifact, sha256, written, maker)
        if record is None:
            continue
        given[name] |= {"made_by": maker, "output": record["output"]}
        makers |= {**record["makers"], maker: public_part(record)}
    return given, dict(sorted(makers.items()))


def write_records(
    where: Mapping[str, Any],
    given: Mapping[str, Any],
    makers: Mapping[str, Any],
    outputs: Mapping[str, Artifact],
) -> dict[str, str | None]:
    """Hashes what a stage leaves, puts its record into those outputs that can hold one, and their hashes into their
    metadata.

    Args:
        where: `stage`, `iteration`, `fold` and `shard`.
        given, makers: As `read_inputs` returns them.
        outputs: By name. One that cannot be hashed has a null; the stage's work is not lost for it.

    Returns:
        The hash of each output.

    Raises:
        UserError: A record cannot be written: the disk is full.
    """
    recorded = {name: artifact for name, artifact in outputs.items() if not _holds_figures(name, artifact)}
    # Computed before the record is there, which names them.
    hashes = {
        name: _hash(artifact, name, content_hash_once_embedded if name in recorded else content_hash)
        for name, artifact in outputs.items()
    }
    record = {
        "version": VERSION,
        **where,
        **environment(str(where["stage"])),
        "inputs": dict(given),
        "outputs": {
            name: {"sha256": hashes[name]} | ({"rows": int(artifact.metadata["rows"])} if _has_rows(artifact) else {})
            for name, artifact in recorded.items()
        },
        "makers": dict(makers),
    }
    for name, artifact in recorded.items():
        if (sha256 := hashes[name]) is not None:
            artifact.metadata[SHA256] = sha256[:DIGITS]
            if can_hold(artifact.path):
                embed_record(artifact.path, record | {"output": name})
    return hashes


def environment(stage: str) -> dict[str, Any]:
    """`code`, `python`, `libraries` and `image_digest` of a record, as they are in this process."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    def installed() -> Iterator[tuple[str, str]]:
        for name in sorted(LIBRARIES.get(stage, ROWS)):
            try:
                yield name, version(name)
            except PackageNotFoundError:
                continue

    digest = os.environ.get(DIGEST_VARIABLE)
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "libraries": dict(installed()),
        **({"image_digest": digest} if digest else {}),
    }


def code_version() -> str:
    """The version of llm2llm, and the first 12 digits of the SHA-256 of the stages' source."""
    from importlib.metadata import version

    import llm2llm.components

    return f"{version('llm2llm')}+{source_hash(Path(next(iter(llm2llm.components.__path__))))}"


def _flat(inputs: Inputs) -> Iterator[tuple[str, Artifact | str]]:
    for name, value in inputs.items():
        if value is None or value == "":
            continue
        if isinstance(value, Sequence) and not isinstance(value, str):
            for number, one in enumerate(value):
                yield f"{name}[{number}]", one
        else:
            yield name, value


def _check(artifact: Artifact, found: str | None, written: str | None, maker: str) -> None:
    if found is not None and written is not None and not found.startswith(written):
        raise UserError(
            f"{artifact.path}: is not what {maker} has written (SHA-256 {found[:12]}..., not {written[:12]}...): it is "
            "damaged, or somebody has changed it; restore it, or run that stage again"
        )


def _hash(artifact: Artifact, name: str, hashed: Callable[[str], str] = content_hash) -> str | None:
    started = time.monotonic()
    try:
        found = hashed(artifact.path)
        seconds = time.monotonic() - started
        if seconds > 1.0:
            print(f"lineage: hashed {name}, {size_of(artifact.path) / 1e9:,.1f} GB, in {seconds:.1f} s", flush=True)
    except OSError as problem:
        # A stage need not write every output, and one that reads an input says itself what is wrong with it.
        if not isinstance(problem, FileNotFoundError):
            print(f"lineage: no hash of {name}: {problem.strerror or problem}", flush=True)
        return None
    return found


def _hash_of_source(source: str) -> str | None:
    """The hash of what a user named; None for what is not a file or folder that can be read, as a data set's name."""
    from llm2llm.components.shared import storage

    try:
        if "://" in source:
            return _hash_of_remote(source)
        if source.startswith("builtin:"):
            from llm2llm.components.shared.ingest.sources import builtin_path

            return content_hash(builtin_path(source))
        return content_hash(os.path.expanduser(source)) if os.path.exists(os.path.expanduser(source)) else None
    except (OSError, UserError, storage.NotThere):
        return None  # the stage that reads it says what is wrong


def _hash_of_remote(uri: str) -> str | None:
    """By the manifest of a folder, else by the bytes of an object."""
    from llm2llm.components.shared import storage

    try:
        files = storage.read_manifest(uri)
        return content_hash_of_entries({name: (entry.size, entry.sha256) for name, entry in files.items()})
    except storage.NotThere:
        return content_hash_of_bytes(storage.read_bytes(uri))


def _short_source(source: str) -> str:
    """A local file by its name alone: its folder differs between machines, and its hash says what it is."""
    is_local_path = source.startswith(("/", "./", "../", "~"))
    return source.rstrip("/").rsplit("/", 1)[-1] if is_local_path else source


def _has_rows(artifact: Artifact) -> bool:
    return isinstance(artifact.metadata.get("rows"), int | float)


def _holds_figures(name: str, artifact: Artifact) -> bool:
    return name in FIGURES or str(getattr(artifact, "schema_title", "")).endswith("Metrics")
