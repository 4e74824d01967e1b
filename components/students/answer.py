"""Answers in batches, sorted by length so that little is spent on padding: greedy ones, or samples at a temperature."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils import logging as transformers_logging

from llm2llm.components.progress import Progress
from llm2llm.components.rows.kinds import Example
from llm2llm.components.students.load import load_model, load_tokenizer
from llm2llm.components.students.prompts import encode_prompt
from llm2llm.components.students.settings import AnswerSettings
from llm2llm.components.tasks import Task


@dataclass(frozen=True, slots=True)
class Answer:
    """What a student wrote, and whether it hit the token limit before it ended."""

    completion: str
    truncated: bool


def answer(student: Path, examples: Sequence[Example], task: Task, settings: AnswerSettings) -> list[Answer]:
    """The student's greedy answers, in the order of `examples`.

    Args:
        student: A folder that `fine_tune` saved.
        examples: What to ask; every one is answered or the whole call fails.
        task: Gives the prompt and the longest completion.
        settings: See `AnswerSettings`; its `samples` is for `draw`.

    Raises:
        UserError: The student cannot be loaded.
        RuntimeError: A batch failed; no answer of another batch stands in for it.
    """
    model, tokenizer = load_student(student, settings)
    return [drawn[0] for drawn in draw(model, tokenizer, examples, [1] * len(examples), task, settings)]


def load_student(student: Path, settings: AnswerSettings) -> tuple[Any, Any]:
    """(model, tokenizer) of a student, ready to answer."""
    transformers_logging.set_verbosity_error()
    tokenizer = load_tokenizer(student, settings.trust_remote_code)
    return load_model(student, settings.trust_remote_code).eval(), tokenizer


def draw(
    model: Any, tokenizer: Any, examples: Sequence[Example], counts: Sequence[int], task: Task, settings: AnswerSettings
) -> list[list[Answer]]:
    """`counts[i]` answers to each `examples[i]`: the greedy one for 1, else samples at `settings.temperature`.

    What is drawn depends on `settings.sampling_seed`, the example's id and the sample's number alone, neither on the
    other rows nor on the batches.

    Raises:
        RuntimeError: A batch failed.
    """
    prompts = [encode_prompt(tokenizer, task, example) for example in examples]
    limit = settings.max_new_tokens or task.max_new_tokens
    ends = _end_tokens(tokenizer.eos_token_id, model.generation_config.eos_token_id)

    # Longest first: a batch that does not fit into memory shows at once. Ids break ties, so batches do not depend on
    # the order in which rows arrive.
    wanted = [(i, number) for i, count in enumerate(counts) for number in range(count)]
    wanted.sort(key=lambda place: (-len(prompts[place[0]]), examples[place[0]].id, place[1]))
    answers: dict[tuple[int, int], Answer] = {}
    progress = Progress("evaluate", len(wanted), "rows" if len(wanted) == len(examples) else "answers")
    for start in range(0, len(wanted), settings.batch_size):
        batch = wanted[start : start + settings.batch_size]
        padded = tokenizer.pad({"input_ids": [prompts[i] for i, _ in batch]}, return_tensors="pt").to(model.device)
        generators = [
            _generator(settings.sampling_seed, examples[i].id, number) if counts[i] > 1 else None for i, number in batch
        ]
        sampling = [_Sampling(generators, settings.temperature)] if any(generators) else []
        with torch.inference_mode():
            tokens = model.generate(
                **padded,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=limit,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList(sampling),
            )
        for place, generated in zip(batch, tokens[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            length = next((n for n, token in enumerate(generated) if token in ends), None)
            kept = generated if length is None else generated[:length]
            text = tokenizer.decode(kept, skip_special_tokens=True).strip()
            answers[place] = Answer(completion=text, truncated=length is None)
        progress.show(min(start + settings.batch_size, len(wanted)))
    if len(answers) < len(wanted):
        raise RuntimeError(f"evaluate: {len(wanted) - len(answers)} of {len(wanted)} answers are missing")
    return [[answers[i, number] for number in range(count)] for i, count in enumerate(counts)]


class _Sampling(LogitsProcessor):  # type: ignore[misc]  # transformers ships no types for it
    """Makes a sample of a greedy answer: the argmax of logits / temperature + Gumbel noise is a draw from
    softmax(logits / temperature) (Maddison, Tarlow and Minka, "A* sampling", 2014). Each row has a generator of its
    own, where transformers' own sampling draws for the whole batch; a row without one stays greedy."""

    def __init__(self, generators: Sequence[torch.Generator | None], temperature: float) -> None:
        self._generators = generators
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        sampled = scores.float()
        for row, generator in enumerate(self._generators):
            if generator is not None:
                # On the CPU, so that every device draws the same.
                waits = torch.empty(scores.shape[1]).exponential_(generator=generator).clamp_min_(1e-30)
                sampled[row] = sampled[row] / self._temperature - waits.log().to(scores.device)
        return sampled


def _generator(sampling_seed: int, example_id: str, number: int) -> torch.Generator:
    digest = hashlib.sha256(f"{sampling_seed}:{example_id}:{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _end_tokens(tokenizer_end: int, model_ends: int | list[int] | None) -> list[int]:
    ends = [model_ends] if isinstance(model_ends, int) else list(model_ends or [])
    return sorted({tokenizer_end, *ends})
