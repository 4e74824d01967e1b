"""Predicts a run: what the drivers would hand to each pod, with guesses for what stages return."""

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.kubeflow.driver_step import Driver, DriverStep, container_step, dag_step, root_step
from llm2llm.pipelines.kubeflow.go_json import go_json
from llm2llm.pipelines.kubeflow.task_inputs import DriverError, Execution, RunNames, StoredArtifact
from llm2llm.pipelines.kubeflow.workflow_nodes import PodResult, Walk, fill, run_workflow
from llm2llm.pipelines.kubeflow.workflow_spec import Installation, Json, documents_of, workflow_spec

MetadataOf = Callable[[str, str], Json]
"""The metadata that a stage writes for an output: by task name and output name."""


@dataclass
class Notes:
    """What the size model wants to know beside the nodes."""

    arguments: dict[str, int] = field(default_factory=dict)
    """Bytes of the largest arguments, by whose they are."""
    tasks: dict[str, dict[str, int]] = field(default_factory=dict)
    """By task: bytes of `executor_input` (parameters, artifacts, metadata, outputs), of the component's spec, of its
    source, of the whole patch, and of the task's spec."""


@dataclass
class MemoryStore:
    """A metadata store in memory, with the semantics that KFP's client gives the real one."""

    executions: dict[int, Execution] = field(default_factory=dict)
    artifacts: dict[int, StoredArtifact] = field(default_factory=dict)
    events: list[tuple[int, str, str, int]] = field(default_factory=list)
    """Execution, INPUT or OUTPUT, name, artifact."""

    def execution(self, number: int) -> Execution:
        """One execution."""
        return self.executions[number]

    def executions_below(self, dag: int) -> list[Execution]:
        """The executions of a sub-graph."""
        return [one for one in self.executions.values() if one.properties.get("parent_dag_id") == dag]

    def inputs_of(self, execution: int) -> dict[str, StoredArtifact]:
        """Input artifacts by name, of several under one name the last."""
        return {n: self.artifacts[a] for e, kind, n, a in self.events if e == execution and kind == "INPUT"}

    def outputs_of(self, execution: int) -> dict[str, StoredArtifact]:
        """Output artifacts by name."""
        return {n: self.artifacts[a] for e, kind, n, a in self.events if e == execution and kind == "OUTPUT"}

    def create(self, kind: str, state: str, properties: Json, inputs: Mapping[str, Sequence[int]]) -> int:
        """Records an execution and its input events."""
        number = len(self.executions) + 1
        self.executions[number] = Execution(number, kind, state, properties)
        self.events += [(number, "INPUT", name, one) for name, ids in inputs.items() for one in ids]
        return number

    def publish(self, execution: int, state: str, outputs: Json, artifacts: Mapping[str, tuple[str, Json]]) -> None:
        """Ends an execution with its outputs: artifacts by name, with URI and metadata."""
        self.executions[execution].state = state
        self.executions[execution].properties["outputs"] = outputs
        for name, (uri, metadata) in artifacts.items():
            number = len(self.artifacts) + 1
            self.artifacts[number] = StoredArtifact(number, uri, metadata)
            self.events.append((execution, "OUTPUT", name, number))


def predicted_walk(
    documents: Sequence[Json],
    backend: Installation,
    parameters: Mapping[str, Any] | None,
    *,
    metadata_bytes: int,
    metadata: MetadataOf | None,
    outputs: Mapping[str, Any] | None,
) -> tuple[Walk, Notes]:
    """Walks a pipeline's Workflow to its end, every iteration in it.

    Raises:
        UserError: A task cannot be given its inputs.
    """
    pipeline, _ = documents_of(documents)
    store, notes = MemoryStore(), Notes()
    name = pipeline["pipelineInfo"]["name"]
    names = RunNames(backend.run_id, backend.run_display_name, backend.workflow)
    driver = Driver(backend, name, names, store, store.create, _salts(), always=True)
    last = last_tasks(pipeline)
    given: dict[str, DriverStep] = {}

    def run_pod(template: str, inputs: Mapping[str, str]) -> PodResult:
        try:
            if template == "system-dag-driver":
                step = root_step(driver, inputs) if inputs["driver-type"] == "ROOT_DAG" else dag_step(driver, inputs)
                _note_arguments(notes, f"the inputs of the driver of {inputs['task-name'] or 'the pipeline'}", inputs)
                return PodResult(outputs=step.outputs)
            if template == "system-container-driver":
                step = container_step(driver, inputs)
                given[step.outputs.get("pod-spec-patch", "")] = step
                _note_arguments(notes, f"the inputs of the driver of {inputs['task-name']}", inputs)
                _note_task(notes, step, inputs)
                return PodResult(outputs=step.outputs)
        except DriverError as error:
            raise UserError(f"{inputs.get('task-name') or 'the pipeline'}: {error}") from error
        step = given[inputs["pod-spec-patch"]]
        _publish(store, step, backend, metadata_bytes, metadata, outputs or {}, last)
        return PodResult()

    walk = Walk(workflow_spec(documents, backend, parameters), backend.workflow, run_pod, fill)
    outcome = run_workflow(walk)
    if outcome.phase != "Succeeded":
        raise UserError(f"the pipeline would not run: {outcome.message}")
    return walk, notes


