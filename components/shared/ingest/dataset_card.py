"""The card of an exported data set: a Hugging Face README with metadata, the same for the same rows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.text import code_span
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.tasks import Task

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_COLUMNS = {
    "id": "hash of the content",
    "question": "what the student is asked",
    "choices": "multiple choice only",
    "rationale": "a worked solution, where there is one",
    "answer": "the right answer; of choices the letter",
    "tools": "the tools that a row offers, each as JSON",
    "also_right": "other answers that count as right",
    "skills": "what it takes to answer, where it is known",
    "source": "where a row comes from",
    "source_id": "its id there",
    "parent_id": "the id of the row that a generated one was written from",
    "by_way_of": "the generated row between, where it was written from one",
    "iteration": "when it joined the training set; 0 for seeds",
    "strategy": "how it was written",
    "teacher": "the kind of teacher that wrote it",
    "call_key": "the teacher's answer in the run's ledger",
    "checks": "the checks that it passed",
    "confidence": "how sure the check of its answer was, in [0, 1]",
    "votes": "what those who solved it blind answered, each answer once",
    "vote_shares": "the share of them that gave each of `votes`",
    "messages": "question and answer as turns of a chat",
    "prompt": "what the student is shown",
    "completion": "what it is trained to write",
}


def dataset_card(
    name: str, rows: Sequence[Example], columns: Sequence[str], file: str, split: str, task: Task | None
) -> str:
    """The card of a set of rows.

    Args:
        name: The title.
        rows: What is in it.
        columns: Of its file.
        file: The file's path in the repository.
        split: What the set is called: `train`, `validation`, `test`.
        task: What the rows are for; None: not known.
    """
    generated = [row for row in rows if row.generated]
    size = next((label for most, label in _SIZES if len(rows) < most), "n>1M")
    metadata: dict[str, Any] = {
        "tags": ["llm2llm", *(["synthetic"] if generated else [])],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": file}]}],
    }
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {' '.join(name.split())}",
        "",
        f"{len(rows):,} rows of a run of LLM2LLM, error-driven fine-tuning (Lee et al., Findings of ACL 2024): "
        f"{len(rows) - len(generated):,} seeds, {len(generated):,} that a teacher wrote from what a student got wrong.",
    ]
    if task is not None:
        shown = tasks.prompt(task, "...", [])
        lines += ["", f"The task is {code_span(task.name)} ({task.form.replace('_', ' ')}). Its prompt:", ""]
        lines += [f"    {line}" for line in shown.split("\n")]
    if generated:
        written = Counter((row.teacher or "-", row.strategy or "-") for row in generated)
        lines += ["", "| Teacher | Strategy | Rows |", "|---|---|---|"]
        lines += [f"| {code_span(who)} | {code_span(how)} | {n:,} |" for (who, how), n in sorted(written.items())]
    lines += ["", "| Column | What it holds |", "|---|---|"]
    lines += [f"| `{column}` | {_COLUMNS[column]} |" for column in columns]
    lines += ["", "The seeds' licence is that of their sources; what a teacher wrote is also under its own terms.", ""]
    return "\n".join(lines)
