"""A sweep from its file to its table.

The output folder holds

    sweep.md, sweep.csv, sweep.tex    the table: means, t intervals, paired differences, rows and cost
    points.csv                        every iteration of every point
    curves.svg                        the learning curves
    sweep.json                        the sweep as it was read, and its points
    points/CONFIG/ARM/dD-tT-HASH/     what a point's run left; its output in dD-tT-HASH.log
    shared/                           what the arms of a pair of seeds begin with, until all of them have finished
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from llm2llm.components.shared.base.atomic import write_text
from llm2llm.pipelines.local.run import held, of_other_code
from llm2llm.pipelines.sweep import cluster, local
from llm2llm.pipelines.sweep.plot import plot
from llm2llm.pipelines.sweep.points import Point, expand, sweep_record
from llm2llm.pipelines.sweep.results import PointResult, curves_of, outcome_of, rows_of
from llm2llm.pipelines.sweep.settings import SweepSettings
from llm2llm.pipelines.sweep.tables import latex_table, markdown_table, points_csv, table_csv, text_table


def run_sweep(
    sweep: SweepSettings,
    folder: Path,
    output: Path,
    say: Callable[[str], None],
    connect: Callable[[], cluster.Place] | None = None,
) -> tuple[str, list[str]]:
    """Runs what has not finished, and writes the tables and the plot: after each point, so that they can be read while
    the sweep goes on, and are there when it is killed.

    Args:
        sweep: The sweep.
        folder: What relative configs are seen from.
        output: Made if it is not there; started again with the same one, a sweep goes on.
        say: Shows a line to a person.
        connect: Opens the cluster that the points run in; None: they run on this machine.

    Returns:
        The table for a terminal (empty when no point has finished), and a line for each point that failed.

    Raises:
        UserError: A wrong config, an output folder that cannot be used, a cluster that refuses.
    """
    points = expand(sweep, folder, for_cluster=connect is not None)
    output = output.expanduser().absolute()
    with held(output):
        write_text(output / "sweep.json", sweep_record(sweep, points))
        before = len(finished(points, output))
        say(f"{sweep.name}: {len(points)} points, {before} of them finished before")
        held_over = [local.folder_of(output, one) for one in points if local.summary_of(output, one) is not None]
        if others := sum(of_other_code(folder) for folder in held_over):
            say(
                f"{others} of them by another version of llm2llm; they stay, and are in the table. To run them again, "
                f"remove their folders in {output / 'points'}"
            )

        def write() -> str:
            return write_results(sweep, finished(points, output), output)

        try:
            if connect is None:
                failed = local.run_points(sweep, points, output, say, write)
            elif before < len(points):
                cluster.check_points(points)
                failed = cluster.run_points(sweep, points, output, connect(), say, write)
            else:
                failed = []
        finally:
            shown = write()
        return shown, failed


def finished(points: Sequence[Point], output: Path) -> list[PointResult]:
    """The figures of the points that have finished."""
    found = ((point, local.summary_of(output, point)) for point in points)
    return [outcome_of(point, summary) for point, summary in found if summary is not None]


def write_results(sweep: SweepSettings, outcomes: Sequence[PointResult], output: Path) -> str:
    """Writes tables and plot, and returns the table for a terminal; nothing, and empty, without a finished point."""
    if not outcomes:
        return ""
    rows = rows_of(sweep, outcomes)
    write_text(output / "sweep.md", markdown_table(sweep, rows))
    write_text(output / "sweep.csv", table_csv(sweep, rows))
    write_text(output / "sweep.tex", latex_table(sweep, rows))
    write_text(output / "points.csv", points_csv(outcomes))
    write_text(output / "curves.svg", plot(sweep, curves_of(sweep, outcomes)))
    return text_table(sweep, rows)
