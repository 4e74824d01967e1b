"""Writes a set of rows as other programs read it: JSON Lines, CSV, Parquet, `messages`, prompt and completion.

jsonl csv parquet   one column for each field; read back here, they are the same rows with the same ids
messages            {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}, for chat models
prompt_completion   {"prompt": ..., "completion": ...}, for base models; TRL puts the two together as they are

CSV is safe to open in a spreadsheet: an apostrophe stands before what would be a formula. See `ingest.csv_cells`.
"""

import csv
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.atomic import atomic_file, write_text
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.hub import TOKEN_VARIABLE, check_hub, push_files
from llm2llm.components.shared.data.jsonl import is_text, write_json_lines
from llm2llm.components.shared.data.parquet import ROW_GROUP, schema
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.csv_cells import safe_cell
from llm2llm.components.shared.ingest.dataset_card import dataset_card
from llm2llm.components.shared.tasks import Task

ExportFormat = Literal["jsonl", "csv", "parquet", "messages", "prompt_completion"]
CONTENT = ("id", "question", "choices", "rationale", "answer", "tools", "also_right", "skills")
"""The columns of a row without its lineage."""
LINEAGE = tuple(one.name for one in dataclasses.fields(Example) if one.name not in CONTENT)
"""Where a row comes from, and how it was checked."""


def export_rows(
    rows: Sequence[Example],
    path: str | os.PathLike[str],
    export_format: ExportFormat,
    task: Task | None = None,
    lineage: bool = False,
) -> None:
    """Writes rows, in their order; a reader sees the whole file or none.

    Args:
        rows: A training set, or any other.
        path: The file to write.
        export_format: See the module's docstring.
        task: For `messages` and `prompt_completion`: prompt and completion are those that its student is trained on,
            with its system prompt (`messages`), and a second pair for a rationale that is a second task. None: the
            question with its choices, and the answer, after the rationale where there is one.
        lineage: Whether to add the columns of `LINEAGE`, and in `messages` and `prompt_completion` the row's id.

    Raises:
        UserError: No rows, or the file cannot be written.
    """
    if not rows:
        raise UserError(
            f"export: no rows to write to {os.fspath(path)}; this set is empty, as `test` is where the config names no "
            "data.test"
        )
    names = exported_columns("jsonl", lineage)
    if export_format in ("messages", "prompt_completion"):
        write_json_lines(path, [one for row in rows for one in _trained(row, export_format, task, lineage)])
    else:
        fields = pa.schema([schema("examples").field(name) for name in names])
        write_columns([{name: getattr(row, name) for name in names} for row in rows], path, export_format, fields)


def exported_columns(export_format: ExportFormat, lineage: bool) -> tuple[str, ...]:
    """The columns of an exported file, in their order."""
    own = {"messages": ("messages",), "prompt_completion": ("prompt", "completion")}.get(export_format)
    if own is None:
        return (*CONTENT, *LINEAGE) if lineage else CONTENT
    return (*own, "id", *LINEAGE) if lineage else own


def push_rows(
    rows: Sequence[Example],
    repo: str,
    export_format: ExportFormat,
    split: str,
    task: Task | None = None,
    lineage: bool = False,
    private: bool = True,
) -> str:
    """Pushes rows as a data set to the Hugging Face Hub, with a card; returns its address there.

    The file is `data/SPLIT.parquet`, or `.jsonl` and `.csv` for those formats; one of another format that an earlier
    push left for the split is removed.

    Args:
        rows, export_format, task, lineage: As `export_rows`.
        repo: `owner/name`.
        split: `train`, `validation`, `test`, or any other name.
        private: Whether a repository that is made is private.

    Raises:
        UserError: No rows, no token, or the Hub refuses. Nothing of it is then there.
    """
    check_hub("--push")
    columns = {"csv": "csv", "parquet": "parquet"}
    name = f"data/{split}.{columns.get(export_format, 'jsonl')}"
    card = dataset_card(repo, rows, exported_columns(export_format, lineage), name, split, task)
    with TemporaryDirectory(prefix="llm2llm-export-") as folder:
        files = {name: Path(folder) / "rows", "README.md": Path(folder) / "README.md"}
        export_rows(rows, files[name], export_format, task, lineage)
        write_text(files["README.md"], card)
        message = f"{len(rows):,} rows, exported by llm2llm"
        try:
            push_files(repo, files, message, "dataset", private, replaces=(f"data/{split}.",))
        except UserError as problem:
            raise UserError(f"--push: {problem}; check the name and {TOKEN_VARIABLE}") from None
    return f"https://huggingface.co/datasets/{repo}"


