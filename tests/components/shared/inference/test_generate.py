"""Answers come in the order of the questions, all of them or none."""

from collections import Counter
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llm2llm.components.evaluate.evaluate import evaluate
from llm2llm.components.out_of_fold.component import out_of_fold as out_of_fold_stage
from llm2llm.components.out_of_fold.out_of_fold import out_of_fold
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Prediction, Score
from llm2llm.components.shared.inference import generate as answer_module
from llm2llm.components.shared.inference.generate import StudentAnswer, answer, answer_batches, load_student
from llm2llm.components.shared.inference.predict import predict
from llm2llm.components.shared.inference.questions import StudentQuestion, cut
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.prompts import encode_prompt
from llm2llm.components.shared.tasks import Task, grade
from llm2llm.components.shared.training.settings import FineTuneSettings
from tests.support.builders import journal_artifact, outputs_of, rows_artifact

pytestmark = pytest.mark.slow


def test_batches_and_order_do_not_change_the_answers(rows: list[Example], colours: Task, tiny_student: Path) -> None:
    whole = answer(tiny_student, rows, colours, AnswerSettings(batch_size=64))
    single = answer(tiny_student, rows, colours, AnswerSettings(batch_size=1))
    backwards = answer(tiny_student, rows[::-1], colours, AnswerSettings(batch_size=64))
    assert [a.completion for a in whole] == [a.completion for a in single]
    assert [a.completion for a in whole] == [a.completion for a in backwards][::-1]


