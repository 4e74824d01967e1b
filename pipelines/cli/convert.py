"""The command `llm2llm convert`: a finished student for other runtimes, asked again."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.cli.predict import find_student

if TYPE_CHECKING:
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.inference.settings import AnswerSettings
    from llm2llm.components.shared.tasks import Task

NAMES = ("int8", "gguf-q8_0", "gguf-f16", "merged", "awq", "gptq")
SPLITS = ("validation", "test")


@click.command()
@click.argument("student")
@click.option("--to", "target", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option("--format", "name", required=True, type=click.Choice(NAMES),
              help="int8 by torchao; GGUF by llama.cpp's script; an adapter merged into its base. awq and gptq are "
              "refused, with what to do instead.")  # fmt: skip
@click.option("--run", "run_folder", metavar="DIR",
              help="The run whose validation and test rows are asked; default: STUDENT, if it is a run.")  # fmt: skip
@click.option("--input", "source", metavar="FILE", help="Rows with answers to ask, in place of a run's.")
@click.option("--task", metavar="TASK",
              help="A shipped task or a config file; default: the task that the student was trained on.")  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["generate", "score"]), help="As evaluate.mode of a config; default: the run's."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Rows answered at once.")
@click.option("--converter", default="", metavar="PATH",
              help="GGUF: llama.cpp's folder, or its convert_hf_to_gguf.py; default: $LLAMA_CPP, or PATH.")  # fmt: skip
def convert(
    student: str,
    target: Path,
    name: str,
    run_folder: str | None,
    source: str | None,
    task: str | None,
    mode: str | None,
    batch_size: int,
    converter: str,
) -> None:
    """Write a student in another format, and ask it again.

    STUDENT is the output folder of a run, a student's folder, or a version's in a registry; s3:// too. The folder
    appears whole, with a card and conversion.json: the accuracy before and after on the same rows, with the paired
    difference.
    """
    from llm2llm.components.shared.base.atomic import atomic_folder
    from llm2llm.components.shared.inference.settings import AnswerSettings
    from llm2llm.pipelines.cli.predict import named_task

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--to {target}: is there already; name another folder, or remove it")
    if run_folder and source:
        raise UserError("--run and --input: rows are a run's or a file's; leave one out")
    folder, the_task, asked_as = find_student(student, named_task(task))
    if not folder.is_dir():
        raise UserError(f"{student}: not a folder; convert takes a student that was trained, not a name on the Hub")
    if target.absolute().is_relative_to(folder.absolute()):
        raise UserError(f"--to {target}: lies in the student's own folder; name another")
    from llm2llm.components.shared.models import conversions
    from llm2llm.components.shared.models.load import is_classifier
    from llm2llm.components.shared.registry import converted as results

    converter = conversions.check_format(folder, name, converter)
    rows = _rows(student, run_folder, source, the_task)
    chosen = {**asked_as, **({"mode": mode} if mode else {}), "batch_size": batch_size}
    if is_classifier(folder):
        chosen = {**chosen, "mode": "score"}
    settings = AnswerSettings.load(chosen, "convert")
    kind = conversions.FORMATS[name]
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        redirect_stdout(sys.stderr),  # progress
        TemporaryDirectory(prefix=".llm2llm-convert-", dir=target.parent) as scratch,
        atomic_folder(target) as made,
    ):
        merged, read_back = (Path(scratch) / part for part in ("merged", "read_back"))
        for place in (merged, read_back):
            place.mkdir()
        before = {split: _right(folder, these, the_task, settings) for split, these in rows.items()}
        whole = conversions.whole_student(folder, merged)
        print(f"convert: writing {name}", flush=True)
        tool = conversions.convert(whole, name, made, converter)
        place = kind.asked(made, whole, read_back)
        found = results.Converted(
            format=name,
            tool=tool,
            student=folder.name if folder.name != "student" else folder.absolute().parent.name,
            mode=settings.mode,
            bytes_before=conversions.weight_bytes(whole),
            bytes_after=conversions.weight_bytes(made),
            asked_as="the folder itself, by transformers"
            if place == made
            else "the file's weights, read back into a plain model, with the student's tokenizer; llama.cpp's own "
            "tokenizer and kernels were not tried",
            splits=[
                results.split_change(split, before[split], _right(place, these, the_task, settings))
                for split, these in rows.items()
            ],
        )
        (made / results.FILE).write_text(results.converted_text(found), encoding="utf-8")
        (made / "README.md").write_text(results.with_conversion(_card(folder, the_task), found), encoding="utf-8")
    if the_task.match == "judge":
        click.echo(
            "only the right answer's own text counts as right: a judge, who is not asked here, may accept others"
        )
    for one in found.splits:
        click.echo(results.shown_change(one))
    click.echo(f"wrote {target}: {name}, {found.bytes_after / 1e6:,.1f} MB in place of {found.bytes_before / 1e6:,.1f}")


def _rows(student: str, run_folder: str | None, source: str | None, task: "Task") -> dict[str, list["Example"]]:
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.ingest.sources import read_examples
    from llm2llm.pipelines.inspect.run_files import EVENTS, open_run

    if source:
        return {"rows": read_examples(source, task)}
    if not run_folder and not (Path(student).expanduser() / EVENTS).is_file():
        raise UserError(f"{student}: no run's output folder, so nobody says which rows to ask; give --run or --input")
    run = open_run(run_folder or student)
    found = {}
    for split in SPLITS:
        file = run.last("prepare", f"{split}_set")
        if file and (table := run.table(file, "examples", list(Example.__dataclass_fields__))).num_rows:
            found[split] = [Example(**row) for row in table.to_pylist()]
    if not found:
        raise UserError(f"{run_folder or student}: the run has no validation or test rows; give --input")
    return found


def _right(student: Path, rows: Sequence["Example"], task: "Task", settings: "AnswerSettings") -> list[bool]:
    from llm2llm.components.shared.inference.ask import ask_student

    return [one.outcome == "correct" for one in ask_student(student, rows, task, settings)]


def _card(student: Path, task: "Task") -> str:
    """The student's card, or the beginning of one."""
    from llm2llm.components.shared.base.text import code_span
    from llm2llm.components.shared.models.student_folder import TRAINING_FILE

    card = student / "README.md"
    if card.is_file() and card.stat().st_size < 1_000_000:
        return card.read_text(encoding="utf-8", errors="replace")
    return (
        f"# {' '.join(task.name.split())}\n\nA student for the task {code_span(task.name)}, fine-tuned with LLM2LLM; "
        f"how it was trained is in {code_span(TRAINING_FILE)}.\n"
    )
