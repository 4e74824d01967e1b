"""Answers come in the order of the questions, all of them or none."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from llm2llm.components.evaluate.evaluate import evaluate
from llm2llm.components.out_of_fold.out_of_fold import out_of_fold
from llm2llm.components.problems import UserError
from llm2llm.components.rows.kinds import Example, Score
from llm2llm.components.students.answer import answer
from llm2llm.components.students.settings import AnswerSettings, FineTuneSettings
from llm2llm.components.tasks import Task

pytestmark = pytest.mark.slow


def test_batches_and_order_do_not_change_the_answers(rows: list[Example], colours: Task, tiny_student: Path) -> None:
    whole = answer(tiny_student, rows, colours, AnswerSettings(batch_size=64))
    single = answer(tiny_student, rows, colours, AnswerSettings(batch_size=1))
    backwards = answer(tiny_student, rows[::-1], colours, AnswerSettings(batch_size=64))
    assert [a.completion for a in whole] == [a.completion for a in single]
    assert [a.completion for a in whole] == [a.completion for a in backwards][::-1]


def test_an_untrained_student_runs_into_the_limit(rows: list[Example], colours: Task, tiny_student: Path) -> None:
    assert any(a.truncated for a in answer(tiny_student, rows, colours, AnswerSettings(max_new_tokens=2)))


def test_a_failed_batch_fails_the_evaluation(
    rows: list[Example], colours: Task, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = transformers.LlamaForCausalLM.generate
    calls = []

    def fail_second(self: Any, **inputs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return generate(self, **inputs)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", fail_second)
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(tiny_student, {"seeds": rows}, [], 0, len(rows), colours, AnswerSettings(batch_size=8))


def test_evaluate_grades_every_split_and_extends_the_history(
    rows: list[Example], colours: Task, tiny_student: Path
) -> None:
    splits = {"seeds": rows[:9], "validation": rows[9:15], "test": rows[15:]}
    predictions, history = evaluate(tiny_student, splits, [], 0, 9, colours, AnswerSettings())  # type: ignore[arg-type]
    assert [(score.split, score.n) for score in history] == [("seeds", 9), ("validation", 6), ("test", 9)]
    assert {p.example_id for p in predictions} == {row.id for row in rows}
    for score in history:
        outcomes = [p.outcome for p in predictions if p.split == score.split]
        assert score.correct == outcomes.count("correct")
        assert score.unparseable == outcomes.count("unparseable")
        assert score.low <= score.accuracy <= score.high
    _, longer = evaluate(tiny_student, splits, history, 1, 12, colours, AnswerSettings())  # type: ignore[arg-type]
    assert longer[:3] == history
    assert [score.iteration for score in longer] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(UserError, match="has scores of that iteration or later"):
        evaluate(tiny_student, splits, longer, 1, 12, colours, AnswerSettings())  # type: ignore[arg-type]


def test_nothing_to_ask_is_refused(colours: Task, tiny_student: Path) -> None:
    history: list[Score] = []
    with pytest.raises(UserError, match="all empty"):
        evaluate(tiny_student, {"seeds": []}, history, 0, 0, colours, AnswerSettings())


def test_out_of_fold_answers_every_seed_once_and_only_unseen_ones(
    quick: FineTuneSettings, rows: list[Example], colours: Task
) -> None:
    quick = quick.model_copy(update={"epochs": 1.0})
    answered = [
        prediction
        for fold in range(3)
        for prediction in out_of_fold(rows, colours, "scratch", quick, AnswerSettings(), fold, 3, 0, 0)
    ]
    assert sorted(p.example_id for p in answered) == sorted(row.id for row in rows)
    assert {p.fold for p in answered} == {0, 1, 2}
    with pytest.raises(UserError, match="no more folds than seeds"):
        out_of_fold(rows[:2], colours, "scratch", quick, AnswerSettings(), 0, 3, 0, 0)
