"""How large a pipeline gets on Kubeflow, before it is submitted: the Workflow, its pods, its arguments.

A run of a compiled pipeline is one Workflow object: its spec, and a node in its status for each step so far. Argo
compresses the nodes when the object passes 1 MiB, and ends the run when that is not enough. Each task's inputs are in
the nodes six times over under 2.17, so every artifact, every byte of metadata and every parameter counts.

    size = workflow_size(documents, version="2.17")
    refuse_too_large(size, iterations=10)

The model runs the Workflow (`workflow_nodes`) with a driver that keeps its records in memory (`predicted_run`); every
condition holds, so it is the largest run. Held against a real run, it is within 1% (tests/pipelines/kubeflow).
"""

import base64
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.kubeflow.go_json import go_json
from llm2llm.pipelines.kubeflow.predicted_run import MetadataOf, predicted_walk
from llm2llm.pipelines.kubeflow.workflow_nodes import Walk, nodes_json
from llm2llm.pipelines.kubeflow.workflow_spec import Installation, Json, Version, documents_of, runtime_config

MAX_WORKFLOW = 1048576
"""Bytes of a stored Workflow, its nodes compressed (Argo's MAX_WORKFLOW_SIZE)."""
MAX_REQUEST = 3145728
"""Bytes of a request that the Kubernetes API server takes."""
MAX_ARGUMENT = 131072
"""Bytes of one argument of a process (Linux's MAX_ARG_STRLEN), its final zero included."""
MAX_PARAMETERS = 102400
"""Bytes of a run's parameters: the first driver gets them as one argument, beside the sub-graph's own spec."""

_GZIP_LEVEL = 5
"""Argo compresses with pgzip at its default level, which is zlib's 5 by the sizes that it stored in a real run."""
_LUCK = 0.02
"""Nodes are stored by a hash of the Workflow's random name, and neighbours compress better: up to 1% either way."""
_OBJECT = 1500
"""Bytes of a Workflow beside spec and nodes: metadata and the rest of the status."""


@dataclass(frozen=True)
class StoredBytes:
    """The size of a Workflow at one moment, in bytes."""

    spec: int
    nodes: int
    """The nodes as JSON."""
    compressed: int
    """The nodes after gzip and base64."""
    pods: int = 0

    @property
    def plain(self) -> int:
        """The whole object with its nodes as they are."""
        return self.spec + self.nodes + _OBJECT

    @property
    def is_compressed(self) -> bool:
        """Whether Argo compresses the nodes."""
        return self.plain > MAX_WORKFLOW

    @property
    def total(self) -> int:
        """The object as it is stored."""
        return self.spec + self.compressed + _OBJECT if self.is_compressed else self.plain


