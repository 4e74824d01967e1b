"""Whole runs on this machine: what they leave, that they repeat, and that they go on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Decision, Example, Score
from llm2llm.components.shared.data.splits import read_splits
from llm2llm.components.shared.lineage.embedded import content_hash
from llm2llm.components.shared.models.student_folder import TRAINING_FILE
from tests.support.small_run import events, finished

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "llm2llm.pipelines", "run"]
LEFT = {
    *(
        ".lock",
        "artifacts",
        "cache",
        "events.jsonl",
        "pipeline.yaml",
        "report.html",
        "report.md",
        "manifest.json",
        "run.json",
        "run.log",
    ),
    *("student", "summary.json"),
}


def run(config: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, str(config), "--output", str(output), *more], capture_output=True, text=True)


@pytest.fixture(scope="module")
def whole(small_config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(output folder, what was printed) of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole") / "out"
    done = run(small_config, output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output, done.stdout


def test_a_run_leaves_report_summary_and_the_best_student(whole: tuple[Path, str]) -> None:
    output, printed = whole
    assert {path.name for path in output.iterdir()} == LEFT
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
    assert [one["iteration"] for one in summary["iterations"]] == list(range(len(summary["iterations"])))
    assert len(summary["iterations"]) >= 2, "the grammar had something to add"
    for one in summary["iterations"]:
        assert set(one["accuracy"]) == {"seeds", "validation", "test"}
        for score in one["accuracy"].values():
            assert score["low"] <= score["value"] <= score["high"]
        assert str(one["training_rows"]) in printed
    assert set(summary["seconds_by_stage"]) == {
        "configure", "controls", "dedupe", "evaluate", "filter_errors", "prepare", "report", "teacher_augment", "train",
    }  # fmt: skip
    best = json.loads((output / "student" / TRAINING_FILE).read_text())
    (one,) = [one for one in summary["iterations"] if one["iteration"] == summary["best_iteration"]]
    assert (best["rows"], best["steps"]) == (one["training_rows"], one["steps"])
    steps = {control["name"]: control["steps"] for control in summary["controls"]}
    assert steps == {"majority": 0} | ({"steps": one["steps"]} if summary["best_iteration"] else {})
    assert ("seeds alone, as many steps" in printed) is bool(summary["best_iteration"])
    assert (output / "student" / "model.safetensors").is_file()
    assert "<html" in (output / "report.html").read_text()[:200]
    assert str(output / "report.html") in printed


def test_the_numbers_can_be_traced_to_rows(whole: tuple[Path, str]) -> None:
    output, _ = whole
    summary = json.loads((output / "summary.json").read_text())
    outputs = finished(output)
    last = summary["iterations"][-1]["iteration"]
    training = read_rows(outputs["dedupe", last]["next_training_set"], "examples", Example)
    seeds = read_splits(outputs["prepare", None]["splits"])["seeds"]
    decisions = read_rows(outputs["filter_errors", last]["journal"] / "decisions.parquet", "decisions", Decision)
    history = read_rows(outputs["evaluate", last]["journal"] / "scores.parquet", "scores", Score)
    assert summary["rows"]["seeds"] == len(seeds)
    assert summary["rows"]["kept"] == sum(row.generated for row in training)
    assert summary["rows"]["generated"] == summary["rows"]["kept"] + summary["rows"]["rejected"]["total"]
    assert [one["errors"] for one in summary["iterations"]] == [d.errors for d in decisions]
    assert summary["best_iteration"] == decisions[-1].best_iteration
    assert len(history) == 3 * len(decisions)
    seed_ids = {row.id for row in seeds}
    for row in training:
        if row.generated:
            assert row.parent_id in seed_ids
            assert row.iteration >= 1
            assert row.call_key
            assert "not in test" in row.checks


def test_no_generated_row_is_a_test_row(whole: tuple[Path, str]) -> None:
    outputs = finished(whole[0])
    last = max(iteration for stage, iteration in outputs if stage == "dedupe" and iteration is not None)
    training = {row.question for row in read_rows(outputs["dedupe", last]["next_training_set"], "examples", Example)}
    splits = read_splits(outputs["prepare", None]["splits"])
    for split in (splits["test"], splits["validation"]):
        assert split
        assert not training & {row.question for row in split}


def test_started_again_it_does_nothing_twice(whole: tuple[Path, str], small_config: Path) -> None:
    output, _ = whole
    before = finished(output)
    summary = (output / "summary.json").read_bytes()
    with open(output / "events.jsonl", "a", encoding="utf-8") as file:
        file.write('{"event": "fini')  # as a kill in the middle of a line leaves it
    again = run(small_config, output)
    assert again.returncode == 0, again.stderr
    assert "finished before and are not run again" in again.stdout
    assert finished(output) == before
    assert (output / "summary.json").read_bytes() == summary


def test_another_config_is_refused(whole: tuple[Path, str], small_config: Path) -> None:
    other = run(small_config, whole[0], "--set", "train.epochs=5")
    assert other.returncode == 2
    assert "holds the run of another config (train.epochs: 4.0 then, 5.0 now)" in other.stderr


def test_killed_in_iteration_1_it_goes_on_and_ends_with_the_same_bytes(
    whole: tuple[Path, str], small_config: Path, tmp_path: Path
) -> None:
    """SIGKILL while `train 1` runs: only that stage runs again, and stages that sample nothing write the same."""
    output = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, str(small_config), "--output", str(output)], stdout=subprocess.DEVNULL, start_new_session=True
    )

    def running() -> bool:
        return (output / "events.jsonl").is_file() and any(
            (e["event"], e["stage"], e["iteration"]) == ("started", "train", 1) for e in events(output)
        )

    deadline = time.monotonic() + 240
    while not running():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = events(output)
    assert not (output / "report.html").exists()

    done = run(small_config, output)
    assert done.returncode == 0, done.stdout + done.stderr
    after = events(output)[len(before) :]
    ended = {(e["stage"], e["iteration"]) for e in before if e["event"] == "finished"}
    started = [(e["stage"], e["iteration"]) for e in after if e["event"] == "started"]
    assert started[0] == ("train", 1) or ("train", 1) in started
    assert not ended & set(started), "a finished stage ran again"

    one, other = finished(whole[0]), finished(output)
    assert one.keys() == other.keys()
    for stage, names in {
        "prepare": ("splits", "training_set", "pool_set", "journal"),
        "filter_errors": ("journal",),
        "teacher_augment": ("candidates", "journal"),
        "dedupe": ("next_training_set", "journal"),
    }.items():
        for (name, iteration), outputs in one.items():
            for key in names if name == stage else ():
                same = content_hash(outputs[key]) == content_hash(other[name, iteration][key])
                assert same, f"{stage} {iteration}: {key} differs"


def test_terminated_it_says_how_to_go_on(small_config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, str(small_config), "--output", str(output)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "prepare" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "interrupted; run the same command again to go on" in rest


def test_two_runs_do_not_share_a_folder(small_config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = subprocess.Popen([*COMMAND, str(small_config), "--output", str(output)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    first.stdout.readline()
    while not (output / "run.json").is_file():
        time.sleep(0.05)
    second = run(small_config, output)
    first.terminate()
    first.communicate()
    assert second.returncode == 2
    assert "another run is writing there" in second.stderr


def test_a_stage_that_fails_ends_the_run_with_its_message(small_config: Path, tmp_path: Path) -> None:
    """The teacher writes labels that are none: more than `max_failed_fraction` is a failure, not a green run."""
    grammar = "teacher_augment.grammar={patterns: {red: ['x']}}"
    done = run(small_config, tmp_path / "out", "--set", grammar)
    assert done.returncode == 1, done.stdout
    assert "teacher_augment in iteration 1 failed: TooManyFailures" in done.stderr
    assert "the grammar has no patterns for the answer" in done.stderr
    assert "run.log" in done.stderr
    assert not (tmp_path / "out" / "summary.json").exists()


def test_bad_rows_end_the_run_with_exit_code_2(small_config: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a red ball", "colour": "rouge"}\n')
    done = run(small_config, tmp_path / "out", "--set", f"data.seeds={bad}")
    assert done.returncode == 2
    assert "error: bad.jsonl:1: the answer 'rouge' is not in the label set" in done.stderr
    assert "Traceback" not in done.stderr


def test_out_of_fold_and_going_on_from_the_previous_student(small_config: Path, tmp_path: Path) -> None:
    more = [
        "filter_errors.selection=out_of_fold",
        "filter_errors.folds=2",
        "train.start_from=previous",
        "max_iterations=1",
    ]
    done = run(small_config, tmp_path / "out", *(part for one in more for part in ("--set", one)))
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [one["errors"] is None for one in summary["iterations"]] == [False, True]
    assert "out_of_fold fold 1" in done.stdout
