"""Points in processes of their own: kept, gone on with, so many at once, ended with the sweep."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from llm2llm.pipelines.cli.main import main
from llm2llm.pipelines.sweep import local, point
from llm2llm.pipelines.sweep.local import at_once, available_memory, folder_of, run_points
from llm2llm.pipelines.sweep.sweep import run_sweep
from tests.support.sweeps import point_of, run_summary, sweep_of

GIB = 2**30


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of a run: it notes when it was there, and does what a file of its arm's name says."""
    notes = tmp_path / "notes"
    notes.mkdir()
    program = tmp_path / "stand_in.py"
    program.write_text(
        textwrap.dedent(f"""
            import json, os, pathlib, sys, time
            folder, notes = pathlib.Path(sys.argv[2]), pathlib.Path({str(notes)!r})
            name = folder.parent.name + "-" + folder.name
            with open(notes / "log", "a") as log:
                log.write(f"start {{name}} {{os.environ['OMP_NUM_THREADS']}}\\n")
            what = notes / folder.parent.name
            if what.exists():
                print("error: " + what.read_text())
                sys.exit(2)
            time.sleep(0.3)
            pathlib.Path(sys.argv[4]).mkdir(parents=True, exist_ok=True)
            (folder / "student").mkdir(exist_ok=True)
            (folder / "report.html").write_text("x")
            (folder / "summary.json").write_text({json.dumps(json.dumps(run_summary([0.1, 0.5])))})
            with open(notes / "log", "a") as log:
                log.write(f"end {{name}}\\n")
        """)
    )
    monkeypatch.setattr(local, "COMMAND", (sys.executable, str(program)))
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)
    return notes


def lines(notes: Path) -> list[str]:
    log = notes / "log"
    return log.read_text().splitlines() if log.exists() else []


POINTS = [point_of(arm, training_seed=seed) for seed in range(2) for arm in ("random", "wrong")]


def test_finished_points_are_kept_and_the_others_run(stand_in: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    sweep = sweep_of(limits={"points": 1}, point={"cores": 3})
    assert run_points(sweep, POINTS[:2], output, print) == []
    assert run_points(sweep, POINTS, output, print) == []
    begun = [line for line in lines(stand_in) if line.startswith("start")]
    assert len(begun) == len(POINTS), "none twice"
    assert begun[0].endswith(" 3"), "threads"
    folder = folder_of(output, POINTS[0])
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "summary.json"], "models are let go"


def test_what_arms_share_goes_when_the_last_of_them_has_finished(stand_in: Path, tmp_path: Path) -> None:
    output, left = tmp_path / "out", []

    def look() -> None:
        left.append(sorted(path.name for path in (output / "shared").iterdir()))

    said: list[str] = []
    run_points(sweep_of(limits={"points": 1}), POINTS, output, said.append, look)
    assert left == [["tickets-d0-t0"], [], ["tickets-d0-t1"], []], "and it is called after each point"
    assert [line for line in said if line.startswith("started")] == [
        f"started   {point.label}: {folder_of(output, point)}.log" for point in POINTS
    ]


def test_the_table_is_there_after_each_point_and_says_what_it_lacks(stand_in: Path, tmp_path: Path) -> None:
    (stand_in / "wrong").write_text("no room")
    output, said = tmp_path / "out", []
    sweep = sweep_of(seeds={"training": [0]}, limits={"points": 1})
    shown, failed = run_sweep(sweep, tmp_path, output, said.append)
    assert len(failed) == 1
    assert "This is of 1 of 2 runs" in shown
    assert "This is of 1 of 2 runs" in (output / "sweep.md").read_text()
    (finished,) = output.glob("points/*/*/*/summary.json")
    (finished.parent / "run.json").write_text('{"code": "0123"}')
    (stand_in / "wrong").unlink()
    shown, failed = run_sweep(sweep, tmp_path, output, said.append)
    assert (failed, "This is of" in shown) == ([], False)
    assert any(line.startswith("1 of them by another version of llm2llm; they stay") for line in said)


