"""Training tokens/s on GSM8K: ours, plain TRL, and the reference loop's way; then evaluation (`tests.bench.answers`).

    python -m tests.bench.students                 a small student, one epoch of some rows, every way in turns
    python -m tests.bench.students --pretrained    SmolLM2-135M-Instruct in its place (see `tests.support.pretrained`)
    python -m tests.bench.students --gpu           a Llama of 1B random weights on the GPU: tokens/s, MFU, peak memory
    python -m tests.bench.students --skip-answers  the training half only

reference       each row padded to the longest of all, one at a time, gradients accumulated
plain TRL       `SFTTrainer` as it is: batches in random order, padded to the longest of the batch
ours            rows of like length together
ours, packed    several rows in one sequence, which do not see one another

The same student, rows, rows in an optimiser step (nearly so, where packed) and optimiser. Padding counts nothing: a
token is one of a row. What is timed is the steps, not loading or saving; the ways take turns, and the best of the
rounds counts.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.load import device, load_model, load_tokenizer, precision
from llm2llm.components.shared.models.prompts import encode
from llm2llm.components.shared.tasks import TASKS
from llm2llm.components.shared.training.encoding import IGNORED
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.scratch import build_student
from llm2llm.components.shared.training.settings import FineTuneSettings, ScratchSettings
from llm2llm.components.shared.training.throughput import flops_utilisation
from llm2llm.components.shared.training.training_log import TrainingLog
from tests.bench.data import add_data, real_rows
from tests.support.pretrained import NEEDED, save_pretrained_student

TASK = TASKS["gsm8k"]
SMALL = ScratchSettings(vocabulary=2048, hidden_size=256, layers=4, heads=4, context=1024)
ROWS_IN_A_STEP = 8

ONE_BILLION = {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
               "num_attention_heads": 32, "num_key_value_heads": 8}  # fmt: skip
"""The shape of Llama 3.2 1B, 1.24 billion weights."""
TINY = {"vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
"""In its place for a look at whether everything runs."""

GPU_RUNS: dict[str, dict[str, Any]] = {
    "full": {"batch_size": 16},
    "full, packed": {"batch_size": 4, "packing": True},
    "LoRA": {"batch_size": 16, "method": "lora", "learning_rate": 2e-4},
    "LoRA, packed": {"batch_size": 4, "packing": True, "method": "lora", "learning_rate": 2e-4},
    "full, packed, activation checkpointing": {"batch_size": 16, "packing": True, "activation_checkpointing": True},
}


def settings(**changes: Any) -> FineTuneSettings:
    """One pass over the rows, without checkpoints."""
    values: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-4, "batch_size": ROWS_IN_A_STEP, "max_length": 1024,
                              "checkpoint_minutes": 0, "gpus": 1, "scratch": SMALL}  # fmt: skip
    return FineTuneSettings(**{**values, **changes})


def ours(student: Path, rows: list[Example], given: FineTuneSettings) -> TrainingLog:
    """A training as the stage does it."""
    with tempfile.TemporaryDirectory() as folder:
        return fine_tune(rows, TASK, str(student), given, 0, Path(folder))


def tokens_per_second_of_trl(student: Path, rows: list[Example], padded_to_longest: bool) -> float:
    """`SFTTrainer` on the same tokens: in batches as it is, or row by row, each padded to the longest of all."""
    tokenizer, model = load_tokenizer(student), load_model(student, dtype=torch.float32)
    tokenizer.padding_side = "right"
    encoded = [encode(tokenizer, TASK, row) for row in rows]
    items = [
        {"input_ids": one.prompt + one.completion, "labels": [IGNORED] * len(one.prompt) + one.completion}
        for one in encoded
    ]
    longest = max(len(item["input_ids"]) for item in items)
    at_once = 1 if padded_to_longest else ROWS_IN_A_STEP

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        (item,) = batch
        size, missing = len(item["input_ids"]), longest - len(item["input_ids"])
        return {
            "input_ids": torch.tensor([item["input_ids"] + [tokenizer.pad_token_id] * missing]),
            "labels": torch.tensor([item["labels"] + [IGNORED] * missing]),
            "attention_mask": torch.tensor([[1] * size + [0] * missing]),
        }

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=folder,
                num_train_epochs=1,
                learning_rate=1e-4,
                per_device_train_batch_size=at_once,
                gradient_accumulation_steps=ROWS_IN_A_STEP // at_once,
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
                remove_unused_columns=False,
                gradient_checkpointing=False,
                bf16=precision() is torch.bfloat16,
                use_cpu=device() == "cpu",
                dataloader_pin_memory=device() != "cpu",
                save_strategy="no",
                logging_steps=1,
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(items),
            processing_class=tokenizer,
            data_collator=collate if padded_to_longest else None,
        )
        trainer.log = lambda *_, **__: None
        began = time.perf_counter()
        trainer.train()
        taken = time.perf_counter() - began
    return sum(len(item["input_ids"]) for item in items) / taken


def packed(student: Path, rows: list[Example]) -> FineTuneSettings:
    """Sequences as long as the longest row, and so many in a step that they hold about as many rows as the others'."""
    tokenizer = load_tokenizer(student)
    lengths = [len(one.prompt) + len(one.completion) for one in (encode(tokenizer, TASK, row) for row in rows)]
    at_once = max(1, round(ROWS_IN_A_STEP * sum(lengths) / len(lengths) / max(lengths)))
    print(f"tokens in a row: {sum(lengths) / len(lengths):.0f} on average, {max(lengths)} at most", flush=True)
    return settings(packing=True, batch_size=at_once, max_length=max(lengths))


