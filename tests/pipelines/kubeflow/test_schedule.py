"""`llm2llm schedule ...` through the real kfp.Client: after no request may two schedules be enabled (`kfp_server`)."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import load_config, to_parameters
from llm2llm.pipelines.kubeflow import schedule
from llm2llm.pipelines.kubeflow.client import ClusterProblem, connect
from llm2llm.pipelines.kubeflow.schedule import seconds_until_quiet, six_fields
from llm2llm.pipelines.kubeflow.submit import Compiled
from tests.support.cluster import Run
from tests.support.kfp_server import KfpServer

WEEKLY = ("schedule", "set", "quickstart", "--cron", "0 2 * * 0")
EPOCHS = next(name for name in to_parameters(load_config("quickstart")) if name.endswith("epochs"))
"""A parameter of the form that a schedule may change."""
quiet = seconds_until_quiet  # the fixture replaces it in its module
CHANGES = ("POST", "DELETE")


def changes(server: KfpServer) -> list[str]:
    """What was asked of schedules, without the ids."""
    found = []
    for request in server.requests:
        method, path = request.split()
        if method in CHANGES and path.startswith("/recurringruns"):
            found.append("create" if path == "/recurringruns" else path.partition(":")[2] or "delete")
    return found


def test_the_same_schedule_again_changes_nothing(kfp_server: KfpServer, run: Run) -> None:
    code, out, err = run(*WEEKLY, "--host", kfp_server.url)
    assert (code, err) == (0, "")
    assert out.startswith("quickstart: created; quickstart-")
    (made,) = kfp_server.recurring.values()
    assert (made["mode"], made["no_catchup"], made["max_concurrency"]) == ("ENABLE", True, "1")
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 2 * * 0"
    assert made["runtime_config"]["parameters"] == to_parameters(load_config("quickstart"))
    assert "quickstart: unchanged" in run(*WEEKLY, "--host", kfp_server.url)[1]
    assert changes(kfp_server) == ["create"]


@pytest.mark.parametrize(
    "change",
    [
        ("--cron", "0 3 * * 0"),
        ("--set", "max_iterations=1"),
        ("--parameter", f"{EPOCHS}=2"),
        ("--max-concurrency", "2"),
        ("--catchup",),
        ("--service-account", "trainer"),
        ("--pipeline-root", "s3://other"),
        ("--experiment", "new", "--create-experiment"),
    ],
)
def test_a_changed_schedule_takes_the_old_ones_place(change: tuple[str, ...], kfp_server: KfpServer, run: Run) -> None:
    run(*WEEKLY, "--host", kfp_server.url)
    (old,) = kfp_server.recurring
    kfp_server.requests.clear()
    code, out, _ = run(*WEEKLY, *change, "--host", kfp_server.url)
    assert code == 0
    assert "quickstart: replaced" in out
    assert changes(kfp_server) == ["create", "disable", "enable", "delete"]
    (new,) = kfp_server.recurring
    assert new != old
    assert kfp_server.enabled() == [new]


class Clock:
    """Time that passes with sleeps and requests only."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def scene(
    monkeypatch: pytest.MonkeyPatch, server: KfpServer, start: float, request_seconds: float = 2
) -> tuple[Any, Clock]:
    """A server whose controller acts on a tick every quarter of an hour, one old schedule, and how to set one."""
    clock = Clock(start)
    server.clock, server.tick_seconds = clock.time, 900

    def time_passes() -> None:
        clock.now += request_seconds

    server.after_request = time_passes
    monkeypatch.setattr(schedule, "time", SimpleNamespace(time=clock.time, sleep=clock.sleep))
    monkeypatch.setattr(schedule, "seconds_until_quiet", quiet)
    server.pipelines["p"] = {"pipeline_id": "p", "display_name": "x"}
    server.versions["v"] = {"pipeline_id": "p", "pipeline_version_id": "v", "display_name": "x-1",
                            "pipeline_spec": {"root": {"inputDefinitions": {"parameters": {}}}}}  # fmt: skip
    cluster = connect(server.url)

    def wanted(sha256: str) -> str:
        compiled = Compiled("x", f"x-{sha256}", sha256, "", {}, {})
        return schedule.set_schedule(
            cluster, compiled, ("p", "v", True), "e0", "x", "0 0 * * * *", say=lambda said: None
        )

    return wanted, clock


def pass_time(server: KfpServer, clock: Clock, seconds: int) -> None:
    for _ in range(0, seconds, 50):
        clock.now += 50
        server._controller()


def every_tick_is_run_once(server: KfpServer, clock: Clock, since: float) -> None:
    pass_time(server, clock, 2000)
    ticks = sorted(tick for tick, _ in server.fired)
    assert ticks == [tick for tick in range(0, int(clock.now - server.lag) + 1, 900) if tick > since]


