"""A compiled pipeline as the Argo Workflow that Kubeflow's API server makes of it.

Source: KFP 2.15 to 2.17, `backend/src/v2/compiler/argocompiler` and `apiserver/template/v2_template.go`.

Left out, because no pipeline of this project has it: importers, workspaces, pipeline TTLs, CA bundles, proxies, TLS.
"""

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.kubeflow import workflow_templates as templates
from llm2llm.pipelines.kubeflow.go_json import go_json

Json = dict[str, Any]
Version = Literal["2.15", "2.16", "2.17"]
VERSIONS: tuple[Version, ...] = ("2.15", "2.16", "2.17")


@dataclass(frozen=True)
class Installation:
    """What a Kubeflow installation adds to a pipeline: names, addresses and defaults, as its manifests ship them."""

    version: Version = "2.17"
    workflow: str = "pipeline-abcde"
    """The Workflow's name: the pipeline's and five random characters."""
    namespace: str = "kubeflow"
    run_id: str = "6b6bb241-f8ef-4d6d-b96b-962f0292b093"
    run_display_name: str = "run"
    pipeline_root: str = "s3://mlpipeline/v2/artifacts"
    launcher_image: str = ""
    """Empty: that of the version."""
    driver_image: str = ""
    service_account: str = "pipeline-runner"
    store_session_info: str = (
        '{"Provider":"s3","Params":{"accessKeyKey":"accesskey","disableSSL":"true",'
        '"endpoint":"http://seaweedfs.kubeflow:9000","forcePathStyle":"true","fromEnv":"false","maxRetries":"5",'
        '"region":"minio","secretKeyKey":"secretkey","secretName":"mlpipeline-minio-artifact"}}'
    )
    """How the launcher reaches object storage; it is in the metadata of every artifact."""
    template_retry: Mapping[str, str] | None = None
    """`templateDefaults.retryStrategy` of the administrator; None: that of the version's manifests."""

    @property
    def retry_of_templates(self) -> Mapping[str, str] | None:
        """The retry strategy of every template that has none of its own.

        Source: 2.17's workflow-controller-configmap-patch.yaml; 2.15 and 2.16 have no workflowDefaults.
        """
        if self.template_retry is not None:
            return self.template_retry
        return {"limit": "2", "retryPolicy": "OnError"} if self.version == "2.17" else None


def documents_of(documents: Sequence[Json]) -> tuple[Json, Json]:
    """The pipeline spec and the Kubernetes platform spec (empty when there is none) of a compiled pipeline's documents.

    Raises:
        UserError: There is no pipeline spec among them.
    """
    pipeline = next((one for one in documents if one and "pipelineInfo" in one), None)
    if pipeline is None:
        raise UserError("this is no compiled pipeline: no document has pipelineInfo; compile it with `llm2llm compile`")
    platform = next((one for one in documents if one and "platforms" in one), {})
    return deepcopy(dict(pipeline)), deepcopy(dict(platform.get("platforms", {}).get("kubernetes", {})))


