"""The command `llm2llm`.

Exit codes: 0 done; 1 a stage or the run failed; 2 the user's input is wrong (a setting, a row, a file, an endpoint), in
one message that names it; 3 a run in a cluster was terminated; 124 a time-out passed; 130 or 143 interrupted or
terminated, and the same command goes on.
"""

import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import click
from click import shell_completion

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.cli.cluster import COMMANDS, schedule, set_option
from llm2llm.pipelines.cli.convert import convert
from llm2llm.pipelines.cli.data import export
from llm2llm.pipelines.cli.examples import EXAMPLES
from llm2llm.pipelines.cli.groups import NamedGroup, PanelGroup, add_examples, old_name
from llm2llm.pipelines.cli.inspect import diff, why
from llm2llm.pipelines.cli.label import label
from llm2llm.pipelines.cli.predict import predict
from llm2llm.pipelines.cli.registry import registry
from llm2llm.pipelines.cli.review import review
from llm2llm.pipelines.cli.storage import clean
from llm2llm.pipelines.cli.sweep import sweep

EXIT_FAILED = 1
EXIT_USER_ERROR = 2

# What a base install, which compiles and submits, has not got.
EXTRAS = {
    "cpu": ("pyarrow", "numpy", "scipy", "rapidfuzz", "rensa", "jinja2", "openai", "aiohttp", "boto3"),
    "train": ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors", "tokenizers"),
    "docker": ("docker",),
}


class _Cli(PanelGroup):
    panels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Run": ("run", "rerun", "predict", "sweep", "stage"),
        "Before a run": ("config", "label", "preflight", "plan"),
        "In a cluster": ("compile", "submit", "schedule"),
        "After a run": ("inspect", "export", "convert", "review", "registry", "ledger", "clean"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; every outcome is an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what a terminal's encoding has no character for is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _outcome(arguments)
        sys.stdout.flush()
    except OSError as problem:
        if problem.filename is not None or problem.errno not in (errno.ENOSPC, errno.EIO, errno.EPIPE):
            raise
        code = EXIT_USER_ERROR
        with suppress(OSError):  # a reader that has gone needs no message, and standard error may be as full
            if problem.errno != errno.EPIPE:
                click.echo(f"error: cannot write to standard output: {problem.strerror}", err=True)
        with suppress(OSError, ValueError):  # Python writes what is left when it ends, and would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _outcome(arguments: Sequence[str] | None) -> int:
    """Runs the command line and gives its exit code; what is wrong has then been said."""
    try:
        code = cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except UserError as problem:
        click.echo(f"error: {problem}", err=True)
        return EXIT_USER_ERROR
    except click.ClickException as problem:
        problem.show()
        return EXIT_USER_ERROR
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; run the same command again to go on", err=True)
        return 130
    except ModuleNotFoundError as problem:
        package = (problem.name or "").split(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        click.echo(f"error: this needs the package {package}: pip install 'llm2llm[{extra}]'", err=True)
        return EXIT_USER_ERROR
    return code if isinstance(code, int) else 0


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="llm2llm")
def cli() -> None:
    """Error-driven fine-tuning: find what a student model gets wrong, have a teacher write new examples from exactly
    that, drop copies and leaks, train again.

    Start with `llm2llm run quickstart --output quickstart`: a few minutes on a laptop, no GPU, no key.
    """


@cli.command()
@click.argument("config")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder for everything the run leaves."
)
@click.option(
    "--runner", type=click.Choice(["subprocess", "docker", "process"]), default="subprocess", show_default=True,
    help="Where stages run: in a process each, in the config's images, or all in this process, without KFP.",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Discard what an earlier run left in the output folder.")
@set_option
def run(
    config: str,
    output: Path,
    runner: Literal["subprocess", "docker", "process"],
    fresh: bool,
    overrides: tuple[str, ...],
) -> int:
    """Run a config's pipeline on this machine.

    CONFIG is a YAML file or the name of a shipped config (see `llm2llm config`). Interrupted and started again with the
    same output folder, it goes on where it was. Leaves report.html, summary.json and the best student's folder.

    Exit codes: 0 done; 1 a stage failed; 2 the input is wrong, in one message that names it; 130 interrupted; 143
    terminated.
    """
    if runner != "docker" and find_spec("trl") is None:  # before the imports, which ask for less
        raise UserError("run: the stages need PyTorch and TRL on this machine: pip install 'llm2llm[train]'")
    from llm2llm.pipelines.config import load_config
    from llm2llm.pipelines.inspect.tables import summary_table
    from llm2llm.pipelines.local.run import RunFailed, run_local

    loaded = load_config(config, overrides, resolve=True)
    click.echo(f"{loaded.name}: iteration 0 and up to {loaded.max_iterations} more, into {output}")
    try:
        summary = run_local(loaded, output, runner, fresh)
    except RunFailed as problem:
        click.echo(f"error: {problem}", err=True)
        return EXIT_FAILED
    if "nothing_new" in summary:
        click.echo(f"\n{summary['nothing_new']}")
        return 0
    click.echo("\n" + summary_table(summary))
    click.echo(
        f"\nreport   {output / 'report.html'}\nsummary  {output / 'summary.json'}\nstudent  {output / 'student'}"
    )
    return 0


@cli.command("rerun")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--from", "stage", required=True, help="The first stage to run again, such as train.")
@click.option("--iteration", type=click.IntRange(min=0), help="Which iteration's; default: the first with the stage.")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="A new folder.")
def rerun_command(run: Path, stage: str, iteration: int | None, output: Path) -> int:
    """Run a run of this machine again from a stage on.

    RUN is the output folder of `llm2llm run`, finished or failed. It stays as it is: what was finished before the stage
    is copied to the new folder, and the stage and all after it run again. The copied ledger keeps teachers from being
    paid twice. A run in a cluster is refused, with what to do instead.

    Exit codes as for `llm2llm run`.
    """
    if find_spec("trl") is None:
        raise UserError("rerun: the stages need PyTorch and TRL on this machine: pip install 'llm2llm[train]'")
    from llm2llm.pipelines.inspect.tables import summary_table
    from llm2llm.pipelines.local.rerun import rerun
    from llm2llm.pipelines.local.run import RunFailed

    try:
        summary = rerun(run, stage.replace("-", "_"), iteration, output)
    except RunFailed as problem:
        click.echo(f"error: {problem}", err=True)
        return EXIT_FAILED
    click.echo("\n" + (summary.get("nothing_new") or summary_table(summary)))
    return 0


