"""Runs that begin alike: one trains, the others take over, and none can tell the difference."""

import shutil
from pathlib import Path

import pytest

from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.alike import can_be_shared, held_place, take_over
from llm2llm.pipelines.local.run import of_other_code, run_local
from tests.support.small_run import events, finished

ARM = ("max_iterations=1", "filter_errors.selection=all", "teacher_augment.strategy=random")
TAKEN = ["prepare", "train", "evaluate"]


def taken_over(output: Path) -> list[str]:
    lines = (output / "run.log").read_text().splitlines()
    return [line.partition(":")[0] for line in lines if line.endswith("taken over from a run that begins alike")]


@pytest.mark.slow
def test_the_second_arm_takes_over_iteration_0_and_nothing_else(small_config: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"

    def run(name: str, *overrides: str) -> Path:
        output = tmp_path / name
        run_local(load_config(str(small_config), overrides, resolve=True), output, "process", shared=shared)
        return output

    first, second = run("first", "max_iterations=1"), run("second", *ARM)
    assert (taken_over(first), taken_over(second)) == ([], TAKEN)
    for stage, iteration in (("prepare", None), ("train", 0), ("evaluate", 0)):
        before, after = finished(first)[stage, iteration], finished(second)[stage, iteration]
        assert all(path.is_relative_to(second) and path.exists() for path in after.values()), stage
        assert len(before) == len(after)
    ended = [event for event in events(second) if event["event"] == "finished"]
    assert next(one for one in ended if one["stage"] == "train")["seconds"] > 0, "what it would have cost"
    model = finished(second)["train", 0]["model"] / "model.safetensors"
    assert model.samefile(finished(first)["train", 0]["model"] / "model.safetensors"), "linked, not copied"

    alone = tmp_path / "alone"
    run_local(load_config(str(small_config), ARM, resolve=True), alone, "process")
    assert hashes(alone) == hashes(second), "to the byte what it would have made itself"


def hashes(output: Path) -> dict[tuple[str, int | None, str], str]:
    return {
        (event["stage"], event["iteration"], name): sha256
        for event in events(output)
        if event["event"] == "finished" and event["stage"] not in ("configure", "report")  # these name the folder
        for name, sha256 in event["sha256"].items()
        if name != "metrics"  # they hold times
    }


@pytest.mark.slow
def test_other_settings_or_damage_are_not_taken_over(small_config: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"

    def run(name: str, *overrides: str) -> Path:
        output = tmp_path / name
        given = ("max_iterations=1", "train.max_steps=2", *overrides)
        run_local(load_config(str(small_config), given, resolve=True), output, "process", shared=shared)
        return output

    run("first")
    assert taken_over(run("seed", "random_seed=7")) == []
    for model in shared.glob("*/model/model.safetensors"):
        damaged = model.read_bytes()[:-1]
        model.unlink()  # the others' links stay whole
        model.write_bytes(damaged)
    again = run("again")
    assert taken_over(again) == ["prepare", "evaluate"], "a damaged student is trained anew"
    shutil.rmtree(shared)
    assert taken_over(run("none")) == []


def test_only_what_comes_before_the_first_generated_row_is_shared() -> None:
    assert can_be_shared("prepare", {})
    assert can_be_shared("out_of_fold", {"iteration": 0, "fold": 1})
    assert not can_be_shared("train", {"iteration": 1})
    assert not can_be_shared("teacher_augment", {"iteration": 0})
    assert not can_be_shared("filter_errors", {"iteration": 0})


def test_a_place_is_known_by_all_that_goes_in_and_holds_what_was_put_there(tmp_path: Path) -> None:
    (tmp_path / "made" / "inner").mkdir(parents=True)
    (tmp_path / "made" / "inner" / "rows").write_text("x")
    with held_place(tmp_path / "shared", "code", "train", {"a": 1, "b": 2}) as place:
        assert not place.exists()
        take_over(tmp_path / "made", place)
    with held_place(tmp_path / "shared", "code", "train", {"b": 2, "a": 1}) as again:
        assert again == place
        take_over(again, tmp_path / "mine")
        assert (tmp_path / "mine" / "inner" / "rows").samefile(tmp_path / "made" / "inner" / "rows")
    for other in (("newer", "train", {"a": 1, "b": 2}), ("code", "train", {"a": 2, "b": 2})):
        with held_place(tmp_path / "shared", *other) as elsewhere:
            assert elsewhere != place


def test_a_run_of_other_code_is_told_from_ones_own(tmp_path: Path) -> None:
    assert not of_other_code(tmp_path), "no run at all"
    (tmp_path / "run.json").write_text('{"code": "0123"}')
    assert of_other_code(tmp_path)
