"""The commands `llm2llm review export` and `llm2llm review import`: people in the loop."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llm2llm.components.shared.base.errors import UserError

if TYPE_CHECKING:
    from llm2llm.components.shared.tasks import Task
    from llm2llm.pipelines.inspect.review import ReviewFormat
    from llm2llm.pipelines.inspect.run_files import Run


@click.group()
def review() -> None:
    """Have people look at what a run is not sure of."""


@review.command("export")
@click.argument("run")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True,
              help="The file to write: .jsonl, .csv or .parquet; .json for the other formats.")  # fmt: skip
@click.option("--format", "review_format", type=click.Choice(["rows", "argilla", "label-studio"]), default="rows",
              show_default=True, help="Rows for a spreadsheet or script, or what these tools import.")  # fmt: skip
@click.option("--below", type=click.FloatRange(0, 1), default=0.9, show_default=True,
              help="Generated rows whose answer's check was less sure than this.")  # fmt: skip
@click.option("--unsure", type=click.IntRange(min=0), default=50, show_default=True,
              help="How many of the seeds that the student is least sure of.")  # fmt: skip
def export_command(run: str, target: Path, review_format: "ReviewFormat", below: float, unsure: int) -> None:
    """Write the rows of a run that are worth a person's time.

    Seeds whose label is suspected to be wrong, generated rows of low confidence, those that a judge or blind solutions
    did not confirm, and the seeds that the student is least sure of. RUN is an output folder, or the folder or s3://
    prefix of a run's artifacts. Fill in `decision` (keep, correct, drop) or `corrected`, then `llm2llm review import`.
    """
    from llm2llm.pipelines.inspect.review import WHY, label_studio_config, review_rows, write_review
    from llm2llm.pipelines.inspect.run_files import open_run

    opened = open_run(run)
    task = _task(opened)
    rows = review_rows(opened, below, unsure)
    write_review(rows, target, review_format, task)
    counts = Counter(reason for row in rows for reason in row.reasons)
    said = ", ".join(f"{counts[reason]:,} {reason}" for reason in WHY if counts[reason])
    click.echo(f"wrote {len(rows):,} rows to {target} ({said})")
    if review_format == "label-studio":
        click.echo(f"labelling config of the project:\n{label_studio_config(task)}")


@review.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", required=True, metavar="RUN", help="The run that the rows were exported from.")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True,
              help="The seeds to write (.jsonl, .csv, .parquet), for data.seeds of the next run.")  # fmt: skip
def import_command(file: Path, run: str, target: Path) -> None:
    """Take people's corrections back as seeds.

    FILE is what `llm2llm review export` wrote, filled in, or what Argilla (records.to_json) or Label Studio (JSON)
    exports. Writes all seeds of the run with the corrections put in; a generated row that was confirmed or corrected
    joins them. What a person did with a row stands in its `checks`, which `llm2llm inspect why` shows.
    """
    from llm2llm.components.shared.ingest.export import export_rows
    from llm2llm.pipelines.cli.data import SUFFIXES
    from llm2llm.pipelines.inspect.review import apply_reviews, read_reviews
    from llm2llm.pipelines.inspect.run_files import open_run

    if target.suffix.lower() not in SUFFIXES:
        raise UserError(f"--to {target}: the suffix must be one of {', '.join(SUFFIXES)}")
    opened = open_run(run)
    task = _task(opened)
    reviews, disputed = read_reviews(file)
    seeds, counts = apply_reviews(opened, reviews, task)
    export_rows(seeds, target, SUFFIXES[target.suffix.lower()], lineage=True)
    click.echo(
        f"wrote {len(seeds):,} seeds to {target}: {counts['confirmed']:,} rows confirmed, {counts['corrected']:,} "
        f"corrected, {counts['dropped']:,} seeds dropped; {counts['joined']:,} of the rows are new among the seeds"
        + (f"; {disputed:,} left out, about which people disagree" if disputed else "")
    )


def _task(run: "Run") -> "Task":
    from llm2llm.components.shared.tasks import load_task

    described = run.config().get("task")
    if not described:
        raise UserError(f"{run.uri}: the run's config is not there, so its task is not known")
    return load_task(described)
