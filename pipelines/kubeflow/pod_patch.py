"""The pod-spec-patch that a container's driver makes: the launcher's command with all that the stage is handed.

Source: `initPodSpecPatch`, `provisionOutputs` and `extendPodSpecPatch` of KFP's driver, 2.15 to 2.17.

Left out: settings of a pod that are themselves parameters, task configs, model images (`oci://`), claims created by a
task, ephemeral volumes.
"""

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from llm2llm.pipelines.kubeflow.go_json import go_struct_json, proto_json
from llm2llm.pipelines.kubeflow.workflow_spec import Installation
from llm2llm.pipelines.kubeflow.workflow_templates import METADATA_STORE, SERVER

Json = dict[str, Any]
_CONTAINER_FIELDS = (
    "name",
    "image",
    "command",
    "args",
    "env",
    "resources",
    "volumeMounts",
    "imagePullPolicy",
    "securityContext",
)
"""In the order of Go's struct."""
_POD_FIELDS = (
    "volumes",
    "containers",
    "activeDeadlineSeconds",
    "nodeSelector",
    "imagePullSecrets",
    "affinity",
    "tolerations",
)
_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)']}}")


def provisioned_outputs(backend: Installation, pipeline: str, task_name: str, component: Json, salt: uuid.UUID) -> Json:
    """The `outputs` of `executor_input`: where the stage writes, a folder of its own in object storage.

    The log of the stage is an artifact too; it is added to the component's spec, as the driver does.
    """
    root = f"{backend.pipeline_root}/{pipeline}/{backend.run_id}/{task_name}/{salt}"
    definitions = component.setdefault("outputDefinitions", {})
    logs = {"executor-logs": {"artifactType": {"schemaTitle": "system.Artifact"}}}
    artifacts = definitions.setdefault("artifacts", {})
    # In Go a component without artifacts keeps its empty map; the log then is in executor_input only.
    named = {**artifacts, **logs}
    if artifacts:
        artifacts.update(logs)
    else:
        del definitions["artifacts"]
    if not definitions:
        del component["outputDefinitions"]
    outputs: Json = {
        "artifacts": {
            name: {"artifacts": [{"name": name, "type": spec["artifactType"], "uri": f"{root}/{name}"}]}
            for name, spec in named.items()
        },
        "outputFile": f"{local_path(root)}/output_metadata.json",
    }
    parameters = definitions.get("parameters", {})
    if parameters:
        outputs["parameters"] = {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in parameters}  # noqa: S108
    return outputs


def local_path(uri: str) -> str:
    """Where the launcher keeps an object in the pod: `/s3/bucket/key` for `s3://bucket/key`; a path stays."""
    scheme, separator, rest = uri.partition("://")
    return f"/{scheme}/{rest}" if separator else uri


def pod_spec_patch(
    backend: Installation,
    pipeline: str,
    execution: int,
    executor_input: Json,
    component: Json,
    container: Json,
    kubernetes: Mapping[str, Any],
) -> str:
    """The patch as JSON text, an output of the driver and an input of the pod.

    Args:
        backend: The Kubeflow that runs the pipeline.
        pipeline: The pipeline's name.
        execution: The task's id in the metadata store.
        executor_input: What the stage is handed.
        component: The component's spec, with the log's artifact.
        container: The container of the executor: image, command, args, resources.
        kubernetes: Its executor's part of the platform spec.
    """
    given = executor_input.get("inputs", {}).get("parameterValues", {})
    main: Json = {"name": "main", "image": filled(container["image"], given)}
    main["command"] = [
        *("/kfp-launcher/launch", "--pipeline_name", pipeline, "--run_id", backend.run_id),
        *("--execution_id", str(execution), "--executor_input", proto_json(executor_input)),
        *("--component_spec", proto_json(component)),
        *("--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)"),
        *("--ml_pipeline_server_address", SERVER[0], "--ml_pipeline_server_port", SERVER[1]),
        *("--mlmd_server_address", METADATA_STORE[0], "--mlmd_server_port", METADATA_STORE[1]),
        *("--publish_logs", "true", "--publish_logs", "true", "--"),
    ]
    words = [*container.get("command", []), *container.get("args", [])]
    main["args"] = [word if "$.outputs" in word else filled(word, given) for word in words]
    env: list[Json] = [{"name": one["name"], "value": one.get("value", "")} for one in container.get("env", [])]
    resources = _resources(container.get("resources", {}))
    patch: Json = {}
    _extend(patch, main, env, kubernetes)
    if env:
        main["env"] = env
    main["resources"] = resources
    patch["containers"] = [{key: main[key] for key in _CONTAINER_FIELDS if key in main}]
    return go_struct_json({key: patch[key] for key in _POD_FIELDS if key in patch})


def filled(text: str, parameters: Mapping[str, Any]) -> str:
    """Fills `{{$.inputs.parameters['x']}}` in a container's command, arguments and image, as the driver does."""
    return _PARAMETER.sub(lambda tag: parameter_text(parameters.get(tag[1], "")), text)


