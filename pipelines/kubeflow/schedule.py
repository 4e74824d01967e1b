"""A config as a schedule in a cluster: the same one again changes nothing, a changed one takes the old one's place.

Kubeflow can create, enable, disable and delete a schedule ("recurring run"), but not change one
(kubeflow/pipelines#3789), and no request does two of these. A schedule is therefore replaced in this order:

    wait until no tick of either is within a minute     (a tick: a moment that the cron expression names)
    create the new one, disabled                         whatever is wrong with it is found here, the old one still runs
    disable the old one
    enable the new one
    delete the old one, once no run of it is going on    (deleting a schedule ends its runs, kubeflow/pipelines#7421)

Never are two enabled. Between the two requests in the middle none is; no tick falls there, because of the wait. Should
the program die there, the same command goes on, and the tick that was missed is run then: the controller counts from
when the new schedule was created. The other order, enable first, would double a run, and a run that was paid for twice
cannot be taken back. Where a server is so slow that a tick comes all the same, and the old schedule has run it, the new
one is made once more, so that it counts from then on. The limit: somebody else who enables or disables the same
schedules at the same moment.

A replacement that was cut off and a schedule that was paused while a run of the one before it goes on look alike:
several, none enabled. So what is made while a schedule is paused says so in its description, and `pause` makes a copy
that does.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.pipelines.inspect.tables import aligned
from llm2llm.pipelines.kubeflow.client import Cluster, ClusterProblem
from llm2llm.pipelines.kubeflow.submit import Compiled

MARK, PAUSED = "llm2llm schedule", "paused"
"""A schedule's description: MARK, fingerprint, version, and PAUSED where it was made to be off."""
SHORTEST_MINUTES = 10
"""A training run every few minutes is a mistake in the expression."""
BEFORE_TICK, AFTER_TICK = 60, 75
"""Seconds around a tick in which no schedule is replaced: the controller acts on a tick some seconds late."""
_QUARTER = 900

