"""The commands that speak to a cluster: `submit`, `schedule ...`, `preflight`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.cli.groups import NamedGroup, old_name

Command = Callable[..., Any]

_PATH = click.Path(path_type=Path)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting, as in train.epochs=2. Repeatable.",
)
host_option = click.option("--host", help="URL of Kubeflow Pipelines; default: $KF_PIPELINES_ENDPOINT.")
connection = _options(
    host_option,
    click.option(
        "--namespace", default="", help="Where runs are, on a Kubeflow for several users; one for one user ignores it."
    ),
    click.option(
        "--token-file", type=_PATH, help="Holds the token; default: $LLM2LLM_KFP_TOKEN, or the pod's token volume."
    ),
    click.option("--ca-file", type=_PATH, help="Certificates to trust; default: $SSL_CERT_FILE."),
)
running = _options(
    click.option("--experiment", default="Default", show_default=True, help="The experiment that runs are listed in."),
    click.option("--create-experiment", is_flag=True, help="Make the experiment where there is none of the name."),
    click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE",
                 help="A run-time parameter other than the config's. Repeatable."),
    click.option("--service-account", default="",
                 help="Kubernetes service account of the pods; default: placement.service_account."),
    click.option("--pipeline-root", default="", help="Where artifacts go, such as s3://bucket/llm2llm."),
)  # fmt: skip


def connected(host: str | None, token_file: Path | None, ca_file: Path | None, namespace: str) -> Any:
    """`connect`, and a warning where the server ignores what it was given."""
    from llm2llm.pipelines.kubeflow.client import connect

    cluster = connect(host, token_file, ca_file, namespace)
    if cluster.ignored_namespace:
        click.echo(
            f"warning: --namespace {namespace}: {cluster.host} serves one user and ignores it; runs are in the "
            "namespace that Kubeflow Pipelines itself is in",
            err=True,
        )
    return cluster


def _compiled(config: str, overrides: tuple[str, ...], parameters: tuple[str, ...]) -> tuple[Any, Any]:
    """(a config, compiled for a cluster), unless it names what only this machine has."""
    from llm2llm.pipelines.config import load_config
    from llm2llm.pipelines.kubeflow.apply_placement import mlflow_unset
    from llm2llm.pipelines.kubeflow.local_data import refuse_local_data
    from llm2llm.pipelines.kubeflow.submit import compile_upload

    loaded = load_config(config, overrides)
    refuse_local_data(loaded, load_config(config, overrides, resolve=True))
    if unlogged := mlflow_unset(loaded):
        click.echo(f"warning: {unlogged}", err=True)
    return loaded, compile_upload(loaded, parameters)


@click.command()
@click.argument("config")
@connection
@running
@click.option("--run-name", default="", help="What the run is called; default: by version and time.")
@click.option("--wait", is_flag=True, help="Follow the run to its end; the exit code is its outcome.")
@click.option("--timeout", default="", metavar="DURATION", help="With --wait: no longer than this, such as 90m or 12h.")
@click.option("--dry-run", is_flag=True, help="Compile and show what would be sent; no connection is made.")
@set_option
def submit(
    config: str, host: str | None, namespace: str, token_file: Path | None, ca_file: Path | None, experiment: str,
    create_experiment: bool, parameters: tuple[str, ...], service_account: str, pipeline_root: str, run_name: str,
    wait: bool, timeout: str, dry_run: bool, overrides: tuple[str, ...],
) -> int:  # fmt: skip
    """Run a config in a cluster.

    CONFIG is a YAML file or the name of a shipped config. It is compiled and uploaded as a version that is named by a
    hash of its content, unless that version is there. Data and models are named where a pod finds them: s3://, the
    Hugging Face Hub, builtin:, or a mounted volume. Ctrl-C while waiting leaves the run running.

    Exit codes with --wait: 0 the run succeeded, also where nothing was new to train on; 1 it failed; 3 somebody
    terminated it; 124 --timeout has passed; 130 interrupted. Without it: 0 started. In any case 2: the input or the
    connection is wrong, in one message that names it.

    HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured.
    """
    from llm2llm.pipelines.checks.cluster import retry_line
    from llm2llm.pipelines.config.placement_values import seconds
    from llm2llm.pipelines.kubeflow import submit as submitting
    from llm2llm.pipelines.kubeflow.follow import follow

    if timeout and not wait:
        raise UserError("--timeout: only with --wait; how long a stage may take is placement.stages.*.timeout")
    try:
        limit = seconds(timeout) if timeout else 0
    except ValueError as problem:
        raise UserError(f"--timeout: {problem}") from None
    loaded, compiled = _compiled(config, overrides, parameters)
    service_account = service_account or loaded.placement.service_account
    if dry_run:
        flags = {"host": host or "", "namespace": namespace, "experiment": experiment, "account": service_account,
                 "root": pipeline_root}  # fmt: skip
        click.echo(submitting.dry_run(compiled, flags))
        return 0
    cluster = connected(host, token_file, ca_file, namespace)
    experiment_id = cluster.experiment_id(experiment, create_experiment or experiment == "Default")
    uploaded = submitting.upload(cluster, compiled)
    click.echo(f"version    {compiled.version}{' (was there)' if uploaded[2] else ''}")
    run_id = submitting.start(cluster, compiled, uploaded, experiment_id, run_name, service_account, pipeline_root)
    click.echo(f"run        {cluster.run_link(run_id)}")
    click.echo(f"size       {compiled.size}")
    click.echo(f"retries    {retry_line(loaded, namespace)}")
    return follow(cluster, compiled, run_id, limit, pipeline_root) if wait else 0


class _Schedule(NamedGroup):
    """Takes the words of before, `schedule CONFIG --cron ...` and `schedule --pause NAME`, as well."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        before = ("--cron", "--pause", "--resume", "--delete")
        if args and args[0] not in self.commands and any(one.split("=")[0] in before for one in args):
            return _as_before(args)
        return super().resolve_command(ctx, args)


