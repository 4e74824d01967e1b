"""A run's manifest, from the records of two iterations."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.schemas import Decision
from llm2llm.components.shared.lineage.manifest import checked_manifest, manifest_of, manifest_text
from llm2llm.components.shared.stage import stage_lifecycle

CONFIG = {"name": "colours", "images": {"cpu": "registry/cpu:1"}}


def do(
    folder: Path, name: str, iteration: int | None, output: str, fold: int | None = None, **inputs: Any
) -> LocalArtifact:
    """A stage of one output, which it names after itself."""
    artifact = LocalArtifact(str(folder / f"{name}-{iteration}-{fold}-{output}"))
    with stage_lifecycle(name, iteration=iteration, fold=fold, inputs=inputs, outputs={output: artifact}):
        Path(artifact.path).write_text(json.dumps({"text": f"{name} {iteration} {fold}"}))
    return artifact


def decision(iteration: int) -> Decision:
    reason = f"because {iteration}"
    go_on, reason = iteration == 0, f"because {iteration}"
    return Decision(iteration=iteration, selection="wrong", errors=3, go_on=go_on, reason=reason, best_iteration=0)


def whole_run(folder: Path) -> dict[str, Any]:
    """Two iterations, in the order of the pipeline, each with a report that extends the manifest."""
    folder.mkdir()
    (folder / "seeds.jsonl").write_text("{}")
    config = do(folder, "configure", None, "config")
    training = seeds = do(folder, "prepare", None, "seeds_set", seeds=str(folder / "seeds.jsonl"), test="")
    errors = manifest = None
    for iteration in (0, 1):
        if iteration:
            candidates = do(folder, "teacher_augment", 1, "candidates", errors=errors, training_set=training)
            training = do(folder, "dedupe", 1, "next_training_set", candidates=candidates, training_set=training)
        model = do(folder, "train", iteration, "model", training_set=training, student="tiny")
        history = do(folder, "evaluate", iteration, "history", model=model, seeds_set=seeds)
        folds = [do(folder, "out_of_fold", iteration, "predictions", fold, training_set=training) for fold in (1, 0)]
        errors = do(folder, "filter_errors", iteration, "errors", history=history, fold_predictions=folds)
        inputs = {"config": config, "training_set": training, "history": history, "errors": errors,
                  "validation_set": seeds, "calls": None}  # fmt: skip
        decisions = [decision(one) for one in range(iteration + 1)]
        artifact = LocalArtifact(str(folder / f"manifest-{iteration}"))
        with stage_lifecycle("report", iteration=iteration, inputs=inputs, outputs={"manifest": artifact}):
            manifest = manifest_of(CONFIG, inputs, decisions, {"outcome": "kept"}, iteration)
            Path(artifact.path).write_text(manifest_text(manifest))
    assert manifest is not None
    return manifest


def test_holds_every_stage_of_every_iteration(tmp_path: Path) -> None:
    manifest = whole_run(tmp_path / "run")
    iteration = ["train", "evaluate", "out_of_fold", "out_of_fold", "filter_errors"]
    assert [(one["stage"], one["iteration"], one["fold"]) for one in manifest["stages"]] == [
        ("configure", None, None),
        ("prepare", None, None),
        *((name, 0, fold) for name, fold in zip(iteration, (None, None, 0, 1, None), strict=True)),
        ("teacher_augment", 1, None),
        ("dedupe", 1, None),
        *((name, 1, fold) for name, fold in zip(iteration, (None, None, 0, 1, None), strict=True)),
    ]
    assert all(out["sha256"] for one in manifest["stages"] for out in one["outputs"].values())
    # What went in is what the stage before has written.
    outputs = {
        (f"{one['stage']} {one['iteration']}", name): out["sha256"]
        for one in manifest["stages"] for name, out in one["outputs"].items()
    }  # fmt: skip
    (trained,) = [one for one in manifest["stages"] if (one["stage"], one["iteration"]) == ("train", 1)]
    assert trained["inputs"]["training_set"]["sha256"] == outputs["dedupe 1", "next_training_set"]


def test_says_what_went_in_and_why_it_ended(tmp_path: Path) -> None:
    manifest = whole_run(tmp_path / "run")
    assert (manifest["name"], manifest["iteration"], manifest["config"]) == ("colours", 1, CONFIG)
    assert manifest["images"] == {"cpu": "registry/cpu:1", "digests": []}
    assert manifest["data"]["seeds"]["source"] == "seeds.jsonl"
    assert manifest["data"]["seeds"]["sha256"]
    assert manifest["data"]["student"] == {"source": "tiny", "sha256": None}
    assert [one["reason"] for one in manifest["decisions"]] == ["because 0", "because 1"]
    assert manifest["verdict"] == {"outcome": "kept"}
    assert len(manifest["code"]) == 1
    assert manifest["libraries"]["torch"]


def test_the_same_run_elsewhere_has_the_same_manifest(tmp_path: Path) -> None:
    assert manifest_text(whole_run(tmp_path / "one")) == manifest_text(whole_run(tmp_path / "two"))


@pytest.mark.parametrize("content", [None, [], {"schema_version": 99}])
def test_what_is_no_manifest_of_today_is_named(content: Any) -> None:
    with pytest.raises(UserError, match="some/manifest: no run's manifest"):
        checked_manifest(content, "some/manifest")


def test_no_secret_is_read_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert "sk-very-secret" not in json.dumps(whole_run(tmp_path / "run"))
