"""Who enters production, who does not, and what is written down about it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.promote import incumbent as incumbents
from llm2llm.components.promote.compare import checks, compare
from llm2llm.components.promote.promote import keep_candidate
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.shared import storage
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.registry import versions
from llm2llm.components.shared.registry.production import current, generations, move
from llm2llm.components.shared.tasks import Task
from tests.support.builders import example, prediction
from tests.support.registry_makers import CONFIG, SEEDS, TASK, VALIDATION, finish, keep, model_folder, predictions, rows


def test_the_first_student_enters_an_empty_registry(registry: str, tmp_path: Path) -> None:
    version = keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    verdict, made = finish(registry, "run-1")
    assert made is not None
    assert (made.version, made.number, made.run, made.kind, made.previous) == (version, 1, "run-1", "promote", None)
    assert verdict["outcome"] == "promoted"
    assert verdict["generation"] == 1
    assert verdict["incumbent"] is None
    assert verdict["candidate"]["accuracy"] == 0.6
    assert "60 of 100 validation rows right" in verdict["reason"]
    assert current(registry) == made
    assert made.verdict == verdict, "why it is there stands where it is said that it is there"
    assert versions.candidates(registry) == []
    assert versions.find_version(registry, version)


def test_a_student_that_knows_nothing_does_not(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: False)
    verdict, made = finish(registry, "run-1")
    assert (verdict["outcome"], made, current(registry)) == ("kept", None, None)
    assert verdict["reason"].startswith("nothing enters production: it is the first, with 0 of 100")


def test_a_student_that_always_says_one_label_is_never_better(tmp_path: Path) -> None:
    """95 of 100 rows have one label: saying it always beats a student that tells the two apart, in accuracy."""
    registry = str(tmp_path / "registry")
    validation = [example(f"validation {i}", "red" if i < 95 else "blue") for i in range(100)]
    keep(registry, "run-1", tmp_path / "model", lambda i: i >= 40, validation)
    assert finish(registry, "run-1", validation)[0]["outcome"] == "promoted"
    keep(registry, "run-2", tmp_path / "other", lambda i: i < 95, validation, says=lambda row: "red")
    verdict, made = finish(registry, "run-2", validation)
    checked = {check["name"]: check["passed"] for check in verdict["checks"]}
    assert checked == {"better": True, "min_gain": True, "slices": True, "tells_apart": False}
    assert (verdict["outcome"], made) == ("kept", None)
    assert "it answers 'red' to each of the 100 validation rows, whatever is right" in verdict["reason"]
    alone = str(tmp_path / "alone")
    keep(alone, "run-2", tmp_path / "other", lambda i: i < 95, validation, says=lambda row: "red")
    assert finish(alone, "run-2", validation)[0]["reason"].endswith(
        "with 95 of 100 validation rows right, and answers 'red' to each of them"
    )


def test_a_promotion_that_was_cut_off_after_the_pointer_moved_keeps_its_version(registry: str, tmp_path: Path) -> None:
    version = keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    verdict, made = finish(registry, "run-1")
    # As if `clean`, which had seen the version before the pointer named it, had removed a part of it, and the stage
    # had been killed before it looked again: its next try stores the candidate anew, and decides anew.
    for name in ("MANIFEST.json", "model.safetensors"):
        storage.delete(storage.join(versions.version_uri(registry, version), name))
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    assert finish(registry, "run-1") == (verdict, made)
    assert versions.find_version(registry, version)
    assert versions.candidates(registry) == []


def test_report_only_says_what_would_be_and_moves_nothing(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    verdict, made = finish(registry, "run-1", mode="report_only")
    assert (verdict["outcome"], made, current(registry)) == ("would_promote", None, None)
    assert versions.versions(registry) == []
    assert versions.candidates(registry) == ["run-1"], "a person can still take it"
    assert PromoteSettings().mode == "report_only"


@pytest.mark.parametrize("test", ["bootstrap", "mcnemar"])
def test_a_better_student_takes_its_place_and_the_old_one_stays_there(tmp_path: Path, test: str) -> None:
    registry = str(tmp_path / "registry")
    first = keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    second = keep(registry, "run-2", tmp_path / "model", lambda i: i < 80)
    verdict, made = finish(registry, "run-2", test=test)
    assert made is not None
    assert (made.version, made.previous) == (second, first)
    found = verdict["comparison"]
    assert (found["both"], found["only_candidate"], found["only_incumbent"], found["neither"]) == (60, 20, 0, 20)
    assert found["gain"] == pytest.approx(0.2)
    assert 0.1 < found["low"] < 0.2 < found["high"] < 0.3
    assert found["p"] == pytest.approx(2 * 0.5**20)
    assert (found["answered_now"], found["left_out"]) == (0, 0)
    assert [one["name"] for one in verdict["checks"]] == ["better", "min_gain", "slices"]
    assert versions.versions(registry) == sorted([first, second])


@pytest.mark.parametrize(
    ("right", "settings", "failed", "words"),
    [
        (lambda i: i < 62, {}, ["better"], r"stays in production: not better beyond chance: \+2.0 points on 100"),
        (lambda i: i < 62, {"test": "mcnemar"}, ["better"], r"McNemar p = 0.5, level 0.05"),
        (lambda i: i < 58, {"test": "mcnemar", "level": 0.99}, ["better", "min_gain"], "-2.0 points"),
        (lambda i: i < 80, {"min_gain": 0.25}, ["min_gain"], r"gain of \+20.0 points is below the 25.0"),
        # Better by 14 points, but 12 of 34 rows with the label red are lost, and none is won.
        (lambda i: i % 3 != 0 or 36 <= i < 60, {}, ["slices"], "label: red by .* points"),
    ],
)
def test_a_student_that_fails_one_condition_is_kept_out(
    tmp_path: Path, right: Any, settings: dict[str, Any], failed: list[str], words: str
) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    _, first = finish(registry, "run-1")
    keep(registry, "run-2", tmp_path / "model", right)
    verdict, made = finish(registry, "run-2", **settings)
    assert (verdict["outcome"], made, current(registry)) == ("kept", None, first)
    assert [one["name"] for one in verdict["checks"] if not one["passed"]] == failed
    assert re.search(words, verdict["reason"]), verdict["reason"]
    assert versions.candidates(registry) == ["run-2"]
    assert len(versions.versions(registry)) == 1


def test_small_slices_block_nothing_and_the_limit_is_exact() -> None:
    validation = [*rows(60), *[example(f"rare {i}", "blue", skills=["rare"]) for i in range(10)]]
    before = {row.id: True for row in validation}
    # 1 of 20 blue rows and 8 of 10 rare ones are lost; red and green stay.
    lost = {row.id for row in validation if row.skills} - {row.id for row in validation[-2:]}
    after = {row.id: row.id not in lost for row in validation}
    settings = PromoteSettings(max_slice_drop=0.25, min_slice_rows=11)
    found = compare(before, after, validation, TASK, settings, 0)
    by_name = {one.slice: one for one in found.slices}
    assert by_name.keys() == {"label: red", "label: green", "label: blue", "skill: rare"}
    assert (by_name["skill: rare"].n, by_name["skill: rare"].counts) == (10, False)
    assert by_name["label: blue"].change == pytest.approx(-8 / 30)
    assert found.slices[0].slice == "label: blue", "the worst that counts comes first"
    assert not checks(found, settings)[2].passed
    exactly = settings.model_copy(update={"max_slice_drop": 8 / 30})
    assert checks(found, exactly)[2].passed
    assert compare(before, after, validation, TASK, PromoteSettings(slices=[]), 0).slices == []
    numeric = Task(name="sums", form="numeric")
    assert {one.slice for one in compare(before, after, validation, numeric, settings, 0).slices} == {"skill: rare"}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_counts_add_up_and_the_two_directions_mirror(outcomes: list[tuple[bool, bool]]) -> None:
    validation = rows(len(outcomes))
    first = {row.id: one for row, (one, _) in zip(validation, outcomes, strict=True)}
    second = {row.id: one for row, (_, one) in zip(validation, outcomes, strict=True)}
    there = compare(first, second, validation, TASK, PromoteSettings(), 0)
    back = compare(second, first, list(reversed(validation)), TASK, PromoteSettings(), 0)
    assert there.both + there.only_candidate + there.only_incumbent + there.neither == len(outcomes)
    assert (there.both, there.only_candidate) == (back.both, back.only_incumbent)
    assert there.gain == pytest.approx(-back.gain)
    assert there.p == pytest.approx(back.p)
    passed = [all(check.passed for check in checks(found, PromoteSettings())) for found in (there, back)]
    assert passed != [True, True], "never is each better than the other"


@pytest.mark.parametrize(("n", "better", "passed"), [(1, 1, False), (10, 4, False), (10, 6, True), (50, 6, True)])
def test_on_few_rows_the_bootstrap_alone_promotes_nobody(n: int, better: int, passed: bool) -> None:
    """On one row that was wrong and is right now, its interval is +100 to +100 points, and McNemar's p is 1."""
    validation = rows(n)
    before = {row.id: False for row in validation}
    after = {row.id: place < better for place, row in enumerate(validation)}
    found = compare(before, after, validation, TASK, PromoteSettings(), 0)
    assert found.low > 0
    check = checks(found, PromoteSettings())[0]
    assert check.passed == passed
    assert ("on so few rows McNemar p" in check.text) == (n < 50)