@pytest.mark.parametrize("samples", [1, 4])
def test_rows_that_have_ended_leave_the_batch_and_change_nothing(
    samples: int, rows: list[Example], colours: Task, taught_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of 1 to 40 tokens, looked at after every second token, and not at all."""
    settings = AnswerSettings(batch_size=8, samples=samples, temperature=2.0, max_new_tokens=40)
    model, tokenizer = load_student(taught_student, settings)
    steps: list[int] = []
    forward = type(model).forward

    def counted(self: Any, *args: Any, **inputs: Any) -> Any:
        steps.append(len(inputs["input_ids"]))
        return forward(self, *args, **inputs)

    monkeypatch.setattr(type(model), "forward", counted)
    monkeypatch.setattr(answer_module, "cache_of_rows", lambda model: None)
    whole = draw(model, tokenizer, rows, samples, colours, settings)
    plain = sum(steps)
    steps.clear()
    monkeypatch.undo()
    monkeypatch.setattr(type(model), "forward", counted)
    monkeypatch.setattr(answer_module, "SEGMENT", 2)
    assert draw(model, tokenizer, rows, samples, colours, settings) == whole
    if samples > 1:
        assert len({len(one.completion) for drawn in whole for one in drawn}) > 3, "of many lengths"
        assert sum(steps) < 0.8 * plain


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


def draw(
    model: Any, tokenizer: Any, rows: list[Example], samples: int, task: Task, settings: AnswerSettings
) -> list[list[StudentAnswer]]:
    """`samples` answers to each row, in the rows' order."""
    limit = settings.max_new_tokens or task.max_new_tokens
    questions = [
        StudentQuestion(
            split="seeds", example=row, prompt=encode_prompt(tokenizer, task, row), samples=samples, limit=limit
        )
        for row in rows
    ]
    replies = answer_batches(model, tokenizer, cut(questions, settings.batch_size), settings)
    found = {question.example.id: reply.answers for question, reply in replies}
    return [found[row.id] for row in rows]


SAMPLED = AnswerSettings(samples=5, temperature=1.0)


def test_the_one_answer_to_a_seed_may_be_drawn_and_those_to_test_are_not(
    rows: list[Example], colours: Task, taught_student: Path
) -> None:
    """`draw_seeds`, as in the reference implementation."""

    def completions(**settings: Any) -> dict[str, list[str]]:
        splits: Any = {"seeds": rows, "test": rows}
        asked = AnswerSettings(**settings).model_copy(update={"temperature": 3.0})
        found = predict(taught_student, splits, 0, None, colours, asked)
        return {split: [one.completion for one in found if one.split == split] for split in splits}

    greedy, drawn = completions(), completions(draw_seeds=True)
    assert greedy["seeds"] == greedy["test"] == drawn["test"]
    assert drawn["seeds"] != greedy["seeds"]
    assert drawn == completions(draw_seeds=True, batch_size=3), "the same whatever the batches"
    assert drawn != completions(draw_seeds=True, sampling_seed=1)
    assert completions(draw_seeds=True, top_p=1e-6) == greedy, "the likeliest token is always left"
    with pytest.raises(UserError, match="draw_seeds: answers are drawn only with mode 'generate'"):
        AnswerSettings.load({"mode": "score", "draw_seeds": True}, "evaluate")


def test_samples_depend_on_the_row_alone(rows: list[Example], colours: Task, taught_student: Path) -> None:
    """Not on the batches, nor on the order, nor on what other rows there are."""
    model, tokenizer = load_student(taught_student, SAMPLED)
    hot = SAMPLED.model_copy(update={"temperature": 3.0})
    whole = draw(model, tokenizer, rows, 5, colours, hot)
    single = draw(model, tokenizer, rows, 5, colours, hot.model_copy(update={"batch_size": 3}))
    part = draw(model, tokenizer, rows[10:][::-1], 5, colours, hot)
    assert whole == single
    assert whole[10:] == part[::-1]
    assert any(len({answer.completion for answer in drawn}) > 1 for drawn in whole), "something is drawn"
    other = draw(model, tokenizer, rows, 5, colours, hot.model_copy(update={"sampling_seed": 1}))
    assert other != whole


def test_samples_are_drawn_as_the_model_says(rows: list[Example], colours: Task, taught_student: Path) -> None:
    """The first token of 2,000 samples has the frequencies of softmax(logits / temperature)."""
    settings = AnswerSettings(samples=2, temperature=2.0, max_new_tokens=1, batch_size=500)
    model, tokenizer = load_student(taught_student, settings)
    logits = model(torch.tensor([encode_prompt(tokenizer, colours, rows[0])])).logits[0, -1]
    expected = (logits / 2.0).softmax(-1)
    (drawn,) = draw(model, tokenizer, [rows[0]], 2000, colours, settings)
    counted = Counter(answer.completion for answer in drawn)
    for token in expected.topk(3).indices.tolist():
        text = tokenizer.decode([token], skip_special_tokens=True).strip()
        same = [i for i in range(len(tokenizer)) if tokenizer.decode([i], skip_special_tokens=True).strip() == text]
        probability = float(expected.detach()[same].sum())
        assert counted[text] / 2000 == pytest.approx(probability, abs=4 * sqrt(probability * (1 - probability) / 2000))


def test_only_seeds_are_sampled_and_the_rest_is_answered_as_ever(
    rows: list[Example], colours: Task, taught_student: Path
) -> None:
    splits: Any = {"seeds": rows[:9], "validation": rows[9:15], "test": rows[15:]}
    greedy = predict(taught_student, splits, 0, None, colours, AnswerSettings())
    hot = AnswerSettings(samples=6, temperature=2.0)
    sampled = predict(taught_student, splits, 0, None, colours, hot)
    assert [p for p in sampled if p.split != "seeds"] == [p for p in greedy if p.split != "seeds"]
    assert {(p.samples, p.samples_correct) for p in greedy if p.outcome == "correct"} == {(1, 1)}
    assert {p.samples for p in sampled if p.split == "seeds"} == {6}
    model, tokenizer = load_student(taught_student, hot)
    for row, drawn in zip(rows[:9], draw(model, tokenizer, rows[:9], 6, colours, hot), strict=True):
        outcomes = [grade(colours, answer.completion, row.answer)[1] for answer in drawn]
        (found,) = [p for p in sampled if p.example_id == row.id]
        assert (found.completion, found.outcome) == (drawn[0].completion, outcomes[0])
        assert found.samples_correct == outcomes.count("correct")
        assert found.samples_unparseable == outcomes.count("unparseable")


def test_evaluate_grades_and_scores_every_split(rows: list[Example], colours: Task, tiny_student: Path) -> None:
    splits = {"seeds": rows[:9], "validation": rows[9:15], "test": rows[15:]}
    predictions, history = evaluate(tiny_student, splits, [], 0, 9, colours, AnswerSettings())
    assert [(score.split, score.n) for score in history] == [("seeds", 9), ("validation", 6), ("test", 9)]
    assert {p.example_id for p in predictions} == {row.id for row in rows}
    for score in history:
        outcomes = [p.outcome for p in predictions if p.split == score.split]
        assert score.correct == outcomes.count("correct")
        assert score.unparseable == outcomes.count("unparseable")
        assert score.low <= score.accuracy <= score.high
        assert score.correct_ids == sorted(p.example_id for p in predictions if p.outcome == "correct"
                                           and p.split == score.split)  # fmt: skip
    _, scores = evaluate(tiny_student, splits, history, 1, 12, colours, AnswerSettings())
    assert [(score.iteration, score.split) for score in scores] == [(1, split) for split in splits], "the new ones only"
    assert [score.gain for score in scores] == [0, 0, 0], "the same student answers the same"
    with pytest.raises(UserError, match="has scores of that iteration or later"):
        evaluate(tiny_student, splits, [*history, *scores], 1, 12, colours, AnswerSettings())


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


@pytest.mark.parametrize(("solved", "trained"), [(0.5, False), (0.98, False), (0.99, True)])
def test_folds_are_trained_only_for_a_student_that_knows_its_seeds(
    rows: list[Example], colours: Task, quick: FineTuneSettings, tmp_path: Path, solved: float, trained: bool
) -> None:
    scores = [
        Score(iteration=iteration, split="seeds", n=24, correct=0, unparseable=0, accuracy=accuracy, low=0, high=1,
              training_rows=24)
        for iteration, accuracy in ((0, 1.0), (1, solved))
    ]  # fmt: skip
    settings = {
        "task": colours.model_dump(),
        "student": "scratch",
        "train": {"epochs": 1.0, "learning_rate": 1e-3, **quick.model_dump(include={"scratch", "batch_size"})},
        "out_of_fold": {"folds": 3, "only_above": 0.98},
    }
    outputs = outputs_of("out_of_fold", tmp_path / "out")
    out_of_fold_stage.python_func(
        training_set=rows_artifact(tmp_path, "rows", "examples", rows),
        journal=journal_artifact(tmp_path, scores=scores),
        settings=settings_text(settings),
        fold=0,
        iteration=1,
        **outputs,
    )
    assert len(read_rows(outputs["predictions"].path, "predictions", Prediction)) == (8 if trained else 0)
