"""Answers that no rule can grade go to the judge, in evaluation and in out-of-fold evaluation alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.evaluate.evaluate import scored
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.predict import predict
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.tasks import Task
from tests.support.loopback_endpoint import MODEL, Endpoint, HTTPResponse, completion

TASK = Task(
    name="people", form="text", match="judge", rubric="Right when it names a place.", question_cue="Text",
    answer_cue="Colour", max_new_tokens=4,
)  # fmt: skip


@pytest.mark.slow
def test_the_judge_has_the_last_word(
    taught_student: Path, example: Callable[..., Example], rows: list[Example]
) -> None:
    """The student says a colour to every question: with one rule none is right, and with this judge all but green."""
    asked: dict[str, Any] = {"seeds": [example(row.question, "a place") for row in rows]}
    judged: list[str] = []

    def all_but_green(body: dict[str, Any], number: int) -> HTTPResponse:
        text = str(body["messages"][-1]["content"])
        judged.append(text)
        return completion({"reason": "because", "verdict": "wrong" if "green" in text else "correct"})

    endpoint = Endpoint()
    endpoint.answer = all_but_green
    try:
        judge = {"model": MODEL, "url": endpoint.url, "prices": {MODEL: {"input": 1, "output": 1}}}
        settings = AnswerSettings.load({"samples": 2, "judge": judge}, "evaluate")
        found = predict(taught_student, asked, 0, None, TASK, settings)
    finally:
        endpoint.close()
    assert judged
    for p in found:
        assert p.outcome == ("wrong" if "green" in (p.parsed or "") else "correct")
    assert {p.samples for p in found} == {2}
    assert any(p.samples_correct == 2 for p in found), "each sample is judged"
    (score,) = scored([], found, {"training_rows": 24})
    assert score.judge_calls == sum(p.judge_calls for p in found) == len(judged)
    assert {p.judge_calls for p in found} == {1, 2}, "two samples with the same text are one call"
    assert (score.judge_input_tokens, score.judge_output_tokens) == (11 * len(judged), 7 * len(judged))
    assert score.judge_usd == pytest.approx(18e-6 * len(judged))


@pytest.mark.parametrize(
    ("task", "values", "said"),
    [
        (TASK, {}, "evaluate.judge: missing; task 'people' has match 'judge'"),
        (Task(name="open", form="text"), {"judge": {"model": "x"}}, "evaluate.judge: set, but task 'open'"),
    ],
)
def test_task_and_judge_go_together(tmp_path: Path, task: Task, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        predict(tmp_path, {}, 0, None, task, AnswerSettings.load(values, "evaluate"))