def test_the_stage_tried_again_finds_its_own_promotion(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    before = finish(registry, "run-1")
    # Killed before it could say so, it is run again, its candidate too; in between another run has come through.
    keep(registry, "run-2", tmp_path / "model", lambda i: i < 90)
    finish(registry, "run-2")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    assert finish(registry, "run-1") == before
    assert len(generations(registry)) == 2
    assert versions.candidates(registry) == []


def test_killed_between_version_and_pointer_it_ends_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = str(tmp_path / "registry")
    version = keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("llm2llm.components.promote.promote.move", killed)
        with pytest.raises(KeyboardInterrupt):
            finish(registry, "run-1")
    assert current(registry) is None
    assert versions.versions(registry) == [version]
    verdict, made = finish(registry, "run-1")
    assert made is not None
    assert (made.version, verdict["outcome"]) == (version, "promoted")


def test_a_candidate_that_was_damaged_meanwhile_is_not_promoted(registry: str, tmp_path: Path) -> None:
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    weights = storage.join(versions.candidate_uri(registry, "run-1"), "model.safetensors")
    storage.write_bytes(weights, b"x" * len(storage.read_bytes(weights)))
    with pytest.raises(UserError, match=r"model\.safetensors was changed \(its SHA-256 .* run its stage promote again"):
        finish(registry, "run-1")
    assert current(registry) is None
    version = keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    assert current(registry).version == version


def test_the_loser_of_a_race_decides_again_against_the_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "slow", tmp_path / "model", lambda i: i < 65)
    keep(registry, "fast", tmp_path / "model", lambda i: i < 60)

    def other_first(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr("llm2llm.components.promote.promote.move", move)
        finish(registry, "fast")
        return move(*args, **kwargs)

    monkeypatch.setattr("llm2llm.components.promote.promote.move", other_first)
    verdict, made = finish(registry, "slow")
    # Against nothing it had passed; against the winner it is 5 points better, 5 rows to none.
    assert verdict["rounds"] == 2
    assert verdict["incumbent_generation"] == 1
    assert verdict["comparison"]["only_candidate"] == 5
    assert made is not None
    assert [one.run for one in generations(registry)] == ["fast", "slow"]


def test_the_very_student_in_production_is_not_promoted_again(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    for run in ("run-1", "run-2"):
        keep(registry, run, tmp_path / "model", lambda i: i < 60, content=b"the same")
    finish(registry, "run-1")
    verdict, made = finish(registry, "run-2")
    assert (verdict["outcome"], made) == ("kept", None)
    assert [one["name"] for one in verdict["checks"]] == ["new"]
    assert len(generations(registry)) == 1


def test_what_a_person_rolled_back_no_run_brings_back(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    old = keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    bad = keep(registry, "run-2", tmp_path / "model", lambda i: i < 90, content=b"the same")
    finish(registry, "run-2")
    move(registry, to=old, kind="rollback", after=current(registry))
    keep(registry, "run-3", tmp_path / "model", lambda i: i < 90, content=b"the same")
    verdict, made = finish(registry, "run-3")
    assert (verdict["outcome"], made) == ("kept", None)
    assert f"{bad} was taken out of production by hand (generation 3)" in verdict["reason"]
    keep(registry, "run-4", tmp_path / "model", lambda i: i < 90, content=b"another")
    assert finish(registry, "run-4")[0]["outcome"] == "promoted"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Example]:
    """What the incumbent is asked; it answers all of it right. The real asking is in test_promote_stage."""
    questions: list[Example] = []

    def answer(uri: str, version: str, rows: list[Example], task: Task, config: Any) -> list[Prediction]:
        questions.extend(rows)
        return [prediction(row, row.answer, "validation") for row in rows]

    monkeypatch.setattr(incumbents, "_asked", answer)
    return questions


def test_the_incumbent_is_asked_what_it_has_not_answered(tmp_path: Path, asked: list[Example]) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    new = rows(20, "new")
    grown = [*VALIDATION[30:], *new]
    keep(registry, "run-2", tmp_path / "model", lambda i: True, validation=grown)
    verdict, _ = finish(registry, "run-2", validation=grown)
    assert {row.id for row in asked} == {row.id for row in new}
    assert verdict["comparison"]["answered_now"] == 20
    assert verdict["comparison"]["rows"] == 90
    assert verdict["incumbent"]["correct"] == 30 + 20


def test_answers_that_were_graded_another_way_do_not_count(tmp_path: Path, asked: list[Example]) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    scored = CONFIG | {"evaluate": {"mode": "score"}}
    keep(registry, "run-2", tmp_path / "model", lambda i: True, config=scored)
    finish(registry, "run-2", config=scored)
    assert len(asked) == len(VALIDATION)


def test_rows_that_the_incumbent_was_trained_on_are_left_out(tmp_path: Path, asked: list[Example]) -> None:
    registry = str(tmp_path / "registry")
    seen = VALIDATION[:10]
    as_another = [replace(row, id=f"other-{row.id}", rationale="as another row") for row in VALIDATION[10:15]]
    keep(
        registry,
        "run-1",
        tmp_path / "model",
        lambda i: i < 60,
        validation=VALIDATION[15:],
        training=[*seen, *as_another],
    )
    finish(registry, "run-1", validation=VALIDATION[15:])
    keep(registry, "run-2", tmp_path / "model", lambda i: i < 90)
    verdict, _ = finish(registry, "run-2")
    assert verdict["comparison"]["left_out"] == 15
    assert verdict["comparison"]["rows"] == verdict["candidate"]["n"] == 85
    assert asked == []


def test_without_a_row_to_compare_on_nothing_moves(tmp_path: Path, asked: list[Example]) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60, training=VALIDATION, validation=rows(5, "x"))
    finish(registry, "run-1", validation=rows(5, "x"))
    keep(registry, "run-2", tmp_path / "model", lambda i: True)
    verdict, made = finish(registry, "run-2")
    assert (verdict["outcome"], made) == ("kept", None)
    assert "nothing to compare on" in verdict["reason"]


def test_a_damaged_incumbent_stops_the_stage_and_is_named(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    version = keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    storage.write_bytes(storage.join(versions.version_uri(registry, version), "validation_answers.json"), b"{}")
    keep(registry, "run-2", tmp_path / "model", lambda i: i < 90)
    with pytest.raises(UserError, match=r"damaged: .*validation_answers\.json: has 2 bytes"):
        finish(registry, "run-2")


def test_candidate_and_decision_must_fit(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    with pytest.raises(UserError, match=r"run run-1 has no whole candidate in .*, which iteration 0 should have left"):
        finish(registry, "run-1")
    keep(registry, "run-1", tmp_path / "model", lambda i: True, iteration=1)
    with pytest.raises(UserError, match="is of iteration 1, and the best is 2"):
        finish(registry, "run-1", iteration=2)
    with pytest.raises(UserError, match="no answers to 1 of the validation rows"):
        finish(registry, "run-1", iteration=1, validation=[*VALIDATION, example("unknown", "red")])


def test_answers_to_other_rows_are_no_candidate(tmp_path: Path) -> None:
    asked, validation = predictions(VALIDATION, lambda i: True), [*VALIDATION, example("unknown", "red")]
    model = model_folder(tmp_path / "model")
    with pytest.raises(UserError, match="100 answers of iteration 0 on validation do not fit its 101 rows"):
        keep_candidate(str(tmp_path), "run", model, asked, [], SEEDS, SEEDS, validation, [], CONFIG, 0, 0)


def test_many_lost_races_end_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    monkeypatch.setattr("llm2llm.components.promote.promote.move", lambda *_, **__: None)
    monkeypatch.setattr("llm2llm.components.promote.promote.ROUNDS", 3)
    verdict, made = finish(registry, "run-1")
    assert (verdict["outcome"], verdict["rounds"], made) == ("kept", 3, None)
    assert verdict["reason"] == "others moved the pointer 3 times while this run decided: run again"


def test_the_same_rows_give_the_same_verdict(tmp_path: Path) -> None:
    found = []
    for place in ("a", "b"):
        registry = str(tmp_path / place)
        keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
        finish(registry, "run-1")
        keep(registry, "run-2", tmp_path / "model", lambda i: i < 80)
        found.append(json.dumps(finish(registry, "run-2")[0], sort_keys=True).replace(registry, "registry"))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hub_repo": "me/student"}, "hub_repo needs promote.registry"),
        ({"only_if_new": True}, "only_if_new needs promote.registry"),
        ({"registry": "r", "hub_repo": "student"}, "promote.hub_repo"),
        ({"registry": "r", "model_registry_url": "registry:8080"}, "starts with http"),
        ({"registry": "r", "slices": ["label", "label"]}, "each once"),
        ({"registry": "r", "mode": "always"}, "promote.mode"),
        ({"registri": "r"}, "did you mean 'registry'"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        PromoteSettings.load(values, "promote")
