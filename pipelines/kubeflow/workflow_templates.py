"""The templates of a Workflow that KFP adds to every pipeline: drivers, executors, and the tasks that call them.

Source: `container.go`, `dag.go`, `common.go` and `security_context.go` of KFP's argocompiler, 2.15 to 2.17.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm2llm.pipelines.kubeflow.workflow_spec import Installation

Json = dict[str, Any]

SERVER = ("ml-pipeline.kubeflow.svc.cluster.local", "8887")
METADATA_STORE = ("metadata-grpc-service.kubeflow.svc.cluster.local", "8080")
_RELEASES = {"2.15": "2.15.0", "2.16": "2.16.1", "2.17": "2.17.0"}
_DRIVER_RESOURCES = {"limits": {"cpu": "500m", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}}
_SCRATCH = ("gcs", "s3", "minio", ".local", ".cache", ".config")
_RETRY = {
    "retry-max-count": "maxRetryCount",
    "retry-backoff-duration": "backoffDuration",
    "retry-backoff-factor": "backoffFactor",
    "retry-backoff-max-duration": "backoffMaxDuration",
}


def driver_image(backend: "Installation") -> str:
    """The image of the drivers."""
    return backend.driver_image or f"ghcr.io/kubeflow/kfp-driver:{_RELEASES[backend.version]}"


def launcher_image(backend: "Installation") -> str:
    """The image of the init container that brings the launcher into each stage's pod."""
    return backend.launcher_image or f"ghcr.io/kubeflow/kfp-launcher:{_RELEASES[backend.version]}"


def dag(name: str, tasks: Sequence[Json], inputs: Sequence[str] = ("parent-dag-id",)) -> Json:
    """A template of a sub-graph."""
    return {
        "dag": {"tasks": list(tasks)},
        "inputs": {"parameters": [{"name": one} for one in inputs]} if inputs else {},
        "metadata": {"annotations": _annotations("")},
        "name": name,
        "outputs": {},
    }


def dag_driver_task(
    name: str,
    *,
    component: str,
    iteration: str = "",
    parent: str = "",
    task: str = "",
    task_name: str = "",
    runtime_config: str = "",
) -> Json:
    """Argo's task for the driver of a sub-graph."""
    given = [("component", component)]
    given += [("iteration-index", iteration)] if iteration else []
    given += [("parent-dag-id", parent)] if parent else []
    given += [("runtime-config", runtime_config), ("driver-type", "ROOT_DAG")] if runtime_config else []
    given += [("task", task)] if task else []
    given += [("task-name", task_name)] if task_name else []
    return {
        "name": name,
        "template": "system-dag-driver",
        "arguments": {"parameters": [{"name": key, "value": value} for key, value in given]},
    }


def container_driver_task(
    name: str,
    *,
    component: str,
    task: str,
    container: str,
    task_name: str,
    parent: str,
    iteration: str,
    kubernetes: str,
) -> Json:
    """Argo's task for the driver of a container."""
    given = [
        ("component", component),
        ("task", task),
        ("container", container),
        ("task-name", task_name),
        ("parent-dag-id", parent),
    ]
    given += [("iteration-index", iteration)] if iteration else []
    given += [("kubernetes-config", kubernetes)] if kubernetes else []
    return {
        "name": name,
        "template": "system-container-driver",
        "arguments": {"parameters": [{"name": key, "value": value} for key, value in given]},
    }


def container_executor_task(
    name: str,
    patch: str,
    cached: str,
    retry: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
) -> Json:
    """Argo's task that starts a container with the patch that its driver made."""
    parameters: list[Json] = [
        {"name": "pod-spec-patch", "value": patch},
        {"default": "false", "name": "cached-decision", "value": cached},
        *({"name": key, "value": value} for key, value in _pod_metadata(metadata)),
    ]
    for key, field in _RETRY.items():
        if retry is not None and (field in retry or field == "maxRetryCount"):
            value = retry.get(field, 0)
            parameters.append({"name": key, "value": str(value).removesuffix("s").removesuffix(".0")})
    return {"name": name, "template": _executor_name(retry, metadata), "arguments": {"parameters": parameters}}


def exit_hook(template: str, parent: str) -> Json:
    """The hook that runs an exit task once the task it is for has ended."""
    return {
        "exit": {
            "template": template,
            "arguments": {"parameters": [{"name": "parent-dag-id", "value": parent}]},
        }
    }


