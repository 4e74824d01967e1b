"""A student that classifies, through the whole loop: folds, hardness, suspects, a threshold, promotion, predict."""

import json
from pathlib import Path

import pytest
from transformers import pipeline

from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.journal import read_journal
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.registry.production import current
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import run_local
from tests.support.command_line import Run
from tests.support.small_run import finished

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def output(small_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that promotes its student into an empty registry beside it."""
    folder = tmp_path_factory.mktemp("classifier")
    overrides = [
        "max_iterations=1",
        "train.head=classifier",
        "train.class_weights=balanced",
        "train.record_losses=true",
        "evaluate.hardness=true",
        "evaluate.threshold={label: red, max_false_positive_rate: 0.2}",
        "filter_errors.selection=out_of_fold",
        "filter_errors.folds=2",
        f"promote.registry={folder / 'registry'}",
        "promote.mode=promote",
    ]
    run_local(load_config(str(small_config), overrides, resolve=True), folder / "out", "process")
    return folder / "out"


def test_the_loop_is_the_same(output: Path) -> None:
    found = finished(output)
    training = read_rows(found["dedupe", 1]["next_training_set"], "examples", Example)
    assert any(row.generated for row in training)
    journal = read_journal(LocalArtifact(str(found["filter_errors", 1]["journal"])))
    assert {(one.iteration, one.split) for one in journal.scores} == {
        (iteration, split) for iteration in (0, 1) for split in ("seeds", "validation", "test")
    }
    assert journal.errors
    for one in journal.scores:
        assert one.calibration_error is not None
        assert one.unparseable == 0
        assert one.flag_label == ("" if one.split == "seeds" else "red")


def test_every_seed_has_its_hardness(output: Path) -> None:
    found = finished(output)
    for iteration in (0, 1):
        answered = read_rows(found["evaluate", iteration]["predictions"], "predictions", Prediction)
        assert {one.split for one in answered} == {"seeds", "validation", "test"}
        for one in answered:
            assert one.confidence is not None
            assert one.confidence >= 1 / 3
            assert one.completion == one.parsed
            assert None not in (one.loss, one.margin, one.el2n, one.flag_probability)
            assert (one.base_loss is not None) == (one.early_loss is not None) == (one.split == "seeds")


def test_the_student_loads_as_it_is_and_says_what_the_run_says(output: Path, run: Run, small_config: Path) -> None:
    config = json.loads((output / "student" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert list(config["id2label"].values()) == ["red", "green", "blue"]
    rows = [json.loads(line) for line in (small_config.parent / "test.jsonl").read_text().splitlines()]
    said = pipeline("text-classification", model=str(output / "student"), device="cpu")([row["text"] for row in rows])
    code, out, _ = run("predict", "--student", output, "--input", small_config.parent / "test.jsonl")
    answered = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [one["prediction"] for one in answered] == [one["label"] for one in said]
    assert [one["confidence"] for one in answered] == pytest.approx([one["score"] for one in said], abs=1e-4)
    # A student's folder alone says how it is asked; what a classifier has not is refused.
    code, alone, _ = run("predict", "--student", output / "student", "--input", small_config.parent / "test.jsonl")
    assert (code, [json.loads(line)["prediction"] for line in alone.splitlines()]) == (
        0,
        [one["label"] for one in said],
    )
    for option in (("--mode", "generate"), ("--max-new-tokens", "4")):
        code, _, err = run("predict", "--student", output, "--input", small_config.parent / "test.jsonl", *option)
        assert code == 2
        assert "the student is a classifier, which scores labels; leave the option out" in err


def test_it_enters_the_registry_as_a_classifier(output: Path) -> None:
    registry = output.parent / "registry"
    pointer = current(str(registry))
    assert pointer is not None
    folder = registry / "versions" / pointer.version
    assert json.loads((folder / "llm2llm.json").read_text())["head"] == "classifier"
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert 'pipeline("text-classification"' in card
    assert (output / "report.html").is_file()
