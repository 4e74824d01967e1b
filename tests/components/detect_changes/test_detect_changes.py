"""With nothing new a scheduled run ends early, and says so."""

import json
from pathlib import Path

import pytest

from llm2llm.components.detect_changes.changes import detect_changes
from llm2llm.components.detect_changes.component import detect_changes as stage
from llm2llm.components.prepare.component import prepare
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.registry import digests
from llm2llm.components.shared.registry.nothing_new import take_nothing_new
from tests.support.builders import example, outputs_of, splits_artifact
from tests.support.registry_makers import CONFIG, SEEDS, TASK, VALIDATION, finish, keep, rows

RULES = PromoteSettings()


@pytest.fixture
def promoted(registry: str, tmp_path: Path) -> tuple[str, str]:
    """A registry, and the version in production there."""
    version = keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    return registry, version


def test_nothing_in_production_is_something_new(registry: str) -> None:
    assert detect_changes(registry, SEEDS, VALIDATION, CONFIG, RULES) == (True, "nothing is in production yet")


def test_the_same_seeds_and_config_are_nothing_new(promoted: tuple[str, str]) -> None:
    registry, version = promoted
    elsewhere = CONFIG | {"name": "tonight", "data": {"seeds": "/mnt/other/seeds.jsonl"}, "images": {"cpu": "newer"}}
    for config in (CONFIG, elsewhere):
        assert detect_changes(registry, SEEDS[::-1], VALIDATION, config, RULES) == (
            False,
            f"nothing new since {version}: the same 12 seeds and the same config",
        )


def test_seeds_that_came_or_went_and_another_config_are_new(promoted: tuple[str, str]) -> None:
    registry, version = promoted
    more = [*SEEDS, example("one more", "red")]
    assert detect_changes(registry, more, None, CONFIG, RULES) == (True, f"since {version}: 1 seed added, 12 the same")
    gone = f"since {version}: 0 seeds added, 2 gone, 10 the same"
    assert detect_changes(registry, SEEDS[2:], None, CONFIG, RULES) == (True, gone)
    assert detect_changes(registry, SEEDS, None, CONFIG | {"train": {"epochs": 9}}, RULES)[0]


def test_another_pool_under_the_same_name_is_something_new(tmp_path: Path) -> None:
    """The same by way of `prepare`, whose hashes are of the rows that it leaves."""
    config = CONFIG | {"teacher_augment": {"teacher": "pool", "strategy": "llm2llm"}}

    def digest(run: str, pool: list[Example]) -> str:
        folder = tmp_path / run
        folder.mkdir()
        for name, given in (("seeds", SEEDS), ("validation", VALIDATION), ("pool", pool)):
            lines = [json.dumps({"question": row.question, "answer": row.answer}) for row in given]
            (folder / f"{name}.jsonl").write_text("\n".join(lines))
        sources = {name: str(folder / f"{name}.jsonl") for name in ("seeds", "validation", "pool")}
        left = outputs_of("prepare", folder)
        prepare.python_func(settings=settings_text({"task": TASK.model_dump(mode="json"), "data": sources}), **left)
        assert digests.with_rows(CONFIG, left["splits"]) == CONFIG, "who draws from no pool is not held to it"
        return digests.of_config(digests.with_rows(config, left["splits"]))

    pool = rows(20, "pool")
    monday, tuesday, wednesday = digest("monday", pool), digest("tuesday", pool), digest("wednesday", pool[1:])
    assert monday == tuesday != wednesday