def test_what_other_code_has_begun_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be refused, and `llm2llm sweep` has no --fresh."""
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr(point, "run_local", lambda *arguments: given.append(arguments))
    monkeypatch.setattr(point, "end_with_parent", lambda: None)
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        if name == "old":
            (tmp_path / name / "run.json").write_text('{"code": "0123"}')
        assert (
            point.main("quickstart", str(tmp_path / name), "process", str(tmp_path / "shared"), "max_iterations=1") == 0
        )
    assert [(arguments[1], *arguments[3:]) for arguments in given] == [
        (tmp_path / "new", False, tmp_path / "shared"),
        (tmp_path / "old", True, tmp_path / "shared"),
    ]


def test_so_many_run_at_once_as_were_allowed(stand_in: Path, tmp_path: Path) -> None:
    sweep = sweep_of(limits={"points": 2, "cores": 8, "memory_gib": 64}, keep="all")
    run_points(sweep, POINTS, tmp_path / "out", print)
    running = most = 0
    for line in lines(stand_in):
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    assert most == 2
    assert (folder_of(tmp_path / "out", POINTS[0]) / "student").is_dir(), "keep: all"


def test_a_point_that_fails_is_told_and_the_others_finish(stand_in: Path, tmp_path: Path) -> None:
    (stand_in / "wrong").write_text("train.epochs: too many")
    said: list[str] = []
    failed = run_points(sweep_of(limits={"points": 4}), POINTS, tmp_path / "out", said.append)
    assert len(failed) == 2
    assert "tickets wrong data 0 training 0: train.epochs: too many; its output is in " in failed[0]
    assert sum(line.startswith("finished") for line in said) == 2
    (stand_in / "wrong").unlink()
    assert run_points(sweep_of(), POINTS, tmp_path / "out", print) == [], "and it is run again"


def test_cores_and_memory_say_how_many_run() -> None:
    sweep = sweep_of(point={"cores": 2})
    assert at_once(sweep, 8, 64 * GIB, 2 * GIB) == 4
    assert at_once(sweep, 8, 5 * GIB, 2 * GIB) == 2
    assert at_once(sweep, 1, 1 * GIB, 2 * GIB) == 1, "one at least"
    assert at_once(sweep_of(limits={"points": 3}), 8, 64 * GIB, GIB) == 3
    assert available_memory() > 0


def test_a_point_that_took_more_memory_than_was_said_lets_fewer_run(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "KIB", 2**30)  # every MiB is a TiB
    sweep = sweep_of(limits={"cores": 2, "memory_gib": 8}, point={"memory_gib": 4})
    said: list[str] = []
    run_points(sweep, POINTS, tmp_path / "out", said.append)
    assert [line.split()[0] for line in said if "at once" in line] == ["2", "1"]


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_where_it_was(small_config: Path, tmp_path: Path) -> None:
    """The real thing: two arms, one after the other. SIGTERM ends a point too; the same command finishes it."""
    sweep = tmp_path / "sweep.yaml"
    values = {
        "name": "colours",
        "configs": [str(small_config)],
        "set": {"max_iterations": 1, "train.epochs": 2, "evaluate.hardness": True},
        "arms": {"random": {"teacher_augment.strategy": "random", "filter_errors.selection": "all"}, "wrong": {}},
        "seeds": {"training": [0]},
        "limits": {"points": 1},
    }
    sweep.write_text(yaml.safe_dump(values))
    output = tmp_path / "out"
    command = [sys.executable, "-m", "llm2llm.pipelines", "sweep", str(sweep), "--output", str(output)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 300
    while not list(output.glob("points/*/*/*/summary.json")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert process.stdout is not None
    assert "terminated; run the same command again to go on" in process.stdout.read()
    assert (output / "sweep.md").read_text().count("\n| ") == 2, "the table is of the point that had finished"
    finished = {path: path.stat().st_mtime_ns for path in output.glob("points/*/*/*/summary.json")}
    assert len(finished) == 1
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(sweep), "--output", str(output)])
    assert not ended.value.code
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())
    assert len(list(output.glob("points/*/*/*/summary.json"))) == 2
    table = (output / "sweep.md").read_text()
    assert "| colours | random | 1 |" in table
    assert "| colours | wrong | 1 |" in table
    assert {"sweep.csv", "sweep.tex", "points.csv", "curves.svg", "sweep.json"} <= {p.name for p in output.iterdir()}


def test_two_sweeps_do_not_write_into_one_folder(stand_in: Path, tmp_path: Path) -> None:
    from llm2llm.components.shared.base.errors import UserError
    from llm2llm.pipelines.local.run import held
    from llm2llm.pipelines.sweep.sweep import run_sweep

    with held(tmp_path / "out"), pytest.raises(UserError, match="another run is writing there"):
        run_sweep(sweep_of(), tmp_path, tmp_path / "out", print)
