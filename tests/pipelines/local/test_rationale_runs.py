"""Rationales of labels through the whole loop, in both styles; a stand-in teacher writes rationale and label."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared import tasks
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.ingest.read_inputs import read_inputs
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import run_local
from tests.support.loopback_endpoint import MODEL, Endpoint, HTTPResponse, completion
from tests.support.small_run import finished

BECAUSE = "It names something {}."


class Writer:
    """A teacher that writes rows of the errors' colours, each with a rationale."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __call__(self, body: dict[str, Any], number: int) -> HTTPResponse:
        with self._lock:
            self.asked.append(body)
        schema = body["response_format"]["json_schema"]["schema"]["properties"]["examples"]
        text = body["messages"][-1]["content"]
        error = json.loads(text.split("<example>\n")[1].split("\n</example>")[0])
        answer = error["right_answer"]
        day = sum(map(ord, text)) % 89
        # By the error, not by the number of the request: which comes first is up to threads.
        written = [
            {
                "question": f"{error['question'].rstrip('!?')}, seen {place + 2} times on day {day}",
                "rationale": BECAUSE.format(answer),
                "answer": answer,
            }
            for place in range(schema["minItems"])
        ]
        return completion({"examples": written})


@pytest.mark.slow
@pytest.mark.parametrize("style", ["before", "second_task"])
def test_the_whole_loop(style: str, small_config: Path, tmp_path: Path) -> None:
    seeds = [json.loads(line) for line in (small_config.parent / "seeds.jsonl").read_text().splitlines()]
    with_why = [{**row, "why": BECAUSE.format(row["colour"])} for row in seeds]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in with_why))
    writer, endpoint = Writer(), Endpoint()
    endpoint.answer = writer
    columns = {"question": "text", "answer": "colour", "rationale": "why"}
    teacher = {"teacher": "openai", "model": MODEL, "url": endpoint.url, "examples_per_error": 1}
    asked_only = ("validation", "test")
    for split in asked_only:  # a rationale is due in every row; it is not asked for when it counts
        rows = [json.loads(line) for line in (small_config.parent / f"{split}.jsonl").read_text().splitlines()]
        lines = [json.dumps({**row, "why": BECAUSE.format(row["colour"])}) + "\n" for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    overrides = [
        *(f"data.{split}={tmp_path / split}.jsonl" for split in ("seeds", *asked_only)),
        f"task.columns={json.dumps(columns)}", "task.rationale=true", f"task.rationale_as={style}",
        "task.max_new_tokens=24", f"teacher_augment={json.dumps(teacher)}", "max_iterations=1", "train.epochs=2",
        "train.max_steps=6", "train.scratch.context=128", "filter_errors.selection=all",
    ]  # fmt: skip
    config = load_config(str(small_config), overrides, resolve=True)
    try:
        run_local(config, tmp_path / "out", "process")
    finally:
        endpoint.close()
    stages = finished(tmp_path / "out")
    assert writer.asked
    for body in writer.asked:
        (item,) = [body["response_format"]["json_schema"]["schema"]["properties"]["examples"]["items"]]
        assert set(item["required"]) == {"question", "rationale", "answer"}
    training = read_rows(stages["dedupe", 1]["next_training_set"], "examples", Example)
    generated = [row for row in training if row.generated]
    assert generated
    for row in training:
        assert row.rationale == BECAUSE.format(row.answer)
        target = tasks.target(config.task, row.answer, row.rationale)
        assert target == (f"{row.rationale}\n#### {row.answer}" if style == "before" else row.answer)
    log = json.loads((stages["train", 1]["model"] / "training.json").read_text())
    assert log["rows"] == len(training), "the twins of a second task are no rows of their own"
    assert log["sequences"] == len(training) * (2 if style == "second_task" else 1)
    # Only the label counts, whatever stands before it.
    right = {row.id: row.answer for row in read_inputs_of(config)}
    for one in read_rows(stages["evaluate", 1]["predictions"], "predictions", Prediction):
        assert one.parsed in (None, *config.task.labels)
        if one.split != "seeds":
            assert (one.outcome == "correct") == (one.parsed == right[one.example_id])


def read_inputs_of(config: Any) -> list[Example]:
    held = {name: getattr(config.data, name) for name in ("validation", "test")}
    found = read_inputs(held, config.task, config.prepare)
    return [row for one in found.values() for row in one.examples]