_NAMES = {
    4: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    5: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
_FIELDS = (
    ("seconds", 0, 59),
    ("minutes", 0, 59),
    ("hours", 0, 23),
    ("days of the month", 1, 31),
    ("months", 1, 12),
    ("days of the week", 0, 6),
)


@dataclass(frozen=True)
class Schedule:
    """One of our schedules on the server."""

    id: str
    name: str
    fingerprint: str
    """What it was made from, as a hash."""
    cron: str
    enabled: bool
    version: str
    """The name of the pipeline's version that it runs."""
    experiment_id: str
    created: str
    """When, as the server says it; sorts."""
    made_paused: bool
    """Whether it was made to be off, until somebody resumes it."""


def six_fields(cron: str) -> str:
    """A cron expression as Kubeflow takes it: six fields, seconds first.

    Args:
        cron: The usual five fields (minute, hour, day of the month, month, day of the week), or six.

    Raises:
        UserError: Neither, a field that means nothing, or ticks less than ten minutes apart.
    """
    fields = cron.split()
    if len(fields) == 5:
        # Kubeflow reads five fields as six without the last one: `0 2 * * 0` would be minute 2 of day 0 of the month.
        fields = ["0", *fields[:4], "0" if fields[4] == "7" else fields[4]]
    if len(fields) != 6:
        raise UserError(
            f"--cron {cron!r}: five fields are expected (minute, hour, day of the month, month, day of the week), such "
            "as '0 2 * * 0', Sundays at 2:00; or six with the second first"
        )
    values = [_values(field, place, cron) for place, field in enumerate(fields)]
    minutes = sorted(values[1])
    gaps = [(later - earlier) % 60 or 60 for earlier, later in zip(minutes, [*minutes[1:], minutes[0]], strict=True)]
    if len(values[0]) > 1 or min(gaps) < SHORTEST_MINUTES:
        raise UserError(
            f"--cron {cron!r}: a run would start more often than every {SHORTEST_MINUTES} minutes; is the first of "
            "five fields, the minute, meant to be a star?"
        )
    return " ".join(fields)


def _values(field: str, place: int, cron: str) -> set[int]:
    what, low, high = _FIELDS[place]

    def number(text: str) -> int:
        if text.lower() in _NAMES.get(place, ()):
            return _NAMES[place].index(text.lower()) + low
        if not (text.isascii() and text.isdecimal()) or not low <= int(text) <= high:
            raise UserError(f"--cron {cron!r}: {text!r} is none of the {what}, {low} to {high}")
        return int(text)

    values: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        if slash and (not step.isdecimal() or int(step) == 0):
            raise UserError(f"--cron {cron!r}: {part!r}: a step is a whole number above 0, as in */15")
        first, dash, last = span.partition("-")
        if span == "*" or (span == "?" and place in (3, 5)):
            begin, end = low, high
        elif dash:
            begin, end = number(first), number(last)
            if begin > end:
                raise UserError(f"--cron {cron!r}: {span!r} ends before it begins; write two, separated by a comma")
        else:
            begin = number(span)
            end = high if slash else begin
        values.update(range(begin, end + 1, int(step) if slash else 1))
    return values


def seconds_until_quiet(crons: list[str], now: float) -> float:
    """How long to wait until no tick is near; 0 when none is.

    Only the minutes are looked at, within a quarter of an hour: which time zone the controller reads the other fields
    in is not known here, and all of them differ by quarters.

    Args:
        crons: Of six fields.
        now: Seconds since 1970.
    """
    ticks = {minute % 15 * 60 for cron in crons for minute in _values(cron.split()[1], 1, cron)}
    for wait in range(_QUARTER):
        at = (now + wait) % _QUARTER
        if all((tick - at) % _QUARTER > BEFORE_TICK and (at - tick) % _QUARTER > AFTER_TICK for tick in ticks):
            return float(wait)
    return 0.0  # a tick every few minutes, by an old and a new expression together: no moment is better than this one


def fingerprint(compiled: Compiled, cron: str, max_concurrency: int, catchup: bool, **where: str) -> str:
    """The identity of a schedule: 16 digits that differ when anything about it does."""
    parts = [compiled.sha256, dict(compiled.parameters), cron, max_concurrency, catchup, where]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def our_schedules(cluster: Cluster, name: str = "") -> list[Schedule]:
    """The schedules that this program made, by name and then age; those of one name when one is given."""
    service = cluster.client.recurring_runs
    found = cluster.pages(service.recurring_run_service_list_recurring_runs, "recurring_runs", **cluster.scope())
    ours = []
    for one in found:
        words = (one.description or "").split()
        if " ".join(words[:2]) == MARK and len(words) >= 4 and name in ("", one.display_name):
            cron = one.trigger.cron_schedule.cron if one.trigger and one.trigger.cron_schedule else ""
            ours.append(
                Schedule(
                    id=one.recurring_run_id,
                    name=one.display_name,
                    fingerprint=words[2],
                    cron=cron,
                    enabled=one.status == "ENABLED" if one.status else one.mode == "ENABLE",
                    version=words[3],
                    experiment_id=one.experiment_id or "",
                    created=one.created_at.isoformat() if one.created_at else "",
                    made_paused=words[4:] == [PAUSED],
                )
            )
    return sorted(ours, key=lambda one: (one.name, one.created, one.id))


def set_schedule(
    cluster: Cluster,
    compiled: Compiled,
    uploaded: tuple[str, str, bool],
    experiment_id: str,
    name: str,
    cron: str,
    max_concurrency: int = 1,
    catchup: bool = False,
    service_account: str = "",
    pipeline_root: str = "",
    say: Callable[[str], None] = print,
) -> str:
    """Makes the schedule what is wanted; see the module.

    A schedule that somebody has paused stays paused, also when it is replaced.

    Args:
        uploaded: What `submit.upload` returned.
        name: Its name; there is one schedule of a name.
        cron: Of six fields.
        max_concurrency: How many runs of it may go on at once; a tick beyond that waits.
        catchup: Whether all ticks that were missed are run, one after another, or only the last.

    Returns:
        What was done: `created`, `unchanged` or `replaced`.
    """
    print_of = fingerprint(
        compiled, cron, max_concurrency, catchup,
        experiment=experiment_id, account=service_account, root=pipeline_root,
    )  # fmt: skip
    known = our_schedules(cluster, name)
    enabled = [one for one in known if one.enabled]
    if len(enabled) > 1:
        ids = ", ".join(one.id for one in enabled)
        raise UserError(
            f"schedule {name!r}: {len(enabled)} of this name are enabled ({ids}): somebody else enabled "
            "one; disable all but one"
        )
    # Of several, none enabled, a replacement was cut off between its two middle steps, unless the last was made paused.
    paused = bool(known) and not enabled and (len(known) == 1 or known[-1].made_paused)
    cut_off = bool(known) and not enabled and not paused
    current = enabled[0] if enabled else known[-1] if paused else None
    if current is not None and current.fingerprint == print_of:
        _delete_idle(cluster, [one for one in known if one is not current], say)
        if paused:
            say(f"it is paused; llm2llm schedule resume {name}")
        return "unchanged"

    if enabled and (wait := seconds_until_quiet([cron, enabled[0].cron], time.time())):
        say(f"waiting {wait:.0f} s, until no run is about to start")
        time.sleep(wait)
    if cut_off and known[-1].fingerprint == print_of:
        new_id = known[-1].id
    else:
        # One of the same fingerprint that is not the last to be made would run again what others have run since.
        began = time.time()
        body = _body(cluster, compiled, uploaded, experiment_id, name, cron, max_concurrency, catchup,
                     service_account, pipeline_root, print_of, on=not known, paused=paused)  # fmt: skip
        new_id = _create(cluster, body)
        for one in enabled:
            _switch(cluster, one.id, on=False)
        if enabled and time.time() - began > BEFORE_TICK and _ran_since(cluster, enabled[0], new_id):
            cluster.call(cluster.client.recurring_runs.recurring_run_service_delete_recurring_run, new_id)
            new_id = _create(cluster, body)
    if known and not paused:
        try:
            _switch(cluster, new_id, on=True)
        except ClusterProblem as problem:
            raise ClusterProblem(
                f"{problem}; no schedule {name!r} is enabled now: run the same command again", problem.status
            ) from None
    elif paused:
        say(f"it stays paused; llm2llm schedule resume {name}")
    _delete_idle(cluster, [one for one in known if one.id != new_id], say)
    return "replaced" if known else "created"


def pause(cluster: Cluster, name: str, say: Callable[[str], None] = print) -> str:
    """Disables a schedule; a run that goes on is not touched.

    Returns:
        What was done: `paused`, or `unchanged`.
    """
    known = _named(cluster, name)
    enabled = [one for one in known if one.enabled]
    for one in enabled:
        _switch(cluster, one.id, on=False)
    _delete_idle(cluster, known[:-1], say)
    left = our_schedules(cluster, name)
    looks_cut_off = len(left) > 1 and not left[-1].made_paused
    if looks_cut_off:
        _create(cluster, _paused_copy(cluster, known[-1]))
        _delete_idle(cluster, known[-1:], say)
    return "paused" if enabled or looks_cut_off else "unchanged"


def resume(cluster: Cluster, name: str, say: Callable[[str], None] = print) -> str:
    """Enables a schedule: the newest of its name, where a replaced one still has a run.

    Returns:
        What was done: `resumed`, or `unchanged`.
    """
    known = _named(cluster, name)
    if any(one.enabled for one in known):
        return "unchanged"
    _switch(cluster, known[-1].id, on=True)
    _delete_idle(cluster, known[:-1], say)
    return "resumed"


def remove(cluster: Cluster, name: str, force: bool = False) -> None:
    """Deletes a schedule.

    Args:
        force: Also when a run of it is going on, which ends with it.

    Raises:
        UserError: There is none of the name, or a run of it goes on.
    """
    known = _named(cluster, name)
    going_on = [run for one in known for run in _unfinished(cluster, one)]
    if going_on and not force:
        raise UserError(
            f"schedule {name!r}: a run of it goes on ({cluster.run_link(going_on[0])}) and would end with it; pause "
            f"it with --pause {name} and delete it later, or give --force"
        )
    for one in known:
        _delete(cluster, one)


def schedules_table(schedules: list[Schedule]) -> str:
    """Schedules for a person."""
    if not schedules:
        return "no schedules of llm2llm"
    newest = {one.name: one.id for one in schedules}
    rows = [("name", "cron (second first)", "state", "version", "id")]
    for one in schedules:
        off = "paused" if newest[one.name] == one.id else "replaced; deleted when its run has ended"
        rows.append((one.name, one.cron, "enabled" if one.enabled else off, one.version, one.id))
    return "\n".join(aligned(rows))


def _named(cluster: Cluster, name: str) -> list[Schedule]:
    ours = our_schedules(cluster)
    known = [one for one in ours if one.name == name]
    if not known:
        names = sorted({one.name for one in ours})
        raise UserError(f"no schedule {name!r}{did_you_mean(name, names)}; there are {', '.join(names) or 'none'}")
    return known


def _body(
    cluster: Cluster, compiled: Compiled, uploaded: tuple[str, str, bool], experiment_id: str, name: str, cron: str,
    max_concurrency: int, catchup: bool, service_account: str, pipeline_root: str, print_of: str,
    on: bool, paused: bool,
) -> Any:  # fmt: skip
    import kfp_server_api

    return kfp_server_api.V2beta1RecurringRun(
        display_name=name,
        description=" ".join([MARK, print_of, compiled.version, *([PAUSED] if paused else [])]),
        experiment_id=experiment_id,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=uploaded[0], pipeline_version_id=uploaded[1]
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(
            parameters=dict(compiled.parameters), pipeline_root=pipeline_root or None
        ),
        trigger=kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=cron)),
        mode=kfp_server_api.RecurringRunMode.ENABLE if on else kfp_server_api.RecurringRunMode.DISABLE,
        max_concurrency=str(max_concurrency),
        no_catchup=not catchup,
        service_account=service_account or None,
        **cluster.scope(),
    )


