"""One driver pod: resolves a task's inputs, records an execution, and says what Argo is to do next.

Source: KFP 2.17.0, `backend/src/v2/driver/{root_dag,dag,container}.go`.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm2llm.pipelines.kubeflow.go_json import go_json, proto_json
from llm2llm.pipelines.kubeflow.pod_patch import pod_spec_patch, provisioned_outputs
from llm2llm.pipelines.kubeflow.task_inputs import CONTAINER, DAG, RunNames, Store, condition_holds, items_of, resolve
from llm2llm.pipelines.kubeflow.workflow_spec import Installation, Json

Create = Callable[[str, str, Json, Mapping[str, Sequence[int]]], int]
"""Records an execution: its type, state, custom properties and input artifacts by name; returns its id."""
Reuse = Callable[["DriverStep", Json, Json], int | None]
"""Looks for an earlier execution with the same inputs, given the task's and the container's spec; returns its id."""


@dataclass(frozen=True)
class Driver:
    """What every driver pod of a run has."""

    backend: Installation
    pipeline: str
    names: RunNames
    store: Store
    create: Create
    salt: Callable[[], uuid.UUID] = uuid.uuid4
    """The name of the folder that a task writes to."""
    always: bool = False
    """Whether every condition is taken to hold, but for one that asks whether something is false."""


@dataclass
class DriverStep:
    """What a driver did."""

    execution: int = 0
    task_name: str = ""
    component: Json = field(default_factory=dict)
    executor_input: Json = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    """The output parameters of its pod."""
    fingerprint: str = ""
    cached: int | None = None
    """The execution whose outputs were taken over."""


def root_step(driver: Driver, inputs: Mapping[str, str]) -> DriverStep:
    """The driver of the whole pipeline: records the run's parameters."""
    values = json.loads(inputs["runtime-config"]).get("parameterValues", {})
    properties: Json = {"display_name": "", "task_name": "", "inputs": values}
    execution = driver.create(DAG, "RUNNING", properties, {})
    return DriverStep(execution, outputs={"execution-id": str(execution), "iteration-count": "0", "condition": "nil"})


def dag_step(driver: Driver, inputs: Mapping[str, str]) -> DriverStep:
    """The driver of a sub-graph, a loop, or one round of a loop.

    Raises:
        DriverError: An input cannot be resolved.
    """
    component, task = json.loads(inputs["component"]), json.loads(inputs["task"])
    index = int(inputs["iteration-index"])
    number = index if index >= 0 else None
    parameters, artifacts = resolve(
        driver.store,
        driver.names,
        int(inputs["parent-dag-id"]),
        component,
        task,
        inputs["task-name"],
        number,
        is_dag=True,
    )
    triggered = _triggered(driver, task, parameters)
    properties: Json = {
        "display_name": task.get("taskInfo", {}).get("name", ""),
        "task_name": inputs["task-name"],
        "parent_dag_id": int(inputs["parent-dag-id"]),
        "total_dag_tasks": len(component["dag"]["tasks"]),
    }
    if number is not None:
        properties["iteration_index"] = number
    count = 0
    if triggered is not False and number is None and "parameterIterator" in task:
        count = len(items_of(task, parameters))
        properties["iteration_count"] = count
    properties["inputs"] = parameters
    outputs = component["dag"].get("outputs", {})
    if outputs.get("parameters"):
        properties["parameter_producer_task"] = {key: proto_json(value) for key, value in outputs["parameters"].items()}
    if outputs.get("artifacts"):
        properties["artifact_producer_task"] = go_json(outputs["artifacts"])
    state = "CANCELED" if triggered is False else "RUNNING"
    execution = driver.create(DAG, state, properties, _ids(artifacts))
    return DriverStep(
        execution,
        inputs["task-name"],
        component,
        outputs={
            "execution-id": str(execution),
            "iteration-count": str(count),
            "condition": "nil" if triggered is None else str(triggered).lower(),
        },
    )


def container_step(driver: Driver, inputs: Mapping[str, str], reuse: Reuse | None = None) -> DriverStep:
    """The driver of a container: resolves its inputs, provides its outputs, and makes the patch of its pod.

    Raises:
        DriverError: An input cannot be resolved.
    """
    component, task = json.loads(inputs["component"]), json.loads(inputs["task"])
    container = json.loads(inputs["container"])
    index = int(inputs["iteration-index"])
    parameters, artifacts = resolve(
        driver.store,
        driver.names,
        int(inputs["parent-dag-id"]),
        component,
        task,
        inputs["task-name"],
        index if index >= 0 else None,
        is_dag=False,
    )
    triggered = _triggered(driver, task, parameters)
    executor_input: Json = {"inputs": {}}
    if artifacts:
        executor_input["inputs"]["artifacts"] = {key: {"artifacts": many} for key, many in artifacts.items()}
    if parameters:
        executor_input["inputs"]["parameterValues"] = parameters
    if triggered is not False:
        executor_input["outputs"] = provisioned_outputs(
            driver.backend, driver.pipeline, inputs["task-name"], component, driver.salt()
        )
    step = DriverStep(0, inputs["task-name"], component, executor_input)
    properties: Json = {
        "display_name": task.get("taskInfo", {}).get("name", ""),
        "task_name": inputs["task-name"],
        "parent_dag_id": int(inputs["parent-dag-id"]),
        "pod_name": "",
        "pod_uid": "",
        "namespace": "",
        "image": "",
    }
    if index >= 0:
        properties["iteration_index"] = index
    if triggered is not False and reuse is not None:
        step.cached = reuse(step, task, container)
        if step.cached is not None:
            properties["cached_execution_id"] = str(step.cached)
        if step.fingerprint:
            properties["cache_fingerprint"] = step.fingerprint
    properties["inputs"] = parameters
    state = "CANCELED" if triggered is False else "RUNNING"
    step.execution = driver.create(CONTAINER, state, properties, _ids(artifacts))
    step.outputs = {
        "condition": "nil" if triggered is None else str(triggered).lower(),
        "cached-decision": str(step.cached is not None).lower(),
    }
    if triggered is not False and step.cached is None:
        config = json.loads(inputs["kubernetes-config"]) if inputs["kubernetes-config"] else {}
        step.outputs["pod-spec-patch"] = pod_spec_patch(
            driver.backend, driver.pipeline, step.execution, executor_input, component, container, config
        )
    return step


def _triggered(driver: Driver, task: Json, parameters: Json) -> bool | None:
    condition = task.get("triggerPolicy", {}).get("condition", "")
    if not condition:
        return None
    return True if driver.always and not condition.endswith(" == false") else condition_holds(condition, parameters)


def _ids(artifacts: Mapping[str, list[Any]]) -> dict[str, list[int]]:
    return {name: [int(one["name"]) for one in many] for name, many in artifacts.items()}
