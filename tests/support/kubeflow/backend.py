"""A run of a compiled pipeline on the double: driver, launcher and Argo on the real metadata store.

with metadata_store() as store:
    result = run(documents, {"max_iterations": 2}, store=store, pretend=True)
    assert result.state == "Succeeded", result.message

Left out: what pods wait for (images, nodes, queues), resources, volumes and secrets, the API server's own checks of a
run, importers, parallelism
limits, backoff (retries follow at once), and whatever the modules below say that they leave out.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llm2llm.pipelines.kubeflow.driver_step import Driver, DriverStep
from llm2llm.pipelines.kubeflow.predicted_run import last_tasks
from llm2llm.pipelines.kubeflow.task_inputs import DriverError, RunNames
from llm2llm.pipelines.kubeflow.workflow_nodes import PodResult
from llm2llm.pipelines.kubeflow.workflow_size import MAX_ARGUMENT, StoredBytes
from llm2llm.pipelines.kubeflow.workflow_spec import Installation, documents_of, workflow_spec
from tests.support.kubeflow import argo
from tests.support.kubeflow.driver import Cache, drive
from tests.support.kubeflow.launcher import (
    LaunchError,
    Pretend,
    StageInput,
    StageOutput,
    launched,
    pretended,
    run_process,
)
from tests.support.kubeflow.store import MetadataStore

Json = dict[str, Any]

POD_ENV: Mapping[str, str] = {
    "KFP_POD_NAME": "pod",
    "KFP_POD_UID": "uid",
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
}
"""Environment variables of every container, which the kubelet knows when it expands `$(NAME)`."""


@dataclass(frozen=True)
class Pod:
    """A pod about to start, for a fault to choose by."""

    kind: str
    """driver or executor."""
    task: str
    """The task's key; empty for the pipeline's own driver."""
    attempt: int
    """How many pods of this task and kind came before."""


Fault = Callable[[Pod], PodResult | None]
"""Ends a pod in another way: Failed for a container that exits 1 or is killed politely, Error for one that vanished."""


@dataclass
class Result:
    """What became of a run."""

    state: str
    """Succeeded, Failed or Error."""
    message: str
    """Why, in the words of Argo, a driver's log or a stage's."""
    shown: str
    """What the run itself tells a user of it; empty for most failures."""
    failed_task: str
    executions: int
    pods: int
    pods_in_a_row: int
    sizes: list[StoredBytes]
    """The Workflow before and after each pod."""
    stages: list[StageInput] = field(default_factory=list)
    """What each stage that ran received."""
    cached: list[str] = field(default_factory=list)
    """The tasks whose outputs were taken over."""
    not_cached: list[str] = field(default_factory=list)
    pods_of: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Pods by kind and task."""
    nodes: dict[str, Json] = field(default_factory=dict)

    def received(self, task: str) -> Json:
        """The parameters as a stage received them.

        Raises:
            LookupError: It did not run.
        """
        for stage in self.stages:
            if stage.task == task:
                return stage.parameters
        raise LookupError(f"{task} did not run; there ran {', '.join(stage.task for stage in self.stages)}")


