"""A run that writes from generated rows, too: the chain of a row, and what is asked."""

from collections import Counter
from pathlib import Path

import pytest

from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.inspect.run_files import open_run
from llm2llm.pipelines.inspect.why import why
from llm2llm.pipelines.inspect.wording import why_text
from llm2llm.pipelines.local.run import run_local
from tests.support.small_run import finished

pytestmark = pytest.mark.slow

# All rows rather than the wrong ones: which a tiny student gets wrong is a matter of its CPU.
ASKED = ("filter_errors.generated_rows=true", "filter_errors.selection=all", "train.epochs=1",
         "teacher_augment.examples_per_error=1", "evaluate.shards=2")  # fmt: skip


def test_a_row_of_a_generated_row_is_asked_checked_and_explained(small_config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_local(load_config(str(small_config), ASKED, resolve=True), output, "process")
    done = finished(output)
    training = {row.id: row for row in read_rows(done["dedupe", 2]["next_training_set"], "examples", Example)}
    first = {row.id for row in training.values() if row.iteration == 1}
    deep = [row for row in training.values() if row.by_way_of]
    assert deep
    assert first
    for row in deep:
        between = training[row.by_way_of or ""]
        assert between.id in first
        assert row.iteration == 2
        assert row.parent_id == between.parent_id
        assert not training[row.parent_id or ""].generated
        assert "no copy" in row.checks
        assert "not in test" in row.checks
    asked = read_rows(done["evaluate", 1]["predictions"], "predictions", Prediction)
    assert {one.example_id for one in asked if one.split == "generated"} == first
    assert Counter(one.split for one in asked)["seeds"] == sum(not row.generated for row in training.values())

    run = open_run(str(output))
    facts = why(run, deep[0].id)
    assert [one["id"] for one in facts["by_way_of"]] == [deep[0].by_way_of]
    assert facts["seed"]["id"] == deep[0].parent_id
    assert (facts["student"]["iteration"], facts["student"]["example_id"]) == (1, deep[0].by_way_of)
    assert f"by way of  {deep[0].by_way_of}  written in iteration 1, at depth 1" in why_text(facts)
    shown = why(run, deep[0].by_way_of or "")
    assert shown["by_way_of"] == []
    assert [one["iteration"] for one in shown["history"]["errors"]] == [1, 2]
    assert deep[0].id in {one["id"] for one in shown["history"]["written"]}
    assert "generated rows" in (output / "report.md").read_text()