def _paused_copy(cluster: Cluster, one: Schedule) -> Any:
    import kfp_server_api

    found = cluster.call(cluster.client.recurring_runs.recurring_run_service_get_recurring_run, one.id)
    same = ("display_name", "experiment_id", "pipeline_version_reference", "runtime_config", "trigger",
            "max_concurrency", "no_catchup", "service_account")  # fmt: skip
    return kfp_server_api.V2beta1RecurringRun(
        **{name: getattr(found, name) for name in same},
        description=f"{MARK} {one.fingerprint} {one.version} {PAUSED}",
        mode=kfp_server_api.RecurringRunMode.DISABLE,
        **cluster.scope(),
    )


def _create(cluster: Cluster, body: Any) -> str:
    """Makes a schedule; its id."""
    service = cluster.client.recurring_runs
    known = {one.id for one in our_schedules(cluster, body.display_name)}
    print_of = body.description.split()[2]

    def make() -> str:
        made = cluster.call(service.recurring_run_service_create_recurring_run, body, tries=1)
        return str(made.recurring_run_id)

    def find() -> str | None:
        ours = our_schedules(cluster, body.display_name)
        new = [one for one in ours if one.id not in known and one.fingerprint == print_of]
        return new[-1].id if new else None

    return str(cluster.create(make, find))