def run(
    documents: Sequence[Json],
    parameters: Mapping[str, Any] | None = None,
    *,
    store: MetadataStore,
    cache: Cache | None = None,
    backend: Installation | None = None,
    pretend: bool | Pretend = False,
    fault: Fault | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
    workflow: str = "",
) -> Result:
    """Submits a compiled pipeline and waits for its end.

    Args:
        documents: The documents of the compiled pipeline.
        parameters: The run's parameters.
        store: The metadata store; runs after each other share it, as they share the cache.
        cache: What earlier runs left; None: nothing.
        backend: The installation; None: 2.17 as its manifests ship it.
        pretend: Whether stages only leave outputs: a function chooses them, True guesses them.
        fault: Ends chosen pods in another way.
        env: Environment variables of the stages' processes.
        timeout: The longest that a process may take, in seconds.
        workflow: The Workflow's name; empty: a random one. Nodes are stored in the order of a hash of their names, and
            neighbours compress better, so the same run is 1% larger or smaller under another name.
    """
    pipeline, _ = documents_of(documents)
    name = pipeline["pipelineInfo"]["name"]
    workflow = workflow or f"{name}-{uuid.uuid4().hex[:5]}"
    backend = replace(backend or Installation(), workflow=workflow, run_id=str(uuid.uuid4()))
    cache = cache if cache is not None else Cache()
    store.begin_run(name, backend.run_id, backend.pipeline_root, backend.store_session_info)
    names = RunNames(backend.run_id, backend.run_display_name, workflow)
    driver = Driver(backend, name, names, store, store.create)
    result = Result("", "", "", "", 0, 0, 0, [])
    steps: dict[int, DriverStep] = {}
    last = last_tasks(pipeline)

    def run_pod(template: str, inputs: Mapping[str, str]) -> PodResult:
        is_driver = template.endswith("-driver")
        task = inputs.get("task-name", "") if is_driver else _step(steps, inputs).task_name
        kind = "driver" if is_driver else "executor"
        pod = Pod(kind, task, result.pods_of[kind, task])
        result.pods_of[kind, task] += 1
        broken = fault(pod) if fault else None
        if broken is not None:
            result.failed_task = task
            return broken
        try:
            if is_driver:
                return _drive(template, inputs)
            _launch(_step(steps, inputs), inputs)
        except (DriverError, LaunchError) as error:
            result.failed_task = task
            return PodResult("Failed", message=str(error), exit_code=1)
        return PodResult()

    def _drive(template: str, inputs: Mapping[str, str]) -> PodResult:
        longest = max(len(value.encode()) + 1 for value in inputs.values())
        if longest > MAX_ARGUMENT:
            raise DriverError(f"exec: argument list too long: an argument has {longest} bytes, of {MAX_ARGUMENT}")
        step = drive(driver, store, cache, template, inputs, POD_ENV)
        steps[step.execution] = step
        result.executions += 1
        if template == "system-container-driver" and step.executor_input.get("outputs"):
            (result.cached if step.cached is not None else result.not_cached).append(step.task_name)
        return PodResult(outputs=step.outputs)

    def _launch(step: DriverStep, inputs: Mapping[str, str]) -> None:
        stage = launched(inputs["pod-spec-patch"], step.task_name, POD_ENV)
        result.stages.append(stage)
        made = stage.executor_input["outputs"]["artifacts"]
        uris = {key: many["artifacts"][0]["uri"] for key, many in made.items()}
        try:
            if pretend:
                output = StageOutput() if pretend is True else pretend(stage)
                if output.failed:
                    raise LaunchError(f"{stage.task}: {output.failed}")
                values, metadata = pretended(stage, output, last)
            else:
                values, metadata, written = run_process(stage, env or {}, timeout)
                uris.update(written)
        except LaunchError:
            store.publish(step.execution, "FAILED", None, {})
            update_states(store, step.execution)
            raise
        recorded = {}
        for key, many in made.items():
            defaults = {"display_name": key, "store_session_info": backend.store_session_info}
            kind = many["artifacts"][0]["type"]["schemaTitle"]
            recorded[key] = store.record(key, kind, uris[key], {**defaults, **metadata.get(key, {})})
        store.publish(step.execution, "COMPLETE", values, recorded)
        update_states(store, step.execution)
        if step.fingerprint:
            cache.add(name, step.fingerprint, step.execution)

    ended = argo.run(workflow_spec(documents, backend, parameters), workflow, run_pod)
    result.state, result.message, result.shown = ended.state, ended.message, ended.shown
    result.pods, result.pods_in_a_row, result.sizes = ended.walk.pods, ended.walk.deepest, ended.sizes
    result.nodes = ended.walk.nodes
    return result


def update_states(store: MetadataStore, execution: int) -> None:
    """Brings the states of the sub-graphs around a container up to date, as its launcher does when it has ended.

    Source: KFP 2.17.0, `backend/src/v2/metadata/client.go` (`UpdateDAGExecutionsState`).
    """
    while dag := store.execution(execution).properties.get("parent_dag_id"):
        around = store.execution(dag).properties
        expected = around.get("iteration_count", around.get("total_dag_tasks"))
        if expected is None:  # the run's own
            return
        states = [one.state for one in store.executions_below(dag)]
        if sum(state in ("COMPLETE", "CACHED", "CANCELED") for state in states) == expected:
            store.publish(dag, "COMPLETE", None, {})
        elif "FAILED" in states:
            store.publish(dag, "FAILED", None, {})
        else:
            return
        execution = dag


def _step(steps: Mapping[int, DriverStep], inputs: Mapping[str, str]) -> DriverStep:
    """The driver's step behind an executor's pod."""
    command = json.loads(inputs["pod-spec-patch"])["containers"][0]["command"]
    return steps[int(command[command.index("--execution_id") + 1])]
