"""Where the stages of a pipeline run: the `placement` section of a config.

A profile (`profiles/*.yaml`) knows a kind of cluster: the labels of its GPU nodes, their taints, what marks a spot
node. The config names one and overrides what it wants; `placed` puts what results on a task of the pipeline.

    placement:
      profile: gke
      stages:
        train: {accelerator: nvidia-h100-80gb, gpus: 2, spot: true}

All of this is compiled in; a run in another pool is another version of the pipeline, which `submit --set placement...`
compiles and uploads by itself. Kubeflow could take selectors and tolerations as parameters (`add_node_selector_json`).
It looks for them among the inputs of the sub-graph around a task, so every nested iteration would hand them down, and
executors that are now one for all iterations would differ by depth; a selector given so replaces all others, that of
spot nodes too. Tried with both for the GPU stages, at 10 iterations: 11 KB more, of 250 that we allow ourselves.
"""

import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.stages import STAGES

TRAIN_JOB = "LLM2LLM_TRAIN_JOB"
"""The environment variable that gives the train stage of several nodes the TrainJob that it is to make, as JSON."""

_QUANTITY = re.compile(r"\d+(Ki|Mi|Gi|Ti|K|M|G|T)?")
_CPU = re.compile(r"\d+m|\d+(\.\d+)?")
_DURATION = re.compile(r"(\d+)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(duration: str) -> int:
    """The seconds of a duration such as `90s`, `30m`, `12h`.

    Raises:
        ValueError: It is none.
    """
    found = _DURATION.fullmatch(duration)
    if not found or not int(found[1]):
        raise ValueError(f"a duration is a whole number above 0 and s, m or h, such as 30m; got {duration!r}")
    return int(found[1]) * _SECONDS[found[2]]


class Toleration(Settings):
    """A taint that a pod may run beside, as in a pod's `tolerations`."""

    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class Accelerator(Settings):
    """A kind of GPU node."""

    resource: str = "nvidia.com/gpu"
    """The resource that a container asks for."""
    memory_gib: int = Field(ge=1)
    """The memory of one GPU."""
    per_node: int = Field(8, ge=1)
    """The most GPUs that one node of the kind has."""
    node_selector: dict[str, str]
    """The labels that its nodes have."""
    tolerations: list[Toleration] = []
    """The taints that its nodes have."""


class Spot(Settings):
    """What marks nodes that may be taken away."""

    node_selector: dict[str, str]
    tolerations: list[Toleration] = []


class SecretVariable(Settings):
    """An environment variable from a key of a Kubernetes Secret. The name is compiled in, the value never."""

    env: str
    """The environment variable."""
    secret: str
    """The Secret's name, in the namespace of the run."""
    key: str
    """The key in it."""
    optional: bool = False
    """Whether a pod starts without it."""
    stages: list[str] = list(STAGES)
    """The stages that get it."""


class ModelCache(Settings):
    """A volume that keeps downloaded weights, so that they are pulled once."""

    pvc: str
    """The PersistentVolumeClaim: ReadWriteMany, where stages run on several nodes at once."""
    path: str = "/models"
    """Where it is mounted; `HF_HOME` points there."""
    offline: bool = False
    """Whether nothing is looked for beyond it, for a network that is closed: the models are put there beforehand."""


class TrainJobs(Settings):
    """What a training on several nodes (`train.nodes` above 1) needs beside the train stage's own placement."""

    runtime: str = "torch-distributed"
    """The training runtime: the one for PyTorch that Kubeflow Trainer brings, or one of your own."""
    runtime_kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"] = "ClusterTrainingRuntime"
    """Whether it is the whole cluster's, or the namespace's own."""
    service_account: str = "llm2llm-train"
    """What the workers run as: it opens object storage, and has no role in the cluster."""


class StagePlacement(Settings):
    """What one stage asks of the cluster."""

    cpu: str = "1"
    """CPUs that it is promised."""
    cpu_limit: str = ""
    """The most CPUs that it may use; empty: no limit, so that idle cores are not wasted."""
    memory: str = "4Gi"
    """Memory: both what it is promised and the most that it may use."""
    scratch: str = "10Gi"
    """Disk for temporary files: the size of the volume at /tmp, beside its outputs the only place it can write to."""
    shm: str = ""
    """Shared memory at /dev/shm, which PyTorch's processes speak through; counts against `memory`. Empty: none of its
    own."""
    accelerator: str = ""
    """The kind of GPU node, one of the profile's `accelerators`; empty: none."""
    gpus: int = Field(0, ge=0)
    """How many GPUs."""
    spot: bool = False
    """Whether it runs on spot nodes. A stage that is interrupted is tried again."""
    node_selector: dict[str, str] = {}
    """Further labels that its node must have."""
    tolerations: list[Toleration] = []
    """Further taints that its node may have."""
    timeout: str = "1h"
    """After this long a try is ended."""
    retries: int = Field(2, ge=0, le=20)
    """How often it is tried again."""
    backoff: str = "60s"
    """The wait before the first retry; each further one is twice as long."""
    retry_window: str = "6h"
    """No retry starts later than this after the first try began; at least `timeout`. Kubeflow's own default, one hour,
    is hidden and short."""
    image: str = ""
    """An image of its own, in place of that of `images`."""
    queue: str = ""
    """The Kueue LocalQueue that admits it; empty: none."""
    priority: str = ""
    """The Kueue WorkloadPriorityClass; needs `queue`."""
    labels: dict[str, str] = {}
    """Further labels of its pod."""
    annotations: dict[str, str] = {}
    """Further annotations of its pod."""

    @field_validator("memory", "scratch", "shm")
    @classmethod
    def _is_quantity(cls, value: str, info: Any) -> str:
        if not (info.field_name == "shm" and not value) and not _QUANTITY.fullmatch(value):
            raise ValueError("a quantity is a whole number and Ki, Mi, Gi or Ti, such as 16Gi")
        return value

    @field_validator("cpu", "cpu_limit")
    @classmethod
    def _is_cpu(cls, value: str, info: Any) -> str:
        if not (info.field_name == "cpu_limit" and not value) and not _CPU.fullmatch(value):
            raise ValueError("CPUs are a number such as 4 or 0.5, or millicores such as 500m")
        return value

    @field_validator("timeout", "backoff", "retry_window")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        seconds(value)
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if bool(self.accelerator) != bool(self.gpus):
            raise ValueError(
                f"accelerator {self.accelerator!r} and gpus {self.gpus} belong together: set both, or neither"
            )
        if self.retries and seconds(self.retry_window) < seconds(self.timeout):
            raise ValueError(
                f"retry_window {self.retry_window} is shorter than timeout {self.timeout}, so a try that ends late is "
                "followed by no other: set retry_window to more than timeout, or retries to 0"
            )
        if self.priority and not self.queue:
            raise ValueError(f"priority {self.priority!r} is Kueue's and needs queue; set queue, or remove priority")
        if self.image.endswith(":latest") or (self.image and ":" not in self.image.rpartition("/")[2]):
            raise ValueError(f"image {self.image!r}: give a version or a digest; what `latest` is changes under a run")
        return self


class PlacementSettings(Settings):
    """The `placement` section of a config, and what a profile's file holds. Fixed when the pipeline is compiled."""

    profile: str = ""
    """The kind of cluster: gke, eks, aks, onprem or kind; empty: nothing is said about where stages run."""
    accelerators: dict[str, Accelerator] = {}
    """The GPU nodes that there are, by a name of your choice."""
    spot: Spot | None = None
    """What marks spot nodes; None: there are none."""
    defaults: dict[str, Any] = {}
    """What every stage asks, but for what `stages` says."""
    stages: dict[str, StagePlacement] = {}
    """What each stage asks."""
    secrets: list[SecretVariable] = []
    """Environment variables from Secrets, such as the teacher's key."""
    model_cache: ModelCache | None = None
    """Where weights are kept between stages; None: each stage downloads them."""
    image_pull_secrets: list[str] = []
    """Secrets with which images are pulled."""
    image_pull_policy: Literal["", "IfNotPresent", "Always", "Never"] = ""
    """Whether images are pulled again; empty: as the cluster does."""
    user: int = Field(65532, ge=1)
    """The uid and gid of every container; that of the images."""
    service_account: str = ""
    """The Kubernetes service account that runs run as, unless `llm2llm submit` is given another; the profiles name that
    of manifests/. Empty: Kubeflow's own default, which may do nearly everything in its namespace."""
    train_jobs: TrainJobs = TrainJobs()
    """How several nodes train together; only for `train.nodes` above 1."""

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        for name in (stage for variable in self.secrets for stage in variable.stages):
            if name not in STAGES:
                raise ValueError(
                    f"secrets: no stage {name!r}{did_you_mean(name, STAGES)}; stages are {', '.join(STAGES)}"
                )
        for name, wanted in self.stages.items():
            if not wanted.accelerator:
                continue
            if wanted.accelerator not in self.accelerators:
                raise ValueError(
                    f"stages.{name}.accelerator: no accelerator {wanted.accelerator!r}"
                    f"{did_you_mean(wanted.accelerator, self.accelerators)}; there are "
                    f"{', '.join(sorted(self.accelerators)) or 'none: this profile has no GPU nodes'}"
                )
            has = self.accelerators[wanted.accelerator].per_node
            if wanted.gpus > has:
                raise ValueError(
                    f"stages.{name}.gpus: {wanted.gpus}, and no node with {wanted.accelerator} has more than {has}; "
                    "lower gpus, or raise accelerators.*.per_node if yours have more"
                )
        if self.spot is None and (wrong := [name for name, wanted in self.stages.items() if wanted.spot]):
            raise ValueError(f"stages.{wrong[0]}.spot: the profile {self.profile!r} names no spot nodes; set spot")
        return self


def shipped_profiles() -> dict[str, Path]:
    """The profiles that come with llm2llm, by name."""
    folder = Path(str(resources.files("llm2llm.pipelines.kubeflow"))) / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_placement(values: Mapping[str, Any], where: str = "placement") -> PlacementSettings:
    """The placement of a config: its profile with the config's own keys laid over it, every stage complete.

    Raises:
        UserError: An unknown profile, key, stage or accelerator, more GPUs than a node has, no quantity or duration.
    """
    profile = values.get("profile", "")
    shipped = shipped_profiles()
    merged: dict[str, Any] = {}
    if profile:
        if profile not in shipped:
            raise UserError(
                f"{where}.profile: no profile {profile!r}{did_you_mean(str(profile), shipped)}; "
                f"there are {', '.join(shipped)}"
            )
        merged = yaml.safe_load(shipped[profile].read_text(encoding="utf-8"))
    merged = _over(merged, values)
    stages, defaults = merged.get("stages") or {}, merged.get("defaults") or {}
    for name in stages if isinstance(stages, Mapping) else ():
        if name not in STAGES:
            raise UserError(
                f"{where}.stages: no stage {name!r}{did_you_mean(name, STAGES)}; stages are {', '.join(STAGES)}"
            )
    if profile and isinstance(stages, Mapping) and isinstance(defaults, Mapping):
        merged["stages"] = {name: _over(dict(defaults), stages.get(name) or {}) for name in STAGES}
    return PlacementSettings.load(merged, where)


def _over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mapping by mapping; what is no mapping is replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _over(under, value) if isinstance(under, dict) and isinstance(value, Mapping) else value
    return merged


GRADING = ("predict", "evaluate", "out_of_fold", "promote")
"""The stages that grade answers, and ask a judge where the task has one."""


def judged(placement: PlacementSettings, key_variable: str) -> PlacementSettings:
    """A placement in which the stages that grade get the judge's key as the teacher's stage gets its own.

    Args:
        placement: As `load_placement` makes it.
        key_variable: The environment variable of the key, `evaluate.judge.api_key_env`.
    """
    secrets = [
        one.model_copy(update={"stages": [*one.stages, *(name for name in GRADING if name not in one.stages)]})
        if one.env == key_variable
        else one
        for one in placement.secrets
    ]
    return placement.model_copy(update={"secrets": secrets})


def check_devices(
    placement: PlacementSettings,
    train_gpus: int,
    nodes: int,
    checkpoint_uri: str,
    engine_gpus: int,
    shards: int,
) -> None:
    """Refuses a config whose sections ask for other devices than its placement gives.

    Args:
        placement: As `load_placement` makes it.
        train_gpus: `train.gpus`; 0: every one that the pod has.
        nodes: `train.nodes`.
        checkpoint_uri: `train.checkpoint_uri`.
        engine_gpus: `evaluate.gpus` where `evaluate.backend` is vllm, else 0.
        shards: `evaluate.shards`.

    Raises:
        ValueError: Names the keys and the fix.
    """
    if nodes > 1 and not checkpoint_uri.startswith(("s3://", "minio://")):
        raise ValueError(
            f"train.nodes {nodes} hands rows and student on through object storage: set train.checkpoint_uri to "
            f"s3://bucket/folder (it is {checkpoint_uri!r})"
        )
    wanted = placement.stages.get("train")
    if nodes > 1 and placement.profile and wanted and not wanted.gpus and train_gpus == 0:
        raise ValueError(
            f"train.nodes {nodes} without GPUs: set placement.stages.train.accelerator and gpus, or train.gpus to the "
            "number of processes of each node"
        )
    if wanted and wanted.gpus and train_gpus and wanted.gpus != train_gpus:
        raise ValueError(
            f"train.gpus {train_gpus} and placement.stages.train.gpus {wanted.gpus} contradict each other: set them to "
            "the same number, or train.gpus to 0, which takes all that the pod has"
        )
    name = "predict" if shards > 1 else "evaluate"
    answering = placement.stages.get(name)
    if answering and placement.profile and answering.gpus < engine_gpus:
        raise ValueError(
            f"evaluate.backend 'vllm' with evaluate.gpus {engine_gpus} needs as many in placement.stages.{name}.gpus, "
            f"and it is {answering.gpus}; set accelerator and gpus there, or evaluate.backend to transformers"
        )


def stage_placement(placement: PlacementSettings, stage: str, nodes: int = 1, shards: int = 1) -> StagePlacement | None:
    """What a stage's own pod asks of the cluster; None where nothing is said.

    Two stages leave their GPUs to others: `train` on several nodes follows a TrainJob whose workers have them, and
    `evaluate` puts together what the shards of `predict` answered.

    Args:
        placement: As `load_placement` makes it.
        stage: One of `STAGES`.
        nodes: The config's `train.nodes`.
        shards: The config's `evaluate.shards`.
    """
    wanted = placement.stages.get(stage)
    follows = (stage == "train" and nodes > 1) or (stage == "evaluate" and shards > 1)
    if wanted is None or not follows:
        return wanted
    none_of_it = {"accelerator": "", "gpus": 0, "spot": False, "shm": "", "queue": "", "priority": ""}
    return wanted.model_copy(update={**none_of_it, "cpu": "1", "cpu_limit": "", "memory": "4Gi"})


def placed(task: Any, stage: str, placement: PlacementSettings, nodes: int = 1, shards: int = 1) -> Any:
    """Puts a stage's placement on its task.

    Args:
        task: A KFP PipelineTask, with its image set.
        stage: One of `STAGES`.
        placement: As `load_placement` makes it; without a profile only the stages that it names are placed.
        nodes: The config's `train.nodes`.
        shards: The config's `evaluate.shards`.
    """
    wanted = stage_placement(placement, stage, nodes, shards)
    if wanted is None:
        return task
    # kfp.kubernetes takes a quarter of a second to import, which a pipeline without placement need not wait for.
    from kfp import kubernetes

    if wanted.image:
        task.set_container_image(wanted.image)
    task.set_cpu_request(wanted.cpu).set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    if wanted.cpu_limit:
        task.set_cpu_limit(wanted.cpu_limit)
    task.set_retry(
        num_retries=wanted.retries,
        backoff_duration=f"{seconds(wanted.backoff)}s",
        backoff_factor=2.0,
        backoff_max_duration=f"{seconds(wanted.retry_window)}s",
    )
    kubernetes.set_timeout(task, seconds(wanted.timeout))
    # S108, here and below: these paths are the container's own.
    kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path="/tmp", size_limit=wanted.scratch)
    if wanted.shm:
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=wanted.shm
        )  # fmt: skip
    kubernetes.set_security_context(task, run_as_user=placement.user, run_as_group=placement.user, run_as_non_root=True)
    kubernetes.use_field_path_as_env(task, RUN_VARIABLE, "metadata.labels['pipeline/runid']")
    _on_nodes(task, wanted, placement)
    for key, value in sorted(_labels(stage, wanted).items()):
        kubernetes.add_pod_label(task, key, value)
    for key, value in sorted(wanted.annotations.items()):
        kubernetes.add_pod_annotation(task, key, value)
    for variable in placement.secrets:
        if stage in variable.stages:
            kubernetes.use_secret_as_env(task, variable.secret, {variable.key: variable.env}, variable.optional)
    task.set_env_variable("HOME", "/tmp")
    if stage == "train" and nodes > 1:
        job = train_job(placement, task.container_spec.image, nodes)
        task.set_env_variable(TRAIN_JOB, json.dumps(job, sort_keys=True, separators=(",", ":")))
    if placement.model_cache:
        kubernetes.mount_pvc(task, placement.model_cache.pvc, placement.model_cache.path)
        task.set_env_variable("HF_HOME", placement.model_cache.path)
        if placement.model_cache.offline:
            task.set_env_variable("HF_HUB_OFFLINE", "1")
    if placement.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, placement.image_pull_secrets)
    if placement.image_pull_policy:
        kubernetes.set_image_pull_policy(task, placement.image_pull_policy)
    return task


