"""The results of a sweep as text, Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence

from llm2llm.components.shared.base.statistics import Mean
from llm2llm.pipelines.inspect.tables import aligned
from llm2llm.pipelines.sweep.results import MEASURES, ArmResult, PointResult
from llm2llm.pipelines.sweep.settings import SweepSettings

COMPARED = {
    "gain": "chosen minus seeds alone, equal steps",
    "chosen": "chosen minus {baseline}",
    "last": "last minus {baseline}",
    "curve": "all iterations minus {baseline}",
    "half": "half the rows minus {baseline}",
}
"""The differences of the table and what each is called; see `ArmResult.differences`. One that no run has is left out.
"""

_LATEX = str.maketrans({"_": r"\_", "%": r"\%", "±": r"$\pm$", "&": r"\&", "#": r"\#"})


def caption(sweep: SweepSettings, rows: Sequence[ArmResult]) -> str:
    """What the figures are."""
    splits = " and ".join(dict.fromkeys(row.split for row in rows))
    data, training = len(sweep.seeds.data), len(sweep.seeds.training)
    if data > 1:
        unit = (
            f"{data} data seeds, each the mean of {training} training seeds" if training > 1 else f"{data} data seeds"
        )
    else:
        unit = f"{training} training seeds on one draw of the data"
    return (
        f"Accuracy in percent on {splits} rows, mean over {unit}, with the half width of its 95% t interval. "
        f"Differences, in points, are from {sweep.compared_with}, paired by random seeds. Half the rows: an arm's last "
        f"student with at most half of the rows that {sweep.compared_with} added in all, less {sweep.compared_with}'s "
        "last one. Added rows, calls, USD and seconds are means of a run. Intervals are not corrected for the number "
        f"of comparisons.{_unfinished(sweep, rows)}"
    )


def _unfinished(sweep: SweepSettings, rows: Sequence[ArmResult]) -> str:
    runs = len(sweep.configs) * len(sweep.arms) * len(sweep.seeds.data) * len(sweep.seeds.training)
    there = sum(row.runs for row in rows)
    return f" This is of {there} of {runs} runs; the others have not finished." if there < runs else ""


def table(sweep: SweepSettings, rows: Sequence[ArmResult]) -> list[list[str]]:
    """Header and cells."""
    measures = {name: said for name, (said, _) in MEASURES.items() if any(name in row.means for row in rows)}
    header = ["config", "arm", "runs", *measures.values()]
    compared = {name: said for name, said in COMPARED.items() if any(name in row.differences for row in rows)}
    header += [said.format(baseline=sweep.compared_with) for said in compared.values()]
    header += ["added rows", "calls", "USD", "seconds"]
    cells = [header]
    for row in rows:
        cells.append(
            [
                row.config, row.arm, str(row.runs),
                *(_percent(row.means.get(name)) for name in measures),
                *(_percent(row.differences.get(name), "+") for name in compared),
                f"{row.added:.0f}", f"{row.teacher_calls:.0f}",
                "" if row.usd is None else f"{row.usd:.2f}", "" if row.seconds is None else f"{row.seconds:.0f}",
            ]
        )  # fmt: skip
    return cells


def text_table(sweep: SweepSettings, rows: Sequence[ArmResult]) -> str:
    """For a terminal."""
    return "\n".join([*aligned(table(sweep, rows)), "", caption(sweep, rows)])


def markdown_table(sweep: SweepSettings, rows: Sequence[ArmResult]) -> str:
    """`sweep.md`."""
    header, *cells = table(sweep, rows)
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", caption(sweep, rows), ""])


def latex_table(sweep: SweepSettings, rows: Sequence[ArmResult]) -> str:
    """`sweep.tex`: a `tabular` that needs no package."""
    header, *cells = table(sweep, rows)
    lines = [" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in [header, *cells]]
    body = [lines[0], r"\hline", *lines[1:]]
    note = "% " + caption(sweep, rows)
    return "\n".join(
        [note, rf"\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}", r"\hline", *body, r"\hline", r"\end{tabular}", ""]
    )


def table_csv(sweep: SweepSettings, rows: Sequence[ArmResult]) -> str:
    """`sweep.csv`: the table with every mean and the ends of its interval as a fraction, unrounded."""
    numbers = [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
    named = ["gain" if name == "gain" else f"{name}_minus_baseline" for name in COMPARED]
    differences = [f"{name}{end}" for name in named for end in ("", "_low", "_high")]
    header = ["config", "arm", "baseline", "split", "runs", "independent", *numbers, *differences,
              "added_rows", "teacher_calls", "usd", "seconds"]  # fmt: skip
    lines: list[Sequence[object]] = [header]
    for row in rows:
        lines.append(
            [
                row.config, row.arm, sweep.compared_with, row.split, row.runs, row.means["chosen"].n,
                *(value for name in MEASURES for value in _ends(row.means.get(name))),
                *(value for name in COMPARED for value in _ends(row.differences.get(name))),
                row.added, row.teacher_calls, row.usd, row.seconds,
            ]
        )  # fmt: skip
    return _csv(lines)


def points_csv(outcomes: Sequence[PointResult]) -> str:
    """`points.csv`: a line for each iteration of each point; calls, tokens, USD and seconds are the whole run's."""
    header = ["config", "arm", "data_seed", "training_seed", "iteration", "chosen", "split", "accuracy",
              "training_rows", "added_rows", "control_accuracy", "generated", "kept", "teacher_calls", "input_tokens",
              "output_tokens", "usd", "seconds"]  # fmt: skip
    lines: list[Sequence[object]] = [header]
    for one in outcomes:
        for place, accuracy in enumerate(one.accuracy):
            lines.append(
                [
                    one.point.config, one.point.arm, one.point.data_seed, one.point.training_seed, place,
                    int(place == one.best), one.split, accuracy, one.training_rows[place], one.added[place],
                    one.control, one.generated, one.kept, one.teacher_calls, one.input_tokens, one.output_tokens,
                    one.usd, one.seconds,
                ]
            )  # fmt: skip
    return _csv(lines)


def _csv(lines: Sequence[Sequence[object]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(lines)
    return written.getvalue()


def _ends(mean: Mean | None) -> tuple[float | None, ...]:
    return (mean.value, mean.low, mean.high) if mean else (None, None, None)


def _percent(mean: Mean | None, sign: str = "") -> str:
    if mean is None:
        return ""
    shown = f"{100 * mean.value:{sign}.1f}"
    return shown if mean.high is None else f"{shown} ± {100 * (mean.high - mean.value):.1f}"
