"""The command `llm2llm predict`: rows put to a finished student."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.cli.data import SUFFIXES

if TYPE_CHECKING:
    from llm2llm.components.shared.inference.ask import Asked
    from llm2llm.components.shared.ingest.formats import RowFormat
    from llm2llm.components.shared.registry.records import Threshold
    from llm2llm.components.shared.tasks import Task


@click.command()
@click.option("--student", required=True, metavar="DIR",
              help="The output folder of a run, a student's folder, a version's in a registry; s3:// too.")  # fmt: skip
@click.option("--input", "source", required=True, metavar="FILE",
              help="Rows as data.seeds of a config takes them; answers may be missing. -: standard input.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path),
              help="A .jsonl, .csv or .parquet file to write; default: JSON lines on standard output.")  # fmt: skip
@click.option("--task", metavar="TASK",
              help="A shipped task or a config file; default: the task that the student was trained on.")  # fmt: skip
@click.option("--format", "row_format", default="auto", show_default=True, help="As prepare.format of a config.")
@click.option("--mode", type=click.Choice(["generate", "score"]),
              help="As evaluate.mode of a config; default: the run's, or generate for a student's folder.")  # fmt: skip
@click.option("--backend", type=click.Choice(["transformers", "vllm"]), default="transformers", show_default=True,
              help="As evaluate.backend of a config.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Rows answered at once.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="The longest answer; default: the task's.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that the student's base model brings along.")
def predict(
    student: str,
    source: str,
    output: Path | None,
    task: str | None,
    row_format: "RowFormat",
    mode: str | None,
    backend: str,
    batch_size: int,
    max_new_tokens: int | None,
    trust_remote_code: bool,
) -> None:
    """Ask a finished student, with the task and the prompt that it was trained with.

    Each row comes back with `prediction`, `completion` and, where it has an answer, `outcome`: correct, wrong,
    unparseable; then come the row's other columns. The accuracy of those rows is said at the end. A run with
    evaluate.threshold also says which rows are flagged, by the threshold that it has chosen on validation.
    """
    from llm2llm.components.shared.base.errors import did_you_mean
    from llm2llm.components.shared.ingest.examples import first_place, to_examples
    from llm2llm.components.shared.ingest.formats import FORMATS
    from llm2llm.components.shared.ingest.sources import read_raw

    if output is not None and output.suffix.lower() not in SUFFIXES:
        raise UserError(f"--output {output}: the suffix must be one of {', '.join(SUFFIXES)}")
    if row_format not in FORMATS:
        raise UserError(f"--format {row_format}: no such format{did_you_mean(row_format, FORMATS)}; there are "
                        f"{', '.join(FORMATS)}")  # fmt: skip
    folder, the_task, asked_as = find_student(student, named_task(task))
    columns = the_task.columns
    with _here(source) as file:
        try:
            raw = read_raw(file, the_task, columns, row_format, unanswered=True)
            rows = to_examples(raw, the_task, columns, first_place([raw], the_task, columns, True), True)
        except UserError as problem:
            here = "rename the column, or give --task CONFIG with other task.columns"
            said = str(problem).replace("Set task.columns to say which column holds what", here)
            raise UserError(said.replace(file, source)) from None

    from dataclasses import asdict, fields

    from llm2llm.components.shared.inference.ask import Asked, ask_student
    from llm2llm.components.shared.inference.settings import AnswerSettings
    from llm2llm.components.shared.ingest.other_columns import other_columns, with_own_ids
    from llm2llm.components.shared.models.load import is_classifier

    for option, value in (("--mode generate", mode == "generate"), ("--max-new-tokens", max_new_tokens)):
        if value and is_classifier(folder, trust_remote_code):
            raise UserError(f"{option}: the student is a classifier, which scores labels; leave the option out")
    chosen: dict[str, Any] = {"mode": mode, "max_new_tokens": max_new_tokens}
    settings = AnswerSettings.load(
        {**asked_as, **{key: value for key, value in chosen.items() if value is not None}, "backend": backend,
         "batch_size": batch_size, "trust_remote_code": trust_remote_code},
        "predict",
    )  # fmt: skip
    others, left_out = other_columns(raw, columns, [one.name for one in fields(Asked)])
    flag_from = _flag_from(student) if settings.threshold else None
    with redirect_stdout(sys.stderr):  # progress: standard output is for the answers
        asked = ask_student(folder, with_own_ids(rows, raw, columns), the_task, settings, flag_from)
    _write([asdict(one) for one in asked], others, output)
    parts = [_summary(asked, the_task)]
    if settings.threshold and flag_from is not None and any(one.flagged is not None for one in asked):
        flagged = sum(one.flagged or False for one in asked)
        parts.append(f"{flagged:,} flagged as {settings.threshold.label} (a probability of at least {flag_from:.4f})")
    if left_out:
        parts.append(f"not kept, as the answers have columns of these names: {', '.join(left_out)}")
    click.echo("; ".join([*parts, *([f"wrote {output}"] if output else [])]), err=output is None)


@contextmanager
def _here(source: str) -> Iterator[str]:
    """A source, or the file that standard input is written to."""
    if source != "-":
        yield source
        return
    content = sys.stdin.buffer.read()
    with TemporaryDirectory(prefix="llm2llm-") as folder:
        # What is no JSON is CSV; files of other kinds are known by their first bytes.
        suffix = ".jsonl" if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b"") else ".csv"
        path = Path(folder) / f"stdin{suffix}"
        path.write_bytes(content)
        yield str(path)


def _write(answered: list[dict[str, Any]], others: list[dict[str, Any]], output: Path | None) -> None:
    """Writes answers with the other columns of their rows, to a file or as JSON lines to standard output."""
    import pyarrow as pa

    from llm2llm.components.shared.data.parquet import columns_of
    from llm2llm.components.shared.inference.ask import Asked
    from llm2llm.components.shared.ingest.export import write_columns
    from llm2llm.components.shared.ingest.other_columns import arrow_columns, json_text, json_value

    if output is not None and SUFFIXES[output.suffix.lower()] == "parquet":
        fields, others = arrow_columns(others)
    else:
        others = [{name: json_value(row[name]) for name in row} for row in others]
        fields = [pa.field(name, pa.string()) for name in others[0]]  # only their names are looked at
    rows = [{**one, **other} for one, other in zip(answered, others, strict=True)]
    if output is None:
        for row in rows:
            click.echo(json_text(row))
    else:
        write_columns(rows, output, SUFFIXES[output.suffix.lower()], pa.schema([*columns_of(Asked), *fields]))


def named_task(task: str | None) -> "Task | None":
    from llm2llm.components.shared.tasks import load_task
    from llm2llm.pipelines.config import load_config

    if task is None:
        return None
    return load_config(task).task if task.endswith((".yaml", ".yml")) else load_task(task)


def find_student(student: str, task: "Task | None" = None) -> tuple[Path, "Task", dict[str, Any]]:
    """(folder or name of the student, its task unless one is given, what its run says of how it is asked).

    Raises:
        UserError: No such student, or nobody says its task.
    """
    from llm2llm.components.shared.models.student_folder import read_task
    from llm2llm.components.shared.tasks import load_task
    from llm2llm.pipelines.inspect.run_files import EVENTS, open_run

    config: dict[str, Any] = {}
    place = _place(student)
    if (place / EVENTS).is_file():
        config = open_run(student).config()
        place = place / "student"
        if not place.is_dir():
            raise UserError(f"--student {student}: a run that has no student yet; run its config to the end")
    elif not place.is_dir() and (student.startswith(("/", ".", "~")) or student.count("/") != 1):
        raise UserError(f"--student {student}: no such folder")
    described = config.get("task")
    found = task or read_task(place) or (load_task(described) if described else None)
    if found is None:
        raise UserError(
            f"--student {student}: nothing there says what task it was trained on; add --task with a shipped task or "
            "the config file of its run"
        )
    kept = {key: value for key, value in config.get("evaluate", {}).items() if key in ("mode", "max_new_tokens")}
    threshold = config.get("evaluate", {}).get("threshold")
    if of_version := _threshold_of_version(place):
        threshold = {key: getattr(of_version, key) for key in ("label", "max_false_positive_rate")}
    if threshold and threshold["label"] in found.labels:
        kept |= {"mode": "score", "threshold": threshold}  # it was chosen on probabilities
    return place, found, kept


def _flag_from(student: str) -> float | None:
    """The threshold that a run has chosen for its student, or a version of a registry has; None before the first
    report."""
    from llm2llm.pipelines.inspect.run_files import EVENTS, open_run

    if not (Path(student).expanduser() / EVENTS).is_file():
        found = _threshold_of_version(_place(student))
        return None if found is None else found.threshold
    opened = open_run(student)
    told = (opened.json(opened.last("report", "summary")) or {}).get("threshold")
    return None if told is None else float(told["value"])


def _place(student: str) -> Path:
    from llm2llm.components.shared import storage

    return storage.fetched(student) if storage.is_remote(student) else Path(student).expanduser()


def _threshold_of_version(place: Path) -> "Threshold | None":
    from llm2llm.components.shared.registry.records import RECORD, Record, from_document

    file = place / RECORD
    return from_document(Record, file.read_bytes(), str(file)).threshold if file.is_file() else None


def _summary(asked: Sequence["Asked"], task: "Task") -> str:
    from llm2llm.components.shared import tasks
    from llm2llm.components.shared.base.statistics import wilson_interval

    graded = [one for one in asked if one.answer is not None]
    counts = {kind: sum(one.outcome == kind for one in graded) for kind in ("correct", "wrong", "unparseable")}
    parts = [f"{len(asked):,} rows"]
    if task.match == "judge" and graded:
        parts.append(
            f"{counts['correct']:,} of {len(graded):,} answers are the right answer's own text; a judge, who is not "
            "asked here, may accept others"
        )
    elif graded:
        low, high = wilson_interval(counts["correct"], len(graded))
        parts.append(
            f"{len(graded):,} with an answer: {counts['correct']:,} correct ({counts['correct'] / len(graded):.1%}, "
            f"95% interval {low:.1%} to {high:.1%}), {counts['wrong']:,} wrong, {counts['unparseable']:,} unparseable"
        )
    else:
        parts.append("none with an answer to grade by")
    fields = tasks.field_scores(task, [(one.prediction, one.answer) for one in graded if one.answer is not None])
    if fields and fields[0].f1 is not None:  # of all fields together
        parts.append(f"F1 of the fields {fields[0].f1:.1%}")
    if cut := sum(one.truncated for one in asked):
        parts.append(f"{cut:,} answers hit the token limit (--max-new-tokens)")
    return "; ".join(parts)