@cli.command("compile")
@click.argument("config")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), required=True, help="The pipeline file to write (.yaml)."
)
@set_option
def compile_command(config: str, output: Path, overrides: tuple[str, ...]) -> None:
    """Compile a config into a pipeline file for Kubeflow.

    CONFIG is a YAML file or the name of a shipped config (see `llm2llm config`). Upload the file in the Kubeflow UI, or
    submit it with the kfp SDK. A pipeline whose run would outgrow Kubeflow is refused, with what to change.
    """
    from llm2llm.pipelines.config import load_config
    from llm2llm.pipelines.kubeflow.compile import compile_checked
    from llm2llm.pipelines.kubeflow.local_data import refuse_local_data

    loaded = load_config(config, overrides)
    checked = compile_checked(loaded, output)
    click.echo(f"wrote {output} ({output.stat().st_size / 1000:.0f} KB)")
    for note in checked.notes:
        click.echo(note)
    try:
        refuse_local_data(loaded, load_config(config, overrides, resolve=True))
    except UserError as problem:  # the run's form can still name another place
        click.echo(f"warning: {problem}, here or in the run's form", err=True)


@cli.command("plan")
@click.argument("config")
@set_option
def plan_command(config: str, overrides: tuple[str, ...]) -> None:
    """Show what would run where, and what it can cost at most.

    CONFIG is a YAML file or the name of a shipped config. No cluster is asked. Set placement.profile for a kind of
    cluster: llm2llm plan gsm8k --set placement.profile=gke
    """
    from llm2llm.pipelines.checks.plan import plan
    from llm2llm.pipelines.config import load_config
    from llm2llm.pipelines.kubeflow.compile import compile_checked

    loaded = load_config(config, overrides)
    click.echo(plan(loaded))
    with TemporaryDirectory() as folder:
        for note in compile_checked(loaded, Path(folder) / "pipeline.yaml").notes:
            click.echo(f"cluster: {note}")


@cli.group(cls=NamedGroup)
def ledger() -> None:
    """See what teachers were asked and what they answered."""


@ledger.command("list")
@click.argument("uri")
def ledger_list(uri: str) -> None:
    """Sum up a ledger by model and purpose.

    Answers, tokens, and how many runs paid for them. URI is a folder or an s3:// prefix.
    """
    from llm2llm.components.shared.llm.ledger import ledger_summary

    click.echo(ledger_summary(uri))


@ledger.command("show")
@click.argument("uri")
@click.argument("key", required=False)
def ledger_show(uri: str, key: str | None) -> None:
    """Print one entry of a ledger, or all of them.

    As JSON, or JSON lines. URI is a folder or an s3:// prefix; KEY stands in the `call_key` of a generated row and in
    the calls.
    """
    from llm2llm.components.shared.llm.ledger import entry_text, list_entries, read_ledger

    if key is not None:
        click.echo(entry_text(read_ledger(uri, key)))
        return
    for entry in list_entries(uri):
        click.echo(entry_text(entry, indent=None))


