"""Greedy answers in batches, sorted by length so that little is spent on padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
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
    """The student's answers, in the order of `examples`.

    Args:
        student: A folder that `fine_tune` saved.
        examples: What to ask; every one is answered or the whole call fails.
        task: Gives the prompt and the longest completion.
        settings: See `AnswerSettings`.

    Raises:
        UserError: The student cannot be loaded.
        RuntimeError: A batch failed; no answer of another batch stands in for it.
    """
    transformers_logging.set_verbosity_error()
    tokenizer = load_tokenizer(student, settings.trust_remote_code)
    model = load_model(student, settings.trust_remote_code).eval()
    prompts = [encode_prompt(tokenizer, task, example) for example in examples]
    limit = settings.max_new_tokens or task.max_new_tokens
    ends = _end_tokens(tokenizer.eos_token_id, model.generation_config.eos_token_id)

    # Longest first: a batch that does not fit into memory shows at once. Ids break ties, so batches do not depend on
    # the order in which rows arrive.
    order = sorted(range(len(examples)), key=lambda i: (-len(prompts[i]), examples[i].id))
    answers: list[Answer | None] = [None] * len(examples)
    progress = Progress("evaluate", len(examples), "rows")
    for start in range(0, len(order), settings.batch_size):
        batch = order[start : start + settings.batch_size]
        padded = tokenizer.pad({"input_ids": [prompts[i] for i in batch]}, return_tensors="pt").to(model.device)
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
            )
        for i, generated in zip(batch, tokens[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            length = next((n for n, token in enumerate(generated) if token in ends), None)
            kept = generated if length is None else generated[:length]
            text = tokenizer.decode(kept, skip_special_tokens=True).strip()
            answers[i] = Answer(completion=text, truncated=length is None)
        progress.show(min(start + settings.batch_size, len(order)))
    if missing := sum(given is None for given in answers):
        raise RuntimeError(f"evaluate: {missing} of {len(answers)} rows have no answer")
    return [given for given in answers if given is not None]


def _end_tokens(tokenizer_end: int, model_ends: int | list[int] | None) -> list[int]:
    ends = [model_ends] if isinstance(model_ends, int) else list(model_ends or [])
    return sorted({tokenizer_end, *ends})
