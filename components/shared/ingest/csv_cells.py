"""Escapes CSV cells that a spreadsheet would run as formulas (OWASP, "CSV Injection"), and reads them back.

>>> safe_cell("=1+1"), safe_cell("-5"), safe_cell("5")
("'=1+1", "'-5", '5')
"""

import json
from typing import Any

from llm2llm.components.shared.data.schemas import content_id

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_MARK = "'"


def safe_cell(text: str) -> str:
    """A cell with an apostrophe before what a spreadsheet would calculate, and before such an apostrophe."""
    return _MARK + text if text.lstrip(_MARK).startswith(_FORMULA) else text


def plain_cell(text: str) -> str:
    """The inverse of `safe_cell`."""
    return text[1:] if text.startswith(_MARK) and text.lstrip(_MARK).startswith(_FORMULA) else text


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of our own export with its cells as they were; a row of anything else as it is.

    It is our own when its id is that of the content of the plain cells.
    """
    if not {"id", "question", "answer"} <= row.keys():
        return row
    plain = {name: plain_cell(cell) for name, cell in row.items()}
    if plain == row:
        return row
    try:
        choices, tools = (json.loads(plain.get(name) or "[]") for name in ("choices", "tools"))
    except ValueError:
        return row
    own = content_id(plain["question"], choices, plain.get("rationale") or None, plain["answer"], tools)
    return plain if own == row["id"] else row
