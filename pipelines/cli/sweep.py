"""The command `sweep`."""

from importlib.util import find_spec
from pathlib import Path

import click

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.cli.cluster import connected, connection, set_option


@click.command()
@click.argument("sweep")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True,
              help="Folder for tables, plot and points; an interrupted sweep goes on there.")  # fmt: skip
@set_option
@click.option("--submit", is_flag=True, help="Run the points in a cluster, as `llm2llm submit`, and wait for them.")
@connection
@click.option("--experiment", default="Default", show_default=True, help="The experiment that runs are listed in.")
@click.option("--create-experiment", is_flag=True, help="Make the experiment where there is none of the name.")
@click.option("--service-account", default="",
              help="Kubernetes service account of the pods; default: placement.service_account.")  # fmt: skip
@click.option("--pipeline-root", default="", help="Where artifacts go, such as s3://bucket/llm2llm; read from here.")
def sweep(
    sweep: str, output: Path, overrides: tuple[str, ...], submit: bool, host: str | None, namespace: str,
    token_file: Path | None, ca_file: Path | None, experiment: str, create_experiment: bool, service_account: str,
    pipeline_root: str,
) -> int:  # fmt: skip
    """Run configs x arms x random seeds, and compare them in one table.

    SWEEP is a YAML file, or the name of a shipped sweep (pretrained, screen, selection). Finished points are kept, and
    one that was killed goes on. Leaves sweep.md, sweep.csv, sweep.tex, points.csv and curves.svg, anew after every
    point. What --set sets is laid over every config, under the arms; name files of yours by absolute paths.

    Exit codes: 0 every point has finished; 1 some failed, and the table is of the others; 2 the input is wrong, in one
    message that names it; 130 interrupted; 143 terminated.
    """
    if not submit and find_spec("trl") is None:  # before the imports, which ask for less
        raise UserError("sweep: the stages need PyTorch and TRL on this machine: pip install 'llm2llm[train]'")
    if not submit and (host or pipeline_root or namespace):
        raise UserError("--host, --namespace and --pipeline-root: only with --submit; without it points run here")
    from llm2llm.pipelines.sweep.cluster import Place
    from llm2llm.pipelines.sweep.settings import load_sweep
    from llm2llm.pipelines.sweep.sweep import run_sweep

    def place() -> Place:
        cluster = connected(host, token_file, ca_file, namespace)
        experiment_id = cluster.experiment_id(experiment, create_experiment or experiment == "Default")
        return Place(cluster, experiment_id, service_account, pipeline_root)

    settings, folder = load_sweep(sweep, overrides)
    shown, failed = run_sweep(settings, folder, output, click.echo, place if submit else None)
    if shown:
        click.echo(f"\n{shown}\n\ntables  {output / 'sweep.md'}, sweep.csv, sweep.tex, points.csv")
        click.echo(f"curves  {output / 'curves.svg'}")
    for line in failed:
        click.echo(f"error: {line}", err=True)
    return 1 if failed else 0
