"""What would run where, and what it can cost at most: `llm2llm plan`. Needs no cluster and asks nobody."""

from dataclasses import dataclass
from typing import Any

from llm2llm.pipelines.config import Config
from llm2llm.pipelines.placement import StagePlacement, seconds

ON_TRAIN_IMAGE = ("train", "evaluate", "out_of_fold")


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan."""

    stage: str
    pods: int
    """How many pods it runs in, over all iterations; retries not counted."""
    image: str
    node: str
    cpu: str
    memory: str
    timeout: str
    retries: int
    gpu_hours: float
    """The most GPU hours that all of its pods can take: every try until its time-out."""


def planned_stages(config: Config) -> list[PlannedStage]:
    """The stages of a config in the order in which they first run, as far as all iterations go."""
    iterations = config.max_iterations
    folds = config.filter_errors.folds if config.filter_errors.selection in ("out_of_fold", "auto") else 0
    pods = {
        "configure": 1,
        "prepare": 1,
        "train": iterations + 1,
        "evaluate": iterations + 1,
        "out_of_fold": folds * iterations,
        "filter_errors": iterations + 1,
        "report": iterations + 1,
        "teacher_augment": iterations,
        "dedupe": iterations,
    }
    planned = []
    for stage, number in pods.items():
        if number == 0:
            continue
        wanted = config.placement.stages.get(stage)
        own = config.images.train if stage in ON_TRAIN_IMAGE else config.images.cpu
        if stage == "teacher_augment":
            own = config.teacher_image
        image = (wanted.image if wanted else "") or own
        if wanted is None:
            planned.append(PlannedStage(stage, number, image, "any", "-", "-", "none", 0, 0.0))
            continue
        tries = number * (1 + wanted.retries)
        planned.append(
            PlannedStage(
                stage,
                number,
                image,
                _node(wanted),
                wanted.cpu,
                wanted.memory,
                wanted.timeout,
                wanted.retries,
                wanted.gpus * tries * seconds(wanted.timeout) / 3600,
            )
        )
    return planned


def _node(wanted: StagePlacement) -> str:
    kind = f"{wanted.gpus} x {wanted.accelerator}" if wanted.gpus else "CPU"
    return f"{kind}, spot" if wanted.spot else kind


def teacher_bound(config: Config) -> str:
    """In words, the most that the teacher can cost."""
    augment = config.teacher_augment
    if augment.strategy == "eda" or augment.teacher in ("pool", "grammar"):
        return "teacher: none is paid"
    if augment.teacher in ("vllm", "transformers"):
        return "teacher: runs in the stage's own pod; it costs that pod's time"
    limits = augment.budget
    parts = [
        f"${limits.usd:,.2f}" if limits.usd is not None else "",
        f"{limits.tokens:,} tokens" if limits.tokens is not None else "",
        f"{limits.calls:,} calls" if limits.calls is not None else "",
    ]
    if any(parts):
        return f"teacher: at most {', '.join(part for part in parts if part)}, by teacher_augment.budget"
    rows = augment.rows_per_iteration
    if not rows and config.prepare.seed_count:
        rows = config.prepare.seed_count * augment.examples_per_error
    if not rows:
        return (
            "teacher: no bound: every seed may be an error in every iteration; set teacher_augment.budget, or "
            "prepare.seed_count"
        )
    rows *= config.max_iterations
    known = f"teacher: at most {rows:,} rows asked for"
    price = augment.prices.get(augment.model)
    if price is None:
        return (
            f"{known}; what they cost is not known: set teacher_augment.prices, and teacher_augment.budget for a limit"
        )
    usd = rows * augment.attempts * augment.max_tokens * price.output / 1e6
    return (
        f"{known}; if every one took all of max_tokens and attempts, ${usd:,.2f} for what is written; set "
        "teacher_augment.budget for a limit"
    )


def plan(config: Config) -> str:
    """The plan of a config as a table with its bounds, for a terminal."""
    stages = planned_stages(config)
    rows: list[tuple[Any, ...]] = [("stage", "pods", "node", "cpu", "memory", "time-out", "retries", "image")]
    rows += [
        (one.stage, one.pods, one.node, one.cpu, one.memory, one.timeout, one.retries, one.image) for one in stages
    ]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    placement = config.placement
    gpu_hours = sum(one.gpu_hours for one in stages)
    if not placement.profile:
        bound = "GPU hours: not known; set placement.profile"
    else:
        tried = sum(one.pods for one in stages if one.gpu_hours)
        bound = (
            f"GPU hours: at most {gpu_hours:,.0f}, if each of {tried} pods were tried again as often as it may and ran "
            "into its time-out each time"
            if gpu_hours
            else "GPU hours: none"
        )
    where = f"profile {placement.profile}" if placement.profile else "no placement"
    return "\n".join(
        [
            f"{config.name}: iteration 0 and up to {config.max_iterations} more, {where}",
            "",
            *lines,
            "",
            bound,
            teacher_bound(config),
        ]
    )
