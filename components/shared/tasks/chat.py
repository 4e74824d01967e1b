"""How a student's chat template is used: part of the task, so that training and evaluation cannot disagree."""

from datetime import date as Date
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from llm2llm.components.shared.base.settings import Settings

DEFAULT_DATE = "2024-07-26"
"""The day that Llama 3.2's own template falls back to."""


class ChatSettings(Settings):
    """The `task.chat` section of a config: used for students with a chat template, ignored for others."""

    system: str = ""
    """A system prompt before every question. Where the template refuses the role, it stands before the question."""
    template: str = ""
    """A Jinja chat template in place of the student's own: the template itself, or a file on the machine where the
    config is read. It is saved with the trained student."""
    thinking: bool = False
    """For templates of reasoning models. Off: an empty thought, or whatever the template writes before an answer,
    belongs to the prompt, and the student answers at once. On: the prompt ends where the template lets the student
    begin, and what it thinks is set aside before grading; allow for it in `max_new_tokens`."""
    date: str = Field(DEFAULT_DATE, pattern=r"^\d{4}-\d{2}-\d{2}$")
    """What a template that writes today's date is told, such as 2024-07-26: prompts must not depend on the day."""

    @field_validator("template", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, str) or not value or "{" in value:
            return value
        try:
            return Path(value).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise ValueError(
                f"neither a template, which has {{{{ }}}} in it, nor a file that can be read ({problem})"
            ) from None

    @field_validator("date")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        try:
            Date.fromisoformat(value)
        except ValueError as problem:
            raise ValueError(f"no such day: {problem}") from None
        return value
