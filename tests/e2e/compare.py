"""A run in a cluster held against one of the same config on this machine: hashes of files, and scores."""

from collections.abc import Iterator, Mapping
from typing import Any

from llm2llm.components.shared.lineage.records import label_of
from tests.e2e.place import FAIL, LOOK, OK, Outcome

SAME_EVERYWHERE = ("prepare",)
"""Stages whose files are the same on every machine; what was trained differs in the last digits from CPU to CPU."""


def compare_hashes(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Outcome:
    """Holds the files that two manifests name against each other.

    Args:
        theirs: The manifest of the cluster's last report.
        ours: That of this machine's.
    """
    a, b = _hashes(theirs), _hashes(ours)
    both = a.keys() & b.keys()
    other = [name for name in sorted(both) if a[name] != b[name]]
    must = [name for name in other if name.split(".")[0] in SAME_EVERYWHERE]
    must_be_there = {name for name in b if name.split(".")[0] in SAME_EVERYWHERE} - a.keys()
    note = f"{len(both) - len(other)} of {len(both)} files have the same hash"
    if must or must_be_there or not both:
        wrong = ", ".join([*must, *sorted(must_be_there)]) or "no file is in both manifests"
        return Outcome("hashes", FAIL, f"{note}; these must not differ: {wrong}")
    return Outcome("hashes", LOOK if other else OK, note + (f"; other: {', '.join(other[:8])}" if other else ""))


def _hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{label_of(stage)}.{output}": entry["sha256"]
        for stage in manifest.get("stages", [])
        for output, entry in stage["outputs"].items()
        # The config names places and images, a manifest what came before it.
        if entry.get("sha256") and stage["stage"] != "configure" and output != "manifest"
    }


def compare_scores(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Outcome:
    """Holds the summaries of two runs against each other.

    Equal scores are OK. Others are for a person to judge while each lies within the other's 95% interval, as after
    training on another kind of CPU; beyond that they are wrong.
    """
    worst, differing = OK, []
    a, b = dict(_scores(theirs)), dict(_scores(ours))
    for where in sorted(a.keys() | b.keys()):
        if where not in a or where not in b:
            differing.append(f"{where} only {'in the cluster' if where in a else 'here'}")
            worst = LOOK if worst == OK else worst
        elif a[where]["value"] != b[where]["value"]:
            differing.append(f"{where}: {a[where]['value']:.1%} there, {b[where]['value']:.1%} here")
            overlap = a[where]["low"] <= b[where]["value"] <= a[where]["high"]
            worst = LOOK if overlap and worst != FAIL else FAIL
    if not a.keys() & b.keys():
        return Outcome("scores", FAIL, "no score is in both summaries")
    if not differing:
        return Outcome("scores", OK, f"{len(a)} scores are the same: {_line(theirs)}")
    return Outcome("scores", worst, "; ".join(differing))


def _scores(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for one in summary["iterations"]:
        for split, score in one["accuracy"].items():
            yield f"{split} of iteration {one['iteration']}", score


def _line(summary: Mapping[str, Any]) -> str:
    first, best = summary["iterations"][0], summary["iterations"][summary["best_iteration"]]
    split = next(iter(best["accuracy"]))
    return f"{split} {first['accuracy'][split]['value']:.1%} to {best['accuracy'][split]['value']:.1%}"
