"""SNIPS and GSM8K through every stage, where the data is there: rows, prompts, grades, errors, teacher and report."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Prediction, StudentError
from llm2llm.components.shared.data.splits import read_splits
from llm2llm.components.shared.tasks import TASKS, grade, target
from tests.support.small_run import finished

pytestmark = [pytest.mark.slow, pytest.mark.data]


def run(config: str, output: Path, *overrides: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "llm2llm.pipelines", "run", config, "--output", str(output)]
    done = subprocess.run(
        [*command, *(part for one in overrides for part in ("--set", one))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads((output / "summary.json").read_text()))


SCRATCH = ("student=scratch", "train.method=full", "train.batch_size=8", "train.gradient_accumulation=1",
           "max_iterations=1", "filter_errors.patience=0", "teacher_augment.teacher=pool")  # fmt: skip


def test_snips_from_70_seeds(real_data: Path, tmp_path: Path) -> None:
    """The pool (the training rows that are no seeds) as teacher; a small student from scratch; out-of-fold errors."""
    summary = run(
        "snips", tmp_path / "out", *SCRATCH,
        f"data.seeds={real_data}/snips/train.jsonl", f"data.test={real_data}/snips/test.jsonl",
        "task.columns={question: text, answer: intent}",
        "train.epochs=12", "train.learning_rate=1.0e-3", "train.max_length=128",
        "train.scratch={vocabulary: 2048, hidden_size: 128, layers: 2, heads: 4, context: 128}",
        "filter_errors.selection=out_of_fold", "filter_errors.folds=2",
        "teacher_augment.rows_per_iteration=70", "prepare.validation_fraction=0.03",
    )  # fmt: skip
    outputs = finished(tmp_path / "out")
    splits = read_splits(outputs["prepare", None]["splits"])
    seeds, test = splits["seeds"], splits["test"]
    pool = read_rows(outputs["prepare", None]["pool_set"], "examples", Example)
    assert len(seeds) == 70
    assert all(sum(row.answer == label for row in seeds) == 10 for label in TASKS["snips"].labels)
    assert len(pool) > 12_000
    assert not {row.question for row in [*seeds, *pool]} & {row.question for row in test}
    first, second = (one["accuracy"]["test"] for one in summary["iterations"])
    assert first["n"] == len(test)
    assert first["value"] > 0.3, "far above chance, one in seven"
    assert second["value"] > first["value"], "twice the real rows teach more"
    training = read_rows(outputs["dedupe", 1]["next_training_set"], "examples", Example)
    by_id = {row.id: row for row in pool}
    for row in training:
        if row.generated:
            assert by_id[row.id].answer == row.answer, "the pool's own rows, with the pool's own answers"


def test_gsm8k_through_every_stage(real_data: Path, tmp_path: Path) -> None:
    """A small student solves nothing: what counts is that rows, prompts, grades, errors and report are right."""
    small = tmp_path / "test.jsonl"
    with open(real_data / "gsm8k" / "test.jsonl", encoding="utf-8") as file:
        small.write_text("".join(line for _, line in zip(range(30), file, strict=False)), encoding="utf-8")
    summary = run(
        "gsm8k", tmp_path / "out", *SCRATCH,
        f"data.seeds={real_data}/gsm8k/train.jsonl", f"data.test={small}",
        "prepare.seed_fraction=1.0", "prepare.seed_count=40", "prepare.validation_fraction=0.004",
        "train.epochs=2", "train.learning_rate=1.0e-3", "train.max_length=512", "task.max_new_tokens=48",
        "train.scratch={vocabulary: 1024, hidden_size: 64, layers: 2, heads: 2, context: 640}",
    )  # fmt: skip
    outputs = finished(tmp_path / "out")
    task = TASKS["gsm8k"]
    training = read_rows(outputs["dedupe", 1]["next_training_set"], "examples", Example)
    for row in training:
        assert row.rationale
        assert "####" not in row.rationale
        completion = target(task, row.answer, row.rationale)
        assert completion.endswith(f"\n#### {row.answer}")
        assert grade(task, completion, row.answer)[1] == "correct"
    predictions = read_rows(outputs["evaluate", 0]["predictions"], "predictions", Prediction)
    assert {p.split for p in predictions} == {"seeds", "validation", "test"}
    errors = read_rows(outputs["filter_errors", 0]["journal"] / "errors.parquet", "errors", StudentError)
    wrong = {p.example_id for p in predictions if p.split == "seeds" and p.outcome != "correct"}
    assert {error.example_id for error in errors} == wrong
    assert summary["iterations"][0]["errors"] == len(wrong)
    added = [row for row in training if row.generated]
    assert len(added) == summary["rows"]["kept"] == len(wrong) - summary["rows"]["rejected"]["total"]
    assert {row.parent_id for row in added} <= wrong
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "gsm8k" in report
    assert "unparseable" in report
