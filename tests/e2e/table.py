"""Pods, seconds a stage and the size of a run's Workflow."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from llm2llm.pipelines.kubeflow.workflow import Node, Workflow


@dataclass(frozen=True)
class StageRow:
    """One stage of a run."""

    name: str
    pods: int
    """Its own, and its drivers'."""
    tries: int
    """Of its executor."""
    cached: bool
    """Whether it ended without one: it was taken over from an earlier run."""
    seconds: float
    """In which its executors ran, all tries and all items of a loop together."""


def stage_rows(workflow: Workflow, stages: Mapping[str, str]) -> list[StageRow]:
    """The stages that a run has come to, in the order in which they can first run."""
    rows = []
    for key, name in stages.items():
        inside = [node for node in workflow.nodes if node.type == "Pod" and _is_of(node, key)]
        executors = [node for node in inside if node.name.startswith("executor")]
        cached = not executors and any(node.name == key and node.state == "SUCCEEDED" for node in workflow.nodes)
        if inside:
            rows.append(StageRow(name, len(inside), len(executors), cached, sum(map(_seconds, executors))))
    return rows


def taken_over(workflow: Workflow, stages: Mapping[str, str]) -> list[str]:
    """The stages that were answered from Kubeflow's cache."""
    return [row.name for row in stage_rows(workflow, stages) if row.cached]


def size_table(workflow: Workflow, stages: Mapping[str, str]) -> str:
    """All of it, for a person."""
    rows = stage_rows(workflow, stages)
    pods = [node for node in workflow.nodes if node.type == "Pod"]
    lines: list[Sequence[str]] = [("stage", "pods", "tries", "seconds")]
    lines += [
        (row.name, str(row.pods), "cached" if row.cached else str(row.tries), f"{row.seconds:.0f}") for row in rows
    ]
    others = len(pods) - sum(row.pods for row in rows)
    lines.append(("drivers of conditions and loops", str(others), "", ""))
    lines.append(("all", str(len(pods)), "", f"{_span(workflow.nodes):.0f}"))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(line[i].rjust(widths[i]) for i in (1, 2, 3))]).rstrip() for line in lines
    ]
    packed = ", nodes compressed" if workflow.compressed else ""
    return "\n".join([*text, f"Workflow: {workflow.size / 1000:.0f} KB, {len(workflow.nodes)} nodes{packed}"])


def _is_of(node: Node, key: str) -> bool:
    """Whether a pod is a task's: its driver, or an executor inside it."""
    parts = [re.sub(r"\(\d+\)$", "", part) for part in node.path.split(".")]
    return parts[-1] == f"{key}-driver" or (parts[-1] == "executor" and parts[-2:-1] == [key])


def _seconds(node: Node) -> float:
    return (_at(node.finished) - _at(node.started)).total_seconds() if node.started and node.finished else 0.0


def _span(nodes: Sequence[Node]) -> float:
    starts, ends = [one.started for one in nodes if one.started], [one.finished for one in nodes if one.finished]
    return (_at(max(ends)) - _at(min(starts))).total_seconds() if starts and ends else 0.0


def _at(moment: str) -> datetime:
    return datetime.fromisoformat(moment)