def test_at_whatever_second_a_schedule_is_replaced_every_tick_is_run_exactly_once(
    kfp_server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in range(1800, 2700, 11):
        wanted, clock = scene(monkeypatch, kfp_server, start - 600)
        wanted("old")
        ((old, created),) = kfp_server.last_tick.items()
        pass_time(kfp_server, clock, 600)
        assert wanted("new") == "replaced"
        assert list(kfp_server.recurring) != [old]
        every_tick_is_run_once(kfp_server, clock, since=created)
        for state in (kfp_server.recurring, kfp_server.last_tick, kfp_server.fired, kfp_server.runs):
            state.clear()


@pytest.mark.parametrize("request_seconds", [25, 40, 70])
def test_on_a_server_so_slow_that_a_tick_comes_meanwhile_every_tick_is_run_exactly_once(
    request_seconds: float, kfp_server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in range(1800, 2700, 50):
        wanted, clock = scene(monkeypatch, kfp_server, start - 600, request_seconds)
        wanted("old")
        (created,) = kfp_server.last_tick.values()
        pass_time(kfp_server, clock, 600)
        assert wanted("new") == "replaced"
        every_tick_is_run_once(kfp_server, clock, since=created)
        for state in (kfp_server.recurring, kfp_server.last_tick, kfp_server.fired, kfp_server.runs):
            state.clear()


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_replacement_that_dies_at_any_request_is_finished_by_the_same_command(
    lost: str, kfp_server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = 0
    for request_number in range(12):
        wanted, clock = scene(monkeypatch, kfp_server, 1900)
        wanted("old")
        (created,) = kfp_server.last_tick.values()
        kfp_server.fault("*", "", drop=lost, skip=request_number, times=99)  # from here on no answer comes
        try:
            wanted("new")
        except ClusterProblem as problem:
            died += problem.status == 0
        kfp_server.faults.clear()
        pass_time(kfp_server, clock, 1000)  # past the tick at 2700, and not that at 3600
        assert wanted("new") in ("replaced", "unchanged")
        (left,) = kfp_server.recurring.values()
        assert left["mode"] == "ENABLE"
        assert "x-new" in left["description"]
        every_tick_is_run_once(kfp_server, clock, since=created)
        for state in (kfp_server.recurring, kfp_server.last_tick, kfp_server.fired, kfp_server.runs):
            state.clear()
    assert died in range(7, 12)


def going_on(schedule_id: str) -> dict[str, Any]:
    return {"run_id": "r", "display_name": "r", "experiment_id": "e0", "state": "RUNNING",
            "recurring_run_id": schedule_id, "step": 0}  # fmt: skip


def test_a_run_that_goes_on_survives_the_replacement_of_its_schedule(kfp_server: KfpServer, run: Run) -> None:
    run(*WEEKLY, "--host", kfp_server.url)
    (old,) = kfp_server.recurring
    kfp_server.runs["r"] = going_on(old)
    code, out, _ = run(*WEEKLY, "--parameter", f"{EPOCHS}=2", "--host", kfp_server.url)
    assert code == 0
    assert f"a run of the replaced schedule {old} goes on" in out
    assert kfp_server.runs["r"]["state"] == "RUNNING"
    assert len(kfp_server.enabled()) == 1
    assert "replaced; deleted when its run has ended" in run("schedule", "list", "--host", kfp_server.url)[1]
    kfp_server.runs["r"]["state"] = "SUCCEEDED"
    assert "unchanged" in run(*WEEKLY, "--parameter", f"{EPOCHS}=2", "--host", kfp_server.url)[1]
    assert old not in kfp_server.recurring


def test_the_way_back_to_an_earlier_config_does_not_end_its_run(kfp_server: KfpServer, run: Run) -> None:
    host = ("--host", kfp_server.url)
    run(*WEEKLY, *host)
    (first,) = kfp_server.recurring
    kfp_server.runs["r"] = going_on(first)
    run(*WEEKLY, "--parameter", f"{EPOCHS}=2", *host)
    assert "replaced" in run(*WEEKLY, *host)[1]
    assert kfp_server.runs["r"]["state"] == "RUNNING"
    kfp_server.runs["r"]["state"] = "FAILED"
    assert "unchanged" in run(*WEEKLY, *host)[1]
    assert kfp_server.enabled() == list(kfp_server.recurring)
    assert first not in kfp_server.recurring


def test_a_paused_schedule_stays_paused_until_it_is_resumed(kfp_server: KfpServer, run: Run) -> None:
    host = ("--host", kfp_server.url)
    run(*WEEKLY, *host)
    assert run("schedule", "pause", "quickstart", *host)[1] == "quickstart: paused\n"
    assert run("schedule", "pause", "quickstart", *host)[1] == "quickstart: unchanged\n"
    assert "it is paused" in run(*WEEKLY, *host)[1]
    assert "it stays paused" in run(*WEEKLY, "--parameter", f"{EPOCHS}=2", *host)[1]
    assert "paused" in run("schedule", "list", *host)[1]
    assert kfp_server.enabled() == []
    assert run("schedule", "resume", "quickstart", *host)[1] == "quickstart: resumed\n"
    assert len(kfp_server.enabled()) == 1
    assert run("schedule", "resume", "quickstart", *host)[1] == "quickstart: unchanged\n"


def test_a_schedule_that_is_paused_while_a_run_of_the_one_before_it_goes_on_stays_paused(
    kfp_server: KfpServer, run: Run
) -> None:
    host = ("--host", kfp_server.url)
    changed = (*WEEKLY, "--parameter", f"{EPOCHS}=2", *host)
    run(*WEEKLY, *host)
    (first,) = kfp_server.recurring
    kfp_server.runs["r"] = going_on(first)
    run(*changed)
    assert run("schedule", "pause", "quickstart", *host)[1].endswith("quickstart: paused\n")
    assert run("schedule", "pause", "quickstart", *host)[1].endswith("quickstart: unchanged\n")
    assert "it is paused" in run(*changed)[1]
    assert "it stays paused" in run(*WEEKLY, *host)[1]
    assert "it is paused" in run(*WEEKLY, *host)[1]
    assert kfp_server.enabled() == []
    assert (kfp_server.runs["r"]["state"], len(kfp_server.recurring)) == ("RUNNING", 2)
    kfp_server.runs["r"]["state"] = "SUCCEEDED"
    assert "quickstart: resumed" in run("schedule", "resume", "quickstart", *host)[1]
    assert len(kfp_server.enabled()) == len(kfp_server.recurring) == 1
    assert "quickstart: replaced" in run(*changed)[1]


def test_a_paused_schedule_that_is_replaced_while_its_run_goes_on_stays_paused(kfp_server: KfpServer, run: Run) -> None:
    host = ("--host", kfp_server.url)
    changed = (*WEEKLY, "--parameter", f"{EPOCHS}=2", *host)
    run(*WEEKLY, *host)
    (first,) = kfp_server.recurring
    kfp_server.runs["r"] = going_on(first)
    run("schedule", "pause", "quickstart", *host)
    assert "it stays paused" in run(*changed)[1]
    assert "it is paused" in run(*changed)[1]
    assert kfp_server.enabled() == []


def test_a_schedule_is_deleted_but_not_under_a_run(kfp_server: KfpServer, run: Run) -> None:
    host = ("--host", kfp_server.url)
    run(*WEEKLY, *host)
    (key,) = kfp_server.recurring
    kfp_server.runs["r"] = going_on(key)
    code, _, err = run("schedule", "delete", "quickstart", *host)
    assert code == 2
    assert "would end with it" in err
    assert run("schedule", "delete", "quickstart", "--force", *host)[:2] == (0, "quickstart: deleted\n")
    assert kfp_server.recurring == {}
    assert run("schedule", "list", *host)[1] == "no schedules of llm2llm\n"


def test_other_peoples_schedules_are_left_alone(kfp_server: KfpServer, run: Run) -> None:
    host = ("--host", kfp_server.url)
    kfp_server.recurring["theirs"] = {
        "recurring_run_id": "theirs",
        "display_name": "quickstart",
        "description": "nightly",
        "mode": "DISABLE",
    }
    run(*WEEKLY, *host)
    run("schedule", "delete", "quickstart", *host)
    assert list(kfp_server.recurring) == ["theirs"]


def test_schedules_on_later_pages_are_found(kfp_server: KfpServer, run: Run) -> None:
    for i in range(250):
        kfp_server.recurring[f"t{i}"] = {"recurring_run_id": f"t{i}", "display_name": f"t{i}", "mode": "DISABLE"}
    for _ in range(2):
        run(*WEEKLY, "--host", kfp_server.url)
    assert changes(kfp_server) == ["create"]


def test_two_that_somebody_else_enabled_are_refused(kfp_server: KfpServer, run: Run) -> None:
    run(*WEEKLY, "--host", kfp_server.url)
    (one,) = kfp_server.recurring.values()
    kfp_server.recurring["copy"] = {**one, "recurring_run_id": "copy"}
    code, _, err = run(*WEEKLY, "--host", kfp_server.url)
    assert code == 2
    assert "2 of this name are enabled" in err
    del kfp_server.recurring["copy"]
    kfp_server.broken.clear()


def test_an_unknown_name_is_refused_with_the_nearest(kfp_server: KfpServer, run: Run) -> None:
    run(*WEEKLY, "--host", kfp_server.url)
    code, _, err = run("schedule", "pause", "quickstrat", "--host", kfp_server.url)
    assert code == 2
    assert "did you mean 'quickstart'?" in err


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop": "before"}, {"drop": "after"}])
@pytest.mark.parametrize("path", ["/recurringruns$", ":enable$", ":disable$"])
def test_one_lost_answer_changes_nothing_about_the_outcome(
    path: str, fault: dict[str, Any], kfp_server: KfpServer, run: Run
) -> None:
    run(*WEEKLY, "--host", kfp_server.url)
    kfp_server.fault("POST", path, **fault)
    code, _, err = run(*WEEKLY, "--parameter", f"{EPOCHS}=2", "--host", kfp_server.url)
    assert (code, err) == (0, "")
    assert len(kfp_server.recurring) == len(kfp_server.enabled()) == 1


def test_the_words_of_before_still_work_and_say_the_new_ones(kfp_server: KfpServer, run: Run) -> None:
    host = ("--host", kfp_server.url)
    code, out, err = run("schedule", "quickstart", "--cron", "0 2 * * 0", *host)
    assert (code, out.partition(";")[0]) == (0, "quickstart: created")
    assert "use `llm2llm schedule set`" in err
    for before, now, says in (("--pause", "pause", "paused"), ("--resume", "resume", "resumed")):
        code, out, err = run("schedule", before, "quickstart", *host)
        assert (code, out) == (0, f"quickstart: {says}\n")
        assert f"use `llm2llm schedule {now}`" in err
    code, out, err = run("schedules", *host)
    assert (code, "quickstart" in out) == (0, True)
    assert "use `llm2llm schedule list`" in err
    assert run("schedule", "--delete", "quickstart", *host)[:2] == (0, "quickstart: deleted\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("set", "quickstart"), "--cron: missing"),
        (("set", "--cron", "0 2 * * 0"), "Missing argument 'CONFIG'"),
        (("set", "quickstart", "--pause", "x"), "No such option '--pause'"),
        (("set", "quickstart", "--cron", "weekly"), "five fields"),
        (("sett", "quickstart"), "did you mean 'set'"),
    ],
)
def test_half_a_command_is_refused(arguments: tuple[str, ...], says: str, run: Run) -> None:
    code, _, err = run("schedule", *arguments)
    assert code == 2
    assert says in err


@pytest.mark.parametrize(
    ("cron", "six"),
    [
        ("0 2 * * 0", "0 0 2 * * 0"),
        ("30 14 1,15 * *", "0 30 14 1,15 * *"),
        ("0 2 * * 7", "0 0 2 * * 0"),
        ("*/15 0-6 ? jan-MAR mon,fri", "0 */15 0-6 ? jan-MAR mon,fri"),
        ("15 0 2 * * 0", "15 0 2 * * 0"),
    ],
)
def test_five_fields_become_the_six_that_kubeflow_reads(cron: str, six: str) -> None:
    assert six_fields(cron) == six


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("", "five fields"),
        ("@weekly", "five fields"),
        ("* 2 * * 0", "more often"),
        ("*/5 * * * *", "more often"),
        ("* 0 2 * * 0", "more often"),
        ("0,5 2 * * *", "more often"),
        ("60 2 * * 0", "'60' is none of the minutes"),
        ("0 24 * * 0", "none of the hours"),
        ("0 2 0 * 0", "none of the days of the month"),
        ("0 2 * 13 0", "none of the months"),
        ("0 2 * * 8", "none of the days of the week"),
        ("0 2 * * 5-7", "none of the days of the week"),
        ("0 2 * * fri-mon", "ends before it begins"),
        ("0/0 2 * * 0", "a step is"),
        ("? 2 * * 0", "none of the minutes"),
        ("0 2 L * *", "none of the days of the month"),
        ("0 2 * * -1", "none of the days of the week"),
        ("٣ 2 * * 0", "none of the minutes"),
    ],
)
def test_nonsense_is_refused_with_what_is_wrong(cron: str, says: str) -> None:
    with pytest.raises(UserError, match="--cron") as problem:
        six_fields(cron)
    assert says in str(problem.value)


@given(st.sets(st.integers(0, 59), min_size=1, max_size=3), st.integers(0, 4_000_000_000))
def test_after_the_wait_no_tick_of_any_time_zone_is_within_a_minute(minutes: set[int], now: int) -> None:
    cron = f"0 {','.join(map(str, minutes))} * * * *"
    at = now + quiet([cron], now)
    assert at - now < 900
    for zone in range(0, 3600, 900):
        for minute in minutes:
            after = (at + zone - minute * 60) % 3600
            assert 75 < after < 3540
