"""A stage's record: what went in, what came out, by which code. It travels in the metadata of what came out.

    artifact.metadata["lineage"]    compact JSON, of every output but metrics, whose metadata Kubeflow shows as figures:

    version     1
    output      which of the outputs this artifact is
    stage, iteration, fold      iteration and fold are null where there is none
    code        version of llm2llm, `+`, and the first digits of the SHA-256 of its source
    python      version
    libraries   the versions of the packages that the stage works with, those that are installed
    image_digest    of the container image, only where LLM2LLM_IMAGE_DIGEST names it
    inputs      by name: `sha256`, and `made_by` and `output`: the stage that made it and what it is called there; of a
                file or name that the user gave, `source` instead. Of several under one name: `name[0]`, `name[1]`, ...
    outputs     by name: `sha256`, and `rows` where it holds rows
    makers      by `made_by`: the records of all stages that came before, without their `makers`: so the report, which
                gets the last artifacts of an iteration, sees all stages of the run

Nothing in it depends on when or where the stage ran. A hash is null where it could not be computed.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.hashing import hash_of, hash_of_entries, size_of

LINEAGE = "lineage"
VERSION = 1
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
    "teacher_augment": (*ROWS, *MODELS, "openai"),
}
"""By stage, whichever of them is installed; `ROWS` for the others. Not what happens to be loaded: the same stage then
has the same record in a process of its own and in one that has run others before."""


class Artifact(Protocol):
    """Something at a path, with metadata."""

    metadata: dict[str, Any]

    @property
    def path(self) -> str: ...


Inputs = Mapping[str, Artifact | Sequence[Artifact] | str | None]
"""What a stage is handed, by name: artifacts, lists of them, or what the user named: a file, a folder, a data set."""


def record_of(artifact: Artifact) -> dict[str, Any] | None:
    """The record of the stage that made an artifact; None for one that carries none, as the user's own files."""
    text = artifact.metadata.get(LINEAGE)
    try:
        record = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("version") == VERSION else None


def label_of(record: Mapping[str, Any]) -> str:
    """A stage's name with its iteration and fold, such as `out_of_fold 1 fold 2`."""
    iteration, fold = record.get("iteration"), record.get("fold")
    return (
        str(record["stage"])
        + ("" if iteration is None else f" {iteration}")
        + ("" if fold is None else f" fold {fold}")
    )


def read_inputs(inputs: Inputs, iteration: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
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
        if record is None:
            continue
        maker, output = label_of(record), record["output"]
        _check(artifact, sha256, record["outputs"].get(output, {}).get("sha256"), maker)
        given[name] |= {"made_by": maker, "output": output}
        makers |= record["makers"]
        makers[maker] = {key: record[key] for key in record if key not in ("version", "output", "makers")}
    return given, dict(sorted(makers.items()))


def write_records(
    stage: str,
    iteration: int | None,
    fold: int | None,
    given: Mapping[str, Any],
    makers: Mapping[str, Any],
    outputs: Mapping[str, Artifact],
) -> dict[str, str | None]:
    """Hashes what a stage leaves and writes its record into the metadata of its outputs.

    Args:
        stage, iteration, fold: Which one it is.
        given, makers: As `read_inputs` returns them.
        outputs: By name. One that cannot be hashed has a null; the stage's work is not lost for it.

    Returns:
        The hash of each output.
    """
    hashes = {name: _hash(artifact, name) for name, artifact in outputs.items()}
    record = {
        "version": VERSION,
        "stage": stage,
        "iteration": iteration,
        "fold": fold,
        **environment(stage),
        "inputs": dict(given),
        "outputs": {
            name: {"sha256": hashes[name]} | ({"rows": int(artifact.metadata["rows"])} if _has_rows(artifact) else {})
            for name, artifact in outputs.items()
            if name != "metrics"  # they hold times, and a record says the same for the same work
        },
        "makers": dict(makers),
    }
    for name, artifact in outputs.items():
        if not _shows_metadata(artifact):
            text = json.dumps(record | {"output": name}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
            artifact.metadata[LINEAGE] = text
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

    root = Path(next(iter(llm2llm.components.__path__)))
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".j2", ".css", ".yaml", ".jsonl", ".md"):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{version('llm2llm')}+{digest.hexdigest()[:12]}"


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
    if found is not None and written is not None and found != written:
        raise UserError(
            f"{artifact.path}: is not what {maker} has written (SHA-256 {found[:12]}..., not {written[:12]}...): it is "
            "damaged, or somebody has changed it; restore it, or run that stage again"
        )


def _hash(artifact: Artifact, name: str) -> str | None:
    started = time.monotonic()
    try:
        found = hash_of(artifact.path)
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

            return hash_of(builtin_path(source))
        return hash_of(os.path.expanduser(source)) if os.path.exists(os.path.expanduser(source)) else None
    except (OSError, UserError, storage.NotThere):
        return None  # the stage that reads it says what is wrong


def _hash_of_remote(uri: str) -> str | None:
    """By the manifest of a folder, else by the bytes of an object."""
    from llm2llm.components.shared import storage

    try:
        files = storage.read_manifest(uri)
        return hash_of_entries({name: (entry.size, entry.sha256) for name, entry in files.items()})
    except storage.NotThere:
        return hashlib.sha256(storage.read_bytes(uri)).hexdigest()


def _short_source(source: str) -> str:
    """A local file by its name alone: its folder differs between machines, and its hash says what it is."""
    is_local_path = source.startswith(("/", "./", "../", "~"))
    return source.rstrip("/").rsplit("/", 1)[-1] if is_local_path else source


def _has_rows(artifact: Artifact) -> bool:
    return isinstance(artifact.metadata.get("rows"), int | float)


def _shows_metadata(artifact: Artifact) -> bool:
    """Whether Kubeflow shows the metadata of an artifact as figures: Metrics, ClassificationMetrics."""
    return str(getattr(artifact, "schema_title", "")).endswith("Metrics")