def parameter_text(value: Any) -> str:
    """A parameter within a text: JSON, but for texts, which stay as they are."""
    if isinstance(value, str):
        return value
    return "" if value is None else proto_json(value)


def _resources(asked: Mapping[str, Any]) -> Json:
    found: dict[str, Json] = {"limits": {}, "requests": {}}
    for key, (where, name, form) in {
        "resourceMemoryLimit": ("limits", "memory", "{}"),
        "memoryLimit": ("limits", "memory", "{:g}G"),
        "resourceMemoryRequest": ("requests", "memory", "{}"),
        "memoryRequest": ("requests", "memory", "{:g}G"),
        "resourceCpuLimit": ("limits", "cpu", "{}"),
        "cpuLimit": ("limits", "cpu", "{:g}"),
        "resourceCpuRequest": ("requests", "cpu", "{}"),
        "cpuRequest": ("requests", "cpu", "{:g}"),
    }.items():
        if asked.get(key):
            found[where].setdefault(name, form.format(asked[key]))
    accelerator = asked.get("accelerator", {})
    kind = accelerator.get("resourceType") or accelerator.get("type")
    count = accelerator.get("resourceCount") or accelerator.get("count")
    if kind and count:
        found["limits"][kind] = str(count)
    return {key: value for key, value in found.items() if value}


def _extend(patch: Json, main: Json, env: list[Json], config: Mapping[str, Any]) -> None:
    """Adds an executor's Kubernetes settings to the pod."""
    volumes: list[Json] = []
    mounts: list[Json] = []
    for one in config.get("pvcMount", []):
        name = one.get("constant") or one.get("pvcNameParameter", {}).get("runtimeValue", {}).get("constant", "")
        mounts.append({"name": name, **_kept(one, "subPath"), "mountPath": one["mountPath"]})
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": name}})
    for kind, source, key in (("secretAsVolume", "secret", "secretName"), ("configMapAsVolume", "configMap", "name")):
        for one in config.get(kind, []):
            name = one.get("secretName") or one.get("configMapName") or _constant(one)
            volumes.append({"name": name, source: {key: name, "optional": bool(one.get("optional"))}})
            mounts.append({"name": name, "mountPath": one["mountPath"]})
    for one in config.get("emptyDirMounts", []):
        kept = {new: one[old] for old, new in (("medium", "medium"), ("sizeLimit", "sizeLimit")) if one.get(old)}
        volumes.append({"name": one["volumeName"], "emptyDir": kept})
        mounts.append({"name": one["volumeName"], "mountPath": one["mountPath"]})
    for kind, source, key in (
        ("secretAsEnv", "secretKeyRef", "secretKey"),
        ("configMapAsEnv", "configMapKeyRef", "configMapKey"),
    ):
        for one in config.get(kind, []):
            name = one.get("secretName") or one.get("configMapName") or _constant(one)
            for pair in one["keyToEnv"]:
                ref = {"name": name, "key": pair[key], **_kept(one, "optional")}
                env.append({"name": pair["envVar"], "valueFrom": {source: ref}})
    for one in config.get("fieldPathAsEnv", []):
        env.append({"name": one["name"], "valueFrom": {"fieldRef": {"fieldPath": one["fieldPath"]}}})
    if volumes:
        patch["volumes"] = volumes
        main["volumeMounts"] = mounts
    if config.get("imagePullPolicy"):
        main["imagePullPolicy"] = config["imagePullPolicy"]
    if config.get("activeDeadlineSeconds"):
        patch["activeDeadlineSeconds"] = int(config["activeDeadlineSeconds"])
    if config.get("nodeSelector", {}).get("labels"):
        patch["nodeSelector"] = dict(sorted(config["nodeSelector"]["labels"].items()))
    secrets = [one.get("secretName") or _constant(one) for one in config.get("imagePullSecret", [])]
    if secrets:
        patch["imagePullSecrets"] = [{"name": name} for name in secrets]
    if config.get("nodeAffinity") or config.get("podAffinity"):
        # Of about the size that the pod's own form has.
        patch["affinity"] = json.loads(
            json.dumps({key: config[key] for key in ("nodeAffinity", "podAffinity") if key in config})
        )
    if config.get("tolerations"):
        names = ("key", "operator", "value", "effect", "tolerationSeconds")
        patch["tolerations"] = [{name: one[name] for name in names if one.get(name)} for one in config["tolerations"]]
    user = config.get("securityContext")
    if user:
        numbers = {key: int(user[key]) for key in ("runAsUser", "runAsGroup") if key in user}
        main["securityContext"] = {"capabilities": {"drop": ["ALL"]}, **numbers, **_kept(user, "runAsNonRoot")}


def _kept(values: Mapping[str, Any], *names: str) -> Json:
    return {name: values[name] for name in names if name in values}


def _constant(one: Mapping[str, Any]) -> str:
    for key in ("secretNameParameter", "configMapNameParameter"):
        if key in one:
            return str(one[key].get("runtimeValue", {}).get("constant", ""))
    return ""