@cli.command("config")
@click.argument("name", required=False)
def config_command(name: str | None) -> None:
    """Print a shipped config to start from, or list them.

    The reference of all keys is pipelines/configs/README.md in the repository.
    """
    from llm2llm.pipelines.config import shipped_configs

    shipped = shipped_configs()
    if name is None:
        for known, path in shipped.items():
            first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
            click.echo(f"{known:<20} {first}")
    elif name in shipped:
        click.echo(shipped[name].read_text(encoding="utf-8"), nl=False)
    else:
        raise UserError(f"no shipped config {name!r}{did_you_mean(name, shipped)}; there are {', '.join(shipped)}")


@cli.command()
@click.option(
    "--task", required=True, help="A shipped task (gsm8k, casehold, snips, trec, sst2) or a config file with a task."
)
@click.option("--input", "source", type=click.Path(path_type=Path), required=True,
              help="JSON lines with `completion` and `answer`; multiple choice also `choices`.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), required=True,
              help="The same lines with `correct`, `parsed` and `outcome` added.")  # fmt: skip
def grade(task: str, source: Path, output: Path) -> None:
    """Grade any model's answers to a task."""
    from llm2llm.components.shared.ingest.grade_file import grade_file
    from llm2llm.components.shared.tasks import load_task
    from llm2llm.pipelines.config import load_config

    the_task = load_config(task).task if task.endswith((".yaml", ".yml")) else load_task(task)
    counts = grade_file(source, output, the_task)
    n = sum(counts.values())
    click.echo(
        f"{n} rows: {counts['correct']} correct ({counts['correct'] / n:.1%}), {counts['wrong']} wrong, "
        f"{counts['unparseable']} unparseable; wrote {output}"
    )


@cli.group("inspect", cls=NamedGroup)
def inspect_group() -> None:
    """Look into what runs have left: why, diff, show."""


@inspect_group.command()
@click.argument("file", metavar="FILE|NAME")
@click.option("--run", "run_uri", metavar="URI",
              help="The output folder of a run, or the folder or s3:// prefix of its artifacts.")  # fmt: skip
@click.option("--iteration", type=click.IntRange(min=0), help="Whose rows, with --run.  [default: the last]")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Print at most this many rows; 0: all.")
def show(file: str, run_uri: str | None, iteration: int | None, limit: int) -> None:
    """Print the rows of an artifact of any kind as JSON lines.

    It is a FILE, or with --run the NAME of an output: training_set, seeds_set, predictions, errors, candidates,
    rejects, calls, history, decisions and the like.
    """
    from dataclasses import asdict

    if run_uri is not None:
        from llm2llm.pipelines.inspect.run_files import open_run

        run = open_run(run_uri)
        for shown in run.every_row(run.named(file, iteration))[: limit or None]:
            click.echo(json.dumps(shown, ensure_ascii=False))
        return
    if iteration is not None:
        raise UserError("--iteration: needs --run; a file is of one iteration")

    from llm2llm.components.shared.data.parquet import kind_of, read_rows
    from llm2llm.components.shared.data.schemas import KINDS

    kind = kind_of(Path(file))
    rows: list[Any] = read_rows(file, kind, KINDS[kind])
    for row in rows[: limit or None]:
        click.echo(json.dumps(asdict(row), ensure_ascii=False))


class _Stages(NamedGroup):
    """One command for each stage, made from its component when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, stage in STAGES.items() if name != "configure" and not stage.at_exit]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name.replace("-", "_") not in self.list_commands(ctx):
            return None
        from llm2llm.pipelines.cli.stage import stage_command

        return stage_command(name.replace("-", "_"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, STAGES[name].summary) for name in self.list_commands(ctx)])


@cli.group(cls=_Stages)
def stage() -> None:
    """Run one stage alone, on files.

    Its flags are the component's inputs. Rows are read from Parquet files that a stage wrote, or from JSON lines. What
    the stage writes goes into the folder given by --output, each output under its own name.
    """


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes the shell complete commands and options."""
    kind = shell_completion.get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "llm2llm", "_LLM2LLM_COMPLETE").source())


for command in (*COMMANDS, clean, convert, export, label, predict, registry, review, sweep):
    cli.add_command(command)
for command in (why, diff):
    inspect_group.add_command(command)
for command in (why, diff, show):  # their names before there was `inspect`; to go with the next version
    cli.add_command(old_name(command, str(command.name), f"inspect {command.name}"))
cli.add_command(old_name(schedule.commands["list"], "schedules", "schedule list"))
add_examples(cli, EXAMPLES)
