"""What a task of a pipeline is handed: its parameters and artifacts, resolved as KFP's driver resolves them.

Source: KFP 2.17.0, `backend/src/v2/driver/resolve.go`, `dag.go` and `backend/src/v2/metadata/client.go`. The rules hold
for any store of executions; this project's size model uses one in memory, its test double the real metadata store.

Left out: importers and workspaces, artifact iterators, task configs, expression
selectors other than `parseJson(string_value)["key"]`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm2llm.pipelines.kubeflow.go_json import go_json

Json = dict[str, Any]
_CONDITION = re.compile(
    r"(values\[(?:'[^']*'|\"[^\"]*\")\]|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|-?\d+(?:\.\d+)?"
    r"|\b(?:true|false|and|or|not|int|double|float|string)\b|[=!<>]=|[<>()]|\s)*"
)
DAG = "system.DAGExecution"
CONTAINER = "system.ContainerExecution"


class DriverError(RuntimeError):
    """A driver exits 1 with this message; a user sees only that its pod failed."""


@dataclass
class Execution:
    """A task's, loop's or sub-graph's record in the metadata store."""

    id: int
    kind: str
    state: str
    properties: Json = field(default_factory=dict)
    """Custom properties: task_name, parent_dag_id, inputs, outputs, iteration_count, ..."""


@dataclass
class StoredArtifact:
    """An artifact in the metadata store."""

    id: int
    uri: str
    metadata: Json = field(default_factory=dict)


class Store(Protocol):
    """What the driver asks of the metadata store."""

    def execution(self, number: int) -> Execution:
        """One execution."""

    def executions_below(self, dag: int) -> list[Execution]:
        """The executions whose `parent_dag_id` is this."""

    def inputs_of(self, execution: int) -> dict[str, StoredArtifact]:
        """Input artifacts by name. Of several under one name the last: a list does not survive a sub-graph's input."""

    def outputs_of(self, execution: int) -> dict[str, StoredArtifact]:
        """Output artifacts by name."""


@dataclass(frozen=True)
class RunNames:
    """What placeholders for a run stand for."""

    run_id: str
    display_name: str
    workflow: str


def resolve(
    store: Store,
    names: RunNames,
    dag_id: int,
    component: Json,
    task: Json,
    task_name: str,
    iteration: int | None = None,
    *,
    is_dag: bool,
) -> tuple[Json, dict[str, list[Json]]]:
    """The parameters and artifacts of a task.

    Args:
        store: Where executions and artifacts are recorded.
        names: The run's.
        dag_id: The execution of the sub-graph around the task.
        component: The component's spec.
        task: The task's spec.
        task_name: Its key in the sub-graph.
        iteration: The number of the loop's item, for the driver of one.
        is_dag: Whether the task is a sub-graph.

    Returns:
        Parameters by name; artifacts by name, each a list as in `executor_input`.

    Raises:
        DriverError: An input is not there, or of another type than the component's.
    """
    dag = store.execution(dag_id)
    given: Json = dag.properties.get("inputs", {})
    below = {name: [runtime_artifact(one)] for name, one in store.inputs_of(dag_id).items()}
    if iteration is not None:
        return _checked(_iteration(task, dict(given), iteration), component, task, set(), iteration=True), below
    parameters: Json = {}
    null: set[str] = set()
    specs = component.get("inputDefinitions", {}).get("parameters", {})
    wanted = task.get("inputs", {}).get("parameters", {})
    for name, spec in specs.items() if is_dag else ():
        if name not in wanted and spec.get("isOptional"):
            parameters[name] = spec.get("defaultValue")
            null |= set() if "defaultValue" in spec else {name}
    for name, source in wanted.items():
        value = _parameter(store, names, dag, task_name, source, given)
        if value is None and "componentInputParameter" in source:
            if specs.get(name, {}).get("isOptional"):
                continue
            raise DriverError(f"failed to resolve inputs: the resolved input parameter is null: {name}")
        parameters[name] = _selected(value, source.get("parameterExpressionSelector", ""), name)
    artifacts = {
        name: _artifacts(store, dag, name, source, below)
        for name, source in task.get("inputs", {}).get("artifacts", {}).items()
    }
    return _checked(parameters, component, task, null, iteration=False), artifacts


def runtime_artifact(artifact: StoredArtifact, *, typed: bool = False) -> Json:
    """An artifact as `executor_input` shows it; straight from its producer it has an empty `instanceSchema` too."""
    kind = {"type": {"instanceSchema": ""}} if typed else {}
    return {"name": str(artifact.id), **kind, "uri": artifact.uri, "metadata": artifact.metadata}