def guessed_output(kind: str, is_last: bool) -> Any:
    """What a task is taken to return for an output parameter of a type; `is_last`: it is one of `last_tasks`."""
    return {
        "BOOLEAN": not is_last,
        "NUMBER_INTEGER": 1,
        "NUMBER_DOUBLE": 1.0,
        "LIST": [],
        "STRUCT": {},
    }.get(kind, _text(kind, 100))


def _publish(
    store: MemoryStore,
    step: DriverStep,
    backend: Installation,
    metadata_bytes: int,
    metadata: MetadataOf | None,
    outputs: Mapping[str, Any],
    last: set[str],
) -> None:
    """Ends a container's execution as its launcher would."""
    component = step.component.get("executorLabel", "").removeprefix("exec-")
    definitions = step.component.get("outputDefinitions", {})
    values = {}
    for name, spec in definitions.get("parameters", {}).items():
        known = outputs.get(f"{component}.{name}", outputs.get(name))
        guess = guessed_output(spec.get("parameterType", ""), step.task_name in last)
        values[name] = guess if known is None else known
    artifacts = {}
    for name, artifact in step.executor_input["outputs"]["artifacts"].items():
        fields = {"display_name": name, "store_session_info": backend.store_session_info}
        if name != "executor-logs":
            fields |= metadata(step.task_name, name) if metadata else _guessed_metadata(artifact, metadata_bytes)
        artifacts[name] = (artifact["artifacts"][0]["uri"], fields)
    store.publish(step.execution, "COMPLETE", values, artifacts)


def last_tasks(pipeline: Json) -> set[str]:
    """The tasks after which the run can only end: there are sub-graphs for what they return if it is false alone."""
    wanted: dict[str, set[str]] = {}
    for component in [pipeline["root"], *pipeline["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            condition = task.get("triggerPolicy", {}).get("condition", "")
            for value in task.get("inputs", {}).get("parameters", {}).values() if condition else ():
                if "taskOutputParameter" in value:
                    made_by = value["taskOutputParameter"]["producerTask"]
                    wanted.setdefault(made_by, set()).add(condition.rpartition(" == ")[2])
    return {name for name, values in wanted.items() if values == {"false"}}


def _guessed_metadata(artifact: Json, size: int) -> Json:
    """Metadata of about `size` bytes as JSON: the kind, rows and a hash, the rest of the hash's kind."""
    uri = artifact["artifacts"][0]["uri"]
    fields: Json = {"kind": "predictions", "rows": 1200, "version": 5}
    rest = size - len(go_json(fields)) - len(',"sha256":""')
    return {**fields, "sha256": _text(uri, rest)} if rest > 0 else fields


def _text(seed: str, length: int) -> str:
    """A text that compresses like hashes do."""
    parts = (hashlib.sha256(f"{seed}{number}".encode()).hexdigest() for number in range(length // 64 + 1))
    return "".join(parts)[:length]


def _salts() -> Callable[[], uuid.UUID]:
    """Folder names as random as the driver's, and the same each time."""
    numbers = iter(range(1 << 30))
    return lambda: uuid.UUID(hashlib.md5(str(next(numbers)).encode(), usedforsecurity=False).hexdigest())


def _note_arguments(notes: Notes, whose: str, inputs: Mapping[str, str]) -> None:
    notes.arguments[whose] = max(len(value.encode()) + 1 for value in inputs.values())


def _note_task(notes: Notes, step: DriverStep, inputs: Mapping[str, str]) -> None:
    if not step.executor_input:
        return
    given = step.executor_input.get("inputs", {})
    artifacts = given.get("artifacts", {})
    metadata = sum(len(go_json(one["metadata"])) for many in artifacts.values() for one in many["artifacts"])
    whole = len(go_json(step.executor_input).encode())
    notes.arguments[f"what {step.task_name} is handed (executor_input)"] = whole + 1
    parts = {
        "task_spec": len(inputs["task"]),
        "component_spec": len(inputs["component"]),
        "source": len(inputs["container"]),
        "kubernetes": len(inputs["kubernetes-config"]),
        "executor_input": whole,
        "parameters": len(go_json(given.get("parameterValues", {}))),
        "artifacts": len(go_json(artifacts)) - metadata,
        "metadata": metadata,
        "outputs": len(go_json(step.executor_input.get("outputs", {}))),
        "patch": len(step.outputs.get("pod-spec-patch", "")),
        "count": 1,
        "artifact_count": sum(len(many["artifacts"]) for many in artifacts.values()),
    }
    known = notes.tasks.setdefault(step.task_name, dict.fromkeys(parts, 0))
    for key, value in parts.items():
        known[key] += value