def dag_driver(backend: "Installation", pipeline: str) -> Json:
    """The template of the drivers of sub-graphs."""
    args = [
        *("--type", "{{inputs.parameters.driver-type}}"),
        *_run_arguments(backend, pipeline),
        *("--dag_execution_id", "{{inputs.parameters.parent-dag-id}}"),
        *("--component", "{{inputs.parameters.component}}", "--task", "{{inputs.parameters.task}}"),
        *("--task_name", "{{inputs.parameters.task-name}}"),
        *("--runtime_config", "{{inputs.parameters.runtime-config}}"),
        *("--iteration_index", "{{inputs.parameters.iteration-index}}"),
        *("--execution_id_path", "{{outputs.parameters.execution-id.path}}"),
        *("--iteration_count_path", "{{outputs.parameters.iteration-count.path}}"),
        *("--condition_path", "{{outputs.parameters.condition.path}}"),
        *_server_arguments(),
    ]
    inputs: list[Json] = [
        {"name": "component"},
        {"default": "", "name": "runtime-config"},
        {"default": "", "name": "task"},
        {"default": "", "name": "task-name"},
        {"default": "0", "name": "parent-dag-id"},
        {"default": "-1", "name": "iteration-index"},
        {"default": "DAG", "name": "driver-type"},
    ]
    outputs: list[Json] = [
        {"name": "execution-id", "valueFrom": {"path": "/tmp/outputs/execution-id"}},  # noqa: S108 - as KFP has it
        _output("iteration-count", "0"),
        _output("condition", "true"),
    ]
    return _driver(backend, "system-dag-driver", args, inputs, outputs, env=False)


def container_driver(backend: "Installation", pipeline: str) -> Json:
    """The template of the drivers of containers."""
    args = [
        *("--type", "CONTAINER"),
        *_run_arguments(backend, pipeline),
        *("--dag_execution_id", "{{inputs.parameters.parent-dag-id}}"),
        *("--component", "{{inputs.parameters.component}}", "--task", "{{inputs.parameters.task}}"),
        *("--task_name", "{{inputs.parameters.task-name}}", "--container", "{{inputs.parameters.container}}"),
        *("--iteration_index", "{{inputs.parameters.iteration-index}}"),
        *("--cached_decision_path", "{{outputs.parameters.cached-decision.path}}"),
        *("--pod_spec_patch_path", "{{outputs.parameters.pod-spec-patch.path}}"),
        *("--condition_path", "{{outputs.parameters.condition.path}}"),
        *("--kubernetes_config", "{{inputs.parameters.kubernetes-config}}"),
        *_server_arguments(),
    ]
    inputs: list[Json] = [
        *({"name": one} for one in ("component", "task", "container", "task-name", "parent-dag-id")),
        {"default": "-1", "name": "iteration-index"},
        {"default": "", "name": "kubernetes-config"},
    ]
    outputs: list[Json] = [
        _output("pod-spec-patch", ""),
        {"default": "false", **_output("cached-decision", "false")},
        _output("condition", "true"),
    ]
    return _driver(backend, "system-container-driver", args, inputs, outputs, env=backend.version != "2.15")


