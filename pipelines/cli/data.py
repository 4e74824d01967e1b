"""The command `llm2llm export`: a run's rows, for other programs."""

from pathlib import Path
from typing import Any, Literal

import click

from llm2llm.components.shared.base.errors import UserError

SETS = ("training", "seeds", "validation", "test", "pool", "replay")
SUFFIXES: dict[str, Literal["jsonl", "csv", "parquet"]] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@click.command()
@click.argument("run_or_file")
@click.option("--to", "target", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--push", metavar="OWNER/NAME",
              help="Push to this data set on the Hugging Face Hub, with a card; the token is $HF_TOKEN.")  # fmt: skip
@click.option("--public", is_flag=True, help="Of --push: a data set that is not there yet is made public, not private.")
@click.option(
    "--format", "export_format", type=click.Choice(["jsonl", "csv", "parquet", "messages", "prompt_completion"]),
    help="Default: as the suffix of --to says; parquet for --push.",
)  # fmt: skip
@click.option("--rows", "which", type=click.Choice(SETS), default="training", show_default=True,
              help="Of a run: which set; `training` is that of its last iteration.")  # fmt: skip
@click.option("--lineage", is_flag=True, help="Add where each row comes from and how it was checked.")
@click.option("--plain", is_flag=True,
              help="For messages, prompt_completion: question and answer alone, without the run's prompt.")  # fmt: skip
def export(
    run_or_file: str,
    target: Path | None,
    push: str | None,
    public: bool,
    export_format: str | None,
    which: str,
    lineage: bool,
    plain: bool,
) -> None:
    """Write a run's rows as other programs read them.

    RUN_OR_FILE is the output folder of a run, the folder or s3:// prefix of its artifacts, or a file of examples that a
    stage wrote. JSON Lines, CSV and Parquet can be read back as data of another run. In CSV an apostrophe stands before
    what a spreadsheet would take for a formula.

    With --push they are pushed to the Hugging Face Hub as a private data set, whose card says what they are.
    """
    from llm2llm.components.shared.base.hub import check_hub, is_hub_repo
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.ingest.export import export_rows, push_rows
    from llm2llm.components.shared.tasks import Task, load_task

    if target is None and push is None:
        raise UserError("export: neither --to nor --push says where the rows go; set one")
    if push is not None:
        check_hub("--push")
        if not is_hub_repo(push):
            raise UserError(f"--push {push}: not OWNER/NAME of letters, digits, dots, dashes and underscores")
    chosen: Any = export_format or (SUFFIXES.get(target.suffix.lower()) if target else "parquet")
    if target is not None and chosen is None:
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
    if target is not None:
        export_rows(rows, target, chosen, task, lineage)
        click.echo(f"wrote {len(rows):,} rows to {target} ({chosen})")
    if push is not None:
        split = "train" if which in ("training", "seeds") else which
        address = push_rows(rows, push, chosen, split, task, lineage, private=not public)
        click.echo(f"pushed {len(rows):,} rows to {address} ({chosen})")
