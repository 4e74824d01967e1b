"""`llm2llm rerun`: from a stage on all runs again, what was before is taken over, and the old run stays."""

from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.lineage.embedded import content_hash
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.rerun import rerun
from llm2llm.pipelines.local.run import Runner, run_local
from tests.support.command_line import Run, run
from tests.support.small_run import events

__all__ = ["run"]


def started(output: Path) -> list[tuple[str, int | None]]:
    return [(one["stage"], one["iteration"]) for one in events(output) if one["event"] == "started"]


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["process", "subprocess"])
def test_from_a_stage_on_each_runs_again_and_the_old_run_stays(
    small_config: Path, tmp_path: Path, runner: Runner
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    config = load_config(str(small_config), ["max_iterations=1", "train.epochs=1"], resolve=True)
    run_local(config, old, runner)
    before, ran = content_hash(old), started(old)
    assert ("train", 1) in ran, "an iteration was written for"
    summary = rerun(old, "dedupe", None, new)
    assert content_hash(old) == before
    first = ran.index(("dedupe", 1))
    assert {("evaluate", 1), ("train", 1), ("filter_errors", 1), ("report", 1)} <= set(ran[first:])
    log = (new / "run.log").read_text(encoding="utf-8")
    assert "teacher_augment" not in {one["stage"] for one in events(new) if one["event"] == "started"} - {
        stage for stage, _ in ran[:first]
    }
    again = [key for key in started(new) if key not in ran[:first]]
    assert sorted(again, key=str) == sorted(ran[first:], key=str), log
    assert len(summary["iterations"]) == 2
    assert (new / "report.html").is_file()
    assert (new / "student").is_dir()


def test_what_is_no_run_of_this_machine_is_refused_with_what_to_do(run: Run, tmp_path: Path) -> None:
    code, _, error = run("rerun", "s3://bucket/runs/tickets", "--from", "train", "-o", tmp_path / "new")
    assert code == 2
    assert "llm2llm submit" in error
    assert not (tmp_path / "new").exists()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "run.json").write_text('{"config": {}, "runner": "process", "output": "/x"}')
    (folder / "events.jsonl").write_text(
        '{"event": "finished", "stage": "train", "iteration": 0, "fold": null, "outputs": {}}\n'
    )
    return folder


def test_a_run_of_another_version_is_refused_before_anything_is_copied(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another version of llm2llm ran it"):
        rerun(made, "train", None, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("stage", "iteration", "problem"),
    [
        ("trian", None, "--from trian: no such stage; did you mean train"),
        ("notify", None, "--from notify: no such stage"),
        ("dedupe", None, "--from dedupe: the run did not come so far; it has finished train, up to iteration 0"),
        ("train", 3, "--from train 3: the run did not come so far"),
        ("prepare", 1, "--iteration 1: prepare runs once, before the loop"),
    ],
)
def test_a_stage_that_the_run_has_not_is_refused(
    made: Path, tmp_path: Path, stage: str, iteration: int | None, problem: str
) -> None:
    with pytest.raises(UserError) as refused:
        rerun(made, stage, iteration, tmp_path / "new")
    assert problem.split(";")[0] in str(refused.value)
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_or_within_the_run_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not empty"):
        rerun(made, "train", None, made)
    with pytest.raises(UserError, match="lies in the run's folder"):
        rerun(made, "train", None, made / "new")
