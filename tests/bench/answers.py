"""Evaluation rows/s on GSM8K: as `evaluate` answers, and in unsorted batches that end with their longest answer.

    python -m tests.bench.answers                          a small student, trained here on the rows that it is asked
    python -m tests.bench.answers --student DIR            another one, on the device that is there
    LLM2LLM_VLLM_PYTHON=... python -m tests.bench.answers  and with vLLM

unsorted        batches in the order of the rows, padded to the longest prompt, generated until the last row has ended
sorted          rows of like length together
as evaluate     and rows that have ended leave the batch
continuous      with --continuous: transformers' own continuous batching (`generate_batch`), as many rows at once

The same student, rows and batch size; the ways take turns, and the best of the rounds counts. A student that was never
taught to end would write to the token limit in every row, and then all batches are equally long: so the small student
first learns the rows. Answers that differ from those of `unsorted` are counted.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference import generate as answer_module
from llm2llm.components.shared.inference.generate import answer_batches, load_student, to_answer
from llm2llm.components.shared.inference.predict import predict_share
from llm2llm.components.shared.inference.questions import StudentQuestion, cut
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.prompts import encode_prompt
from llm2llm.components.shared.models.vllm import vllm_is_here
from llm2llm.components.shared.tasks import TASKS
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import SCRATCH, FineTuneSettings, ScratchSettings
from tests.bench.data import add_data, real_rows

TASK = TASKS["gsm8k"]
SMALL = ScratchSettings(vocabulary=2048, hidden_size=128, layers=3, heads=4, context=768)


def taught(rows: list[Example], folder: Path, epochs: float) -> Path:
    """A small student that has learnt the rows, made once."""
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        settings = FineTuneSettings(
            epochs=epochs, learning_rate=3e-3, batch_size=8, max_length=SMALL.context, scratch=SMALL
        )
        fine_tune(rows, TASK, SCRATCH, settings, 0, folder)
    return folder


def unsorted_answers(model: Any, tokenizer: Any, rows: list[Example], settings: AnswerSettings) -> dict[str, str]:
    """The plain way: batches as the rows come, each until its longest answer has ended."""
    found = {}
    ends = model.generation_config.eos_token_id
    for start in range(0, len(rows), settings.batch_size):
        batch = rows[start : start + settings.batch_size]
        prompts = [encode_prompt(tokenizer, TASK, row) for row in batch]
        padded = tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            tokens = model.generate(**padded, do_sample=False, max_new_tokens=settings.max_new_tokens)
        for row, generated in zip(batch, tokens[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            found[row.id] = to_answer(tokenizer, generated, ends).completion
    return found


def sorted_answers(model: Any, tokenizer: Any, rows: list[Example], settings: AnswerSettings) -> dict[str, str]:
    """As `evaluate` answers."""
    questions = [
        StudentQuestion(
            split="test",
            example=row,
            prompt=encode_prompt(tokenizer, TASK, row),
            limit=settings.max_new_tokens,
        )
        for row in rows
    ]
    replies = answer_batches(model, tokenizer, cut(questions, settings.batch_size), settings)
    return {question.example.id: reply.answers[0].completion for question, reply in replies}


def only_sorted(model: Any, tokenizer: Any, rows: list[Example], settings: AnswerSettings) -> dict[str, str]:
    """Without taking ended rows out of a batch."""
    segment, answer_module.SEGMENT = answer_module.SEGMENT, settings.max_new_tokens
    try:
        return sorted_answers(model, tokenizer, rows, settings)
    finally:
        answer_module.SEGMENT = segment


def continuous_answers(model: Any, tokenizer: Any, rows: list[Example], settings: AnswerSettings) -> dict[str, str]:
    """A row that has ended makes room for the next; `generate_batch` only logs rows that fail."""
    ends = model.generation_config.eos_token_id
    given = GenerationConfig(
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=settings.max_new_tokens,
    )
    prompts = [encode_prompt(tokenizer, TASK, row) for row in rows]
    # Without a GPU, whose memory it would fill, the cache is as large as these rows need.
    pages = {} if torch.cuda.is_available() else {"page_size": 32, "num_blocks": 8 * settings.batch_size}
    found = list(
        model.generate_batch(
            prompts,
            generation_config=given,
            continuous_batching_config=ContinuousBatchingConfig(max_requests_per_batch=settings.batch_size, **pages),
        ).values()
    )
    if len(found) < len(rows) or any(one.error for one in found):
        raise SystemExit("error: generate_batch has lost rows")
    return {
        row.id: to_answer(tokenizer, one.generated_tokens, ends).completion
        for row, one in zip(rows, found, strict=True)
    }


def import_seconds() -> float:
    """What a fresh process spends on importing what answers."""
    code = "import llm2llm.components.shared.inference.predict"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=30, help="how long the small student learns the rows")
    parser.add_argument("--student", type=Path, help="a folder; default: a small one, made here")
    parser.add_argument("--continuous", action="store_true", help="also with transformers' continuous batching")
    parser.add_argument("--output", type=Path, default=Path("build/bench/answers"))
    given = parser.parse_args()

    rows = real_rows("gsm8k", "test", given.data)[: given.rows]
    student = given.student or taught(rows, given.output / f"student-{given.rows}", given.epochs)
    settings = AnswerSettings(batch_size=given.batch_size, max_new_tokens=TASK.max_new_tokens)
    started = time.perf_counter()
    model, tokenizer = load_student(student, settings)
    loading = time.perf_counter() - started

    prompts = sorted(len(encode_prompt(tokenizer, TASK, row)) for row in rows)
    ways: dict[str, Callable[[Any, Any, list[Example], AnswerSettings], dict[str, str]]] = {
        "unsorted": unsorted_answers,
        "sorted": only_sorted,
        "as evaluate": sorted_answers,
    } | ({"continuous": continuous_answers} if given.continuous else {})
    best = dict.fromkeys(ways, float("inf"))
    answers: dict[str, dict[str, str]] = {}
    for _ in range(given.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            answers[name] = way(model, tokenizer, rows, settings)
            best[name] = min(best[name], time.perf_counter() - started)
    lengths = sorted(len(tokenizer(text)["input_ids"]) for text in answers["unsorted"].values())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"\n{device}; {sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters, {model.dtype}; {len(rows)} "
        f"rows, batches of {settings.batch_size}; prompts of {prompts[0]} to {prompts[-1]} tokens (median "
        f"{prompts[len(prompts) // 2]}), answers of {lengths[0]} to {lengths[-1]} (median {lengths[len(lengths) // 2]})"
    )
    print(f"import {import_seconds():.1f} s, model load {loading:.2f} s")
    print("\n| | rows/s | times unsorted | other answers |\n|---|---|---|---|")
    for name in ways:
        other = sum(answers[name][row] != answers["unsorted"][row] for row in answers["unsorted"])
        print(f"| {name} | {len(rows) / best[name]:.1f} | {best['unsorted'] / best[name]:.2f} | {other} |")
    if vllm_is_here():
        del model
        theirs, figures = predict_share(
            student, {"test": rows}, 0, None, TASK, settings.model_copy(update={"backend": "vllm"})
        )
        other = sum(answers["unsorted"][p.example_id] != p.completion for p in theirs)
        rate = figures["rows_per_second"]
        print(f"| vllm | {rate:.1f} | {rate * best['unsorted'] / len(rows):.2f} | {other} |")
        shown = ", ".join(f"{name} {value:.2f}" for name, value in sorted(figures.items()))
        print(f"\nvllm: {shown}")
    _, figures = predict_share(student, {"test": rows[: settings.batch_size]}, 0, None, TASK, settings)
    print(f"\nfrom the loaded student to the first token: {figures['first_token_seconds']:.2f} s")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
