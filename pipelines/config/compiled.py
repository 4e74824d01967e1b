"""What is fixed when a pipeline is compiled, and how a run's settings are held against it."""

from collections.abc import Mapping
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config.config import Config

REPORTS = "report.each_iteration"


def compiled_settings(config: Config) -> dict[str, Any]:
    """What is fixed when the pipeline is compiled, by the words in which a run's parameters are held against it."""
    return {
        "filter_errors.selection": config.filter_errors.selection,
        "filter_errors.random_as": config.filter_errors.random_as,
        "filter_errors.folds": config.filter_errors.folds,
        "filter_errors.generated_rows": config.filter_errors.generated_rows,
        "filter_errors.auto_above": config.filter_errors.auto_above,
        "train.start_from": config.train.start_from,
        "train.validation_loss": config.train.validation_loss,
        "train.nodes": config.train.nodes,
        "evaluate.backend": config.evaluate.backend,
        "evaluate.shards": config.evaluate.shards,
        "promote.only_if_new": config.promote.only_if_new,
        "whether there is anything to tune": bool(config.tune.tried),
        "whether there are controls": config.has_controls,
        REPORTS: config.reports_each_iteration,
        "whether there is a registry": bool(config.promote.registry),
        "whether there are replay rows": bool(config.data.replay),
        "whether the teacher draws from the pool": config.draws_from_pool,
        "whether the teacher is the student": config.teacher_augment.needs_student,
        "the image that the teacher needs": config.image_of("teacher_augment"),
        "notify": config.notify.model_dump(mode="json", exclude_defaults=True),
        "the registry that notify asks": config.promote.registry if config.notifies else "",
        "max_iterations": config.max_iterations,
        "images": config.images.model_dump(),
    }


def check_compiled(config: Config, compiled: Mapping[str, Any]) -> None:
    """Holds a run's config against what its pipeline was compiled with.

    Raises:
        UserError: It asks for more iterations, or for anything else that would be another pipeline.
    """
    if config.max_iterations > compiled["max_iterations"]:
        raise UserError(
            f"max_iterations: {config.max_iterations} is more than the {int(compiled['max_iterations'])} that the "
            "pipeline was compiled with; lower it, or compile the config again with a higher max_iterations"
        )
    for where, now in compiled_settings(config).items():
        if where == REPORTS and config.report.each_iteration is None:
            continue  # not set: as the size of the Workflow allowed
        if where not in ("max_iterations", "images") and now != compiled[where]:
            raise UserError(
                f"{where}: {now!r}, but the pipeline was compiled with {compiled[where]!r}; compile it again"
            )
