"""A run's Workflow as Kubeflow 2.17 and Argo 4 store it: the nodes, names and fields of a real one, for few tasks.

A task is a driver and a group with an executor in it; each is `x`, of type Retry, with its tries `x(0)`, `x(1)` inside.
"""

import base64
import gzip
import json
from collections.abc import Collection, Mapping
from typing import Any

NAME = "quickstart-l86vn"
PHASES = {
    "PENDING": "Pending",
    "RUNNING": "Running",
    "SUCCEEDED": "Succeeded",
    "FAILED": "Failed",
    "SKIPPED": "Omitted",
}


def nodes_of(
    tasks: Mapping[str, str], state: str = "RUNNING", cached: Collection[str] = ()
) -> list[tuple[str, str, str, str]]:
    """(path, display name, type, state) of a Workflow's nodes.

    Args:
        tasks: Task -> state; a task called `x-driver` is the driver of an `x` that never came to be.
        state: The run's own.
        cached: The tasks that Kubeflow's cache answers: their executors never run.
    """
    drivers = {name for name in tasks if name.endswith("-driver")}
    root = tasks.get("root-driver", "SUCCEEDED")
    around = "FAILED" if state == "FAILED" else "RUNNING" if state not in ("SUCCEEDED", "PENDING") else state
    found = [
        (NAME, NAME, "Retry", around), (f"{NAME}(0)", f"{NAME}(0)", "DAG", around),
        *_tried(f"{NAME}(0)", "root-driver", "Pod", root),
    ]  # fmt: skip
    if root != "SUCCEEDED":
        return found
    inside = f"{NAME}(0).root(0)"
    found += _tried(f"{NAME}(0)", "root", "DAG", around)
    for name, task in tasks.items():
        if name in drivers:
            found += _tried(inside, name, "Pod", task)
            continue
        found += _tried(inside, f"{name}-driver", "Pod", "SUCCEEDED")
        found += _tried(inside, name, "DAG", task)
        if name in cached:
            found.append((f"{inside}.{name}(0).executor", "executor", "Skipped", "SKIPPED"))
        else:
            found += _tried(f"{inside}.{name}(0)", "executor", "Pod", task)
    return found


def _tried(around: str, name: str, kind: str, state: str) -> list[tuple[str, str, str, str]]:
    path = f"{around}.{name}"
    return [(path, name, "Retry", state), (f"{path}(0)", f"{name}(0)", kind, state)]


def workflow_of(
    run_id: str,
    tasks: Mapping[str, str],
    state: str,
    root: str = "",
    messages: Mapping[str, str] | None = None,
    compressed: bool = False,
    cached: Collection[str] = (),
) -> dict[str, Any]:
    """The Workflow as JSON.

    Args:
        run_id: The run's id.
        tasks: As `nodes_of` takes them.
        state: The run's own.
        root: The folder of the run's artifacts, which the executors' inputs name; empty: they name none.
        messages: What nodes say, by a name in their path, such as `train` or `root-driver`.
        compressed: Whether the nodes are stored as Argo does it when they are large.
        cached: As `nodes_of` takes them.
    """
    nodes = {}
    for number, (path, name, kind, phase) in enumerate(nodes_of(tasks, state, cached)):
        node: dict[str, Any] = {"id": f"{NAME}-{1000 + number}", "name": path, "displayName": name, "type": kind,
                                "templateName": "system-container-impl", "phase": PHASES.get(phase, phase),
                                "startedAt": f"2026-11-28T16:{number:02}:00Z"}  # fmt: skip
        if phase in ("SUCCEEDED", "FAILED"):
            node["finishedAt"] = f"2026-11-28T16:{number:02}:30Z"
        task = path.split(".")[-2].partition("(")[0] if name == "executor(0)" else name.partition("(")[0]
        if kind == "Pod" and (messages or {}).get(task):
            node["message"] = (messages or {})[task]
        if kind == "Pod" and root and name == "executor(0)":
            executor_input = {"outputs": {"artifacts": {"out": {"artifacts": [{"uri": f"{root}/{task}/e1/out"}]}}}}
            patch = {"containers": [{"command": ["--executor_input", json.dumps(executor_input)]}]}
            node["inputs"] = {"parameters": [{"name": "pod-spec-patch", "value": json.dumps(patch)}]}
        nodes[node["id"]] = node
    status: dict[str, Any] = {"phase": PHASES.get(state, state)}
    if compressed:
        status["compressedNodes"] = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    else:
        status["nodes"] = nodes
    labels = {"pipeline/runid": run_id}
    return {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {}, "status": status,
        "metadata": {"name": NAME, "namespace": "kubeflow", "labels": labels},
    }  # fmt: skip
