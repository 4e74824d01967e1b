"""A run's Workflow as Kubeflow's API server keeps it: what the API of today does not tell.

`/apis/v2beta1/runs/ID` lists the states of tasks, and no messages. Once the nodes of a Workflow are larger than 1 MiB,
Argo stores them compressed, Kubeflow's persistence agent no longer reads them, and the states in the API stand still.
The older API beside it answers with the Workflow itself (`pipeline_runtime.workflow_manifest` of
`/apis/v1beta1/runs/ID`; read in the source of 2.17): nodes, compressed or not, their messages, artifacts' addresses.
Everything here is an extra: where a server does not have it, `None` or an empty text is the answer.
"""

import base64
import binascii
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llm2llm.pipelines.kubeflow.client import Cluster, ClusterProblem

MANIFEST = "/apis/v1beta1/runs/{run_id}"
LOG = "/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"

STATES = {"Pending": "PENDING", "Running": "RUNNING", "Succeeded": "SUCCEEDED", "Skipped": "SKIPPED",
          "Omitted": "SKIPPED", "Failed": "FAILED", "Error": "FAILED"}  # fmt: skip
"""Argo's phases in the words of Kubeflow's API."""


@dataclass(frozen=True)
class Node:
    """One node of a Workflow: a pod, the tries of one, or a group of nodes."""

    id: str
    name: str
    """As it is displayed: `train`, `train(0)`, `executor(0)`, `train-driver`."""
    path: str
    """The names of all nodes around it and its own, such as `q-x7.root.train.executor(0)`."""
    type: str
    state: str
    """As Kubeflow's API calls it."""
    message: str
    template: str
    started: str
    finished: str


@dataclass(frozen=True)
class Workflow:
    """What a run's Workflow says."""

    name: str
    namespace: str
    message: str
    """Why it ended, where it did not end well."""
    nodes: tuple[Node, ...]
    compressed: bool
    """Whether its nodes are stored compressed, so that the API's states of tasks stand still."""
    size: int
    """Bytes of its JSON, as it is stored."""
    root: str
    """The folder of the run's artifacts, `<pipeline root>/<pipeline>/<run id>`; empty before the first is named."""

    @property
    def tasks(self) -> list[tuple[str, str]]:
        """(name, state) of every node, as the API lists tasks."""
        return [(node.name, node.state) for node in self.nodes]


def read_workflow(cluster: Cluster, run_id: str) -> Workflow | None:
    """A run's Workflow; None where the server does not tell it."""
    try:
        answer = cluster.get(MANIFEST, run_id=run_id)
        return parse_workflow(answer["pipeline_runtime"]["workflow_manifest"], run_id)
    except (ClusterProblem, KeyError, TypeError, ValueError):
        return None


def parse_workflow(manifest: str, run_id: str) -> Workflow:
    """A Workflow from its JSON.

    Raises:
        ValueError: It is none, or its nodes cannot be unpacked.
        KeyError, TypeError: As ValueError.
    """
    fields = json.loads(manifest)
    if not isinstance(fields, dict):
        raise ValueError("no Workflow")
    status = fields.get("status") or {}
    packed = status.get("compressedNodes") or ""
    nodes: Mapping[str, Any] = status.get("nodes") or {}
    if packed:
        try:
            nodes = json.loads(gzip.decompress(base64.b64decode(packed)))
        except (OSError, EOFError, zlib.error, binascii.Error) as problem:
            raise ValueError(f"compressed nodes: {problem}") from None
    return Workflow(
        name=fields["metadata"]["name"],
        namespace=fields["metadata"].get("namespace") or "",
        message=status.get("message") or "",
        nodes=tuple(_node(one) for one in nodes.values()),
        compressed=bool(packed),
        size=len(manifest.encode()),
        root=_root(nodes.values(), run_id),
    )


def _node(fields: Mapping[str, Any]) -> Node:
    return Node(
        id=fields["id"],
        name=fields["displayName"],
        path=fields["name"],
        type=fields["type"],
        state=STATES.get(fields.get("phase") or "", "PENDING"),
        message=fields.get("message") or "",
        template=fields.get("templateName") or (fields.get("templateRef") or {}).get("template") or "",
        started=fields.get("startedAt") or "",
        finished=fields.get("finishedAt") or "",
    )


def _root(nodes: Iterable[Mapping[str, Any]], run_id: str) -> str:
    """The folder that the outputs in the drivers' patches are in."""
    place = re.compile(r'"uri\\*":\s*\\*"([a-z0-9]+://[^"\\?]+?/' + re.escape(run_id) + ")/")
    for node in nodes:
        for parameter in (node.get("inputs") or {}).get("parameters") or []:
            # A file beside `uri` is one of this run's own unless the cache gave it.
            if found := place.search(str(parameter.get("value") or "")):
                return found[1]
    return ""


def failures(workflow: Workflow) -> list[Node]:
    """The nodes in which a run failed: of those that failed, the ones with no failed node inside, the latest first."""
    failed = [node for node in workflow.nodes if node.state == "FAILED"]
    over = [node for node in workflow.nodes if node.state == "SUCCEEDED"]
    deepest = [
        node
        for node in failed
        if not any(_inside(other.path, node.path) for other in failed)
        and not any(_inside(node.path, other.path) for other in over)  # a try that another made good
    ]
    return sorted(deepest, key=lambda node: (node.finished, node.path), reverse=True)


def _inside(path: str, around: str) -> bool:
    # `train(0)` is a try of `train`, which Argo counts as inside it; `train-2` is a task of its own.
    return path.startswith((f"{around}.", f"{around}("))


def pod_name(node: Node, workflow: Workflow) -> str:
    """The pod of a node, as Argo's format v2 names it: workflow, template, and the hash that ends the node's id."""
    return f"{workflow.name}-{node.template}"[:243] + "-" + node.id.rpartition("-")[2]


def pod_log(cluster: Cluster, run_id: str, pod: str) -> str:
    """The log of a pod's main container, as the API server reads it; empty where it cannot."""
    try:
        text = cluster.get(LOG, "str", tries=1, run_id=run_id, pod=pod)
    except ClusterProblem:
        return ""
    return str(text)