def container_executor(
    backend: "Installation", retry: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None
) -> tuple[Json, Json]:
    """The templates that run a container: a sub-graph that a cache hit leaves empty, and the pod."""
    outer = _executor_name(retry, metadata)
    inner = outer.replace("container-executor", "container-impl")
    names = [key for key, _ in _pod_metadata(metadata)]
    again = list(_RETRY) if retry is not None else []
    values = [{"name": one, "value": f"{{{{inputs.parameters.{one}}}}}"} for one in ("pod-spec-patch", *names, *again)]
    executor: Json = {
        "name": "executor",
        "template": inner,
        "arguments": {"parameters": values},
        "when": "{{inputs.parameters.cached-decision}} != true",
    }
    graph = dag(outer, [executor])
    graph["inputs"]["parameters"] = [
        {"name": "pod-spec-patch"},
        {"default": "false", "name": "cached-decision"},
        *({"name": one} for one in names),
        *({"default": "0", "name": one} for one in again),
    ]
    secure = backend.version != "2.15"
    restricted: Json = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    profile: Json = {"seccompProfile": {"type": "RuntimeDefault"}}
    mounts = [{"mountPath": f"/{one}", "name": _volume(one)} for one in ("kfp-launcher", *_SCRATCH)]
    pod: Json = {
        "container": {
            "command": ["should-be-overridden-during-runtime"],
            "env": _pod_env(),
            "envFrom": [{"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}],
            "image": "gcr.io/ml-pipeline/should-be-overridden-during-runtime",
            "name": "",
            "resources": {},
            "volumeMounts": mounts,
        },
        "initContainers": [
            {
                "args": ["--copy", "/kfp-launcher/launch", "--log_level", "1", "--publish_logs", "true"],
                "command": ["launcher-v2"],
                "image": launcher_image(backend),
                "name": "kfp-launcher",
                "resources": {
                    "limits": {"cpu": "500m", "memory": "256Mi" if backend.version == "2.17" else "128Mi"},
                    "requests": {"cpu": "100m"},
                },
                "volumeMounts": [{"mountPath": "/kfp-launcher", "name": "kfp-launcher"}],
            }
        ],
        "inputs": {"parameters": [{"name": one} for one in ("pod-spec-patch", *names, *again)]},
        "metadata": {"annotations": _annotations("launcher" if backend.version == "2.17" else "")},
        "name": inner,
        "outputs": {},
        "podSpecPatch": "{{inputs.parameters.pod-spec-patch}}",
        "volumes": [{"emptyDir": {}, "name": _volume(one)} for one in ("kfp-launcher", *_SCRATCH)],
    }
    if secure:
        pod["securityContext"] = profile
        pod["container"]["securityContext"] = {**restricted, **profile}
        pod["initContainers"][0]["securityContext"] = {**restricted, "runAsNonRoot": True, **profile}
    for kind in ("labels", "annotations"):
        keys = [key for key in names if f"-{kind[:-1]}-key" in key]
        if keys:
            found = {
                f"{{{{inputs.parameters.{k}}}}}": f"{{{{inputs.parameters.{k.replace('-key', '-val')}}}}}" for k in keys
            }
            pod["metadata"][kind] = {**pod["metadata"].get(kind, {}), **found}
    if retry is not None:
        text = {one: f"{{{{inputs.parameters.{one}}}}}" for one in _RETRY}
        pod["retryStrategy"] = {
            "backoff": {
                "duration": text["retry-backoff-duration"],
                "factor": text["retry-backoff-factor"],
                "maxDuration": text["retry-backoff-max-duration"],
            },
            "limit": text["retry-max-count"],
        }
        if backend.version == "2.17":
            pod["container"]["env"].append({"name": "KFP_RETRY_INDEX", "value": "{{retries}}"})
    return graph, pod


def _executor_name(retry: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None) -> str:
    name = "system-container-executor" if retry is None else "retry-system-container-executor"
    if metadata is None:
        return name
    return f"metadata-{len(metadata.get('annotations', {}))}-{len(metadata.get('labels', {}))}-{name}"


def _pod_metadata(metadata: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The names and values of a pod's labels and annotations, each a parameter of its own."""
    found: list[tuple[str, str]] = []
    for kind in ("annotation", "label"):
        values: Mapping[str, str] = (metadata or {}).get(f"{kind}s") or {}
        for number, key in enumerate(sorted(values), start=1):
            suffix = f"-{number}" if len(values) > 1 else ""
            found += [(f"pod-metadata-{kind}-key{suffix}", key), (f"pod-metadata-{kind}-val{suffix}", values[key])]
    return found


def _volume(name: str) -> str:
    return name if name == "kfp-launcher" else f"{name.replace('.', 'dot-')}-scratch"


def _annotations(role: str) -> Json:
    fixed = {"pipelines.kubeflow.org/v2_component": "true", "sidecar.istio.io/inject": "false"}
    return {"pipelines.kubeflow.org/runtime-role": role, **fixed} if role else fixed


def _output(name: str, default: str) -> Json:
    return {"name": name, "valueFrom": {"default": default, "path": f"/tmp/outputs/{name}"}}  # noqa: S108 - as KFP has it


def _pod_env() -> list[Json]:
    return [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in (("KFP_POD_NAME", "metadata.name"), ("KFP_POD_UID", "metadata.uid"))
    ]


def _run_arguments(backend: "Installation", pipeline: str) -> list[str]:
    created = ["--pipeline_job_create_time_utc", "{{workflow.creationTimestamp}}"] if backend.version == "2.17" else []
    return [
        *("--pipeline_name", pipeline, "--run_id", backend.run_id, "--run_name", "{{workflow.name}}"),
        *("--run_display_name", backend.run_display_name, *created),
    ]


def _server_arguments() -> list[str]:
    return [
        *("--http_proxy", "", "--https_proxy", "", "--no_proxy", ""),
        *("--ml_pipeline_server_address", SERVER[0], "--ml_pipeline_server_port", SERVER[1]),
        *("--mlmd_server_address", METADATA_STORE[0], "--mlmd_server_port", METADATA_STORE[1]),
        *("--log_level", "1", "--publish_logs", "true"),
    ]


def _driver(
    backend: "Installation", name: str, args: list[str], inputs: list[Json], outputs: list[Json], *, env: bool
) -> Json:
    container: Json = {
        "args": args,
        "command": ["driver"],
        **({"env": _pod_env()} if env else {}),
        "image": driver_image(backend),
        "name": "",
        "resources": _DRIVER_RESOURCES,
    }
    template: Json = {
        "container": container,
        "inputs": {"parameters": inputs},
        "metadata": {"annotations": _annotations("driver" if backend.version == "2.17" else "")},
        "name": name,
        "outputs": {"parameters": outputs},
    }
    if backend.version != "2.15":
        profile: Json = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        container["securityContext"] = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            **profile,
        }
        template["securityContext"] = profile
    return template
