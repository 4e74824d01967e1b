"""What Argo does with a Workflow: walks its templates, starts pods, and records each step as a node of the status.

What a pod does is up to a function; so the size model can guess it and a test double can really run it. The nodes are
those of Argo 4: names, ids and order of fields as it stores them, because their size depends on all three.

Source: nodes of a real run (KFP 2.17.0, Argo 4.0.5); Argo's workflow/controller: dag.go, operator.go, exit_handler.go.

Left out: parallelism limits, pods that wait for others, steps templates, artifacts, `when` other than `a != b`.
Tasks that could run at once are walked one after another; `depth` says how many pods had to end before a node could.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from llm2llm.pipelines.kubeflow.go_json import go_struct_json

Json = dict[str, Any]
_TAG = re.compile(r"\{\{([^{}]+)\}\}")
_START = datetime(2026, 11, 28, 16, 35, 48, tzinfo=UTC)


@dataclass(frozen=True)
class PodResult:
    """How a pod ended."""

    phase: str = "Succeeded"
    """Succeeded, Failed (its container exited with another code than 0) or Error (the pod vanished, was never made)."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Its output parameters; what is missing takes the default of its template."""
    message: str = ""
    exit_code: int = 0


RunPod = Callable[[str, Mapping[str, str]], PodResult]
"""Runs a pod of a template (`system-dag-driver`, `system-container-driver`, `...-impl`) with its input parameters."""
Substitute = Callable[[str, Mapping[str, str]], str]
"""Fills the tags of a text from known values."""


@dataclass(frozen=True)
class NodeOutcome:
    """How a template ended."""

    phase: str
    message: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    depth: int = 0
    """Pods that ran one after another until here, this one included."""
    node: str = ""
    """The id of the node that later tasks hang below."""

    @property
    def fulfilled(self) -> bool:
        """Whether `depends: x.Succeeded` holds for it."""
        return self.phase == "Succeeded"


@dataclass
class Walk:
    """One run of a Workflow."""

    spec: Json
    name: str
    run_pod: RunPod
    substitute: Substitute
    observe: Callable[["Walk"], None] = lambda walk: None
    """Called before and after each pod, when Argo stores the nodes; what it raises ends the walk."""
    nodes: dict[str, Json] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """The JSON of nodes that have ended, kept because it is asked for after every pod."""
    pods: int = 0
    deepest: int = 0

    def __post_init__(self) -> None:
        self.templates = {template["name"]: template for template in self.spec["templates"]}
        self.globals = {
            f"workflow.parameters.{one['name']}": str(one["value"]) for one in self.spec["arguments"]["parameters"]
        }
        self.globals["workflow.name"] = self.name
        self.default_retry = self.spec.get("templateDefaults", {}).get("retryStrategy")


def fill(text: str, known: Mapping[str, str]) -> str:
    """Fills `{{name}}` from known values and leaves every other tag as it is."""
    return _TAG.sub(lambda tag: known.get(tag[1].strip(), tag[0]), text)


def node_id(workflow: str, name: str) -> str:
    """The id of a node: the Workflow's name and the 32-bit FNV-1a hash of the node's. Nodes are stored in its order."""
    if name == workflow:
        return name
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{workflow}-{value}"


def run_workflow(walk: Walk) -> NodeOutcome:
    """Runs the entrypoint to its end."""
    return _template(walk, "entrypoint", walk.name, walk.name, "", {}, 0)


def nodes_json(walk: Walk) -> str:
    """`status.nodes` as it is stored, sorted by id."""
    parts = []
    for key in sorted(walk.nodes):
        text = walk.texts.get(key) or go_struct_json(walk.nodes[key])
        if walk.nodes[key]["finishedAt"]:
            walk.texts[key] = text
        parts.append(f'"{key}":{text}')
    return "{" + ",".join(parts) + "}"