def _as_before(args: list[str]) -> tuple[str, click.Command, list[str]]:
    for option, name in (("--pause", "pause"), ("--resume", "resume"), ("--delete", "delete")):
        if option in args:
            place = args.index(option)
            return name, old_name(schedule.commands[name], name, f"schedule {name}"), args[:place] + args[place + 1 :]
    return "set", old_name(schedule.commands["set"], "set", "schedule set"), args


@click.group(cls=_Schedule, context_settings={"ignore_unknown_options": True})
def schedule() -> None:
    """Run a config in a cluster again and again."""


@schedule.command("set")
@click.argument("config")
@connection
@running
@click.option(
    "--cron", default="", metavar="CRON", help="When: minute, hour, day of month, month, day of week; '0 2 * * 0'."
)
@click.option("--name", default="", help="What the schedule is called; default: the config's name.")
@click.option(
    "--catchup/--no-catchup", default=False, show_default=True, help="Run every tick that was missed, or the last."
)
@click.option("--max-concurrency", type=click.IntRange(1, 10), default=1, show_default=True,
              help="How many runs of it may go on at once.")  # fmt: skip
@set_option
def schedule_set(
    config: str, host: str | None, namespace: str, token_file: Path | None, ca_file: Path | None,
    experiment: str, create_experiment: bool, parameters: tuple[str, ...], service_account: str, pipeline_root: str,
    cron: str, name: str, catchup: bool, max_concurrency: int, overrides: tuple[str, ...],
) -> None:  # fmt: skip
    """Make a schedule, or change it.

    The same command again changes nothing; with a changed config or time it replaces the schedule: two are never
    enabled, and no time at which it is due is missed. Times are in the cluster's zone, UTC unless its administrators
    chose another.
    """
    from llm2llm.pipelines.kubeflow import schedule as scheduling
    from llm2llm.pipelines.kubeflow import submit as submitting

    if not cron:
        raise UserError("--cron: missing; when is the config to be run? '0 2 * * 0' is Sundays at 2:00")
    six = scheduling.six_fields(cron)
    loaded, compiled = _compiled(config, overrides, parameters)
    service_account = service_account or loaded.placement.service_account
    cluster = connected(host, token_file, ca_file, namespace)
    experiment_id = cluster.experiment_id(experiment, create_experiment or experiment == "Default")
    uploaded = submitting.upload(cluster, compiled)
    done = scheduling.set_schedule(
        cluster, compiled, uploaded, experiment_id, name or loaded.name, six,
        max_concurrency, catchup, service_account, pipeline_root, click.echo,
    )  # fmt: skip
    click.echo(f"{name or loaded.name}: {done}; {compiled.version} at '{six}'")


