"""The loop in plain Python: the same as under KFP, to the byte, and it goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.lineage.records import DIGITS
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import RunFailed, Runner, run_local
from tests.support.small_run import events, finished

pytestmark = pytest.mark.slow

SHORT = ("max_iterations=1",)
CODE = """
import sys
from pathlib import Path
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import run_local
run_local(load_config(sys.argv[1], sys.argv[3:], resolve=True), Path(sys.argv[2]), "process")
"""


def run(config: Path, output: Path, *overrides: str, runner: Runner = "process") -> dict[str, Any]:
    return run_local(load_config(str(config), overrides, resolve=True), output, runner)


def command(config: Path, output: Path, *overrides: str) -> list[str]:
    """The same in a process of its own, to be killed."""
    return [sys.executable, "-c", CODE, str(config), str(output), *overrides]


def hashes(output: Path) -> dict[tuple[str, int | None, str], str]:
    """The hash of each output of each stage, by stage, iteration and name."""
    return {
        (event["stage"], event["iteration"], name): sha256
        for event in events(output)
        if event["event"] == "finished"
        for name, sha256 in event["sha256"].items()
    }


@pytest.fixture(scope="module")
def whole(small_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("process") / "out"
    run(small_config, output, *SHORT)
    return output


def test_it_leaves_what_a_run_leaves(whole: Path) -> None:
    left = {path.name for path in whole.iterdir()}
    assert left >= {"artifacts", "events.jsonl", "report.html", "report.md", "run.json", "run.log", "student"}
    assert not left & {"pipeline.yaml", "cache"}, "these are KFP's"
    assert (whole / "student" / "model.safetensors").is_file()
    training = read_rows(finished(whole)["dedupe", 1]["next_training_set"], "examples", Example)
    assert any(row.generated for row in training)
    assert list(whole.rglob("done.json"))


def test_of_every_output_the_metadata_is_tiny(whole: Path) -> None:
    """Kubeflow copies it into every task that is handed the output; the record is in the file."""
    for done in whole.rglob("done.json"):
        kept = json.loads(done.read_text())
        for name, metadata in kept["outputs"].items():
            if name not in ("metrics", "confusion"):
                assert metadata.keys() <= {"kind", "schema_version", "rows", "sha256"}, (done, name)
                assert kept["sha256"][name].startswith(metadata["sha256"])
                assert len(metadata["sha256"]) == DIGITS


def test_the_loop_needs_no_kfp() -> None:
    code = (
        "import sys, llm2llm.pipelines.local.in_process\n"
        "print([name for name in sys.modules if name.startswith('kfp')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_output_is_the_same_as_under_kfps_runner(whole: Path, small_config: Path) -> None:
    """At the same place, for the config that `configure` writes names the copies of the user's files."""
    aside = whole.with_name("aside")
    whole.rename(aside)
    try:
        run(small_config, whole, *SHORT, runner="subprocess")
        here, there = hashes(aside), hashes(whole)
    finally:
        whole.rename(whole.with_name("subprocess"))
        aside.rename(whole)
    assert here.keys() == there.keys()
    differing = {key for key in here if here[key] != there[key]}
    # It holds tokens per second.
    assert {(stage, name) for stage, _, name in differing} <= {("train", "metrics")}


def test_started_again_it_runs_no_stage_twice(whole: Path, small_config: Path) -> None:
    before, summary = events(whole), (whole / "summary.json").read_bytes()
    run(small_config, whole, *SHORT)
    assert events(whole) == before
    assert (whole / "summary.json").read_bytes() == summary


def test_a_damaged_output_is_named_and_made_again_and_nothing_else_is(whole: Path, small_config: Path) -> None:
    before, hashed = events(whole), hashes(whole)
    damaged = finished(whole)["dedupe", 1]["next_training_set"]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    run(small_config, whole, *SHORT)
    assert [(e["event"], e["stage"]) for e in events(whole)[len(before) :]] == [
        ("started", "dedupe"),
        ("finished", "dedupe"),
    ]
    assert hashes(whole) == hashed
    assert f"{damaged} is damaged, or was changed" in (whole / "run.log").read_text()


def test_killed_it_goes_on_and_terminated_it_says_how(whole: Path, small_config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for trainings, (sent, ended) in enumerate([(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)]):
        process = subprocess.Popen(
            command(small_config, output, *SHORT), stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while trainings_begun(output) <= trainings:
            assert process.poll() is None, "the run ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, sent)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == ended
        if sent == signal.SIGTERM:
            assert "interrupted; run the same command again to go on" in said
    run(small_config, output, *SHORT)
    started = [(e["stage"], e["iteration"]) for e in events(output) if e["event"] == "started"]
    assert started.count(("prepare", None)) == 1
    assert started.count(("train", 0)) == 3
    assert hashes(output)["train", 1, "model"] == hashes(whole)["train", 1, "model"]


def trainings_begun(output: Path) -> int:
    said = events(output) if (output / "events.jsonl").is_file() else []
    return [(e["event"], e["stage"]) for e in said].count(("started", "train"))


def test_a_users_mistake_is_one_message(small_config: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a red ball", "colour": "rouge"}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl:1: the answer 'rouge' is not in the label set"):
        run(small_config, tmp_path / "out", f"data.seeds={bad}")


def test_a_stage_that_fails_is_named_and_its_traceback_is_in_the_log(small_config: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="teacher_augment in iteration 1 failed: TooManyFailures"):
        run(small_config, tmp_path / "out", "teacher_augment.grammar={patterns: {red: ['x']}}", "train.epochs=1")
    assert "TooManyFailures" in (tmp_path / "out" / "run.log").read_text()


def test_folds_and_going_on_from_the_previous_student_with_replay_rows(small_config: Path, tmp_path: Path) -> None:
    general = tmp_path / "general.jsonl"
    general.write_text('{"question": "Name a river.", "answer": "The Rhine."}\n')
    summary = run(
        small_config,
        tmp_path / "out",
        *("filter_errors.selection=out_of_fold", "filter_errors.folds=2", "train.start_from=previous", *SHORT),
        *(f"data.replay={general}", "train.replay_fraction=0.5", "train.validation_loss=true", "evaluate.shards=2"),
    )
    losses = [one["validation_losses"] for one in summary["iterations"]]
    assert [len(one) for one in losses] == [4, 4]
    first, second = (", ".join(f"{loss:.3f}" for loss in one) for one in losses)
    report = " ".join((tmp_path / "out" / "report.html").read_text().split())
    assert f"iteration 0: {first}; iteration 1: {second}." in report
    assert [one["errors"] is None for one in summary["iterations"]] == [False, True]
    assert [e["fold"] for e in events(tmp_path / "out") if (e["event"], e["stage"]) == ("started", "out_of_fold")] == [
        0,
        1,
    ]
