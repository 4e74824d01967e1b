"""The command that looks after storage: `clean`."""

import sys
import time

import click

from llm2llm.components.shared.base.errors import UserError


@click.command()
@click.option(
    "--older-than", required=True, metavar="AGE", help="Only items not modified for this long: 30d, 6w; at least 1d."
)
@click.option("--run-root", default="", metavar="URI", help="Below it are runs: output folders, a pipeline root.")
@click.option("--registry", default="", metavar="URI", help="The registry, which says what was promoted.")
@click.option("--checkpoints", default="", metavar="URI", help="The place of checkpoints, train.checkpoint_uri.")
@click.option(
    "--keep-promoted/--keep-production",
    default=True,
    show_default=True,
    help="Keep every version that was ever in production, or only the one that is; with the runs that made them.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(older_than: str, run_root: str, registry: str, checkpoints: str, keep_promoted: bool, yes: bool) -> int:
    """Remove what old runs have left and no promoted version needs.

    Lists runs, candidates, versions that never were in production, and checkpoints; asks; then removes them. Ledgers
    stay, and so does what a kept version or a younger run names. Checkpoints do not tell whose they are: choose an AGE
    above that of your longest training. A URI is a folder or an s3:// prefix. Where Kubeflow's cache is used, a
    later run cannot take over stages of a run that is removed: turn caching off, or let it outlive the cache.

    Exit codes: 0 removed, or nothing to remove; 1 the answer was no; 2 the input is wrong.
    """
    from llm2llm.pipelines.inspect.leftovers import age_in_seconds, find_leftovers, remove

    if not (run_root or registry or checkpoints):
        raise UserError("name what to look into: --run-root, --registry, --checkpoints")
    before = time.time() - age_in_seconds(older_than)
    found = find_leftovers(before, run_root, registry, checkpoints, keep_promoted)
    click.echo(found.text())
    if not found.leftovers:
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nobody can be asked here: look at the list, and add --yes to remove what it names")
        if not click.confirm("remove them?"):
            return 1
    click.echo(f"removed {remove(found.leftovers, registry)}")
    return 0
