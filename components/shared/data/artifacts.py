"""Artifacts as the stages see them: a path and metadata. Kubeflow's own classes fit, and so does `LocalArtifact`.

Arrow is imported where rows are read or written: whoever only compiles a pipeline has none.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import VERSION

R = TypeVar("R")

LINEAGE = "lineage"
"""The key of a JSON artifact under which its maker's record stands (`lineage.embedded`); not part of its content."""

SPENT = "spent.json"
"""The file of a journal (`data.journal`) that is not part of its content: equal runs may have paid differently."""


class Artifact(Protocol):
    """Something at a path. Of metadata it has `kind`, `schema_version`, `rows` and `sha256` at most: Kubeflow copies
    them into every task that is handed the artifact."""

    metadata: dict[str, Any]

    @property
    def path(self) -> str: ...


Inputs = Mapping[str, Artifact | Sequence[Artifact] | str | None]
"""What a stage is handed, by name: artifacts, lists of them, or what the user named: a file, a folder, a data set."""


class MetricsArtifact(Artifact, Protocol):
    """Kubeflow's Metrics."""

    def log_metric(self, metric: str, value: float) -> None: ...


class ConfusionArtifact(Artifact, Protocol):
    """Kubeflow's ClassificationMetrics."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None: ...


@dataclass
class LocalArtifact:
    """An artifact outside Kubeflow, for tests and scripts."""

    path: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def log_metric(self, metric: str, value: float) -> None:
        self.metadata[metric] = value

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        self.metadata["confusionMatrix"] = {"categories": categories, "matrix": matrix}


def write_artifact(artifact: Artifact, kind: str, rows: Iterable[Any], notes: Mapping[str, Any] | None = None) -> None:
    """Writes rows to an artifact's path, and their kind, version and number to its metadata; `notes` as `write_rows`
    does."""
    from llm2llm.components.shared.data.parquet import write_rows

    rows = list(rows)
    write_rows(artifact.path, kind, rows, notes)
    artifact.metadata.update({"kind": kind, "schema_version": VERSION, "rows": len(rows)})


def read_optional(artifact: Artifact | None, kind: str, row_type: type[R]) -> list[R]:
    """The rows of an artifact that only iterations after the first have; none for None."""
    from llm2llm.components.shared.data.parquet import read_rows

    return [] if artifact is None else read_rows(artifact.path, kind, row_type)


def read_config(artifact: Artifact) -> dict[str, Any]:
    """The run's config, as `configure` left it.

    Raises:
        UserError: Not there, or no JSON object.
    """
    path = artifact.path
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}") from problem
    except ValueError as problem:
        raise UserError(f"{path}: the config is not JSON: {problem}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: the config must be a JSON object, not {type(config).__name__}")
    return without_record(config)


def without_record(value: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON artifact, without its maker's record."""
    return {key: one for key, one in value.items() if key != LINEAGE}


def write_metrics(metrics: MetricsArtifact, values: Mapping[str, float]) -> None:
    """Logs metrics for Kubeflow to show, and writes them to the artifact's path as JSON.

    Kubeflow keeps metrics as metadata and needs no file, but its local cache takes an artifact without one for lost.
    """
    for name, value in values.items():
        metrics.log_metric(name, value)
    write_text(metrics.path, json.dumps(dict(values), indent=2) + "\n")


MOST_CATEGORIES = 100
"""Categories of a confusion matrix that Kubeflow can draw, and keep as metadata."""


def write_confusion(confusion: ConfusionArtifact, counted: tuple[list[str], list[list[int]]] | None) -> None:
    """Logs a confusion matrix for Kubeflow to show, and writes `{"categories": ..., "matrix": ...}` to the artifact's
    path; `{}` for None. A matrix of more than `MOST_CATEGORIES` is in the file only."""
    values = {}
    if counted is not None:
        categories, matrix = counted
        values = {"categories": categories, "matrix": matrix}
        if len(categories) <= MOST_CATEGORIES:
            confusion.log_confusion_matrix(categories, matrix)
    write_text(confusion.path, json.dumps(values, ensure_ascii=False) + "\n")
