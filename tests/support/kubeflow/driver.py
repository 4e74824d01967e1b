"""KFP's driver pods on the real metadata store, with the cache.

What a task is handed is the product's own model (`driver_step`, `task_inputs`); here it reads from and writes to the
real store, looks into the cache, and fails with the driver's own messages.
Source: KFP 2.17.0, `backend/src/v2/driver/{container,cache}.go` and `backend/src/v2/cacheutils/cache.go`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm2llm.pipelines.kubeflow.driver_step import Driver, DriverStep, container_step, dag_step, root_step
from llm2llm.pipelines.kubeflow.go_json import go_json
from llm2llm.pipelines.kubeflow.task_inputs import CONTAINER, DriverError
from tests.support.kubeflow.store import MetadataStore, StoreError
from tests.support.kubeflow.texts import kubelet

Json = dict[str, Any]


@dataclass
class Cache:
    """What the API server remembers of finished tasks: by fingerprint and pipeline, the latest execution."""

    entries: dict[tuple[str, str], int] = field(default_factory=dict)

    def find(self, pipeline: str, fingerprint: str) -> int | None:
        """The execution with this fingerprint in runs of this pipeline."""
        return self.entries.get((pipeline, fingerprint))

    def add(self, pipeline: str, fingerprint: str, execution: int) -> None:
        """Remembers a finished execution."""
        self.entries[pipeline, fingerprint] = execution


def fingerprint(step: DriverStep, container: Json, claims: list[str]) -> str:
    """The cache's key: input artifacts by the store's ids, parameters, outputs, command and image.

    Args:
        step: The task with what it is handed.
        container: Its container.
        claims: The volume claims that it mounts.
    """
    given, made = step.executor_input["inputs"], step.executor_input["outputs"]
    definitions = step.component.get("outputDefinitions", {}).get("parameters", {})
    key = {
        "inputArtifactNames": {
            name: {"artifactNames": [one["name"] for one in many["artifacts"]]}
            for name, many in given.get("artifacts", {}).items()
        },
        "inputParameterValues": given.get("parameterValues", {}),
        "outputArtifactsSpec": {
            name: {field: value for field, value in many["artifacts"][0].items() if field != "uri"}
            for name, many in made["artifacts"].items()
        },
        "outputParametersSpec": {name: definitions[name]["parameterType"] for name in made.get("parameters", {})},
        "containerSpec": {
            "image": container["image"],
            "cmdArgs": [*container.get("command", []), *container.get("args", [])],
            "pvcNames": sorted(set(claims)),
        },
    }
    # protojson leaves out what is empty.
    return hashlib.sha256(go_json({name: value for name, value in key.items() if value}).encode()).hexdigest()


def drive(
    driver: Driver, store: MetadataStore, cache: Cache, template: str, inputs: Mapping[str, str], env: Mapping[str, str]
) -> DriverStep:
    """Runs a driver pod.

    Args:
        driver: The run's.
        store: The metadata store.
        cache: What earlier runs left.
        template: The pod's template, `system-dag-driver` or `system-container-driver`.
        inputs: Its input parameters; the kubelet expands each, as they are arguments of the container.
        env: The environment of the container.

    Raises:
        DriverError: The driver exits 1, with this in its log.
    """
    expanded = {name: kubelet(value, env) for name, value in inputs.items()}
    try:
        if template == "system-container-driver":
            return _container(driver, store, cache, expanded)
        return root_step(driver, expanded) if expanded["driver-type"] == "ROOT_DAG" else dag_step(driver, expanded)
    except StoreError as error:
        raise DriverError(str(error)) from error


def _container(driver: Driver, store: MetadataStore, cache: Cache, inputs: Mapping[str, str]) -> DriverStep:
    config = json.loads(inputs["kubernetes-config"]) if inputs["kubernetes-config"] else {}
    claims = [str(one.get("constant", "")) for one in config.get("pvcMount", [])]

    def reuse(step: DriverStep, task: Json, container: Json) -> int | None:
        if not task.get("cachingOptions", {}).get("enableCache"):
            return None
        step.fingerprint = fingerprint(step, container, claims)
        return cache.find(driver.pipeline, step.fingerprint)

    try:
        step = container_step(driver, inputs, reuse)
    except StoreError as error:
        if error.code != "ALREADY_EXISTS":
            raise
        # The driver takes any ALREADY_EXISTS for an execution of its own from an earlier try, and looks for that.
        if store.by_name(CONTAINER, "") is None:
            raise DriverError(
                f'failed to lookup existing execution: no execution found for type="{CONTAINER}", name=""'
            ) from error
        raise
    if step.cached is not None:
        earlier = store.execution(step.cached)
        artifacts = store.outputs_of(step.cached)
        missing = [name for name in step.executor_input["outputs"]["artifacts"] if name not in artifacts]
        if missing:
            raise DriverError(f"unable to find artifact with name {missing[0]} in mlmd output artifacts")
        found = {name: artifacts[name].id for name in step.executor_input["outputs"]["artifacts"]}
        store.publish(step.execution, "CACHED", earlier.properties.get("outputs", {}), found)
    return step
