"""Puts a placement on the tasks of a pipeline, each a pod of its own."""

import json
from collections.abc import Iterable
from typing import Any

from llm2llm.components.report.mlflow_address import SERVER, usable
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config import Config
from llm2llm.pipelines.config.placement_parts import (
    MAY_LOAD_MODELS,
    READS_DATA,
    ConfigMapVariable,
    SecretVariable,
    Toleration,
)
from llm2llm.pipelines.config.placement_settings import PlacementSettings, StagePlacement
from llm2llm.pipelines.config.placement_values import (
    CA_PATH,
    CA_VARIABLES,
    SCRATCH,
    SHARED_MEMORY,
    SMALLEST_VOLUME,
    TRAIN_JOB,
    UNKNOWN_VOLUME,
    cache_variables,
    check_image,
    seconds,
)
from llm2llm.pipelines.kubeflow.retries import retried

DOWNLOADS = {"minio-scratch": "/minio", "s3-scratch": "/s3", "gcs-scratch": "/gcs"}
"""The volumes that KFP's launcher keeps inputs and outputs in, by the scheme of the pipeline root: emptyDirs without a
limit. An emptyDir of the same name gives them one: Argo merges the driver's patch into the pod by volume name and mount
path. Source: KFP 2.15 to 2.17, argocompiler/container.go; Argo, workflow/util/util.go (`ApplyPodSpecPatch`)."""


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
    if wanted is not None and STAGES[stage].at_exit:  # tried again it might tell twice
        return wanted.model_copy(update={"retries": 0})
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
        placement: As `load_placement` or `fit_placement` makes it; without a profile the stages that it does not name
            get their environment only.
        nodes: The config's `train.nodes`.
        shards: The config's `evaluate.shards`.

    Raises:
        UserError: The task's image has no version.
    """
    wanted = stage_placement(placement, stage, nodes, shards)
    if wanted and wanted.image:
        task.set_container_image(wanted.image)
    try:
        check_image(task.container_spec.image)
    except ValueError as problem:
        raise UserError(f"images: {problem}") from None
    if wanted:
        _resources(task, stage, wanted, placement)
    for name, value in environment(placement, stage, wanted).items():
        task.set_env_variable(name, value)
    if stage == "train" and nodes > 1:
        from llm2llm.pipelines.kubeflow.trainjob_template import train_job

        job = train_job(placement, task.container_spec.image, nodes)
        task.set_env_variable(TRAIN_JOB, json.dumps(job, sort_keys=True, separators=(",", ":")))
    _mounts(task, stage, placement)
    return task


def loads_models(placement: PlacementSettings, stage: str) -> bool:
    """Whether a stage gets the model cache."""
    return stage in (placement.model_stages or MAY_LOAD_MODELS)


def volume_sizes(stage: str, wanted: StagePlacement, placement: PlacementSettings) -> tuple[str, str]:
    """Sizes of a stage's volumes, (scratch, downloads), also where `fit_placement` was not asked."""
    otherwise = UNKNOWN_VOLUME if loads_models(placement, stage) else SMALLEST_VOLUME
    return wanted.scratch or otherwise, wanted.downloads or otherwise


def secrets_of(placement: PlacementSettings, stage: str) -> list[SecretVariable]:
    """The environment variables that a stage gets from Secrets."""
    hub = (*(placement.model_stages or MAY_LOAD_MODELS), *READS_DATA)
    return [one for one in placement.secrets if stage in (hub if one.stages == "hub" else one.stages)]


def config_maps_of(placement: PlacementSettings, stage: str) -> list[ConfigMapVariable]:
    """The environment variables that a stage gets from ConfigMaps."""
    return [one for one in placement.config_maps if stage in one.stages]


def mlflow_unset(config: Config) -> str:
    """Why a config's run would not be logged to MLflow in a cluster; empty: nothing is wrong.

    A secret or a ConfigMap is taken at its word: what is in it is the cluster's.
    """
    if not config.report.mlflow_experiment:
        return ""
    placement = config.placement
    referred = {one.env for one in secrets_of(placement, "report")}
    referred |= {one.env for one in config_maps_of(placement, "report")}
    if SERVER in referred:
        return ""
    address = environment(placement, "report", placement.stages.get("report")).get(SERVER, "")
    if usable(address):
        return ""
    wrong = f"{address!r} is no http:// or https:// address" if address else "stage report is not given it"
    return (
        f"report.mlflow_experiment: nothing is logged without the tracking server in {SERVER}, and {wrong}; set "
        f"placement.env.{SERVER}, unless the image has it"
    )


