"""The command `llm2llm label`: an application's logs made rows."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.cli.cluster import set_option

if TYPE_CHECKING:
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.ingest.traces import Take
    from llm2llm.components.shared.tasks import Task


@click.command()
@click.argument("traces")
@click.option("--config", required=True, help="A YAML file or a shipped config: its task, and the teacher that labels.")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True,
              help="The rows to write (.jsonl, .csv, .parquet), for data.seeds or data.pool.")  # fmt: skip
@click.option("--take", type=click.Choice(["last", "all"]), default="last", show_default=True,
              help="What is asked: what the user said last, or the whole conversation up to there.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Label at most this many questions, the first ones.")
@click.option("--student", metavar="DIR",
              help="As of `llm2llm predict`: of the labelled rows, --to gets those that it answers wrong.")  # fmt: skip
@click.option("--rest", type=click.Path(path_type=Path), help="With --student: the rows that it answers right.")
@click.option("--with-seeds", is_flag=True, help="Write the config's own seeds first, so that --to can be data.seeds.")
@set_option
def label(
    traces: str,
    config: str,
    target: Path,
    take: "Take",
    limit: int | None,
    student: str | None,
    rest: Path | None,
    with_seeds: bool,
    overrides: tuple[str, ...],
) -> None:
    """Make rows of an application's logs, labelled by a teacher or a committee.

    TRACES is a file of chat requests as OpenAI's API takes them, or what MLflow or Langfuse export. What the
    application answered is not used. Who answers, budget, prices and ledger are those of teacher_augment in the config:
    an answer that the ledger has is not paid for again. Of several teachers, `agree` of them must give the same answer,
    or more than half; one teacher with verify: resolve must agree with itself. Questions that are seeds, validation or
    test rows already are passed over.
    """
    from llm2llm.components.shared.data.journal import Journal
    from llm2llm.components.shared.ingest.export import export_rows
    from llm2llm.components.shared.ingest.read_inputs import read_inputs
    from llm2llm.components.shared.ingest.traces import read_traces
    from llm2llm.components.teacher_augment.label import label_rows
    from llm2llm.components.teacher_augment.opened import open_spend_tracker, opened_teachers
    from llm2llm.pipelines.cli.data import SUFFIXES
    from llm2llm.pipelines.config import load_config

    for option, path in (("--to", target), ("--rest", rest)):
        if path is not None and path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{option} {path}: the suffix must be one of {', '.join(SUFFIXES)}")
    if rest is not None and student is None:
        raise UserError("--rest: only with --student, who answers the rows that go there")
    loaded = load_config(config, overrides, resolve=True)
    settings = loaded.teacher_augment
    if not settings.asks_models or settings.needs_student:
        raise UserError(
            f"label: teacher {settings.teacher!r} with strategy {settings.strategy!r} asks no language model but the "
            "student; set teacher_augment.teacher, .model and .strategy: llm2llm"
        )
    found = read_traces(traces, take)
    held = {
        name: source for name, source in loaded.data.model_dump().items() if name in ("seeds", "validation", "test")
    }
    inputs = read_inputs(held, loaded.task, loaded.prepare)
    known = {row.question for one in inputs.values() for row in one.examples}
    rows = [row for row in found.rows if row.question not in known]
    asked = rows[:limit]
    tracker = open_spend_tracker(settings, Journal())
    with opened_teachers(settings.model_copy(update={"verify": "none"}), tracker, None) as (teachers, _):
        labelled = label_rows(asked, loaded.task, settings, teachers)
    paid = tracker.paid
    money = f", ${paid.usd:,.4f}" if settings.prices else ""
    reasons = "".join(f", {count:,} {reason}" for reason, count in sorted(labelled.left_out.items()))
    click.echo(
        f"{len(found.rows):,} questions ({found.repeated:,} repeated, {found.without:,} records without one, "
        f"{len(found.rows) - len(rows):,} known already, {len(rows) - len(asked):,} over the limit): "
        f"{len(labelled.rows):,} labelled{reasons}; paid now: {paid.calls:,} requests, {paid.tokens:,} tokens{money}"
    )
    if not labelled.rows:
        raise UserError("label: no row got a label, so nothing is written")
    kept, right = _split(labelled.rows, student, loaded.task) if student else (labelled.rows, [])
    seeds = inputs["seeds"].examples if with_seeds else []
    if kept or seeds:
        export_rows([*seeds, *kept], target, SUFFIXES[target.suffix.lower()], lineage=True)
        click.echo(f"wrote {len(kept):,} rows{f' and {len(seeds):,} seeds' if seeds else ''} to {target}")
    else:
        click.echo(f"the student answers every row right: {target} is not written")
    if rest is not None and right:
        export_rows(right, rest, SUFFIXES[rest.suffix.lower()], lineage=True)
        click.echo(f"wrote {len(right):,} rows to {rest}")


def _split(rows: list["Example"], student: str, task: "Task") -> tuple[list["Example"], list["Example"]]:
    """(the rows that the student answers wrong, those that it answers right)."""
    from llm2llm.components.shared.inference.ask import ask_student
    from llm2llm.components.shared.inference.settings import AnswerSettings
    from llm2llm.pipelines.cli.predict import find_student

    folder, _, asked_as = find_student(student, task)
    answers = ask_student(folder, rows, task, AnswerSettings.load(asked_as, "label"))
    counts = Counter(str(one.outcome) for one in answers)
    click.echo(f"the student: {counts['correct']:,} of {len(rows):,} right")
    outcome = [one.outcome == "correct" for one in answers]
    said = {False: "the student was wrong", True: "the student was right"}
    marked = [
        replace(row, checks=[f"{row.checks[0]}; {said[right]}"]) for row, right in zip(rows, outcome, strict=True)
    ]
    return (
        [row for row, right in zip(marked, outcome, strict=True) if not right],
        [row for row, right in zip(marked, outcome, strict=True) if right],
    )