def test_what_was_tried_and_lost_is_not_tried_every_night(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    more = [*SEEDS, *rows(3, "more")]
    assert detect_changes(registry, more, VALIDATION, CONFIG, RULES)[0]
    keep(registry, "run-2", tmp_path / "model", lambda i: i < 61, training=more)
    finish(registry, "run-2", seeds=more)
    found, why = detect_changes(registry, more, VALIDATION, CONFIG, RULES)
    assert not found
    assert why.startswith("nothing new: run run-2 tried the same 15 seeds under the same config, and colours-")
    assert detect_changes(registry, more, None, CONFIG, RULES)[0], (
        "who does not say what is compared on is not held back"
    )
    assert detect_changes(registry, more, [*VALIDATION, *rows(1, "v")], CONFIG, RULES)[0], (
        "it could do better on other rows"
    )
    assert detect_changes(registry, [*more, *rows(1, "last")], VALIDATION, CONFIG, RULES)[0]
    # Against another version in production it is worth another try.
    keep(registry, "run-3", tmp_path / "model", lambda i: i < 90)
    finish(registry, "run-3")
    assert detect_changes(registry, more, VALIDATION, CONFIG, RULES)[0]


def test_what_lost_is_tried_again_under_other_conditions(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    more = [*SEEDS, *rows(3, "more")]
    keep(registry, "run-2", tmp_path / "model", lambda i: i < 80, training=more)
    strict = {"min_gain": 0.25, "slices": ["skills", "label"]}
    assert finish(registry, "run-2", seeds=more, **strict)[0]["outcome"] == "kept"
    again = PromoteSettings(registry=registry, min_gain=0.25, mode="promote", only_if_new=True)
    assert not detect_changes(registry, more, VALIDATION, CONFIG, again)[0]
    for changed in ({"min_gain": 0.1}, {"level": 0.2}, {"test": "mcnemar"}, {"slices": []}, {"max_slice_drop": 0.5}):
        assert detect_changes(registry, more, VALIDATION, CONFIG, again.model_copy(update=changed))[0]


@pytest.mark.parametrize(("content", "what"), [("[]", "a JSON object"), ("{", "not JSON"), (None, "cannot read")])
def test_a_config_that_is_none_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, what: str
) -> None:
    config = LocalArtifact(str(tmp_path / "config"))
    if content is not None:
        Path(config.path).write_text(content)
    with pytest.raises(SystemExit):
        stage.python_func(
            splits=splits_artifact(tmp_path, seeds=SEEDS),
            config=config,
            settings=settings_text({"promote": {"registry": str(tmp_path)}}),
            **outputs_of("detect_changes", tmp_path / "out"),
        )
    assert what in capsys.readouterr().err


def test_a_run_that_only_reported_has_not_tried(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1", mode="report_only")
    assert detect_changes(registry, SEEDS, VALIDATION, CONFIG, RULES)[0]


def test_the_stage_compares_the_validation_rows_of_the_splits(tmp_path: Path) -> None:
    """Nothing but the validation rows differs: who could do better on other rows is not held back."""
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    more = [*SEEDS, *rows(3, "more")]
    keep(registry, "run-2", tmp_path / "model", lambda i: i < 61, training=more)
    finish(registry, "run-2", seeds=more)
    config = LocalArtifact(str(tmp_path / "config"))
    Path(config.path).write_text(json.dumps(CONFIG))
    for name, validation, expected in (
        ("same", VALIDATION, False),
        ("other", [*VALIDATION, *rows(1, "v")], True),
        ("none", [], True),
    ):
        found = stage.python_func(
            splits=splits_artifact(tmp_path, name, seeds=more, validation=validation),
            config=config,
            settings=settings_text({"promote": {"registry": registry}}),
            **outputs_of("detect_changes", tmp_path / f"of {name}"),
        )
        assert found is expected, name


@pytest.mark.parametrize("new", [True, False])
def test_the_stage_returns_it_and_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], new: bool) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    config, notes = LocalArtifact(str(tmp_path / "config")), LocalArtifact(str(tmp_path / "notes.md"))
    splits = splits_artifact(tmp_path, seeds=[*SEEDS, *rows(2, "new")] if new else SEEDS)
    Path(config.path).write_text(json.dumps(CONFIG))
    settings = settings_text({"promote": {"registry": registry, "only_if_new": True}})
    assert stage.python_func(splits=splits, config=config, settings=settings, notes=notes) is new
    text, said = Path(notes.path).read_text(), capsys.readouterr().out
    assert text.startswith("# Something new\n" if new else "# Nothing new\n")
    assert ("2 seeds added" if new else "the same 12 seeds and the same config") in text
    assert ("the run goes on" if new else "the run ends here") in said


@pytest.mark.parametrize("told", [True, False])
def test_the_stage_leaves_a_note_for_the_exit_task_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    finish(registry, "run-1")
    config = LocalArtifact(str(tmp_path / "config"))
    Path(config.path).write_text(json.dumps(CONFIG))
    monkeypatch.setenv(RUN_VARIABLE, "run-2")
    settings = {"promote": {"registry": registry, "only_if_new": True}, "notify": {"kind": "slack" if told else "none"}}
    assert not stage.python_func(
        splits=splits_artifact(tmp_path, seeds=SEEDS),
        config=config,
        settings=settings_text(settings),
        notes=LocalArtifact(str(tmp_path / "notes.md")),
    )
    assert take_nothing_new(registry, "run-2").startswith("nothing new since" if told else "")
    assert take_nothing_new(registry, "run-2") == ""


def test_the_stage_without_a_registry_says_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = LocalArtifact(str(tmp_path / "x"))
    Path(nothing.path).write_text("{}")
    with pytest.raises(SystemExit) as ended:
        stage.python_func(splits=nothing, config=nothing, settings=settings_text({"promote": {}}), notes=nothing)
    assert ended.value.code == 2
    assert "promote.registry: no registry is set" in capsys.readouterr().err