def _switch(cluster: Cluster, schedule_id: str, on: bool) -> None:
    service = cluster.client.recurring_runs
    if on:
        cluster.call(service.recurring_run_service_enable_recurring_run, schedule_id)
    else:
        cluster.call(service.recurring_run_service_disable_recurring_run, schedule_id)


def _delete(cluster: Cluster, one: Schedule) -> None:
    cluster.call(cluster.client.recurring_runs.recurring_run_service_delete_recurring_run, one.id)


def _delete_idle(cluster: Cluster, replaced: list[Schedule], say: Callable[[str], None]) -> None:
    """Deletes replaced schedules; one with a run that goes on stays, disabled, until the next time."""
    for one in replaced:
        if _unfinished(cluster, one):
            say(f"a run of the replaced schedule {one.id} goes on, so that it stays, disabled; it is deleted next time")
        else:
            _delete(cluster, one)


def _runs(cluster: Cluster, schedule: Schedule) -> list[Any]:
    """A schedule's runs, among the latest of its experiment."""
    runs = cluster.pages(
        cluster.client.runs.run_service_list_runs, "runs", most=300,
        experiment_id=schedule.experiment_id, sort_by="created_at desc", **cluster.scope(),
    )  # fmt: skip
    return [run for run in runs if run.recurring_run_id == schedule.id]


def _unfinished(cluster: Cluster, schedule: Schedule) -> list[str]:
    """The ids of a schedule's runs that have not ended."""
    going_on = ("PENDING", "RUNNING", "CANCELING", "PAUSED", None)
    return [run.run_id for run in _runs(cluster, schedule) if run.state in going_on]


def _ran_since(cluster: Cluster, old: Schedule, new_id: str) -> bool:
    """Whether the old schedule has started a run since the new one was made."""
    made = next((one.created for one in our_schedules(cluster, old.name) if one.id == new_id), "")
    return any(run.created_at and run.created_at.isoformat() >= made for run in _runs(cluster, old))
