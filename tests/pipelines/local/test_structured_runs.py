"""The shipped tasks with JSON answers, each through the whole loop with a stand-in for a teacher."""

import json
from pathlib import Path

import pytest

from llm2llm.components.shared import tasks
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.sources import builtin_path
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import run_local
from tests.support.small_run import finished
from tests.support.structured_rows import GRAMMARS, SPLITS, rows_of, text_of

CONFIGS = {"extraction": "orders", "several-labels": "reviews", "spans": "news", "tool-calls": "tool_calls"}
QUICK = (
    "max_iterations=1",
    "train.epochs=2",
    "train.scratch={vocabulary: 600, hidden_size: 32, layers: 1, heads: 2, context: 768}",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_whole_loop(name: str, tmp_path: Path) -> None:
    config = load_config(name, QUICK, resolve=True)
    run_local(config, tmp_path / "out", "process")
    stages = finished(tmp_path / "out")
    generated = [
        row
        for row in read_rows(stages["dedupe", 1]["next_training_set"], "examples", Example)
        if row.parent_id is not None
    ]
    assert generated
    for row in generated:  # what a student is taught is right by the grader
        assert tasks.grade(config.task, tasks.target(config.task, row.answer, None), row.answer)[1] == "correct"
    answers = json.loads(stages["report", 1]["summary"].read_text())["answers"]["splits"]["test"]
    assert answers["n"] == SPLITS["test"]
    everything, *fields = answers["fields"]["scores"]
    assert everything["field"] == ""
    assert everything["right"] + everything["missing"] == sum(
        one["right"] + one["missing"] for one in fields if not one["kind"]
    )
    assert "<h3>Fields" in stages["report", 1]["html"].read_text()


@pytest.mark.parametrize("name", GRAMMARS)
def test_the_shipped_rows_are_those_of_the_grammar(name: str) -> None:
    for split, rows in rows_of(name).items():
        assert builtin_path(f"builtin:structured/{name}/{split}.jsonl").read_text("utf-8") == text_of(rows)
