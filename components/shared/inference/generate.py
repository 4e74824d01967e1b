"""Answers with transformers, in batches: greedy ones, or samples at a temperature; and the likelihood of given ones."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.utils import logging as transformers_logging

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.progress import Progress
from llm2llm.components.shared.base.thoughts import without_thoughts
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.questions import StudentAnswer, StudentQuestion, StudentReply, cut
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.likelihood import cache_of_rows, log_likelihoods
from llm2llm.components.shared.models.load import end_tokens, load_model, load_tokenizer
from llm2llm.components.shared.models.memory import in_pieces
from llm2llm.components.shared.models.padding import in_batches, together
from llm2llm.components.shared.models.prompts import encode_prompt
from llm2llm.components.shared.models.sampling import GumbelSampling
from llm2llm.components.shared.tasks import Task

SEGMENT = 32
"""Tokens between two looks at which rows of a batch have ended."""

MORE_MEMORY = "use a larger GPU, or spread the student over several with evaluate.backend: vllm and evaluate.gpus"


@dataclass
class Pace:
    """How many items fit into memory at once, as found out so far, and when the first token came."""

    rows: int
    """In generation."""
    measured: int
    """In one forward pass."""
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    """Seconds from `started`, when the student was loaded."""


def answer(student: Path, examples: Sequence[Example], task: Task, settings: AnswerSettings) -> list[StudentAnswer]:
    """The student's greedy answers, in the order of `examples`.

    Args:
        student: A folder that `fine_tune` saved.
        examples: What to ask; every one is answered or the whole call fails.
        task: Gives the prompt and the longest completion.
        settings: See `AnswerSettings`; its backend, mode and samples are for `predict`.

    Raises:
        UserError: The student cannot be loaded; a single row does not fit into memory.
        RuntimeError: A batch failed; no answer of another batch stands in for it.
    """
    model, tokenizer = load_student(student, settings)
    limit = settings.max_new_tokens or task.max_new_tokens
    questions = [
        StudentQuestion(split="seeds", example=example, prompt=encode_prompt(tokenizer, task, example), limit=limit)
        for example in examples
    ]
    replies = answer_batches(model, tokenizer, cut(questions, settings.batch_size), settings)
    by_question = {id(question): reply for question, reply in replies}
    return [by_question[id(question)].answers[0] for question in questions]


def load_student(student: Path, settings: AnswerSettings) -> tuple[Any, Any]:
    """(model, tokenizer) of a student, ready to answer.

    What a model's repository says about generation, such as a penalty for repetition, is set aside but for the tokens
    that end an answer: an answer is the student's own, and the same with every backend.
    """
    transformers_logging.set_verbosity_error()
    tokenizer = load_tokenizer(student, settings.trust_remote_code)
    model = load_model(student, settings.trust_remote_code).eval()
    ends = end_tokens(tokenizer.eos_token_id, model.generation_config.eos_token_id)
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return model, tokenizer


def answer_batches(
    model: Any,
    tokenizer: Any,
    batches: Sequence[list[StudentQuestion]],
    settings: AnswerSettings,
    pace: Pace | None = None,
    who: str = "evaluate",
) -> list[tuple[StudentQuestion, StudentReply]]:
    """What the student makes of every question, batch after batch.

    What is drawn depends on `settings.sampling_seed`, the example's id and the sample's number alone, neither on the
    other rows nor on the batches.

    Args:
        model, tokenizer: As `load_student` gives them.
        batches: As `cut` makes them.
        settings: See `AnswerSettings`.
        pace: Is told what is found out on the way.
        who: What progress and messages begin with.

    Raises:
        UserError: A single row does not fit into memory.
        RuntimeError: A batch failed.
    """
    pace = pace or Pace(rows=settings.batch_size, measured=settings.batch_size)
    progress = Progress(who, sum(map(len, batches)), "rows")
    replies: list[tuple[StudentQuestion, StudentReply]] = []
    prompt = next((question.prompt for batch in batches for question in batch if question.samples), None)
    allowed = together(model, tokenizer, prompt, who) if prompt else "any"

    def generate(piece: Sequence[tuple[StudentQuestion, int]]) -> list[StudentAnswer]:
        return in_batches(
            piece,
            lambda one: len(one[0].prompt),
            allowed,
            lambda batch: _generate(model, tokenizer, batch, settings, pace),
        )

    for batch in batches:
        wanted = [(question, number) for question in batch for number in range(question.samples)]
        answers, pace.rows = in_pieces(wanted, pace.rows, generate, who, MORE_MEMORY)
        measured = [one for question in batch for one in question.measured]
        values, pace.measured = in_pieces(
            measured,
            pace.measured,
            lambda piece: log_likelihoods(model, tokenizer, piece, len(piece)),
            who,
            MORE_MEMORY,
        )
        written, likelihoods = iter(answers), iter(values)
        replies += [
            (
                question,
                StudentReply(
                    [next(written) for _ in range(question.samples)], [next(likelihoods) for _ in question.measured]
                ),
            )
            for question in batch
        ]
        progress.show(len(replies))
    return replies


def _generate(
    model: Any, tokenizer: Any, wanted: Sequence[tuple[StudentQuestion, int]], settings: AnswerSettings, pace: Pace
) -> list[StudentAnswer]:
    """One answer to each (question, number of the sample), generated together.

    Every `SEGMENT` tokens the rows that have ended are taken out of the batch: otherwise all would go on until the
    longest answer ends.
    """
    ends = model.generation_config.eos_token_id
    padded = tokenizer.pad({"input_ids": [question.prompt for question, _ in wanted]}, return_tensors="pt")
    ids, mask = padded["input_ids"].to(model.device), padded["attention_mask"].to(model.device)
    seeds = [
        _seed(settings.sampling_seed, question.example.id, number) if question.draws else None
        for question, number in wanted
    ]
    sampling = GumbelSampling(seeds, [settings.temperature] * len(seeds), [settings.top_p] * len(seeds))
    processors: list[LogitsProcessor] = [sampling] if any(seed is not None for seed in seeds) else []
    clock = [_Clock(pace)] if pace.first_token is None else []
    checked = [_Finite()] if model.dtype is torch.float16 else []
    (limit,) = {question.limit for question, _ in wanted}
    cache = cache_of_rows(model)
    tokens: list[list[int]] = [[] for _ in wanted]
    going = list(range(len(wanted)))
    written = 0
    while going:
        segment = limit - written if cache is None else min(SEGMENT, limit - written)
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                do_sample=False,
                max_new_tokens=segment,
                logits_processor=LogitsProcessorList(checked + processors + clock),
            )
        for row, generated in zip(going, found[:, ids.shape[1] :].tolist(), strict=True):
            tokens[row] += generated
        written += segment
        left = [place for place, row in enumerate(going) if written < limit and not set(tokens[row]) & set(ends)]
        if cache is not None and left:
            kept = torch.tensor(left, device=model.device)
            if len(left) < len(going):
                cache.batch_select_indices(kept)
            mask = torch.cat([mask, mask.new_ones(len(going), segment)], dim=1)[kept]
            ids = found[kept]
        sampling.keep(left)
        going = [going[place] for place in left]
    return [to_answer(tokenizer, generated, ends) for generated in tokens]


def to_answer(tokenizer: Any, generated: Sequence[int], ends: Sequence[int]) -> StudentAnswer:
    """The text of generated tokens up to the one that ends them, without thoughts; truncated where none ends them."""
    length = next((n for n, token in enumerate(generated) if token in ends), None)
    kept = generated if length is None else generated[:length]
    whole = tokenizer.decode(kept)
    answer = without_thoughts(whole)
    if answer == whole:
        answer = tokenizer.decode(kept, skip_special_tokens=True)
    else:  # special tokens may mark where the thoughts end, so they are looked at first
        for token in tokenizer.added_tokens_decoder.values():
            answer = answer.replace(str(token.content), "") if token.special else answer
    return StudentAnswer(answer.strip(), truncated=length is None)


class _Clock(LogitsProcessor):
    """Notes when the first batch's first tokens are about to be chosen; changes nothing."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._pace.first_token is None:
            if scores.is_cuda:
                torch.cuda.synchronize()
            self._pace.first_token = time.monotonic() - self._pace.started
        return scores


class _Finite(LogitsProcessor):
    """Refuses logits that are no numbers: some students leave the range of float16, as Gemma 3 does."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if bool(scores.isnan().any()):
            raise UserError(
                "evaluate: the student's logits are not numbers in float16, which this GPU computes in: choose one "
                "with bfloat16 (compute capability 8.0 or more, such as A100 or L4); if they are not there either, "
                "look at the losses of its training"
            )
        return scores


def _seed(sampling_seed: int, example_id: str, number: int) -> int:
    digest = hashlib.sha256(f"{sampling_seed}:{example_id}:{number}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