def write_columns(
    rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], export_format: str, fields: pa.Schema
) -> None:
    """Writes rows with a column for each field; a reader sees the whole file or none.

    Args:
        rows: A value for each field.
        path: The file to write.
        export_format: `jsonl`, `csv` or `parquet`.
        fields: The columns, in their order.

    Raises:
        UserError: The file cannot be written.
    """
    if export_format == "jsonl":
        write_json_lines(path, [{name: row[name] for name in fields.names} for row in rows])
    elif export_format == "csv":
        with atomic_file(path) as partial, open(partial, "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerow(map(safe_cell, fields.names))
            writer.writerows([_cell(row[name]) for name in fields.names] for row in rows)
    else:
        table = pa.table({name: [row[name] for row in rows] for name in fields.names}, schema=fields)
        with atomic_file(path) as partial:
            pq.write_table(table, partial, row_group_size=ROW_GROUP)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        text = json.dumps(value, ensure_ascii=False)
        return text if is_text(text) else json.dumps(value)
    if not isinstance(value, str):
        return str(value)
    return safe_cell(value if is_text(value) else json.dumps(value)[1:-1])


def _calls(row: Example) -> list[dict[str, Any]] | None:
    """The answer as the `tool_calls` that chat templates take; None where it is none."""
    if not row.tools:
        return None
    try:
        value = json.loads(row.answer)
    except ValueError:
        return None
    if not isinstance(value, list) or not all(
        isinstance(one, dict) and {*one} == {"name", "arguments"} for one in value
    ):
        return None
    return [{"type": "function", "function": call} for call in value]


def _trained(row: Example, export_format: ExportFormat, task: Task | None, lineage: bool) -> list[dict[str, Any]]:
    """A row as its student is trained on it, and its twin where the rationale is a second task."""
    # Beside messages, the tools are what a chat template writes.
    shown_tools = [] if export_format == "messages" else row.tools
    if task is not None:
        prompt = tasks.prompt(task, row.question, row.choices, shown_tools)
        target = tasks.target(task, row.answer, row.rationale)
    else:
        choices = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, row.choices, strict=False)]
        prompt = "\n".join([row.question, *choices])
        target = f"{row.rationale}\n#### {row.answer}" if row.rationale else row.answer
    pairs = [(row.id, prompt, target)]
    if task is not None and tasks.is_second_task(task) and row.rationale:
        second = tasks.rationale_prompt(task, row.question, row.choices)
        pairs.append((f"{row.id}{tasks.SECOND_TASK}", second, row.rationale))
    return [
        {**_written(row, export_format, task, *pair), **({"id": row_id, **_lineage(row)} if lineage else {})}
        for row_id, *pair in pairs
    ]


def _written(row: Example, export_format: ExportFormat, task: Task | None, prompt: str, target: str) -> dict[str, Any]:
    if export_format == "prompt_completion":
        return {"prompt": prompt, "completion": f" {target}"}
    system = [{"role": "system", "content": task.chat.system}] if task is not None and task.chat.system else []
    answer: dict[str, Any] = {"role": "assistant", "content": target}
    if (task is None or tasks.answers_with_calls(task)) and (calls := _calls(row)):
        answer = {"role": "assistant", "content": "", "tool_calls": calls}
    offered = {"tools": [json.loads(one) for one in row.tools]} if row.tools else {}
    return {"messages": [*system, {"role": "user", "content": prompt}, answer], **offered}


def _lineage(row: Example) -> dict[str, Any]:
    return {name: getattr(row, name) for name in LINEAGE}