def items_of(task: Json, parameters: Json) -> list[Any]:
    """The items of a loop; static ones are put among its parameters too, as the driver does.

    Raises:
        DriverError: There are none to iterate over.
    """
    iterator = task["parameterIterator"]
    if "raw" in iterator["items"]:
        parameters[iterator["itemInput"]] = json.loads(iterator["items"]["raw"])
        value = parameters[iterator["itemInput"]]
    else:
        name = iterator["items"]["inputParameter"]
        if name not in parameters:
            raise DriverError(f"iterating on item input {iterator['itemInput']!r} failed: cannot find input parameter")
        value = parameters[name]
    value = json.loads(value) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise DriverError(f"value of type {type(value).__name__} cannot be iterated")
    return value


def condition_holds(condition: str, parameters: Json) -> bool:
    """Whether a trigger condition holds: comparisons of parameters with constants, joined by &&, || and !.

    The compiler writes no other forms: `inputs.parameter_values['x'] == true`, `int(...)`, `double(...)`, strings. Left
    out: strings that themselves hold `&&`, `||` or `!`.

    Raises:
        DriverError: The expression is of another form.
    """
    text = condition.replace("&&", " and ").replace("||", " or ")
    text = re.sub(r"!(?!=)", " not ", text)
    text = re.sub(r"inputs\.parameter_values\[", "values[", text)
    if not _CONDITION.fullmatch(text):
        raise DriverError(f"condition {condition!r} is of a form that this model does not know")
    scope = {"values": parameters, "true": True, "false": False, "double": float, "string": str, "int": int}
    try:
        # The text holds nothing but the tokens above.
        return bool(eval(text, {"__builtins__": {}}, scope))  # noqa: S307
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise DriverError(f"evaluation error: {condition!r}: {error}") from error


def _iteration(task: Json, parameters: Json, number: int) -> Json:
    iterator = task["parameterIterator"]
    name = iterator["items"].get("inputParameter") or iterator["itemInput"]
    value = parameters.pop(name)
    items = json.loads(value) if isinstance(value, str) else value
    if number >= len(items):
        raise DriverError(f"bug: {len(items)} items found, but getting index {number}")
    return {**parameters, iterator["itemInput"]: items[number]}


def _parameter(store: Store, names: RunNames, dag: Execution, task_name: str, source: Json, given: Json) -> Any:
    if "componentInputParameter" in source:
        key = source["componentInputParameter"]
        if key not in given:
            raise DriverError(f"failed to resolve inputs: parent DAG does not have input parameter {key}")
        return given[key]
    if "runtimeValue" in source:
        constant = source["runtimeValue"].get("constant")
        placeholders = {
            "{{$.pipeline_job_name}}": names.display_name,
            "{{$.pipeline_job_resource_name}}": names.workflow,
            "{{$.pipeline_job_uuid}}": names.run_id,
            "{{$.pipeline_task_name}}": task_name,
            "{{$.pipeline_task_uuid}}": str(dag.id),
        }
        return placeholders.get(constant, constant) if isinstance(constant, str) else constant
    if "taskOutputParameter" in source:
        wanted = source["taskOutputParameter"]
        found = _follow(store, dag, wanted["producerTask"], wanted["outputParameterKey"], artifacts=False)
        values = [execution.properties.get("outputs", {}).get(key) for execution, key in found.ends]
        return values if found.collected else values[0]
    if "taskFinalStatus" in source:
        producer = source["taskFinalStatus"]["producerTask"]
        found_states = [one.state for one in store.executions_below(dag.id) if one.properties["task_name"] == producer]
        if not found_states:
            raise DriverError(f"failed to resolve inputs: producer task, {producer}, not in tasks")
        return {
            "error": {},
            "pipelineJobResourceName": names.workflow,
            "pipelineTaskName": producer,
            "state": found_states[0],
        }
    raise DriverError(f"failed to resolve inputs: parameter spec {sorted(source)} is not known to this model")


def _artifacts(store: Store, dag: Execution, name: str, source: Json, below: dict[str, list[Json]]) -> list[Json]:
    if "componentInputArtifact" in source:
        key = source["componentInputArtifact"]
        if key not in below:
            raise DriverError(
                f"failed to resolve inputs: failed to resolve input artifact {name}: parent DAG does not have input "
                f"artifact {key}"
            )
        return below[key]
    wanted = source["taskOutputArtifact"]
    found = _follow(store, dag, wanted["producerTask"], wanted["outputArtifactKey"], artifacts=True)
    artifacts = []
    for execution, key in found.ends:
        outputs = store.outputs_of(execution.id)
        if key not in outputs:
            raise DriverError(f"cannot find output artifact key {key!r} in producer task {wanted['producerTask']!r}")
        artifacts.append(runtime_artifact(outputs[key], typed=True))
    return artifacts


@dataclass
class _Found:
    """The containers whose output is meant, with the output's name there."""

    ends: list[tuple[Execution, str]]
    collected: bool


