"""Argo: the Workflow step by step, its size after each, and the ways in which it outgrows what it may.

The nodes are the product's own model (`workflow_nodes`), so the size that it predicts is the one a run reaches here.
Messages as seen on KFP 2.17.0 with Argo 4.0.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm2llm.pipelines.kubeflow.go_json import go_json
from llm2llm.pipelines.kubeflow.workflow_nodes import NodeOutcome, RunPod, Walk, nodes_json, run_workflow
from llm2llm.pipelines.kubeflow.workflow_size import MAX_REQUEST, MAX_WORKFLOW, StoredBytes, measure
from tests.support.kubeflow.texts import argo

Json = dict[str, Any]

ADMINISTRATORS_RETRY: Mapping[str, str] = {"limit": "0", "retryPolicy": "Always"}
"""What gives stages their retries and sub-graphs none: `templateDefaults.retryStrategy` of the controller."""


class WorkflowTooLarge(RuntimeError):
    """Argo ends the run. `shown` is what a user sees."""

    def __init__(self, message: str, shown: str) -> None:
        super().__init__(message)
        self.shown = shown


@dataclass
class Run:
    """What became of a Workflow."""

    state: str
    message: str
    shown: str
    """What `run.error` or the UI tells: Argo's own message is in the controller's log."""
    walk: Walk
    sizes: list[StoredBytes] = field(default_factory=list)
    """Before and after each pod."""


def run(spec: Json, name: str, run_pod: RunPod) -> Run:
    """Creates a Workflow and runs it until it ends or outgrows Argo.

    Args:
        spec: Its spec (`workflow_spec`).
        name: Its name.
        run_pod: What a pod does.
    """
    size = len(go_json(spec).encode())
    sizes: list[StoredBytes] = []

    exact = StoredBytes(size, 0, 0)

    def weigh(walk: Walk) -> None:
        nonlocal exact
        stored = _scaled(exact, len(nodes_json(walk).encode()), walk.pods)
        if stored is None:
            stored = exact = measure(walk, size)
        sizes.append(stored)
        if stored.total > MAX_WORKFLOW:
            message = f"compressed size {stored.total} > maxSize {MAX_WORKFLOW}"
            # Argo then writes the error with the nodes as they are, which Kubernetes refuses in turn.
            too_large = stored.plain > MAX_REQUEST
            raise WorkflowTooLarge(
                message, f"Request entity too large: limit is {MAX_REQUEST}" if too_large else message
            )

    walk = Walk(spec, name, run_pod, argo, observe=weigh)
    if size > MAX_REQUEST:
        message = f"Request entity too large: limit is {MAX_REQUEST}"
        return Run("Error", message, message, walk)
    try:
        outcome: NodeOutcome = run_workflow(walk)
    except WorkflowTooLarge as error:
        return Run("Error", str(error), error.shown, walk, sizes)
    sizes.append(measure(walk, size))
    return Run(outcome.phase, outcome.message, "", walk, sizes)


def _scaled(exact: StoredBytes, nodes: int, pods: int) -> StoredBytes | None:
    """The size from the last that was measured, when little has been added since and the limit is far.

    Compressing 10 MB after each of 400 pods would take minutes.
    """
    if not exact.nodes or nodes > 1.02 * exact.nodes:
        return None
    scaled = StoredBytes(exact.spec, nodes, int(exact.compressed * nodes / exact.nodes), pods)
    return scaled if scaled.total < 0.95 * MAX_WORKFLOW else None