def _template(
    walk: Walk, template_name: str, name: str, display: str, boundary: str, arguments: Mapping[str, str], ready: int
) -> NodeOutcome:
    """Runs a template, with the retries that it or the controller's defaults ask for."""
    template = walk.templates[template_name]
    inputs, filled = _inputs(walk, template, arguments)
    # A template's own strategy is laid over the controller's default, so it inherits the default's policy.
    retry = {**(walk.default_retry or {}), **template.get("retryStrategy", {})}
    if not retry:
        return _attempt(walk, template, name, display, boundary, inputs, filled, ready, retried=False)
    limit = int(float(walk.substitute(str(retry.get("limit", "0")), _scoped(filled)) or 0))
    policy = retry.get("retryPolicy", "OnFailure")
    node = _new(walk, "Retry", template_name, name, display, boundary, inputs, ready)
    outcome = NodeOutcome("Error")
    depth = ready
    for attempt in range(limit + 1):
        child = f"{name}({attempt})"
        node.setdefault("children", []).append(node_id(walk.name, child))
        outcome = _attempt(
            walk, template, child, f"{display}({attempt})", boundary, inputs, filled, depth, retried=True
        )
        depth = outcome.depth
        again = {"OnError": ("Error",), "OnFailure": ("Failed",), "Always": ("Error", "Failed")}[policy]
        if outcome.phase not in again:
            break
    last = walk.nodes[node["children"][-1]]
    outputs = last.get("outputs") if last["type"] == "Pod" else None
    _end(walk, node, outcome.phase, outcome.depth, outcome.message, outputs=outputs)
    return NodeOutcome(outcome.phase, outcome.message, outcome.outputs, outcome.depth, outcome.node)


def _attempt(
    walk: Walk,
    template: Json,
    name: str,
    display: str,
    boundary: str,
    inputs: list[Json],
    filled: Mapping[str, str],
    ready: int,
    *,
    retried: bool,
) -> NodeOutcome:
    kind = "DAG" if "dag" in template else "Pod"
    node = _new(walk, kind, template["name"], name, display, boundary, inputs, ready)
    if retried:
        _insert(node, "nodeFlag", {"retried": True}, before=("inputs",))
    if kind == "DAG":
        return _graph(walk, template, node, name, filled, ready)
    walk.observe(walk)
    walk.pods += 1
    result = walk.run_pod(template["name"], filled)
    known = dict(result.outputs)
    outputs: list[Json] = []
    for one in template.get("outputs", {}).get("parameters", []) if result.phase == "Succeeded" else []:
        known.setdefault(one["name"], one["valueFrom"].get("default", ""))
        field_order = {key: one[key] for key in ("default",) if key in one}
        source = {key: one["valueFrom"][key] for key in ("path", "default") if key in one["valueFrom"]}
        outputs.append({"name": one["name"], **field_order, "value": known[one["name"]], "valueFrom": source})
    stored: Json = {"parameters": outputs} if outputs else {}
    if result.phase != "Error":
        stored["exitCode"] = str(result.exit_code)
    node["hostNodeName"] = "node1"
    node["taskResultSynced"] = True
    walk.deepest = max(walk.deepest, ready + 1)
    _end(walk, node, result.phase, ready + 1, result.message, outputs=stored)
    walk.observe(walk)
    return NodeOutcome(result.phase, result.message, known, ready + 1, node["id"])