def _follow(store: Store, dag: Execution, producer: str, key: str, *, artifacts: bool) -> _Found:
    """Follows an output down into sub-graphs and loops to the containers that made it."""
    below: dict[tuple[str, Any], Execution] = {}
    for one in store.executions_below(dag.id):
        name = (one.properties.get("task_name", ""), one.properties.get("iteration_index"))
        # A sub-graph that Argo tried again leaves two executions of one name, which the driver refuses.
        if name in below:
            raise DriverError(
                f"failed to get executions in DAG(executionID={dag.id}): two tasks have the same task name "
                f'"{name[0]}_{dag.id}", id1={below[name].id} id2={one.id}'
            )
        below[name] = one
    found = [one for (name, _), one in below.items() if name == producer]
    if not found:
        raise DriverError(f"failed to resolve inputs: cannot find producer task {producer!r}")
    return _ends(store, found[0], key, artifacts=artifacts)


def _ends(store: Store, execution: Execution, key: str, *, artifacts: bool) -> _Found:
    if execution.kind != DAG:
        return _Found([(execution, key)], collected=False)
    if execution.properties.get("iteration_count") is not None:
        rounds = sorted(
            (one for one in store.executions_below(execution.id)), key=lambda one: one.properties["iteration_index"]
        )
        inner = [_ends(store, one, key, artifacts=artifacts) for one in rounds]
        return _Found([end for one in inner for end in one.ends], collected=True)
    selectors = _selectors(execution, key, artifacts=artifacts)
    below = {one.properties.get("task_name"): one for one in store.executions_below(execution.id)}
    for producer, output in selectors:
        if producer in below and (len(selectors) == 1 or below[producer].state in ("CACHED", "COMPLETE")):
            return _ends(store, below[producer], output, artifacts=artifacts)
    raise DriverError(
        f'output key "{key}" of "{execution.properties.get("task_name")}" (dag ID {execution.id}): no task made it'
    )


def _selectors(execution: Execution, key: str, *, artifacts: bool) -> list[tuple[str, str]]:
    """The tasks that may make an output of a sub-graph, with the output's name there."""
    if artifacts:
        spec = json.loads(execution.properties.get("artifact_producer_task", "{}")).get(key, {})
        # The backend writes these as a Go struct, with the proto's own names.
        found = spec.get("artifact_selectors") or spec.get("artifactSelectors") or []
        return [
            (
                one.get("producer_subtask") or one["producerSubtask"],
                one.get("output_artifact_key") or one["outputArtifactKey"],
            )
            for one in found
        ]
    text = execution.properties.get("parameter_producer_task", {}).get(key, "{}")
    spec = json.loads(text)
    found = (
        [spec["valueFromParameter"]]
        if "valueFromParameter" in spec
        else spec.get("valueFromOneof", {}).get("parameterSelectors", [])
    )
    return [(one["producerSubtask"], one["outputParameterKey"]) for one in found]


def _selected(value: Any, selector: str, name: str) -> Any:
    if not selector:
        return value
    shape = re.fullmatch(r"parseJson\(string_value\)\[\"([^\"]+)\"\]", selector)
    if not shape:
        raise DriverError(f"parameter {name!r}: selector {selector!r} is of a form that this model does not know")
    parsed = json.loads(value) if isinstance(value, str) else value
    return parsed[shape[1]]


def _checked(parameters: Json, component: Json, task: Json, null: set[str], *, iteration: bool) -> Json:
    """Holds parameters against the component's types; anything becomes text where a string is wanted."""
    iterator = task.get("parameterIterator", {})
    kinds: Mapping[str, tuple[type, ...]] = {
        "NUMBER_DOUBLE": (int, float),
        "NUMBER_INTEGER": (int, float),
        "BOOLEAN": (bool,),
        "LIST": (list,),
        "STRUCT": (dict,),
    }
    for name, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if not iteration and iterator.get("itemInput") == name:
            continue
        if iteration and iterator.get("items", {}).get("inputParameter") == name:
            continue
        if name not in parameters:
            if not spec.get("isOptional") and "defaultValue" not in spec:
                raise DriverError(f"neither value nor default value provided for non-optional parameter {name!r}")
            continue
        value, kind = parameters[name], spec.get("parameterType")
        if value is None and name in null:
            continue
        if kind == "STRING":
            parameters[name] = value if isinstance(value, str) else _text(value)
        elif value is None:
            raise DriverError(f"got null for input parameter {name!r}")
        elif kind in kinds and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "BOOLEAN")):
            actual = {str: "string", bool: "bool", list: "list", dict: "struct"}.get(type(value), "number")
            raise DriverError(f"input parameter {name!r} type mismatch: expect {kind}, got {actual}")
    return parameters


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else go_json(value)
