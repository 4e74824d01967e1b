"""What a config's other sections mean for its placement: which stages need the judge's key, the hub's token and the
model cache, and how large their volumes have to be."""

import math
from typing import TYPE_CHECKING

from llm2llm.components.shared.ingest.sources import is_file_source
from llm2llm.components.shared.training.settings import SCRATCH
from llm2llm.pipelines.config.placement import judged
from llm2llm.pipelines.config.placement_parts import LOADS_MODELS, READS_DATA
from llm2llm.pipelines.config.placement_settings import PlacementSettings
from llm2llm.pipelines.config.placement_values import SMALLEST_VOLUME, UNKNOWN_VOLUME
from llm2llm.pipelines.kubeflow.student_disk import (
    Disk,
    answering_disk,
    named_parameters,
    scratch_parameters,
    training_disk,
)

if TYPE_CHECKING:
    from llm2llm.pipelines.config import Config


def fit_placement(config: "Config") -> PlacementSettings:
    """The placement of a config's pipeline. What the config's `placement` says itself, stands.

    The stages that grade get the judge's key, and `controls` the teacher's where it asks the teacher. Those that load
    models in this config get the model cache and secrets with `stages: hub`, which `configure` and `prepare` get too
    where data are on the Hub. Volumes without a size get one from the student's.
    """
    judge = config.evaluate.judge
    placement = judged(config.placement, judge.api_key_env) if judge else config.placement
    if ceiling := config.ceiling_teacher:
        placement = judged(placement, ceiling.api_key_env, ("controls",))
    models = placement.model_stages or model_stages(config)
    hub = [*models, *(READS_DATA if reads_hub(config) else ())]
    secrets = [one.model_copy(update={"stages": hub}) if one.stages == "hub" else one for one in placement.secrets]
    sizes = {stage: fitting_sizes(config, stage, stage in models) for stage in placement.stages}
    stages = {
        name: wanted.model_copy(
            update={"scratch": wanted.scratch or sizes[name][0], "downloads": wanted.downloads or sizes[name][1]}
        )
        for name, wanted in placement.stages.items()
    }
    return placement.model_copy(update={"secrets": secrets, "model_stages": models, "stages": stages})


def model_stages(config: "Config") -> list[str]:
    """The stages that load a model from the Hub or a folder in this config."""
    found = [stage for stage in LOADS_MODELS if not (stage == "evaluate" and config.evaluate.shards > 1)]
    if config.in_pod:
        found.append("teacher_augment")
    covers = config.dedupe.coverage is not None and config.dedupe.coverage.model
    if config.dedupe.semantic is not None or config.dedupe.leak.semantic is not None or covers:
        found.append("dedupe")
    return found


def reads_hub(config: "Config") -> bool:
    """Whether any data are named as a data set on the Hugging Face Hub may be, rather than as a file."""
    return any(source and not is_file_source(source) for source in config.data.model_dump().values())


def fitting_sizes(config: "Config", stage: str, loads_models: bool) -> tuple[str, str]:
    """Sizes of a stage's volumes: (scratch, downloads)."""
    if not loads_models or stage == "dedupe":  # an embedding model is small
        return SMALLEST_VOLUME, SMALLEST_VOLUME
    disk = stage_disk(config, stage, student_parameters(config))
    return (UNKNOWN_VOLUME, UNKNOWN_VOLUME) if disk is None else (_size(disk.scratch), _size(disk.downloads))


def student_parameters(config: "Config") -> int:
    """How many weights the student has, as far as the config alone tells; 0: unknown."""
    if config.student == SCRATCH:
        return scratch_parameters(config.train.scratch)
    return named_parameters(config.student)


def stage_disk(config: "Config", stage: str, parameters: int) -> Disk | None:
    """What a stage writes; None where a model's size is not known.

    Args:
        stage: One that loads models.
        parameters: The student's; 0: unknown.
    """
    if stage == "teacher_augment":
        sizes = [named_parameters(model.model) for _, model in config.in_pod if model.model]
        if config.teacher_augment.needs_student:
            sizes.append(parameters)
        return answering_disk(sum(sizes)) if all(sizes) else None
    if not parameters:
        return None
    if stage == "train":
        return training_disk(parameters, config.train)
    if stage in ("tune", "out_of_fold", "controls"):  # their students are no artifacts
        training = training_disk(parameters, config.train)
        return Disk(training.scratch + training.downloads, 0.0)
    return answering_disk(parameters, models=2 if stage == "promote" else 1)


def _size(gib: float) -> str:
    """A fifth more than is needed and 5 GiB for everything else, in tens, at least `SMALLEST_VOLUME`."""
    return f"{10 * math.ceil((1.2 * gib + 5) / 10)}Gi"
