"""`llm2llm inspect why` and `inspect diff`: where a row comes from, and what differs between two runs."""

import json

import click


@click.command()
@click.argument("row_id", required=False)
@click.option("--text", help="In place of ROW_ID: a part of the row's question; upper and lower case are the same.")
@click.option("--run", "run_uri", required=True, metavar="URI",
              help="The output folder of a run, or the folder or s3:// prefix of its artifacts.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print every field as JSON.")
def why(row_id: str | None, text: str | None, run_uri: str, as_json: bool) -> None:
    """Tell why a row is in the training set, or why not.

    ROW_ID is a row's id or its first digits, or the id that your own data gives it. Of a generated row: its seed, what
    the student answered, what the teacher was asked and wrote, the checks, the nearest rows, where it was used. Of a
    rejected one also the reason; of a seed all that has become of it.
    """
    from llm2llm.pipelines.inspect import why as lookup
    from llm2llm.pipelines.inspect.run_files import open_run
    from llm2llm.pipelines.inspect.wording import why_text

    if (row_id is None) == (text is None):
        raise click.UsageError("give ROW_ID or --text, and one of them only")
    run = open_run(run_uri)
    facts = lookup.why(run, lookup.id_of_text(run, text) if row_id is None else row_id)
    click.echo(json.dumps(facts, indent=2) if as_json else why_text(facts))


@click.command()
@click.argument("run_a")
@click.argument("run_b")
@click.option("--json", "as_json", is_flag=True, help="Print every field as JSON.")
def diff(run_a: str, run_b: str, as_json: bool) -> None:
    """Tell what differs between two runs.

    Settings, data, code, scores, training rows. RUN_A and RUN_B are output folders, or folders or s3:// prefixes of a
    run's artifacts. Scores are those of the best iterations, with a paired test on the rows that both have answered.
    """
    from llm2llm.pipelines.inspect import diff as lookup
    from llm2llm.pipelines.inspect.run_files import open_run
    from llm2llm.pipelines.inspect.wording import diff_text

    found = lookup.diff(open_run(run_a), open_run(run_b))
    click.echo(json.dumps(found, indent=2) if as_json else diff_text(found))