def environment(placement: PlacementSettings, stage: str, wanted: StagePlacement | None) -> dict[str, str]:
    """The environment variables of a stage whose values are compiled in."""
    values = dict(placement.env)
    if wanted:
        values |= {**wanted.env, "HOME": SCRATCH}
    if (cache := placement.model_cache) and loads_models(placement, stage):
        values |= cache_variables(cache.path, cache.fill)
        if cache.offline:
            values["HF_HUB_OFFLINE"] = "1"
    if placement.ca_bundle:
        values |= dict.fromkeys(CA_VARIABLES, f"{CA_PATH}/{placement.ca_bundle.key}")
    return values


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


def pod_labels(stage: str, wanted: StagePlacement) -> dict[str, str]:
    """The labels of a stage's pod."""
    labels = {"app.kubernetes.io/part-of": "llm2llm", "llm2llm/stage": stage.replace("_", "-"), **wanted.labels}
    if wanted.queue:
        labels["kueue.x-k8s.io/queue-name"] = wanted.queue
    if wanted.priority:
        labels["kueue.x-k8s.io/priority-class"] = wanted.priority
    return labels


def _resources(task: Any, stage: str, wanted: StagePlacement, placement: PlacementSettings) -> None:
    # kfp.kubernetes, here and below, takes a quarter of a second to import, which a pipeline without placement need
    # not wait for.
    from kfp import kubernetes

    task.set_cpu_request(wanted.cpu).set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    if wanted.cpu_limit:
        task.set_cpu_limit(wanted.cpu_limit)
    retried(task, wanted.retries, seconds(wanted.backoff))
    kubernetes.set_timeout(task, seconds(wanted.timeout))
    scratch, downloads = volume_sizes(stage, wanted, placement)
    kubernetes.empty_dir_mount(task, "scratch", SCRATCH, size_limit=scratch)
    for name, path in DOWNLOADS.items():
        kubernetes.empty_dir_mount(task, name, path, size_limit=downloads)
    if wanted.shm:
        kubernetes.empty_dir_mount(task, "shm", SHARED_MEMORY, medium="Memory", size_limit=wanted.shm)
    kubernetes.use_field_path_as_env(task, RUN_VARIABLE, "metadata.labels['pipeline/runid']")
    if wanted.gpus:
        task.set_accelerator_type(placement.accelerators[wanted.accelerator].resource)
        task.set_accelerator_limit(wanted.gpus)
    selector, tolerations = node_of(wanted, placement)
    for key, value in sorted(selector.items()):
        kubernetes.add_node_selector(task, key, value)
    for one in tolerations:
        kubernetes.add_toleration(task, one.key, one.operator, one.value or None, one.effect)
    for key, value in sorted(pod_labels(stage, wanted).items()):
        kubernetes.add_pod_label(task, key, value)
    for key, value in sorted(wanted.annotations.items()):
        kubernetes.add_pod_annotation(task, key, value)


def _mounts(task: Any, stage: str, placement: PlacementSettings) -> None:
    """What needs no placement of the stage: secrets, ConfigMaps, certificates, the model cache, how images are
    pulled, and the user."""
    secrets, config_maps = secrets_of(placement, stage), config_maps_of(placement, stage)
    cache = placement.model_cache if loads_models(placement, stage) else None
    user = placement.user if stage in placement.stages or "user" in placement.model_fields_set else None
    pulling = placement.image_pull_secrets or placement.image_pull_policy
    if not (secrets or config_maps or placement.ca_bundle or cache or user or pulling):
        return
    from kfp import kubernetes

    if user:
        kubernetes.set_security_context(task, run_as_user=user, run_as_group=user, run_as_non_root=True)
    for secret in secrets:
        kubernetes.use_secret_as_env(task, secret.secret, {secret.key: secret.env}, secret.optional)
    for name, keys, optional in _by_config_map(config_maps):
        kubernetes.use_config_map_as_env(task, name, keys, optional)
    if bundle := placement.ca_bundle:
        if bundle.config_map:
            kubernetes.use_config_map_as_volume(task, bundle.config_map, CA_PATH)
        else:
            kubernetes.use_secret_as_volume(task, bundle.secret, CA_PATH)
    if cache:
        kubernetes.mount_pvc(task, cache.pvc, cache.path)
    if placement.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, placement.image_pull_secrets)
    if placement.image_pull_policy:
        kubernetes.set_image_pull_policy(task, placement.image_pull_policy)


def _by_config_map(variables: Iterable[ConfigMapVariable]) -> list[tuple[str, dict[str, str], bool]]:
    """(ConfigMap, key -> variable, optional); a key that gives two variables makes two entries."""
    found: list[tuple[str, dict[str, str], bool]] = []
    for one in variables:
        place = next(
            (keys for name, keys, optional in found
             if (name, optional) == (one.config_map, one.optional) and one.key not in keys), None
        )  # fmt: skip
        if place is None:
            place = {}
            found.append((one.config_map, place, one.optional))
        place[one.key] = one.env
    return found
