"""The TrainJob of Kubeflow Trainer that a training on several nodes runs as, but for what the stage adds."""

from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config.placement_settings import PlacementSettings
from llm2llm.pipelines.config.placement_values import CA_PATH, SCRATCH, SHARED_MEMORY, seconds
from llm2llm.pipelines.kubeflow.apply_placement import (
    config_maps_of,
    environment,
    node_of,
    pod_labels,
    secrets_of,
    volume_sizes,
)


def train_job(placement: PlacementSettings, image: str, nodes: int) -> dict[str, Any]:
    """The TrainJob (trainer.kubeflow.org/v1alpha1) of the train stage, but for its name, its owner and its command.

    What one node asks for is what `placement.stages.train` says. Kueue, where there is a queue, admits the TrainJob as
    a whole rather than the stage's pod, so that two trainings never wait for each other's second node.

    Args:
        placement: Says what the stage `train` asks for.
        image: The workers' image.
        nodes: How many.

    Raises:
        UserError: Nothing places the stage.
    """
    if (wanted := placement.stages.get("train")) is None:
        raise UserError(
            f"train.nodes {nodes}: what each node is given is not said; set placement.profile, or cpu, memory and "
            "accelerator in placement.stages.train"
        )
    selector, tolerations = node_of(wanted, placement)
    resources: dict[str, Any] = {
        "requests": {"cpu": wanted.cpu, "memory": wanted.memory},
        "limits": {"memory": wanted.memory},
    }
    if wanted.cpu_limit:
        resources["limits"]["cpu"] = wanted.cpu_limit
    if wanted.gpus:
        gpus = {placement.accelerators[wanted.accelerator].resource: str(wanted.gpus)}
        resources = {key: {**value, **gpus} for key, value in resources.items()}
    given = {**environment(placement, "train", wanted), "HOME": SCRATCH}
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in sorted(given.items())]
    variables += [
        _from_key(one.env, "secretKeyRef", one.secret, one.key, one.optional) for one in secrets_of(placement, "train")
    ]
    variables += [
        _from_key(one.env, "configMapKeyRef", one.config_map, one.key, one.optional)
        for one in config_maps_of(placement, "train")
    ]
    volumes, mounts = _volumes(placement)
    user = {"runAsNonRoot": True, "runAsUser": placement.user, "runAsGroup": placement.user, "fsGroup": placement.user}
    pod: dict[str, Any] = {
        "serviceAccountName": placement.train_jobs.service_account,
        "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": volumes,
        "containers": [
            {
                "name": "node",
                "volumeMounts": mounts,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    }
    if selector:
        pod["nodeSelector"] = selector
    if tolerations:
        pod["tolerations"] = [
            {key: value for key, value in one.model_dump().items() if value or key != "value"} for one in tolerations
        ]
    if placement.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in placement.image_pull_secrets]
    labels = pod_labels("train", wanted)
    about_pods = {"labels": {key: value for key, value in labels.items() if not key.startswith("kueue.")}}
    # In a Kubeflow Profile's namespace Istio would put a sidecar beside each worker, which never ends, and needs more
    # than the Pod Security Standard `restricted` permits. Kubeflow Pipelines says the same of its stages' pods.
    about_pods["labels"]["sidecar.istio.io/inject"] = "false"
    if wanted.annotations:
        about_pods["annotations"] = dict(wanted.annotations)
    replicated = {"name": "node", "template": {"spec": {"template": {"metadata": about_pods, "spec": pod}}}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"labels": labels},
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": placement.train_jobs.runtime_kind,
                "name": placement.train_jobs.runtime,
            },
            "activeDeadlineSeconds": seconds(wanted.timeout),
            "trainer": {
                "image": image,
                "numNodes": nodes,
                "numProcPerNode": max(wanted.gpus, 1),
                "resourcesPerNode": resources,
                "env": variables,
            },
            "runtimePatches": [
                {
                    "manager": "llm2llm/train",
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [replicated]}}},
                }
            ],
        },
    }


def _from_key(name: str, kind: str, source: str, key: str, optional: bool) -> dict[str, Any]:
    return {"name": name, "valueFrom": {kind: {"name": source, "key": key, "optional": optional}}}


def _volumes(placement: PlacementSettings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(volumes of a worker's pod, where its container mounts them)."""
    wanted = placement.stages["train"]
    volumes: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": volume_sizes("train", wanted, placement)[0]}},
    ]
    mounts: list[dict[str, Any]] = [{"name": "scratch", "mountPath": SCRATCH}]
    if wanted.shm:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": wanted.shm}})
        mounts.append({"name": "shm", "mountPath": SHARED_MEMORY})
    if cache := placement.model_cache:
        read_only = {} if cache.fill else {"readOnly": True}
        volumes.append({"name": "models", "persistentVolumeClaim": {"claimName": cache.pvc, **read_only}})
        mounts.append({"name": "models", "mountPath": cache.path, **read_only})
    if bundle := placement.ca_bundle:
        source = (
            {"configMap": {"name": bundle.config_map}}
            if bundle.config_map
            else {"secret": {"secretName": bundle.secret}}
        )
        volumes.append({"name": "ca", **source})
        mounts.append({"name": "ca", "mountPath": CA_PATH, "readOnly": True})
    return volumes, mounts