def train_job(placement: PlacementSettings, image: str, nodes: int) -> dict[str, Any]:
    """The TrainJob (trainer.kubeflow.org/v1alpha1) of the train stage, but for its name, its owner and its command.

    What one node asks for is what `placement.stages.train` says. Kueue, where there is a queue, admits the TrainJob as
    a whole rather than the stage's pod, so that two trainings never wait for each other's second node.

    Args:
        placement: Its stage `train` is placed.
        image: The workers' image.
        nodes: How many.
    """
    wanted = placement.stages["train"]
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
    environment: list[dict[str, Any]] = [{"name": "HOME", "value": "/tmp"}]
    environment += [
        {
            "name": one.env,
            "valueFrom": {"secretKeyRef": {"name": one.secret, "key": one.key, "optional": one.optional}},
        }
        for one in placement.secrets
        if "train" in one.stages
    ]
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {"sizeLimit": wanted.scratch}}]
    mounts = [{"name": "scratch", "mountPath": "/tmp"}]
    if wanted.shm:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": wanted.shm}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    if cache := placement.model_cache:
        volumes.append({"name": "models", "persistentVolumeClaim": {"claimName": cache.pvc}})
        mounts.append({"name": "models", "mountPath": cache.path})
        environment.append({"name": "HF_HOME", "value": cache.path})
        if cache.offline:
            environment.append({"name": "HF_HUB_OFFLINE", "value": "1"})
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
    labels = _labels("train", wanted)
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
                "env": environment,
            },
            "runtimePatches": [
                {
                    "manager": "llm2llm/train",
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [replicated]}}},
                }
            ],
        },
    }


