"""JSON lines."""

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from llm2llm.components.shared.base.atomic import atomic_file
from llm2llm.components.shared.base.errors import UserError

_NEXT = re.compile(r"[^\s,]")


def json_lines(file: str | os.PathLike[str] | BinaryIO, name: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON lines file with their line numbers from 1; blank lines are passed over.

    Args:
        file: A path, or a file that is open for reading bytes.
        name: What to call it in errors; default: its path.

    Raises:
        UserError: A line that is no JSON object, or has a name twice, or bytes that are no UTF-8.
    """
    if not isinstance(file, (str, os.PathLike)):
        yield from _objects(file, name)
        return
    try:
        with open(file, "rb") as opened:
            yield from _objects(opened, name or os.fspath(file))
    except OSError as problem:
        raise UserError(f"cannot read {os.fspath(file)}: {problem.strerror}") from problem


def _objects(file: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        where = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            # A byte order mark also stands inside, where files were put one behind the other.
            value = parse_json(line.decode("utf-8-sig"), names_once=True)
        except UnicodeDecodeError as problem:
            raise UserError(f"{where}: not UTF-8 text: {problem}") from None
        except ValueError as problem:
            raise UserError(f"{where}: not JSON: {problem}") from None
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a JSON object, got {type(value).__name__}")
        yield number, value


def parse_json(text: str, names_once: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        text: JSON.
        names_once: Whether to refuse an object with the same name twice, of which the last would win.

    Raises:
        ValueError: Not JSON, a number of thousands of digits, or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_named_once if names_once else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as problem:
        if problem.msg.startswith("Invalid \\escape"):
            raise ValueError(f"{problem}; JSON writes a backslash as two") from None
        raise


def json_objects(text: str) -> list[tuple[int, dict[str, Any]]]:
    """(line, object) of pretty-printed objects one after the other, as jq writes them; none where the text is anything
    else, or a single one."""
    decoder = json.JSONDecoder(object_pairs_hook=_named_once)
    at, line, rows = 0, 1, []
    while (start := _NEXT.search(text, at)) is not None:
        line, at = line + text.count("\n", at, start.start()), start.start()
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict):
            return []
        rows.append((line, value))
        line, at = line + text.count("\n", at, end), end
    return rows if len(rows) > 1 else []


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return value


def is_text(value: str) -> bool:
    """Whether a string can be stored: a lone half of a surrogate pair, which JSON can escape, is no text."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def write_json_lines(path: str | os.PathLike[str], rows: Sequence[Any]) -> None:
    """Writes dataclass rows or dicts as JSON lines, whole or not at all."""
    with atomic_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for row in rows:
            value = row if isinstance(row, dict) else dataclasses.asdict(row)
            line = json.dumps(value, ensure_ascii=False)
            file.write((line if is_text(line) else json.dumps(value)) + "\n")