def _graph(walk: Walk, template: Json, node: Json, name: str, filled: Mapping[str, str], ready: int) -> NodeOutcome:
    """Runs a sub-graph's tasks in the order in which they wait for each other."""
    tasks = {task["name"]: task for task in template["dag"]["tasks"]}
    done: dict[str, NodeOutcome] = {}
    known = _scoped(filled)
    broken: NodeOutcome | None = None
    while len(done) < len(tasks):
        runnable = [key for key, task in tasks.items() if key not in done and set(_waits(task)) <= set(done)]
        # The one whose inputs are there first; so iterations follow each other as they do in a cluster.
        key = min(runnable, key=lambda one: max((done[dep].depth for dep in _waits(tasks[one])), default=ready))
        task, waits = tasks[key], _waits(tasks[key])
        start = max((done[dep].depth for dep in waits), default=ready)
        if broken and start >= broken.depth:
            # Argo starts nothing more in a sub-graph in which a task has failed.
            break
        task_name = f"{name}.{key}"
        for dep in waits:
            _add_child(walk, done[dep].node, node_id(walk.name, task_name))
        if not waits:
            _add_child(walk, node["id"], node_id(walk.name, task_name))
        if not all(done[dep].fulfilled for dep in waits):
            message = f"omitted: depends condition not met: {task['depends']}"
            done[key] = _skipped(walk, task, task_name, node["id"], start, "Omitted", message)
            continue
        done[key] = _task(walk, task, task_name, node["id"], known, start)
        if done[key].phase in ("Failed", "Error"):
            broken = done[key]
        for output, value in done[key].outputs.items():
            known[f"tasks.{key}.outputs.parameters.{output}"] = value
    phase = broken.phase if broken else "Succeeded"
    message = broken.message if broken else ""
    ends = {dep for task in tasks.values() for dep in _waits(task)}
    if phase == "Succeeded":
        node["outboundNodes"] = [done[key].node for key in tasks if key not in ends]
    depth = max((one.depth for one in done.values()), default=ready)
    _end(walk, node, phase, depth, message)
    return NodeOutcome(phase, message, {}, depth, node["id"])


def _task(walk: Walk, task: Json, name: str, boundary: str, known: Mapping[str, str], ready: int) -> NodeOutcome:
    when = walk.substitute(task.get("when", ""), known)
    if when and not _holds(when):
        return _skipped(walk, task, name, boundary, ready, "Skipped", f"when '{when}' evaluated false")
    raw = {
        one["name"]: walk.substitute(str(one.get("value", one.get("default", ""))), {**walk.globals, **known})
        for one in task.get("arguments", {}).get("parameters", [])
    }
    if "withSequence" in task:
        return _sequence(walk, task, name, boundary, known, raw, ready)
    outcome = _template(walk, task["template"], name, task["name"], boundary, raw, ready)
    return _exit_hook(walk, task, name, boundary, known, outcome)


def _sequence(
    walk: Walk, task: Json, name: str, boundary: str, known: Mapping[str, str], raw: Mapping[str, str], ready: int
) -> NodeOutcome:
    """A task for each number below a count, all at once."""
    count = int(walk.substitute(str(task["withSequence"]["count"]), known) or 0)
    group = _new(walk, "TaskGroup", task["template"], name, task["name"], boundary, [], ready)
    group["nodeFlag"] = {}
    outcomes: list[NodeOutcome] = []
    for number in range(count):
        child, display = f"{name}({number}:{number})", f"{task['name']}({number}:{number})"
        group.setdefault("children", []).append(node_id(walk.name, child))
        arguments = {key: value.replace("{{item}}", str(number)) for key, value in raw.items()}
        outcomes.append(_template(walk, task["template"], child, display, boundary, arguments, ready))
    broken = [one for one in outcomes if one.phase in ("Failed", "Error")]
    phase, message = (broken[-1].phase, broken[-1].message) if broken else ("Succeeded", "")
    depth = max((one.depth for one in outcomes), default=ready)
    _end(walk, group, phase, depth, message)
    return NodeOutcome(phase, message, {}, depth, outcomes[0].node if outcomes else group["id"])


def _exit_hook(
    walk: Walk, task: Json, name: str, boundary: str, known: Mapping[str, str], outcome: NodeOutcome
) -> NodeOutcome:
    """Runs the exit task of an ExitHandler, whether what it is for failed or not."""
    hook = task.get("hooks", {}).get("exit")
    if not hook:
        return outcome
    arguments = {
        one["name"]: walk.substitute(one["value"], {**walk.globals, **known}) for one in hook["arguments"]["parameters"]
    }
    _add_child(walk, outcome.node, node_id(walk.name, f"{name}.onExit"))
    ended = _template(
        walk, hook["template"], f"{name}.onExit", f"{task['name']}.onExit", boundary, arguments, outcome.depth
    )
    if ended.phase in ("Failed", "Error") and outcome.fulfilled:
        return ended
    return NodeOutcome(outcome.phase, outcome.message, outcome.outputs, ended.depth, outcome.node)


