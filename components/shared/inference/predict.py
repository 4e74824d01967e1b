"""Asks a student and grades its answers; shared by `evaluate`, `predict` and `out_of_fold`.

rows -> questions -> transformers or vLLM -> replies -> grades
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import ASKED, LOOKED_AT, Example, Outcome, Prediction, Split
from llm2llm.components.shared.inference.classify import ask_classifier
from llm2llm.components.shared.inference.generate import Pace, answer_batches, load_student, to_answer
from llm2llm.components.shared.inference.limits import answer_limit
from llm2llm.components.shared.inference.on_devices import ask_on_devices
from llm2llm.components.shared.inference.questions import (
    Planned,
    Replies,
    StudentAnswer,
    StudentQuestion,
    StudentReply,
    cut,
    plan,
    shard_of,
)
from llm2llm.components.shared.inference.row_losses import Hardness, hardness_of
from llm2llm.components.shared.inference.settings import AnswerSettings, check_mode
from llm2llm.components.shared.inference.vllm_answers import ask_vllm, base_of, seed_of
from llm2llm.components.shared.judge.cost import cost_of
from llm2llm.components.shared.judge.settings import check_judge
from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.shared.models.label_scoring import completions_of, labels_of, likeliest, probabilities
from llm2llm.components.shared.models.load import end_tokens, is_classifier, load_tokenizer
from llm2llm.components.shared.models.prompts import encode_prompt
from llm2llm.components.shared.models.student_folder import read_losses
from llm2llm.components.shared.models.vllm import vllm_is_here
from llm2llm.components.shared.tasks import FORMS, Task


def predict(
    student: Path,
    splits: Mapping[Split, Sequence[Example]],
    iteration: int,
    fold: int | None,
    task: Task,
    settings: AnswerSettings,
    shots: Sequence[Example] = (),
) -> list[Prediction]:
    """The graded answers to every example, sorted by split and example id; see `predict_share`."""
    return predict_share(student, splits, iteration, fold, task, settings, shots=shots)[0]


def predict_beside_training(
    student: Path,
    splits: Mapping[Split, Sequence[Example]],
    iteration: int,
    fold: int | None,
    task: Task,
    settings: AnswerSettings,
    shots: Sequence[Example] = (),
) -> list[Prediction]:
    """`predict` where students are trained: without vLLM there, transformers answers."""
    if settings.backend == "vllm" and not vllm_is_here():
        # The image that trains has no vLLM: the two pin different versions of PyTorch.
        print("there is no vLLM beside the training, so transformers answers", flush=True)
        settings = settings.model_copy(update={"backend": "transformers", "gpus": 1})
    if settings.backend == "transformers":  # a fold's pod may have fewer GPUs than one that only answers
        import torch

        settings = settings.model_copy(update={"gpus": max(1, min(settings.gpus, torch.cuda.device_count()))})
    return predict(student, splits, iteration, fold, task, settings, shots)


def predict_share(
    student: Path,
    splits: Mapping[Split, Sequence[Example]],
    iteration: int,
    fold: int | None,
    task: Task,
    settings: AnswerSettings,
    shard: int = 0,
    shards: int = 1,
    shots: Sequence[Example] = (),
) -> tuple[list[Prediction], dict[str, float]]:
    """The graded answers to the examples of one shard, sorted by split and example id, and how fast they came.

    With `mode: generate`, seeds are answered `settings.samples` times and, with `settings.hardness`, measured; the
    losses that `train` recorded for them come along. So are generated rows. The other splits are answered once,
    greedily. With `mode: score`
    every row is measured, and answered with its likeliest label. A row that leaves no room for an answer in the
    student's context is not asked: its answer is empty and truncated.

    Args:
        student: A folder that `train` saved.
        splits: What to ask.
        iteration, fold: Which student it is.
        task: Prompts and grades.
        settings: See `AnswerSettings`.
        shard: Which shard to answer, from 0.
        shards: How many there are. All of them together give the same predictions as one alone, row by row; with vLLM,
            which batches as it sees fit, the last digits may differ.
        shots: Rows that stand with their answers before each question.

    Returns:
        (predictions, figures): `rows_per_second`, `load_seconds`, `first_token_seconds` (from the loaded student to the
        first token of the first batch; generation only), `import_seconds` (vLLM's own). No figures without rows.

    Raises:
        UserError: The student cannot be loaded, the task has no labels to score, its judge cannot be asked.
    """
    try:
        check_mode(task, settings)
        check_judge(task, settings.judge)
    except ValueError as problem:
        raise UserError(f"evaluate.{problem}") from None
    settings = as_answered(student, settings)
    replies, figures = ask_share(student, splits, task, settings, shard, shards, shots)
    return _graded(student, replies, iteration, fold, task, settings), figures


def as_answered(student: Path, settings: AnswerSettings) -> AnswerSettings:
    """How a student answers: a classifier scores labels, whatever the mode of a run that has language models.

    Raises:
        UserError: A classifier, and it is to be run by vLLM.
    """
    if not is_classifier(student, settings.trust_remote_code):
        return settings
    if settings.backend == "vllm":
        raise UserError(
            f"evaluate.backend: 'vllm' runs language models, and student {student} is a classifier; set backend: "
            "transformers"
        )
    return settings.model_copy(update={"mode": "score", "samples": 1, "draw_seeds": False, "gpus": 1})


def ask_share(
    student: Path,
    splits: Mapping[Split, Sequence[Example]],
    task: Task,
    settings: AnswerSettings,
    shard: int = 0,
    shards: int = 1,
    shots: Sequence[Example] = (),
) -> tuple[Replies, dict[str, float]]:
    """What the student says to the examples of one shard, before it is graded, and how fast; see `predict_share`."""
    if is_classifier(student, settings.trust_remote_code):
        return ask_classifier(student, splits, task, settings, shard, shards)
    tokenizer = load_tokenizer(student, settings.trust_remote_code)
    limit, note = answer_limit(tokenizer, task, (row for rows in splits.values() for row in rows), settings)
    if note:
        print(f"evaluate: {note}", flush=True)
    context = _context(student, settings)
    planned, batches = plan(
        _rows(splits),
        lambda row: encode_prompt(tokenizer, task, tasks.with_shots(task, shots, row)),
        lambda split, row: _wanted(split, row, task, settings),
        limit,
        context,
    )
    blocks = shard_of(cut(planned, batches * settings.batch_size), shard, shards)
    questions = [
        [_question(tokenizer, context, row, task, settings, limit, shots) for row in block] for block in blocks
    ]
    own = [batch for block in questions for batch in cut(block, settings.batch_size)]
    crowded = [question for batch in own for question in batch if question.limit < 1]
    if crowded:
        print(
            f"evaluate: {len(crowded)} rows leave no room for an answer in the student's context and count as "
            f"truncated: {', '.join(sorted(question.example.id for question in crowded)[:10])}",
            flush=True,
        )
    asked = [batch for batch in own if batch[0].limit > 0]
    replies: Replies = [(question, StudentReply([], [])) for question in crowded]
    figures: dict[str, float] = {}
    if asked:
        started = time.monotonic()
        if settings.backend == "vllm":
            found, figures = _ask_vllm(student, tokenizer, asked, settings, _held_to(task, settings))
        else:
            found, figures = _ask_transformers(student, tokenizer, asked, settings)
        loading = figures["load_seconds"] + figures.get("import_seconds", 0.0)
        figures["rows_per_second"] = len(found) / max(1e-9, time.monotonic() - started - loading)
        replies += found
    return replies, figures


def _rows(splits: Mapping[Split, Sequence[Example]]) -> list[tuple[Split, Example]]:
    return [(split, example) for split in ASKED for example in splits.get(split, [])]


def _wanted(split: Split, example: Example, task: Task, settings: AnswerSettings) -> tuple[int, int]:
    """(how many answers a row is to have, how many of its completions are measured)."""
    scored, on_seeds = settings.mode == "score", split in LOOKED_AT
    samples = 0 if scored else settings.samples if on_seeds else 1
    return samples, len(labels_of(task, example)) or 1 if scored or (settings.hardness and on_seeds) else 0


def _question(
    tokenizer: Any,
    context: int | None,
    row: Planned,
    task: Task,
    settings: AnswerSettings,
    longest: int,
    shots: Sequence[Example],
) -> StudentQuestion:
    shown = tasks.with_shots(task, shots, row.example)
    prompt = encode_prompt(tokenizer, task, shown) if row.prompt is None else row.prompt
    completions = completions_of(tokenizer, task, shown) if row.completions else []
    room = longest if context is None else context - len(prompt)
    # And one token more: see `vllm_answers`.
    if completions and context is not None and max(len(one.completion) for one in completions) + 1 > room:
        completions = []
        room = room if row.samples else 0
    return StudentQuestion(
        split=row.split,
        example=row.example,
        prompt=prompt,
        samples=row.samples,
        drawn=row.split in LOOKED_AT and settings.draw_seeds,
        limit=max(0, min(longest, room)),
        measured=completions,
    )


def fitting_shots(
    student: Path,
    splits: Mapping[Split, Sequence[Example]],
    task: Task,
    settings: AnswerSettings,
    shots: Sequence[Example],
) -> list[Example]:
    """As many of the shots, from the first on, as cost no row its room for an answer in the student's context.

    Raises:
        UserError: The student cannot be loaded.
    """
    tokenizer, context = load_tokenizer(student, settings.trust_remote_code), _context(student, settings)
    limit, _ = answer_limit(tokenizer, task, (row for rows in splits.values() for row in rows), settings)

    def crowded(number: int) -> int:
        asked = (
            _question(
                tokenizer,
                context,
                Planned(split, row, 0, *_wanted(split, row, task, settings), limit),
                task,
                settings,
                limit,
                shots[:number],
            )
            for split, row in _rows(splits)
        )
        return sum(question.limit < limit for question in asked)

    alone, number = crowded(0), len(shots)
    while number and crowded(number) > alone:
        number -= 1
    return list(shots[:number])


def _context(student: Path, settings: AnswerSettings) -> int | None:
    """The most tokens that a student can read and write together; None where its config does not say."""
    found = getattr(_config(student, settings).get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def _ask_transformers(
    student: Path, tokenizer: Any, batches: Sequence[list[StudentQuestion]], settings: AnswerSettings
) -> tuple[Replies, dict[str, float]]:
    if settings.gpus > 1:
        return ask_on_devices(student, batches, settings)
    started = time.monotonic()
    model, _ = load_student(student, settings)
    figures = {"load_seconds": time.monotonic() - started}
    pace = Pace(rows=settings.batch_size, measured=settings.batch_size)
    replies = answer_batches(model, tokenizer, batches, settings, pace)
    if pace.first_token is not None:
        figures["first_token_seconds"] = pace.first_token
    return replies, figures


def _held_to(task: Task, settings: AnswerSettings) -> dict[str, Any] | None:
    """The JSON schema that decoding is held to; thoughts, which come before an answer, fit none."""
    constraint = FORMS[task.form].constraint
    return constraint(task) if constraint and settings.constrain and not task.chat.thinking else None


def _ask_vllm(
    student: Path,
    tokenizer: Any,
    batches: Sequence[list[StudentQuestion]],
    settings: AnswerSettings,
    schema: dict[str, Any] | None,
) -> tuple[Replies, dict[str, float]]:
    questions = [question for batch in batches for question in batch]
    ends = end_tokens(tokenizer.eos_token_id, _model_ends(student, settings))
    prompts = [
        {
            "prompt": question.prompt,
            "limit": question.limit,
            "temperature": settings.temperature if question.draws else 0.0,
            "top_p": settings.top_p,
            "seed": seed_of(settings.sampling_seed, question.example.id, number),
        }
        for question in questions
        for number in range(question.samples)
    ]
    rows = [(one.prompt, one.completion) for question in questions for one in question.measured]
    tokens, likelihoods, figures = ask_vllm(
        student, prompts, rows, ends, settings.gpus, settings.trust_remote_code, schema
    )
    written = iter(to_answer(tokenizer, generated, ends) for generated in tokens)
    values = iter(likelihoods)
    replies = [
        (
            question,
            StudentReply([next(written) for _ in range(question.samples)], [next(values) for _ in question.measured]),
        )
        for question in questions
    ]
    return replies, figures


def _graded(
    student: Path, replies: Replies, iteration: int, fold: int | None, task: Task, settings: AnswerSettings
) -> list[Prediction]:
    base, early = read_losses(student)
    drawn = [answers_in(task, question, reply, settings) for question, reply in replies]
    flat = [
        (question.example, one.completion)
        for (question, _), (answers, _) in zip(replies, drawn, strict=True)
        for one in answers
    ]
    grades = iter(_grades(task, flat, settings))
    predictions = []
    for (question, reply), (answers, confidence) in zip(replies, drawn, strict=True):
        graded = [next(grades) for _ in answers]
        outcomes = Counter(grade.outcome for grade in graded)
        parsed, outcome = graded[0].parsed, graded[0].outcome
        on_seeds = question.split in LOOKED_AT
        found: Hardness | None = None
        if reply.likelihoods:
            found = hardness_of(task, question.example, question.measured, reply.likelihoods)
        predictions.append(
            Prediction(
                example_id=question.example.id,
                split=question.split,
                iteration=iteration,
                fold=fold,
                completion=answers[0].completion,
                parsed=parsed,
                outcome=outcome,
                truncated=answers[0].truncated,
                samples=len(answers),
                samples_correct=outcomes["correct"],
                samples_unparseable=outcomes["unparseable"],
                confidence=confidence,
                flag_probability=flag_probability(task, question, reply, settings),
                loss=found.loss if found else None,
                label_probability=found.label_probability if found else None,
                margin=found.margin if found else None,
                rival=found.rival if found else None,
                el2n=found.el2n if found else None,
                base_loss=base.get(question.example.id) if on_seeds else None,
                early_loss=early.get(question.example.id) if on_seeds else None,
                judge_score=graded[0].score,
                **cost_of(one for grade in graded for one in grade.told),
            )
        )
    return sorted(predictions, key=lambda p: (ASKED.index(p.split), p.example_id))


def answers_in(
    task: Task, question: StudentQuestion, reply: StudentReply, settings: AnswerSettings
) -> tuple[list[StudentAnswer], float | None]:
    """The answers to a row, and how sure the student is where it chose among labels."""
    if question.limit < 1:
        return [StudentAnswer("", truncated=True)] * max(1, question.samples), None
    if settings.mode == "generate":
        return reply.answers, None
    label, confidence = likeliest(labels_of(task, question.example), reply.likelihoods)
    return [StudentAnswer(label, truncated=False)], confidence


def flag_probability(
    task: Task, question: StudentQuestion, reply: StudentReply, settings: AnswerSettings
) -> float | None:
    """The probability of the label that rows are flagged by; None where none is, or the row could not be asked."""
    if settings.threshold is None or settings.mode != "score" or not reply.likelihoods:
        return None
    place = labels_of(task, question.example).index(settings.threshold.label)
    return probabilities(reply.likelihoods)[place]


@dataclass(frozen=True, slots=True)
class _Grade:
    """The grade of one answer."""

    parsed: str | None
    outcome: Outcome
    told: list[LLMResponse] = field(default_factory=list)
    """What a judge said about it."""
    score: float | None = None
    """In [0, 1], where the judge gives such."""


def _grades(task: Task, asked: Sequence[tuple[Example, str]], settings: AnswerSettings) -> list[_Grade]:
    if task.match == "judge":
        from llm2llm.components.shared.judge.judge import judge_answers, scores_of

        assert settings.judge is not None, "checked"
        judged, told = judge_answers(task, asked, settings.judge)
        scores = scores_of(task, judged, told)
        return [
            _Grade(parsed, outcome, said, score)
            for (parsed, outcome), said, score in zip(judged, told, scores, strict=True)
        ]
    if settings.mode == "score":
        # A label is its own reading, also one that a text could not be told from.
        return [
            _Grade(label, "correct" if tasks.matches(task, label, example.answer) else "wrong")
            if label
            else _Grade(None, "unparseable")
            for example, label in asked
        ]
    return [_Grade(*tasks.grade(task, completion, row.answer, row.also_right)) for row, completion in asked]


def _config(student: Path, settings: AnswerSettings) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(base_of(student), trust_remote_code=settings.trust_remote_code)


def _model_ends(student: Path, settings: AnswerSettings) -> int | list[int] | None:
    """The end tokens that a model names, where it is not loaded here."""
    from transformers import GenerationConfig

    ends: int | list[int] | None
    try:
        ends = GenerationConfig.from_pretrained(base_of(student)).eos_token_id
    except OSError:  # a model without a file of its own for generation
        ends = getattr(_config(student, settings).get_text_config(), "eos_token_id", None)
    return ends