def parameter_values(pipeline: Json, parameters: Mapping[str, Any] | None) -> Json:
    """The run's parameters with the pipeline's defaults filled in, as the API server does."""
    values = dict(parameters or {})
    for name, spec in pipeline["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        if name not in values:
            if "defaultValue" in spec:
                values[name] = spec["defaultValue"]
            elif spec.get("isOptional"):
                values[name] = None
    return values


def runtime_config(pipeline: Json, parameters: Mapping[str, Any] | None) -> str:
    """The `runtime-config` argument of the first driver: every parameter of the run, as JSON."""
    return go_json({"parameterValues": parameter_values(pipeline, parameters)})


@dataclass
class _Compiler:
    """The state of one compilation."""

    backend: Installation
    pipeline: Json
    kubernetes: Json
    arguments: list[Json]
    templates: list[Json]
    visited: set[str]

    def __post_init__(self) -> None:
        self.components: Json = self.pipeline.get("components", {})
        self.executors: Json = self.pipeline.get("deploymentSpec", {}).get("executors", {})

    def component(self, name: str) -> Json:
        found: Json = self.pipeline["root"] if name == "root" else self.components[name]
        return found

    def container(self, name: str) -> Json:
        found: Json = self.executors[self.component(name)["executorLabel"]]["container"]
        return found

    def hashed(self, name: str) -> str:
        """A component's key: the hash of its container, so that components with the same one share a spec."""
        label = "" if name == "root" else self.components[name].get("executorLabel", "")
        if label and "container" in self.executors.get(label, {}):
            return hashlib.sha256(go_json(self.executors[label]["container"]).encode()).hexdigest()
        return name

    def save(self, name: str, value: Any) -> None:
        """The first to be saved under a name stays: a later component of the same container is handed its spec."""
        if not any(argument["name"] == name for argument in self.arguments):
            self.arguments.append({"name": name, "value": go_json(value)})

    def use(self, name: str) -> str:
        return f"{{{{workflow.parameters.{name}}}}}" if any(a["name"] == name for a in self.arguments) else ""

    def add(self, template: Json) -> str:
        """Adds a template of which Kubeflow's compiler looks first whether it is there."""
        if not any(known["name"] == template["name"] for known in self.templates):
            self.templates.append(template)
        return str(template["name"])

    def add_new(self, template: Json) -> str:
        """Adds a template of a sub-graph, whose name must be new."""
        if any(known["name"] == template["name"] for known in self.templates):
            raise UserError(f'template name="{template["name"]}": template already exists')
        self.templates.append(template)
        return str(template["name"])

    def kubernetes_config(self, component: str) -> Json:
        label = self.component(component).get("executorLabel", "")
        found: Json = self.kubernetes.get("deploymentSpec", {}).get("executors", {}).get(label, {})
        return found


def workflow_spec(
    documents: Sequence[Json], backend: Installation, parameters: Mapping[str, Any] | None = None
) -> Json:
    """The `spec` of the Workflow as it is stored, defaults of the controller included.

    Args:
        documents: The documents of a compiled pipeline.
        backend: The Kubeflow that it is sent to.
        parameters: The run's parameters; what is missing comes from the pipeline's defaults.

    Raises:
        UserError: The documents hold no pipeline, one with executors other than containers, or one that the API server
            refuses because two sub-graphs would have templates of one name.
    """
    pipeline, kubernetes = documents_of(documents)
    for label, executor in pipeline.get("deploymentSpec", {}).get("executors", {}).items():
        if "container" not in executor:
            raise UserError(f"{label}: only container executors are supported; it has {', '.join(executor)}")
    compiler = _Compiler(backend, pipeline, kubernetes, [], [], set())
    _visit(compiler, "root", None)
    compiler.add(templates.dag_driver(backend, pipeline["pipelineInfo"]["name"]))
    entry = [
        templates.dag_driver_task(
            "root-driver",
            component=compiler.use("components-root"),
            runtime_config=runtime_config(pipeline, parameters),
        ),
        {
            "name": "root",
            "template": "root",
            "depends": "root-driver.Succeeded",
            "arguments": {
                "parameters": [
                    {"name": "parent-dag-id", "value": "{{tasks.root-driver.outputs.parameters.execution-id}}"},
                    {"name": "condition", "value": ""},
                ]
            },
        },
    ]
    compiler.add_new(templates.dag("entrypoint", entry, inputs=()))
    spec: Json = {
        "arguments": {"parameters": compiler.arguments},
        "entrypoint": "entrypoint",
        "podMetadata": {
            "annotations": {"pipelines.kubeflow.org/v2_component": "true"},
            "labels": {"pipeline/runid": backend.run_id, "pipelines.kubeflow.org/v2_component": "true"},
        },
        "serviceAccountName": backend.service_account,
        "templates": compiler.templates,
    }
    if backend.version != "2.15":
        spec["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if backend.retry_of_templates is not None:
        spec["templateDefaults"] = {
            "inputs": {},
            "metadata": {},
            "outputs": {},
            "retryStrategy": dict(backend.retry_of_templates),
        }
    if backend.version == "2.17":
        names = ("secondsAfterCompletion", "secondsAfterFailure", "secondsAfterSuccess")
        spec["ttlStrategy"] = dict.fromkeys(names, 3600)
    return spec


def _visit(compiler: _Compiler, name: str, around: Json | None) -> None:
    """Compiles a component, its tasks' components first, each once."""
    if name in compiler.visited:
        return
    compiler.visited.add(name)
    component = compiler.component(name)
    if "executorLabel" in component:
        config = compiler.kubernetes_config(name)
        if config:
            compiler.save(f"kubernetes-{name}", config)
        compiler.save(f"components-{compiler.hashed(name)}", component)
        compiler.save(f"implementations-{compiler.hashed(name)}", compiler.container(name))
        return
    tasks: Json = component["dag"]["tasks"]
    for key in sorted(tasks):
        # A task without a retry policy of its own takes that of the sub-graph around it.
        if around and "retryPolicy" in around and "retryPolicy" not in tasks[key]:
            tasks[key]["retryPolicy"] = around["retryPolicy"]
        _visit(compiler, tasks[key]["componentRef"]["name"], tasks[key])
    _graph(compiler, name, component)


def _graph(compiler: _Compiler, name: str, component: Json) -> None:
    """Adds the template of a sub-graph, and those of its loops and exit tasks."""
    tasks: Json = component["dag"]["tasks"]
    _add_implicit_dependencies(tasks)
    compiler.save(f"components-{compiler.hashed(name)}", component)
    parent = "{{inputs.parameters.parent-dag-id}}"
    exit_templates: dict[str, str] = {}
    for key in sorted(tasks):
        if _is_exit_task(tasks[key]):
            exit_name = f"exit-hook-{name}-{key}"
            exit_templates.update(dict.fromkeys(tasks[key].get("dependentTasks", []), exit_name))
            compiler.add_new(templates.dag(exit_name, _tasks(compiler, key, tasks[key], parent)))
    inside: list[Json] = []
    for key in sorted(tasks):
        if not _is_exit_task(tasks[key]):
            inside += _tasks(compiler, key, tasks[key], parent, exit_template=exit_templates.get(key, ""))
    compiler.add_new(templates.dag(name, inside))


def _is_exit_task(task: Json) -> bool:
    return bool(task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED")


def _add_implicit_dependencies(tasks: Json) -> None:
    for task in tasks.values():
        needed = set(task.get("dependentTasks", []))
        for value in task.get("inputs", {}).get("parameters", {}).values():
            needed |= {value["taskOutputParameter"]["producerTask"]} if "taskOutputParameter" in value else set()
        for value in task.get("inputs", {}).get("artifacts", {}).values():
            needed |= {value["taskOutputArtifact"]["producerTask"]} if "taskOutputArtifact" in value else set()
        if needed:
            task["dependentTasks"] = sorted(needed)


def _depends(names: Sequence[str]) -> str:
    return " && ".join(f"{name}.Succeeded" for name in names)


def _tasks(
    compiler: _Compiler,
    name: str,
    task: Json,
    parent: str,
    *,
    iteration: str = "",
    exit_template: str = "",
    task_name: str = "",
) -> list[Json]:
    """Argo's tasks for one task of a pipeline: a driver and what it starts, or a loop."""
    component_name = task["componentRef"]["name"]
    text = go_json(task)
    if "parameterIterator" in task and not iteration:
        return _loop(compiler, name, task, text, parent)
    driver_name = f"{name}-driver"
    component = compiler.use(f"components-{compiler.hashed(component_name)}")
    condition = task.get("triggerPolicy", {}).get("condition", "")
    waits = _depends(task.get("dependentTasks", [])) if not iteration and not _is_exit_task(task) else ""
    output = f"{{{{tasks.{driver_name}.outputs.parameters.%s}}}}"
    when = {"when": f"{output % 'condition'} != false"} if condition else {}
    hooks = {"hooks": templates.exit_hook(exit_template, parent)} if exit_template else {}
    if "dag" in compiler.component(component_name):
        compiler.add(templates.dag_driver(compiler.backend, compiler.pipeline["pipelineInfo"]["name"]))
        driver = templates.dag_driver_task(
            driver_name,
            component=component,
            iteration=iteration,
            parent=parent,
            task=text,
            task_name=task_name or name,
        )
        run: Json = {
            "name": name,
            "template": component_name,
            "depends": _depends([driver_name]),
            "arguments": {
                "parameters": [
                    {"name": "parent-dag-id", "value": output % "execution-id"},
                    {"name": "condition", "value": output % "condition"},
                ]
            },
        }
    else:
        key = compiler.hashed(component_name)
        compiler.add(templates.container_driver(compiler.backend, compiler.pipeline["pipelineInfo"]["name"]))
        driver = templates.container_driver_task(
            driver_name,
            component=component,
            task=text,
            container=compiler.use(f"implementations-{key}"),
            task_name=task_name or name,
            parent=parent,
            iteration=iteration,
            kubernetes=compiler.use(f"kubernetes-{component_name}"),
        )
        metadata = compiler.kubernetes_config(component_name).get("podMetadata")
        retry = task.get("retryPolicy")
        for template in templates.container_executor(compiler.backend, retry, metadata):
            compiler.add(template)
        run = templates.container_executor_task(
            name, output % "pod-spec-patch", output % "cached-decision", retry, metadata
        )
        run["depends"] = _depends([driver_name])
    if waits:
        driver["depends"] = waits
    return [driver, {**run, **when, **hooks}]


def _loop(compiler: _Compiler, name: str, task: Json, text: str, parent: str) -> list[Json]:
    """A ParallelFor: a driver that counts its items, and a sub-graph for each."""
    component_name = task["componentRef"]["name"]
    compiler.add(templates.dag_driver(compiler.backend, compiler.pipeline["pipelineInfo"]["name"]))
    driver = templates.dag_driver_task(
        "iteration-driver",
        component=compiler.use(f"components-{compiler.hashed(component_name)}"),
        parent=parent,
        task=text,
        task_name=name,
    )
    item = _tasks(
        compiler,
        "iteration-item",
        task,
        "{{inputs.parameters.parent-dag-id}}",
        iteration="{{inputs.parameters.iteration-index}}",
        task_name=name,
    )
    inside = templates.dag(f"{component_name}-iteration", item, inputs=("parent-dag-id", "iteration-index"))
    compiler.add_new(inside)
    output = "{{tasks.iteration-driver.outputs.parameters.%s}}"
    items: Json = {
        "name": "iteration-iterations",
        "template": inside["name"],
        "depends": "iteration-driver.Succeeded",
        "arguments": {
            "parameters": [
                {"name": "parent-dag-id", "value": output % "execution-id"},
                {"name": "iteration-index", "value": "{{item}}"},
            ]
        },
        "withSequence": {"count": output % "iteration-count"},
    }
    if task.get("triggerPolicy", {}).get("condition"):
        items["when"] = f"{output % 'condition'} != false"
    loop = templates.dag(f"{component_name}-{name}-iterator", [driver, items])
    limit = task.get("iteratorPolicy", {}).get("parallelismLimit")
    if limit:
        loop["parallelism"] = limit
    compiler.add_new(loop)
    around: Json = {
        "name": name,
        "template": loop["name"],
        "arguments": {"parameters": [{"name": "parent-dag-id", "value": parent}]},
    }
    if task.get("dependentTasks"):
        around["depends"] = _depends(task["dependentTasks"])
    return [around]
