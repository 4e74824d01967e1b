"""A run whose answers a judge grades: what that cost is in its report."""

import json
from pathlib import Path

import pytest

from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Prediction
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.inspect.tables import summary_table
from llm2llm.pipelines.local.run import run_local
from tests.support.loopback_endpoint import MODEL, Endpoint, completion
from tests.support.small_run import events


@pytest.mark.slow
def test_the_report_says_what_the_judge_cost(small_config: Path, tmp_path: Path) -> None:
    endpoint = Endpoint()
    endpoint.answer = lambda body, number: completion({"reason": "because", "verdict": "wrong"})
    judge = {"model": MODEL, "url": endpoint.url, "ledger": str(tmp_path / "ledger"),
             "prices": {MODEL: {"input": 1, "output": 1}}}  # fmt: skip
    task = {"name": "open", "form": "text", "match": "judge", "rubric": "Right when it names the colour.",
            "question_cue": "Text", "answer_cue": "Colour", "max_new_tokens": 4,
            "columns": {"question": "text", "answer": "colour"}}  # fmt: skip
    data = small_config.parent
    overrides = [
        f"task={json.dumps(task)}", f"evaluate.judge={json.dumps(judge)}", "evaluate.shards=2", "max_iterations=1",
        "filter_errors.selection=out_of_fold", "filter_errors.folds=2", "train.epochs=1", "train.max_steps=2",
        "teacher_augment={teacher: pool}", f"data.pool={data / 'test.jsonl'}", "data.test=",
    ]  # fmt: skip

    output = tmp_path / "out"
    try:
        summary = run_local(load_config(str(small_config), overrides, resolve=True), output, "process")
    finally:
        endpoint.close()
    answered = [
        row
        for event in events(output)
        if event["event"] == "finished" and event["stage"] in ("evaluate", "out_of_fold")
        for row in read_rows(event["outputs"]["predictions"], "predictions", Prediction)
    ]
    assert {row.fold for row in answered} == {None, 0, 1}
    calls = sum(row.judge_calls for row in answered)
    assert calls == sum(row.outcome == "wrong" for row in answered) >= len(endpoint.requests) > 0
    cost = summary["judge_calls"]
    assert cost["total"] == calls
    assert (cost["input_tokens"], cost["output_tokens"]) == (11 * calls, 7 * calls)
    assert cost["usd"] == pytest.approx(18e-6 * calls)
    assert {one["iteration"] for one in cost["by_iteration"]} == {0, 1}
    assert f"{calls} answers of the judge." in summary_table(summary)
