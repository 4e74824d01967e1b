"""The commands that look into a registry and move its pointer by hand: `llm2llm registry ...`."""

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import click

from llm2llm.components.shared.base.errors import UserError

registry_option = click.option(
    "--registry", "uri", required=True, envvar="LLM2LLM_REGISTRY", metavar="URI",
    help="Folder or s3:// prefix, as promote.registry in the config; default: $LLM2LLM_REGISTRY.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")

_CAME = {"promote": "promoted by run {run}", "by_hand": "taken by hand from run {run}", "rollback": "rolled back to"}
EXIT_DECLINED = 1
EXIT_DAMAGED = 1


@click.group()
def registry() -> None:
    """See which students are in a registry; move production."""


@registry.command("list")
@registry_option
@json_option
def list_command(uri: str, as_json: bool) -> None:
    """List the versions and the candidates of runs.

    The version in production stands first, starred.
    """
    from llm2llm.components.shared.registry.overview import list_registry
    from llm2llm.components.shared.registry.versions import registry_uri
    from llm2llm.pipelines.inspect.wording import printable

    found = list_registry(registry_uri(uri))
    click.echo(json.dumps(found, indent=2, sort_keys=True) if as_json else printable(_list_text(found)))


@registry.command("show")
@click.argument("version", required=False)
@registry_option
@click.option("--check", is_flag=True, help="Read every file and hold it against its hash.")
@json_option
def show_command(version: str | None, uri: str, check: bool, as_json: bool) -> None:
    """Show a version.

    Scores, data, where it comes from, and the verdict that brought it to production. VERSION is the one in production
    unless it is given.
    """
    from llm2llm.components.shared.registry.overview import show_version
    from llm2llm.components.shared.registry.versions import registry_uri
    from llm2llm.pipelines.inspect.wording import printable

    found = show_version(registry_uri(uri), version, check)
    click.echo(json.dumps(found, indent=2, sort_keys=True) if as_json else printable(_show_text(found)))


@registry.command("verify")
@click.argument("version", required=False)
@registry_option
@json_option
def verify_command(version: str | None, uri: str, as_json: bool) -> int:
    """Read the versions again, and check every file's hash.

    VERSION: this one only. `rollback` and promotion do the same with what they put into production. Exit codes: 0 all
    are whole; 1 one is damaged, and the file is named.
    """
    from llm2llm.components.shared.registry.overview import verify_registry
    from llm2llm.components.shared.registry.versions import registry_uri
    from llm2llm.pipelines.inspect.wording import printable

    found = verify_registry(registry_uri(uri), version)
    lines = [
        f"{'*' if one['in_production'] else ' '} {one['version']}: "
        + (
            f"DAMAGED: {one['damage']}"
            if one["damage"]
            else f"whole, {one['files']} files, {one['bytes'] / 1e6:,.1f} MB"
        )
        for one in found
    ]
    click.echo(
        json.dumps(found, indent=2, sort_keys=True) if as_json else printable("\n".join(lines or ["no versions yet"]))
    )
    return EXIT_DAMAGED if any(one["damage"] for one in found) else 0


@registry.command("rollback")
@click.argument("version", required=False)
@registry_option
@yes_option
@json_option
def rollback_command(version: str | None, uri: str, yes: bool, as_json: bool) -> int:
    """Put an earlier version into production.

    VERSION is the one that was in production before, unless it is given. Nothing is deleted, and what is rolled back is
    not promoted again by a run that comes to the very same student. Exit codes: 0 done; 1 declined.
    """
    from llm2llm.components.shared.registry.overview import rollback_target
    from llm2llm.components.shared.registry.versions import registry_uri

    address = registry_uri(uri)
    target, now = rollback_target(address, version)
    if not yes and not _confirmed(f"{now.version} is in production. Put {target} in its place?"):
        return EXIT_DECLINED
    return _move(address, target, "rollback", now, None, as_json)


@registry.command("promote")
@click.argument("run")
@registry_option
@yes_option
@json_option
def promote_command(run: str, uri: str, yes: bool, as_json: bool) -> int:
    """Put the candidate of a run into production by hand.

    Whatever its verdict says. RUN is the id under which `llm2llm registry list` names the candidate: the best student
    of a run in mode report_only, or of one that did not pass. Exit codes: 0 done; 1 declined.
    """
    from llm2llm.components.shared.base.errors import did_you_mean
    from llm2llm.components.shared.registry.production import current
    from llm2llm.components.shared.registry.versions import candidates, enter, registry_uri, version_of
    from llm2llm.components.shared.storage import NotThere

    address = registry_uri(uri)
    try:
        version = version_of(address, run)
    except NotThere:
        known = candidates(address)
        raise UserError(f"run {run!r} has no candidate in {address}{did_you_mean(run, known)}") from None
    now = current(address)
    if now and now.version == version:
        raise UserError(f"{version} is in production already")
    state = f"{now.version} is in production" if now else "Nothing is in production"
    if not yes and not _confirmed(f"{state}. Put {version}, the candidate of run {run}, in its place?"):
        return EXIT_DECLINED
    enter(address, run, version)
    code = _move(address, version, "by_hand", now, run, as_json)
    # Before the pointer named the version, `llm2llm clean` could have taken an old one away.
    enter(address, run, version)
    return code


