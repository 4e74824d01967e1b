"""Expected size of a config's pipeline on Kubeflow, known before anything is submitted."""

import hashlib
from itertools import count
from typing import Any

import yaml

from llm2llm.components.shared.data.schemas import VERSION
from llm2llm.components.shared.lineage.records import DIGITS, SHA256
from llm2llm.pipelines.config.config import Config
from llm2llm.pipelines.config.stage_settings import stage_settings
from llm2llm.pipelines.kubeflow.predicted_run import MetadataOf
from llm2llm.pipelines.kubeflow.workflow_size import MAX_WORKFLOW, WorkflowSize, workflow_size
from llm2llm.pipelines.kubeflow.workflow_spec import Version

WORST: Version = "2.17"
"""Of the versions that are supported, the one under which a Workflow grows the most."""


_FEWER = {"config": (), "model": ("kind",), "verdict": ("kind", "schema_version")}
"""The fields beside the hash of artifacts that hold no rows and are handed to other stages."""


def written_metadata() -> MetadataOf:
    """The metadata of artifacts as stages write it."""
    numbers = count()

    def written(task: str, output: str) -> dict[str, Any]:
        digest = hashlib.sha256(f"{task} {output} {next(numbers)}".encode()).hexdigest()
        fields: dict[str, Any] = {"kind": output, "rows": 100_000, "schema_version": VERSION}
        return {name: fields[name] for name in _FEWER.get(output, fields)} | {SHA256: digest[:DIGITS]}

    return written


def expected_size(config: Config, text: str, version: Version = WORST) -> WorkflowSize:
    """The size of the largest run of a config's compiled pipeline.

    Args:
        config: The config.
        text: The compiled pipeline, as `compile_config` wrote it.
        version: The Kubeflow Pipelines it runs on.
    """
    documents: list[dict[str, Any]] = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return workflow_size(documents, version=version, metadata=written_metadata(), outputs=stage_settings(config))


def size_line(size: WorkflowSize) -> str:
    """A size in words.

    >>> size_line(...)
    '213 pods at most, 123 one after another; Workflow 635 KB of 1,024 on Kubeflow Pipelines 2.17, 56 KB an iteration'
    """
    return (
        f"{size.pods} pods at most, {size.pods_in_a_row} one after another; Workflow {size.stored.total / 1024:,.0f} "
        f"KB of {MAX_WORKFLOW / 1024:,.0f} on Kubeflow Pipelines {size.version}, {size.per_iteration / 1024:,.0f} KB "
        "an iteration"
    )
