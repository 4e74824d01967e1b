"""The real rows that benchmarks read: from the Hugging Face hub by name, or from files of the same rows."""

import argparse
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.tasks import TASKS
from llm2llm.components.shared.tasks.task import Columns

HUB: dict[str, tuple[str, Columns]] = {
    "gsm8k": ("openai/gsm8k:main", TASKS["gsm8k"].columns),
    "snips": ("benayas/snips", TASKS["snips"].columns.model_copy(update={"answer": "category"})),
}
"""For each task its data set on the hub, and how that calls the columns."""


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds `--data`."""
    parser.add_argument(
        "--data",
        type=Path,
        help="a folder with gsm8k/train.jsonl, gsm8k/test.jsonl, and so for snips; default: from the Hugging Face hub",
    )


def real_rows(name: str, split: str, data: Path | None) -> list[Example]:
    """The rows of a split, `train` or `test`, of `gsm8k` or `snips`.

    Args:
        name: The task.
        split: The split.
        data: A folder with NAME/SPLIT.jsonl in the task's own columns; None: the hub.

    Raises:
        SystemExit: The rows cannot be had; the message names the source.
    """
    task = TASKS[name]
    source, columns = HUB[name]
    try:
        if data is not None:
            return read_examples(str(data / name / f"{split}.jsonl"), task)
        return read_examples(f"{source}#{split}", task, columns)
    except UserError as problem:
        raise SystemExit(f"error: {problem}") from None