def compare(student: Path, rows: list[Example], rounds: int) -> dict[str, float]:
    """The best tokens/s of each way."""
    in_sequences = packed(student, rows)
    ways: dict[str, Callable[[], float]] = {
        "reference": lambda: tokens_per_second_of_trl(student, rows, padded_to_longest=True),
        "plain TRL": lambda: tokens_per_second_of_trl(student, rows, padded_to_longest=False),
        "ours": lambda: ours(student, rows, settings()).tokens_per_second,
        "ours, packed": lambda: ours(student, rows, in_sequences).tokens_per_second,
    }
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, way in ways.items():
            best[name] = max(best[name], way())
    return best


def on_gpu(rows: list[Example], folder: Path, shape: dict[str, int], runs: list[str]) -> list[str]:
    """A table of tokens/s, MFU and peak memory of each run, for a Llama of a shape with random weights."""
    _, tokenizer = build_student(rows, TASK, ScratchSettings(vocabulary=2048, context=2048), 0)
    torch.manual_seed(0)
    config = LlamaConfig(
        **shape,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    weights = model.num_parameters()
    model.to(precision()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    about = f"Llama of {weights / 1e9:.2f}B random weights, {len(rows)} rows, {name}, torch {torch.__version__}"
    lines = [about, f"{'':<40}{'tokens/s':>10}{'MFU':>8}{'peak GiB':>10}{'loss':>16}"]
    for run in runs:
        log = ours(folder, rows, settings(**GPU_RUNS[run]))
        used = flops_utilisation(log.tokens_per_second, log.flops_per_token, log.gpus, log.sixteen_bit)
        mfu = "-" if used is None else f"{used:.1%}"
        losses = f"{log.loss_curve[0][1]:.2f} to {log.loss_curve[-1][1]:.2f}"
        lines.append(f"{run:<40}{log.tokens_per_second:>10,.0f}{mfu:>8}{log.peak_memory / 2**30:>10.1f}{losses:>16}")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--rows", type=int, help="default: 256, with --pretrained 48, with --gpu 2,000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pretrained", action="store_true", help="SmolLM2-135M-Instruct in place of the small student")
    parser.add_argument("--gpu", action="store_true", help="the 1B-parameter Llama in place of the comparison")
    parser.add_argument("--runs", nargs="+", choices=GPU_RUNS, default=list(GPU_RUNS), help="with --gpu: which")
    parser.add_argument("--tiny", action="store_true", help="with --gpu: a tiny Llama, to see whether it runs")
    parser.add_argument("--skip-answers", action="store_true", help="leave the evaluation half out")
    given = parser.parse_args()

    number = given.rows or (2000 if given.gpu else 48 if given.pretrained else 256)
    rows = real_rows("gsm8k", "train", given.data)[:number]
    with tempfile.TemporaryDirectory(prefix="bench-students-") as folder:
        if given.gpu:
            print("\n".join(on_gpu(rows, Path(folder) / "student", TINY if given.tiny else ONE_BILLION, given.runs)))
        else:
            student = Path(folder) / "student"
            if given.pretrained:
                if not save_pretrained_student(student):
                    raise SystemExit(f"error: {NEEDED}")
            else:
                model, tokenizer = build_student(rows, TASK, SMALL, 0)
                model.save_pretrained(student)
                tokenizer.save_pretrained(student)
            best = compare(student, rows, given.rounds)
            size = f"{load_model(student).num_parameters() / 1e6:.1f}M weights"
            lines = [f"{size}, {len(rows)} rows of GSM8K, {device()}, best of {given.rounds} rounds"]
            lines.append(f"{'':<16}{'tokens/s':>10}{'x reference':>13}{'x plain TRL':>13}")
            for name, speed in best.items():
                ratios = f"{speed / best['reference']:>13.2f}{speed / best['plain TRL']:>13.2f}"
                lines.append(f"{name:<16}{speed:>10,.0f}{ratios}")
            print("\n".join(lines), flush=True)
            if not given.skip_answers:
                from tests.bench import answers

                own = ["--student", str(student), "--rows", "24", "--batch-size", "8"] if given.pretrained else []
                where = ["--data", str(given.data)] if given.data else []
                sys.argv = [sys.argv[0], "--rounds", str(given.rounds), *where, *own]
                answers.main()


if __name__ == "__main__":
    main()
