"""Loads the `placement` section of a config, and holds it against the other sections.

`placement_settings` and `placement_parts` have the section's keys; `profiles/*.yaml` has what is known of each kind of
cluster: the labels of its GPU nodes, their taints, what marks a spot node. `kubeflow.fit_placement` adds what the other
sections of a config mean for it, and `kubeflow.apply_placement` puts the result on the tasks of a pipeline.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config.merging import merged
from llm2llm.pipelines.config.placement_parts import GRADING
from llm2llm.pipelines.config.placement_settings import PlacementSettings


def shipped_profiles() -> dict[str, Path]:
    """The profiles that come with llm2llm, by name."""
    folder = Path(str(resources.files("llm2llm.pipelines.config"))) / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_placement(values: Mapping[str, Any], where: str = "placement") -> PlacementSettings:
    """The placement of a config: its profile with the config's own keys laid over it, every stage complete.

    Raises:
        UserError: An unknown profile, key, stage or accelerator, more GPUs than a node has, no quantity or duration.
    """
    profile = values.get("profile", "")
    shipped = shipped_profiles()
    below: dict[str, Any] = {}
    if profile:
        if profile not in shipped:
            raise UserError(
                f"{where}.profile: no profile {profile!r}{did_you_mean(str(profile), shipped)}; "
                f"there are {', '.join(shipped)}"
            )
        below = yaml.safe_load(shipped[profile].read_text(encoding="utf-8"))
    whole = merged(below, values)
    stages, defaults = whole.get("stages") or {}, whole.get("defaults") or {}
    for name in stages if isinstance(stages, Mapping) else ():
        if name not in STAGES:
            raise UserError(
                f"{where}.stages: no stage {name!r}{did_you_mean(name, STAGES)}; stages are {', '.join(STAGES)}"
            )
    if (profile or defaults) and isinstance(stages, Mapping) and isinstance(defaults, Mapping):
        given = {name: stages.get(name) or {} for name in STAGES}
        # What is no mapping is refused below, by its key.
        whole["stages"] = {
            name: merged(defaults, one) if isinstance(one, Mapping) else one for name, one in given.items()
        }
    return PlacementSettings.load(whole, where)


def judged(placement: PlacementSettings, key_variable: str, asking: Sequence[str] = GRADING) -> PlacementSettings:
    """A placement in which the stages that grade get the judge's key as the teacher's stage gets its own.

    Args:
        placement: As `load_placement` makes it.
        key_variable: The environment variable of the key, `evaluate.judge.api_key_env`.
        asking: The stages that get it.
    """
    secrets = [
        one.model_copy(update={"stages": [*one.stages, *(name for name in asking if name not in one.stages)]})
        if one.env == key_variable and one.stages != "hub"
        else one
        for one in placement.secrets
    ]
    return placement.model_copy(update={"secrets": secrets})


def check_devices(
    placement: PlacementSettings,
    train_gpus: int,
    nodes: int,
    checkpoint_uri: str,
    answering_gpus: int,
    shards: int,
) -> None:
    """Refuses a config whose sections ask for other devices than its placement gives.

    Args:
        placement: As `load_placement` makes it.
        train_gpus: `train.gpus`; 0: every one that the pod has.
        nodes: `train.nodes`.
        checkpoint_uri: `train.checkpoint_uri`.
        answering_gpus: `evaluate.gpus`; 0 where a CPU answers as well.
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
    if answering and placement.profile and answering.gpus < answering_gpus:
        raise ValueError(
            f"evaluate.gpus {answering_gpus} needs as many in placement.stages.{name}.gpus, and it is "
            f"{answering.gpus}; set accelerator and gpus there, or evaluate.gpus: 1 and evaluate.backend: transformers"
        )
