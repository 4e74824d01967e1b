"""What would run where, and what it can cost at most: `llm2llm plan`. Needs no cluster and asks nobody."""

from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared.llm.settings import IN_POD, Budget
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config import Config
from llm2llm.pipelines.config.placement_settings import StagePlacement
from llm2llm.pipelines.config.placement_values import seconds
from llm2llm.pipelines.kubeflow.apply_placement import stage_placement


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan."""

    stage: str
    pods: int
    """How many pods it runs in, over all iterations; retries not counted. A training on several nodes is one, and its
    workers are others."""
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
    folds = config.filter_errors.fold_count
    shards, nodes = config.evaluate.shards, config.train.nodes
    side_by_side = {"predict": shards, "out_of_fold": folds}
    there = {
        "detect_changes": config.promote.only_if_new,
        "tune": bool(config.tune.tried),
        "predict": shards > 1,
        "out_of_fold": folds > 0,
        "controls": config.has_controls,
        "promote": bool(config.promote.registry),
        "notify": config.notifies,
    }
    pods = {}
    for name, known in STAGES.items():
        times = 1 if known.from_iteration is None or known.once else iterations + 1 - known.from_iteration
        if name == "report" and not config.reports_each_iteration:
            times = 1
        if name == "out_of_fold":  # not at the limit, where nothing would be written from them
            times = iterations
        pods[name] = times * side_by_side.get(name, 1) * there.get(name, True)
    planned = []
    for stage, number in pods.items():
        if number == 0:
            continue
        wanted = stage_placement(config.placement, stage, nodes, shards)
        image = (wanted.image if wanted else "") or config.image_of(stage)
        if wanted is None:
            planned.append(PlannedStage(stage, number, image, "any", "-", "-", "none", 0, 0.0))
            continue
        planned.append(_planned(stage, number, image, wanted, 1))
        if stage == "train" and nodes > 1:
            workers = config.placement.stages["train"]
            planned.append(_planned("train's nodes", number * nodes, image, workers, nodes))
    return planned


def _planned(stage: str, pods: int, image: str, wanted: StagePlacement, together: int) -> PlannedStage:
    hours = wanted.gpus * pods * (1 + wanted.retries) * seconds(wanted.timeout) / 3600
    node = f"{wanted.gpus} x {wanted.accelerator}" if wanted.gpus else "CPU"
    node = f"{together} nodes of {node}" if together > 1 else node
    node = f"{node}, spot" if wanted.spot else node
    return PlannedStage(stage, pods, image, node, wanted.cpu, wanted.memory, wanted.timeout, wanted.retries, hours)


def teacher_bound(config: Config) -> str:
    """In words, the most that the teacher can cost."""
    augment = config.teacher_augment
    if not augment.asks_models:
        return "teacher: none is paid"
    if augment.teacher in IN_POD:
        return "teacher: runs in the stage's own pod; it costs that pod's time"
    if limits := _limits(augment.budget):
        return f"teacher: at most {limits}, by teacher_augment.budget"
    rows = augment.rows_per_iteration
    if not rows and config.prepare.seed_count:
        rows = config.prepare.seed_count * augment.examples_per_error
    if not rows:
        return (
            "teacher: no bound: every seed may be an error in every iteration; set teacher_augment.budget, or "
            "prepare.seed_count"
        )
    if config.filter_errors.generated_rows and not augment.rows_per_iteration:
        # Every row so far may be an error, those of the iteration before among them.
        rows = config.prepare.seed_count * ((1 + augment.examples_per_error) ** config.max_iterations - 1)
    else:
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


def judge_bound(config: Config) -> str:
    """In words, the most that the judge can cost; empty without one.

    Its budget is for one pod. A pod that is tried again finds in the ledger what its first try has spent; without a
    ledger it may spend the budget again.
    """
    judge = config.evaluate.judge
    if judge is None:
        return ""
    if judge.teacher in IN_POD:
        return "judge: runs in the stage's own pod; it costs that pod's time"
    if not _limits(judge.budget):
        return "judge: no bound: set evaluate.judge.budget"
    grading = ("evaluate" if config.evaluate.shards == 1 else "predict", "tune", "out_of_fold", "controls", "promote")
    stages = [one for one in planned_stages(config) if one.stage in grading]
    pods = sum(one.pods * (1 if judge.ledger else 1 + one.retries) for one in stages)
    again = "" if judge.ledger else "; retries counted, as evaluate.judge.ledger is not set"
    return (
        f"judge: at most {_limits(judge.budget, pods)}: evaluate.judge.budget for each of {pods} pods that grade{again}"
    )


def _limits(budget: Budget, pods: int = 1) -> str:
    """A budget in words, for so many pods that each have it; empty for one without a limit."""
    parts = [
        f"${budget.usd * pods:,.2f}" if budget.usd is not None else "",
        f"{budget.tokens * pods:,} tokens" if budget.tokens is not None else "",
        f"{budget.calls * pods:,} calls" if budget.calls is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def folds_bound(config: Config, stages: list[PlannedStage]) -> list[str]:
    """What the selection costs in trainings; nothing for one that needs no folds."""
    wanted = config.filter_errors
    if not wanted.fold_count:
        return []
    most = next(one.pods for one in stages if one.stage == "out_of_fold")
    when = (
        f"in those alone in which the student solves more than {wanted.auto_above:.0%} of its seeds"
        if wanted.waits_for_known_seeds
        else "in each but the last"
    )
    return [f"folds: {wanted.fold_count} more trainings an iteration, {when}; {most} pods at most"]


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
            *folds_bound(config, stages),
            bound,
            teacher_bound(config),
            *filter(None, [judge_bound(config)]),
        ]
    )
