"""How long an answer may be: never shorter than the right ones."""

import dataclasses
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.label_scoring import labels_of
from llm2llm.components.shared.models.prompts import answer_tokens, frame
from llm2llm.components.shared.tasks import Task, target

SLACK = 8
"""Tokens beside a text's own: what ends it, the space that some tokenizers put before it."""


def answer_limit(tokenizer: Any, task: Task, rows: Iterable[Example], settings: AnswerSettings) -> tuple[int, str]:
    """(the longest answer in tokens that a student may write, a note; empty where nothing was changed).

    The limit of the task is raised to the longest right answer of the rows: a student that writes it is right, and
    would be cut off before it ends.

    Args:
        tokenizer: The student's.
        task: Its `max_new_tokens` holds unless the settings have their own.
        rows: What is asked.
        settings: `max_new_tokens` and `mode` are looked at.

    Raises:
        UserError: `settings.max_new_tokens` is below the longest right answer.
    """
    limit = settings.max_new_tokens or task.max_new_tokens
    if settings.mode == "score":
        return limit, ""
    alike = {
        (row.answer, row.rationale): row for row in _answered(task, rows) if _may_be_longer(tokenizer, task, row, limit)
    }
    sizes = [(answer_tokens(tokenizer, task, row), row.id) for row in alike.values()]
    longest, where = max(sizes, default=(0, ""))
    if longest <= limit:
        return limit, ""
    found = f"the right answer of row {where} has {longest} tokens"
    if settings.max_new_tokens:
        raise UserError(
            f"evaluate.max_new_tokens: {limit} is too short: {found}, its end included; set at least {longest}, or "
            "remove the key"
        )
    return longest, f"{found}: answers may be that long, instead of task.max_new_tokens {limit}"


def _may_be_longer(tokenizer: Any, task: Task, row: Example, limit: int) -> bool:
    """Whether a right answer may have more tokens than the limit; most have not even as many bytes, and are not
    encoded. Tokens are not shorter than a byte of the text as a tokenizer may normalise it."""
    if row.tools:  # a template writes calls in its own way
        return True
    around = frame(tokenizer, task.chat)
    text = unicodedata.normalize("NFKD", target(task, row.answer, row.rationale))
    most = len(text.encode()) + (len(around.opening.encode()) if around else 0)
    return most + SLACK > limit


def _answered(task: Task, rows: Iterable[Example]) -> Iterator[Example]:
    """Rows with their right answer; one without, which is only asked, with each of the labels that it may have."""
    for row in rows:
        if row.answer:
            yield row
        else:
            yield from (dataclasses.replace(row, answer=label) for label in labels_of(task, row))
