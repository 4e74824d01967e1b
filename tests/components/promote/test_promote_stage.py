"""The stage with real students: kept, promoted, asked again, loaded as they are."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.detect_changes.component import detect_changes
from llm2llm.components.promote.component import promote
from llm2llm.components.shared import storage
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.artifacts import LocalArtifact, without_record, write_artifact
from llm2llm.components.shared.data.journal import Journal, write_journal
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.data.splits import write_splits
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.lineage.records import write_records
from llm2llm.components.shared.registry import versions
from llm2llm.components.shared.registry.production import current, generations
from llm2llm.components.shared.training.settings import FineTuneSettings, ScratchSettings
from llm2llm.pipelines.checks.plan import planned_stages
from llm2llm.pipelines.config import load_config
from tests.support.builders import artifacts, decision, example, score
from tests.support.registry_makers import COLOURS, CONFIG, TASK, model_folder, predictions

SHAPES = ["a {} ball", "the door is {}", "{} is nice", "paint it {}", "my {} coat", "look, {}", "{}!", "so {}"]
ROWS = [example(shape.format(colour), colour) for shape in SHAPES for colour in COLOURS]
ANSWERS = predictions(ROWS[:3], lambda i: True)
QUICK = FineTuneSettings(
    epochs=30, learning_rate=5e-3, batch_size=4, max_length=64,
    scratch=ScratchSettings(vocabulary=300, hidden_size=32, layers=2, heads=2, context=128),
)  # fmt: skip


def promoted(
    folder: Path,
    registry: str,
    model: Path,
    answers: Sequence[Prediction],
    validation: Sequence[Example],
    training: Sequence[Example],
    iteration: int = 0,
    go_on: bool = False,
    best: int = 0,
    replay: Sequence[Example] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Runs the stage on artifacts; returns its verdict."""
    names = ("predictions", "training_set", "splits", "journal", "config", "verdict", "metrics")
    given = artifacts(folder, *names)
    write_artifact(given["predictions"], "predictions", answers)
    write_artifact(given["training_set"], "examples", training)
    write_splits(given["splits"], {"validation": validation})
    right = sum(answer.outcome == "correct" for answer in answers)
    scores = [score(iteration, "validation", right, len(answers))]
    journal = Journal(scores=scores, decisions=[decision(iteration, best=best, go_on=go_on)])
    write_journal(given["journal"], journal)
    Path(given["config"].path).write_text(json.dumps(CONFIG))
    if replay:
        beside_replay_rows(folder, given["splits"], given["config"], replay)
    promotion = {"registry": registry, "mode": "promote", "min_slice_rows": 1, "max_slice_drop": 1.0, **settings}
    promote.python_func(
        model=LocalArtifact(str(model)), settings=stage_settings(promotion, random_seed=0), iteration=iteration, **given
    )
    verdict = without_record(json.loads(Path(given["verdict"].path).read_text()))
    metrics = json.loads(Path(given["metrics"].path).read_text())
    assert metrics["promoted"] == float(verdict["outcome"] == "promoted")
    assert given["verdict"].metadata["kind"] == "verdict"
    return verdict


def stage_settings(promotion: dict[str, Any], **others: Any) -> str:
    return settings_text({"task": TASK.model_dump(mode="json"), "promote": promotion, **others})


def beside_replay_rows(folder: Path, splits: LocalArtifact, config: LocalArtifact, replay: Sequence[Example]) -> None:
    """Makes them splits that `prepare` left beside replay rows, under a config that names these as always."""
    replay_set = LocalArtifact(str(folder / "replay_set"))
    write_artifact(replay_set, "examples", replay)
    where = {"stage": "prepare", "iteration": None, "fold": None, "shard": None}
    write_records(where, {}, {}, {"splits": splits, "replay_set": replay_set})
    named = {**CONFIG, "data": {**CONFIG["data"], "replay": "s3://bucket/replay.jsonl"}}
    Path(config.path).write_text(json.dumps(named))


@pytest.fixture(autouse=True)
def run_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM2LLM_RUN_ID", "run-1")