@schedule.command("list")
@connection
def schedule_list(host: str | None, namespace: str, token_file: Path | None, ca_file: Path | None) -> None:
    """List the schedules in a cluster that `llm2llm schedule set` made."""
    from llm2llm.pipelines.kubeflow.schedule import our_schedules, schedules_table

    click.echo(schedules_table(our_schedules(connected(host, token_file, ca_file, namespace))))


@schedule.command("pause")
@click.argument("name")
@connection
def schedule_pause(name: str, host: str | None, namespace: str, token_file: Path | None, ca_file: Path | None) -> None:
    """Disable a schedule. Runs that go on do so."""
    from llm2llm.pipelines.kubeflow import schedule as scheduling

    cluster = connected(host, token_file, ca_file, namespace)
    click.echo(f"{name}: {scheduling.pause(cluster, name, click.echo)}")


@schedule.command("resume")
@click.argument("name")
@connection
def schedule_resume(name: str, host: str | None, namespace: str, token_file: Path | None, ca_file: Path | None) -> None:
    """Enable a paused schedule again."""
    from llm2llm.pipelines.kubeflow import schedule as scheduling

    cluster = connected(host, token_file, ca_file, namespace)
    click.echo(f"{name}: {scheduling.resume(cluster, name, click.echo)}")


@schedule.command("delete")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also when a run of it goes on, which ends with it.")
@connection
def schedule_delete(
    name: str, force: bool, host: str | None, namespace: str, token_file: Path | None, ca_file: Path | None
) -> None:
    """Delete a schedule."""
    from llm2llm.pipelines.kubeflow import schedule as scheduling

    scheduling.remove(connected(host, token_file, ca_file, namespace), name, force)
    click.echo(f"{name}: deleted")


@click.command()
@click.argument("config")
@connection
@click.option(
    "--cluster", "ask_cluster", is_flag=True, help="Also ask the Kubernetes cluster, and Kubeflow when --host is given."
)
@click.option("--kube-context", default="", help="The kubeconfig's context; default: the current one, or this pod's.")
@click.option(
    "--service-account", default="", help="Kubernetes service account of the pods; default: placement.service_account."
)
@click.option("--pipeline-root", default="", help="Where artifacts go, such as s3://bucket/llm2llm.")
@set_option
def preflight(
    config: str, host: str | None, namespace: str, token_file: Path | None, ca_file: Path | None, ask_cluster: bool,
    kube_context: str, service_account: str, pipeline_root: str, overrides: tuple[str, ...],
) -> int:  # fmt: skip
    """Check everything that a run needs before any GPU starts.

    CONFIG is a YAML file or the name of a shipped config. One line for each check: ok, warn (cannot be told from here)
    or fail, with what to do. Exit codes: 0 nothing fails; 1 something does.
    """
    from llm2llm.pipelines.checks.preflight import FAIL, OK, WARN, local_checks, shown
    from llm2llm.pipelines.config import load_config

    counts = {OK: 0, WARN: 0, FAIL: 0}
    loaded = load_config(config, overrides, resolve=True)
    for check in local_checks(loaded, [pipeline_root] if pipeline_root else []):
        click.echo(shown(check))
        counts[check.status] += 1
    if ask_cluster:
        from llm2llm.pipelines.checks.cluster import cluster_checks

        connecting = (lambda: connected(host, token_file, ca_file, namespace)) if host else None
        account = service_account or loaded.placement.service_account
        for check in cluster_checks(load_config(config, overrides), namespace, kube_context, account, connecting):
            click.echo(shown(check))
            counts[check.status] += 1
    click.echo(f"{counts[OK]} ok, {counts[WARN]} to look at, {counts[FAIL]} failed")
    return 1 if counts[FAIL] else 0


COMMANDS: tuple[click.Command, ...] = (submit, schedule, preflight)