@dataclass(frozen=True)
class WorkflowSize:
    """What the largest run of a pipeline comes to. Sizes in bytes."""

    version: Version
    stored: StoredBytes
    """The Workflow at its end."""
    pods: int
    """Pods in all, drivers included."""
    pods_in_a_row: int
    """Pods of the longest chain in which each waits for the one before."""
    iterations: int
    """Iterations of the loop after the first training: conditions within each other whose name says so."""
    per_iteration: float
    """What a further iteration adds to the stored Workflow, spec and nodes together, compressed as at the end."""
    parameters: int
    """The run's parameters as JSON, an argument of the first driver."""
    largest_argument: int
    """The largest argument of a process."""
    largest_argument_of: str
    """Whose it is."""
    initial: int
    """What is sent when the run is created."""
    breakdown: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By task: bytes of its spec, its nodes, and what its inputs consist of (see `predicted_run`)."""


def workflow_size(
    documents: Sequence[Json],
    *,
    version: Version,
    parameters: Mapping[str, Any] | None = None,
    metadata_bytes: int = 120,
    metadata: MetadataOf | None = None,
    outputs: Mapping[str, Any] | None = None,
    backend: Installation | None = None,
) -> WorkflowSize:
    """The size of the largest run of a compiled pipeline.

    Args:
        documents: The documents of a compiled pipeline: pipeline spec and, where there is one, platform spec.
        version: The Kubeflow Pipelines it runs on.
        parameters: The run's parameters; what is missing comes from the pipeline's defaults.
        metadata_bytes: What a stage writes into the metadata of each artifact, as JSON.
        metadata: The metadata of an artifact by task and output, in place of `metadata_bytes`.
        outputs: Values of output parameters by `component.output` or `output`, where their size matters. What is not
            given is true, 1, a text of 100 characters, an empty list or dict by its type.
        backend: The installation; None: one as its manifests ship it.

    Raises:
        UserError: The documents hold no pipeline, or a task cannot be given its inputs.
    """
    pipeline, _ = documents_of(documents)
    name = pipeline["pipelineInfo"]["name"]
    backend = backend or Installation(version=version, workflow=f"{name}-abcde")
    walk, notes = predicted_walk(
        documents, backend, parameters, metadata_bytes=metadata_bytes, metadata=metadata, outputs=outputs
    )
    spec = len(go_json(walk.spec).encode())
    stored = measure(walk, spec)
    largest, whose = max((size, of) for of, size in notes.arguments.items())
    return WorkflowSize(
        version=version,
        stored=stored,
        pods=walk.pods,
        pods_in_a_row=walk.deepest,
        iterations=_iterations(pipeline),
        per_iteration=_iteration_cost(walk),
        parameters=len(runtime_config(pipeline, parameters).encode()),
        largest_argument=largest,
        largest_argument_of=whose,
        initial=spec + 600,
        breakdown=notes.tasks,
    )


def measure(walk: Walk, spec: int) -> StoredBytes:
    """The size of the Workflow as it stands, `spec` being the bytes of its spec."""
    text = nodes_json(walk).encode()
    return StoredBytes(spec=spec, nodes=len(text), compressed=compressed(text), pods=walk.pods)


def compressed(text: bytes) -> int:
    """Bytes of a text after gzip and base64, as Argo stores the nodes."""
    # gzip adds 18 bytes to deflate's stream, zlib 6.
    return len(base64.b64encode(b" " * (len(zlib.compress(text, _GZIP_LEVEL)) + 12)))


def refuse_too_large(size: WorkflowSize) -> None:
    """Refuses a pipeline that cannot run to its end.

    Raises:
        UserError: What is too large, and what to change.
    """
    kb = 1024
    if size.parameters > MAX_PARAMETERS:
        raise UserError(
            f"the run's parameters are {size.parameters / kb:.0f} KB together, and the first pod is handed at most "
            f"{MAX_PARAMETERS / kb:.0f} KB; put labels and prompts in a file and give its path"
        )
    if size.largest_argument >= MAX_ARGUMENT:
        raise UserError(
            f"{size.largest_argument_of} is {size.largest_argument / kb:.0f} KB, and a process is handed at most "
            f"{MAX_ARGUMENT / kb:.0f} KB in one argument; use fewer evaluate.shards or filter_errors.folds, or put "
            "labels and prompts in a file"
        )
    if size.initial > MAX_REQUEST:
        raise UserError(
            f"the Workflow is {size.initial / kb:.0f} KB before its first step, and Kubernetes takes "
            f"{MAX_REQUEST / kb:.0f} KB; use fewer max_iterations"
        )
    allowed = (1 - _LUCK) * MAX_WORKFLOW
    if size.stored.total > allowed:
        fits = ""
        if size.per_iteration > 0 and size.iterations:
            over = size.stored.total - allowed
            most = size.iterations - int(-(-over // size.per_iteration))
            fits = f" (at most {most} with the rest as it is)" if most > 0 else ""
        raise UserError(
            f"the Workflow would grow to {size.stored.total / kb:.0f} KB on Kubeflow Pipelines {size.version}, and "
            f"Argo ends a run at {MAX_WORKFLOW / kb:.0f} KB; use fewer max_iterations{fits}, filter_errors.folds or "
            "evaluate.shards, report.each_iteration: false, or put labels and prompts in a file"
        )


_CONDITION = re.compile(r"\.condition-\d+\(?")


def _iterations(pipeline: Json) -> int:
    """The conditions within each other that are named `iteration ...`; all of them where none is."""
    named, every = _nested(pipeline, "root", "iteration"), _nested(pipeline, "root", "")
    return named or every


def _nested(pipeline: Json, name: str, prefix: str) -> int:
    component = pipeline["root"] if name == "root" else pipeline["components"][name]
    deepest = 0
    for task in component.get("dag", {}).get("tasks", {}).values():
        own = "condition" in task.get("triggerPolicy", {}) and task["taskInfo"]["name"].startswith(prefix)
        deepest = max(deepest, int(own) + _nested(pipeline, task["componentRef"]["name"], prefix))
    return deepest


def _iteration_cost(walk: Walk) -> float:
    """The bytes that an iteration of the middle adds: its templates, and its nodes compressed as all are at the end.

    An iteration is what one condition holds, without the conditions within it.
    """
    depth = {key: len(_CONDITION.findall(node["name"])) for key, node in walk.nodes.items()}
    deepest = max(depth.values(), default=0)
    if deepest < 2:
        return 0.0
    nodes = nodes_json(walk).encode()
    ratio = compressed(nodes) / len(nodes) if len(nodes) > MAX_WORKFLOW // 2 else 1.0
    middle = [len(walk.texts[key]) for key, at in depth.items() if 1 <= at < deepest]
    return sum(middle) / (deepest - 1) * ratio + _spec_per_iteration(walk, deepest)


def _spec_per_iteration(walk: Walk, deepest: int) -> float:
    """Bytes of templates and arguments that belong to one condition of the middle."""
    by_name = {template["name"]: template for template in walk.spec["templates"]}
    arguments = {one["name"]: one for one in walk.spec["arguments"]["parameters"]}
    used = {node["templateName"]: len(_CONDITION.findall(node["name"])) for node in walk.nodes.values()}
    total = 0
    for name, at in used.items():
        if "system-" not in name and 1 <= at < deepest:
            total += len(go_json(by_name[name]))
            total += len(go_json(arguments[f"components-{name}"])) if f"components-{name}" in arguments else 0
    return total / (deepest - 1)