def test_other_replay_rows_under_the_same_name_are_something_new(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    general = [example("what is up", "the sky"), example("what is down", "the ground")]
    found = promoted(tmp_path, registry, model_folder(tmp_path / "model"), ANSWERS, ROWS[:3], ROWS[3:], replay=general)
    assert found["outcome"] == "promoted"

    def something_new(folder: Path, replay: Sequence[Example]) -> bool:
        folder.mkdir()
        given = artifacts(folder, "splits", "config", "notes")
        write_splits(given["splits"], {"seeds": ROWS[3:]})
        beside_replay_rows(folder, given["splits"], given["config"], replay)
        promotion = {"registry": registry, "only_if_new": True, "mode": "promote"}
        return bool(detect_changes.python_func(settings=settings_text({"promote": promotion}), **given))

    assert not something_new(tmp_path / "same", general)
    assert something_new(tmp_path / "other", general[:1])
    assert "or other rows to draw from or to replay" in (tmp_path / "other" / "notes").read_text()


def test_the_best_student_of_the_run_is_the_one_that_enters(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    validation = ROWS[:10]
    good = predictions(validation, lambda i: i < 8)
    bad = predictions(validation, lambda i: i < 5, iteration=1)
    first = promoted(
        tmp_path, registry, model_folder(tmp_path / "m0", b"good"), good, validation, ROWS[10:], 0, True, 0
    )
    assert first["outcome"] == "pending"
    assert "the best student so far is that of iteration 0" in first["reason"]
    assert current(registry) is None
    last = promoted(tmp_path, registry, model_folder(tmp_path / "m1", b"bad"), bad, validation, ROWS[10:], 1, False, 0)
    assert last["outcome"] == "promoted"
    assert last["candidate"]["iteration"] == 0
    weights = storage.join(versions.version_uri(registry, last["candidate"]["version"]), "model.safetensors")
    assert storage.read_bytes(weights) == b"good"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"registry": ""}, "promote.registry: no registry is set"),
        ({"min_gian": 0.1}, "did you mean 'min_gain'"),
        ({"hub_repo": "me/student"}, "HF_TOKEN is not set"),
        ({"model_registry_url": "http://127.0.0.1:9"}, "needs the package model-registry"),
        ({"registry": "gs://bucket"}, "gs:// is not known here"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "model_registry", None)
    registry = str(tmp_path / "registry")
    given = {"registry": registry, **settings}
    with pytest.raises(SystemExit) as ended:
        promoted(tmp_path, given.pop("registry"), model_folder(tmp_path / "m"), ANSWERS, ROWS[:3], ROWS, **given)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not os.path.exists(registry)


def test_without_an_id_of_the_run_its_candidate_could_not_be_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLM2LLM_RUN_ID")
    with pytest.raises(SystemExit):
        promoted(tmp_path, str(tmp_path / "r"), model_folder(tmp_path / "m"), ANSWERS, ROWS[:3], ROWS)
    assert "LLM2LLM_RUN_ID is not set" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_promoted_student_loads_as_it_is_and_answers_what_it_has_not(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llm2llm.components.shared.inference.predict import predict
    from llm2llm.components.shared.training.fine_tune import fine_tune

    student = tmp_path / "student"
    student.mkdir()
    fine_tune(ROWS[:15], TASK, "scratch", QUICK, 0, student)
    if method == "lora":
        base, student = student, tmp_path / "adapter"
        student.mkdir()
        update = {"method": "lora", "lora_rank": 8, "lora_dropout": 0.0}
        fine_tune(ROWS[:15], TASK, str(base), QUICK.model_copy(update=update), 0, student)
    validation = ROWS[15:20]
    splits: Any = {"validation": validation}
    answers = predict(student, splits, 0, None, TASK, AnswerSettings())
    verdict = promoted(tmp_path, registry, student, answers, validation, ROWS[:15])
    assert verdict["outcome"] == ("promoted" if any(a.outcome == "correct" for a in answers) else "kept")
    version = verdict["candidate"]["version"]
    storage.download_folder(versions.find_version(registry, version), tmp_path / "back")
    AutoTokenizer.from_pretrained(tmp_path / "back")
    if method == "full":
        AutoModelForCausalLM.from_pretrained(tmp_path / "back", use_safetensors=True)
    else:
        from peft import AutoPeftModelForCausalLM

        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "back")
        found = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
        assert found["base_model_name_or_path"] == str(base)
    assert predict(tmp_path / "back", splits, 0, None, TASK, AnswerSettings()) == answers

    # Next week validation has grown: what is in production is asked the new rows, and answers them as it would have.
    monkeypatch.setenv("LLM2LLM_RUN_ID", "run-2")
    grown = ROWS[15:]
    expected = {
        row.example_id: row.outcome == "correct"
        for row in predict(student, {"validation": grown}, 0, None, TASK, AnswerSettings())
    }
    perfect = predictions(grown, lambda i: True)
    after = promoted(tmp_path, registry, model_folder(tmp_path / "m"), perfect, grown, ROWS[:15], min_gain=0.99)
    assert after["comparison"]["answered_now"] == 4
    assert after["incumbent"]["correct"] == sum(expected.values())
    assert (after["outcome"], len(generations(registry))) == ("kept", 1)


def test_with_a_fixed_validation_set_it_can_be_placed_without_a_gpu() -> None:
    """As the README tells: only new validation rows have to be answered, and only where the run stops."""
    no_gpu = "placement.stages={promote: {accelerator: '', gpus: 0, shm: '', memory: 8Gi}}"
    for override, gpus in (("random_seed=0", 1), (no_gpu, 0)):
        config = load_config("quickstart", ["placement.profile=gke", "promote={registry: s3://b/r}", override])
        planned = {one.stage: one for one in planned_stages(config)}
        assert (planned["promote"].gpu_hours > 0) == bool(gpus)
        assert planned["evaluate"].gpu_hours > 0