def node_of(wanted: StagePlacement, placement: PlacementSettings) -> tuple[dict[str, str], list[Toleration]]:
    """(labels that a stage's node must have, taints that it may have)."""
    selector, tolerations = dict(wanted.node_selector), list(wanted.tolerations)
    if wanted.gpus:
        node = placement.accelerators[wanted.accelerator]
        selector |= node.node_selector
        tolerations += node.tolerations
    if wanted.spot:
        assert placement.spot is not None, "PlacementSettings requires it"
        selector |= placement.spot.node_selector
        tolerations += placement.spot.tolerations
    return selector, tolerations


def _on_nodes(task: Any, wanted: StagePlacement, placement: PlacementSettings) -> None:
    from kfp import kubernetes

    if wanted.gpus:
        task.set_accelerator_type(placement.accelerators[wanted.accelerator].resource)
        task.set_accelerator_limit(wanted.gpus)
    selector, tolerations = node_of(wanted, placement)
    for key, value in sorted(selector.items()):
        kubernetes.add_node_selector(task, key, value)
    for one in tolerations:
        kubernetes.add_toleration(task, one.key, one.operator, one.value or None, one.effect)


def _labels(stage: str, wanted: StagePlacement) -> dict[str, str]:
    labels = {"app.kubernetes.io/part-of": "llm2llm", "llm2llm/stage": stage.replace("_", "-"), **wanted.labels}
    if wanted.queue:
        labels["kueue.x-k8s.io/queue-name"] = wanted.queue
    if wanted.priority:
        labels["kueue.x-k8s.io/priority-class"] = wanted.priority
    return labels
