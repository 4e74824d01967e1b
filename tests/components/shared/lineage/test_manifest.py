"""A run's manifest, from the records of two iterations."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.lineage.manifest import checked_manifest, manifest_of, manifest_text
from llm2llm.components.shared.lineage.records import label_of
from llm2llm.components.shared.stage import stage_lifecycle
from tests.support.builders import decision

CONFIG = {"name": "colours", "images": {"cpu": "registry/cpu:1"}}


def do(
    folder: Path,
    name: str,
    iteration: int | None,
    output: str,
    fold: int | None = None,
    shard: int | None = None,
    **inputs: Any,
) -> LocalArtifact:
    """A stage of one output, which it names after itself."""
    artifact = LocalArtifact(str(folder / f"{name}-{iteration}-{fold}-{shard}-{output}"))
    outputs = {output: artifact}
    with stage_lifecycle(name, iteration=iteration, fold=fold, shard=shard, inputs=inputs, outputs=outputs):
        Path(artifact.path).write_text(json.dumps({"text": f"{name} {iteration} {fold} {shard}"}))
    return artifact


def whole_run(folder: Path) -> dict[str, Any]:
    """Two iterations, in the order of the pipeline, each with a report; the manifest of the last."""
    folder.mkdir()
    (folder / "seeds.jsonl").write_text("{}")
    config = do(folder, "configure", None, "config")
    splits = training = do(folder, "prepare", None, "splits", seeds=str(folder / "seeds.jsonl"), test="")
    journal, made = None, {}
    for iteration in (0, 1):
        if iteration:
            candidates = do(folder, "teacher_augment", 1, "candidates", journal=journal, training_set=training)
            training = do(folder, "dedupe", 1, "next_training_set", candidates=candidates, training_set=training)
        model = do(folder, "train", iteration, "model", training_set=training, student="tiny")
        shards = [do(folder, "predict", iteration, "predictions", shard=n, model=model) for n in (1, 0)]
        scores = do(folder, "evaluate", iteration, "journal", model=model, splits=splits, answered=shards)
        folds = [do(folder, "out_of_fold", iteration, "predictions", fold=n, training_set=training) for n in (1, 0)]
        journal = do(folder, "filter_errors", iteration, "journal", previous=scores, fold_predictions=folds)
        inputs = {"config": config, "training_set": training, "journal": journal, "splits": splits, "promotion": None}
        decisions = [decision(one, go_on=one == 0, reason=f"because {one}") for one in range(iteration + 1)]
        artifact = LocalArtifact(str(folder / f"manifest-{iteration}"))
        with stage_lifecycle("report", iteration=iteration, inputs=inputs, outputs={"manifest": artifact}):
            made = manifest_of(CONFIG, inputs, decisions, {"outcome": "kept"}, iteration)
            Path(artifact.path).write_text(manifest_text(made))
        assert checked_manifest(json.loads(Path(artifact.path).read_text()), artifact.path) == made
    return made


def test_holds_every_stage_of_every_iteration(tmp_path: Path) -> None:
    """Though the last report is handed nothing of the iteration before: each record names all makers."""
    manifest = whole_run(tmp_path / "run")
    iteration = [
        "train {}", "predict {} shard 0", "predict {} shard 1", "evaluate {}", "out_of_fold {} fold 0",
        "out_of_fold {} fold 1", "filter_errors {}",
    ]  # fmt: skip
    expected = ["configure", "prepare", *(one.format(0) for one in iteration)]
    expected += ["teacher_augment 1", "dedupe 1", *(one.format(1) for one in iteration)]
    assert [label_of(one) for one in manifest["stages"]] == expected
    assert all(out["sha256"] for one in manifest["stages"] for out in one["outputs"].values())
    # What went in is what the stage before has written.
    outputs = {
        (label_of(one), name): out["sha256"] for one in manifest["stages"] for name, out in one["outputs"].items()
    }
    (trained,) = [one for one in manifest["stages"] if label_of(one) == "train 1"]
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
