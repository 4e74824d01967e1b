"""The command `llm2llm export`: a run's rows, for other programs."""

from pathlib import Path
from typing import Any

import click

from llm2llm.components.shared.base.errors import UserError

SETS = ("training", "seeds", "validation", "test", "pool", "replay")
_SUFFIXES = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@click.command()
@click.argument("run_or_file")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--format", "export_format", type=click.Choice(["jsonl", "csv", "parquet", "messages", "prompt_completion"]),
    help="Default: as the suffix of --to says.",
)  # fmt: skip
@click.option("--rows", "which", type=click.Choice(SETS), default="training", show_default=True,
              help="Of a run: which set; `training` is that of its last iteration.")  # fmt: skip
@click.option("--lineage", is_flag=True, help="Add where each row comes from and how it was checked.")
@click.option("--plain", is_flag=True,
              help="For messages, prompt_completion: question and answer alone, without the run's prompt.")  # fmt: skip
def export(run_or_file: str, target: Path, export_format: str | None, which: str, lineage: bool, plain: bool) -> None:
    """Write a run's rows as other programs read them.

    RUN_OR_FILE is the output folder of a run, the folder or s3:// prefix of its artifacts, or a file of examples that a
    stage wrote. JSON Lines, CSV and Parquet can be read back as data of another run. In CSV an apostrophe stands before
    what a spreadsheet would take for a formula.
    """
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.ingest.export import export_rows
    from llm2llm.components.shared.tasks import Task, load_task

    chosen: Any = export_format or _SUFFIXES.get(target.suffix.lower())
    if chosen is None:
        raise UserError(f"--to {target}: the suffix {target.suffix!r} says no format; set --format")
    task: Task | None = None
    if Path(run_or_file).is_file():
        rows = read_rows(run_or_file, "examples", Example)
    else:
        from llm2llm.pipelines.inspect.run_files import open_run

        run = open_run(run_or_file)
        file = run.last_training_set() if which == "training" else run.last("prepare", f"{which}_set")
        if file is None:
            raise UserError(f"{run_or_file}: the run has no {which} rows")
        table = run.table(file, "examples", list(Example.__dataclass_fields__))
        rows = [Example(**row) for row in table.to_pylist()]
        described = run.config().get("task")
        task = load_task(described) if described and not plain else None
    export_rows(rows, target, chosen, task, lineage)
    click.echo(f"wrote {len(rows):,} rows to {target} ({chosen})")
