"""JSON lines."""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from llm2llm.components.problems import UserError
from llm2llm.components.whole import whole_file


def json_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON lines file with their line numbers from 1; blank lines are passed over.

    Raises:
        UserError: A line that is no JSON object, or bytes that are no UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    value = json.loads(text)
                except json.JSONDecodeError as problem:
                    raise UserError(f"{os.fspath(path)}:{number}: not JSON: {problem}") from None
                if not isinstance(value, dict):
                    raise UserError(f"{os.fspath(path)}:{number}: expected a JSON object, got {type(value).__name__}")
                yield number, value
    except UnicodeDecodeError as problem:
        raise UserError(f"{os.fspath(path)}: not UTF-8 text: {problem}") from None
    except OSError as problem:
        raise UserError(f"cannot read {os.fspath(path)}: {problem.strerror}") from problem


def write_json_lines(path: str | os.PathLike[str], rows: Sequence[Any]) -> None:
    """Writes dataclass rows or dicts as JSON lines, whole or not at all."""
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for row in rows:
            value = row if isinstance(row, dict) else dataclasses.asdict(row)
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
