"""Tables for a person at a terminal: of any rows, and the one that a run prints at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.report.controls import TITLES, control_of
from llm2llm.components.report.verdict import always_one, not_learnt, signed_interval, verdict

SPLITS = ("seeds", "validation", "test")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its columns two spaces apart; the first row is the header, and all are equally long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def headline(summary: Mapping[str, Any]) -> str:
    """The report's first words, with the interval of the gain over the seeds alone with as many steps."""
    said = f"{verdict(summary).headline}."
    control = control_of(summary, "steps")
    gains = control["gain"] if control else {}
    split = next((split for split in ("test", "validation") if split in gains), None)
    return f"{said} Paired 95% interval: {signed_interval(gains[split])}." if split else said


def summary_table(summary: Mapping[str, Any]) -> str:
    """Accuracy with its 95% interval for each iteration and split, rows and errors; the best iteration starred."""
    header = ["iteration", "training rows", "errors", *SPLITS]
    rows = [header]
    for iteration in summary["iterations"]:
        star = " *" if iteration["iteration"] == summary["best_iteration"] else ""
        errors = "-" if iteration["errors"] is None else str(iteration["errors"])
        cells = [f"{iteration['iteration']}{star}", str(iteration["training_rows"]), errors]
        for split in SPLITS:
            score = iteration["accuracy"].get(split)
            cells.append(f"{score['value']:.1%} ({score['low']:.1%} to {score['high']:.1%})" if score else "-")
        rows.append(cells)
    controls = summary.get("controls", [])
    for control in controls:
        cells = [TITLES[control["name"]].lower(), str(summary["rows"]["seeds"]) if control["steps"] else "-", "-"]
        for split in SPLITS:
            score = control["accuracy"].get(split)
            cells.append(f"{score['value']:.1%} ({score['low']:.1%} to {score['high']:.1%})" if score else "-")
        rows.append(cells)
    lines = aligned(rows)
    counts, judge = summary["rows"], summary.get("judge_calls")
    judged = f", {judge['total']} answers of the judge" if judge else ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts["rejected"]["by_reason"].items())
    lines += [
        "",
        *([headline(summary), ""] if controls else []),
        f"* best by validation. {counts['generated']} rows generated, {counts['kept']} kept, "
        f"{counts['rejected']['total']} rejected{f' ({reasons})' if reasons else ''}; "
        f"{summary['teacher_calls']['total']} teacher calls{judged}.",
        f"Stopped: {summary['iterations'][-1]['reason']}.",
    ]
    if counts["left_out"]:
        lines.append(
            f"{counts['left_out']} of your rows were left out: they match validation or test rows; see the report."
        )
    best = next(one for one in summary["iterations"] if one["iteration"] == summary["best_iteration"])
    if unlearnt := not_learnt(best) or always_one(summary):
        lines.append(unlearnt)
    return "\n".join(lines)