@registry.command("serve")
@click.option(
    "--share",
    type=click.IntRange(1, 100),
    default=100,
    show_default=True,
    metavar="PERCENT",
    help="Percentage of the requests; the rest stays with the version before.",
)
@registry_option
def serve_command(share: int, uri: str) -> int:
    """Roll the version in production out, gradually.

    Writes its manifest for KServe with another share of the requests, and applies it where promote.serve.apply says so.
    """
    from llm2llm.components.shared.registry.production import current
    from llm2llm.components.shared.registry.serving import roll_out
    from llm2llm.components.shared.registry.versions import registry_uri

    address = registry_uri(uri)
    now = current(address)
    if now is None:
        raise UserError(f"{address}: nothing is in production; promote a student first")
    roll_out(address, now, share)
    return 0


def _move(address: str, target: str, kind: Any, now: Any, run: str | None, as_json: bool) -> int:
    from dataclasses import asdict

    from llm2llm.components.shared.registry.production import current, move
    from llm2llm.components.shared.registry.serving import follow_by_hand
    from llm2llm.components.shared.registry.versions import verify_version

    verify_version(address, target)
    made = move(address, to=target, kind=kind, after=now, run=run)
    if made is None:
        winner = current(address)
        assert winner is not None, "another was faster, so there is one"
        raise UserError(
            f"another put {winner.version} into production at this moment (generation {winner.number}); nothing was "
            "changed: look again"
        )
    click.echo(
        json.dumps(asdict(made), indent=2, sort_keys=True)
        if as_json
        else f"{made.version} is in production (generation {made.number})"
        + (f", in place of {made.previous}" if made.previous else "")
    )
    with redirect_stdout(sys.stderr):
        follow_by_hand(address, made)
    return 0


def _confirmed(question: str) -> bool:
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        click.echo("", err=True)  # ends the question's line
        raise UserError("nobody answered, and nothing was changed; add --yes") from None
    if not agreed:
        click.echo("nothing was changed", err=True)
    return agreed


def _list_text(found: Mapping[str, Any]) -> str:
    from llm2llm.pipelines.inspect.tables import aligned

    rows = [["", "version", "validation", "test", "training rows", "came to production"]]
    for one in found["versions"]:
        moves = one["generations"]
        came = f"{_came(moves[-1])}, {moves[-1]['at']}" if moves else "never"
        marks = [
            *(["rolled back"] if one["rolled_back"] else []),
            *(["removed since"] if one["removed"] else []),
            *(["DAMAGED: " + one["damage"]] if one["damage"] else []),
        ]
        rows.append(
            ["*" if one["in_production"] else "", one["version"], *_figures(one["record"]), "; ".join([came, *marks])]
        )
    lines = aligned(rows) if len(rows) > 1 else ["no versions yet"]
    if found["candidates"]:
        candidates = [["", "candidate", "validation", "test", "training rows", "of run"]]
        candidates += [
            ["", one["version"] or "being stored", *_figures(one["record"]), one["run"]] for one in found["candidates"]
        ]
        lines += ["", *aligned(candidates)]
    state = f"in production: {found['production']}" if found["production"] else "nothing is in production"
    return "\n".join([f"{found['registry']}: {state}", "", *lines])


def _show_text(found: Mapping[str, Any]) -> str:
    record, moves = found["record"], found["generations"]
    if found["in_production"]:
        state = "in production"
    elif found["rolled_back"]:
        state = "rolled back"
    else:
        state = "was in production" if moves else "never in production"
    size = sum(entry["size"] for entry in found["files"].values())
    checked = ", every one as its hash says" if found["checked"] else ""
    lines = [
        f"{found['version']}: {state}",
        f"  folder      {found['uri']} ({len(found['files'])} files, {size / 1e6:,.1f} MB{checked})",
    ]
    if record:
        lines += [
            f"  task        {record['task']} ({record['form'].replace('_', ' ')})",
            f"  made from   {record['student']}" + (" (an adapter)" if record["adapter"] else ""),
            f"  iteration   {record['iteration']}",
            f"  trained on  {record['training']['n']:,} rows: {record['seeds']['n']:,} seeds, "
            f"{record['training']['generated']:,} generated",
            *(
                f"  {split:<10}  {_score(record['accuracy'][split])}"
                for split in ("validation", "test")
                if split in record["accuracy"]
            ),
            f"  config      {record['config_digest'][:12]}",
            f"  llm2llm     {record['code']}",
        ]
    lines += [f"  generation  {one['number']}: {_came(one)}, {one['at']}" for one in moves]
    if verdict := found["verdict"]:
        lines += [
            "  verdict     " + verdict["reason"],
            *(f"              - {one['text']}" for one in verdict["checks"]),
        ]
    return "\n".join(lines)


def _came(move: Mapping[str, Any]) -> str:
    return _CAME[move["kind"]].format(run=move["run"])


def _figures(record: Mapping[str, Any] | None) -> list[str]:
    if record is None:
        return ["-", "-", "-"]
    scores = [
        _score(record["accuracy"][split]) if split in record["accuracy"] else "-" for split in ("validation", "test")
    ]
    return [*scores, f"{record['training']['n']:,}"]


def _score(score: Mapping[str, Any]) -> str:
    return f"{score['accuracy']:.1%} ({score['low']:.1%} to {score['high']:.1%})"