def _waits(task: Json) -> list[str]:
    """The tasks that a task waits for; `depends` is a list of `x.Succeeded` joined by &&."""
    return [one.strip().removesuffix(".Succeeded") for one in task.get("depends", "").split("&&") if one.strip()]


def _holds(when: str) -> bool:
    left, _, right = when.partition("!=")
    return left.strip() != right.strip()


def _scoped(inputs: Mapping[str, str]) -> dict[str, str]:
    return {f"inputs.parameters.{key}": value for key, value in inputs.items()}


def _inputs(walk: Walk, template: Json, arguments: Mapping[str, str]) -> tuple[list[Json], dict[str, str]]:
    """The input parameters as a node stores them, and their values.

    Argo fills the tags of a whole template, the values of its inputs included: what a user wrote is a template too.
    """
    stored: list[Json] = []
    for one in template.get("inputs", {}).get("parameters", []):
        value = walk.substitute(str(arguments.get(one["name"], one.get("default", ""))), walk.globals)
        default = {"default": one["default"]} if "default" in one else {}
        stored.append({"name": one["name"], **default, "value": value})
    return stored, {one["name"]: one["value"] for one in stored}


def _new(
    walk: Walk, kind: str, template: str, name: str, display: str, boundary: str, inputs: list[Json], ready: int
) -> Json:
    node: Json = {
        "id": node_id(walk.name, name),
        "name": name,
        "displayName": display,
        "type": kind,
        "templateName": template,
        "templateScope": f"local/{walk.name}",
        "phase": "Running" if kind != "Pod" else "Pending",
    }
    if boundary:
        node["boundaryID"] = boundary
    node["startedAt"] = _time(ready)
    node["finishedAt"] = None
    node["progress"] = f"{walk.pods}/{walk.pods + 1}"
    if inputs:
        node["inputs"] = {"parameters": inputs}
    walk.nodes[node["id"]] = node
    return node


def _end(walk: Walk, node: Json, phase: str, depth: int, message: str, outputs: Json | None = None) -> None:
    node["phase"] = phase
    node["finishedAt"] = _time(depth)
    node["progress"] = "1/1" if node["type"] == "Pod" else f"{walk.pods}/{walk.pods}"
    if message:
        _insert(node, "message", message, before=("startedAt",))
    _insert(node, "resourcesDuration", {"cpu": walk.pods % 7, "memory": 40 + walk.pods}, before=("nodeFlag", "inputs"))
    if outputs:
        _insert(node, "outputs", outputs, before=("children", "outboundNodes", "hostNodeName"))


def _skipped(walk: Walk, task: Json, name: str, boundary: str, ready: int, phase: str, message: str) -> NodeOutcome:
    node = _new(walk, "Skipped", task["template"], name, task["name"], boundary, [], ready)
    _end(walk, node, phase, ready, message)
    return NodeOutcome(phase, "", {}, ready, node["id"])


def _insert(node: Json, key: str, value: Any, before: tuple[str, ...]) -> None:
    """Sets a field at the place that it has in Argo's struct."""
    rest = {one: node.pop(one) for one in list(node) if one in before or one in _AFTER.get(key, ())}
    node[key] = value
    node.update(rest)


_AFTER = {
    "message": (
        "finishedAt",
        "progress",
        "resourcesDuration",
        "nodeFlag",
        "inputs",
        "children",
        "hostNodeName",
        "taskResultSynced",
    ),
    "resourcesDuration": ("outputs", "children", "outboundNodes", "hostNodeName", "taskResultSynced"),
    "outputs": ("taskResultSynced",),
    "nodeFlag": ("children",),
}


def _add_child(walk: Walk, parent: str, child: str) -> None:
    if parent in walk.nodes:
        node = walk.nodes[parent]
        walk.texts.pop(parent, None)
        children = [*node.get("children", []), child]
        node.pop("children", None)
        _insert(node, "children", children, before=("outboundNodes", "hostNodeName", "taskResultSynced"))


def _time(depth: int) -> str:
    return (_START + timedelta(seconds=10 * depth)).strftime("%Y-%m-%dT%H:%M:%SZ")
