"""Prompts: files that a person can read and replace, filled in so that data stays data.

    Anything up here is for the reader.

    # system
    You write training examples. {{task}}

    # user
    <example>
    {{example}}
    </example>

Each of the shipped files, `prompts/*.md`, says what it is for. A placeholder is filled in once, and what was filled in
is not looked at again, so braces in a row mean nothing. Data goes in as JSON with `<` written as an escape: no text of
a row can close the marks around it, and all of it stays inside its quotation marks. A conditional or a loop there is
not.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.llm.requests import Message
from llm2llm.components.shared.tasks import FORMS, Task

PLACEHOLDERS = {
    "task": "what the task is, in words: its description, or else its instruction",
    "count": "how many examples to write",
    "example": "one example: question, choices, rationale, right_answer, model_answered, as far as there are such",
    "examples": "several examples",
    "question": "a question, with its choices, without its answer",
    "answer": "the right answer",
    "new_answer": "the answer that a changed example should have; null for any other than the old one",
    "answers": "the right answers that the new examples should have, in order",
    "labels": "two labels, each with examples",
    "options": "the answers to choose from",
    "difference": "what tells two labels apart",
    "skill": "a skill's name",
    "skills": "the names of all skills",
}
"""Everything that a prompt can be given, and what it is."""

MAY_BE_LEFT_OUT = frozenset({"task", "count", "new_answer", "difference"})
"""Without any other placeholder that a prompt is given, it would ask the same whatever the data is."""

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SECTION = re.compile(r"^# *(system|user)[ \t]*$", re.MULTILINE)
_PLAIN = ("task", "count")

SHIPPED: dict[str, str] = {
    file.name.removesuffix(".md"): file.read_text("utf-8")
    for file in sorted((resources.files("llm2llm.components.teacher_augment") / "prompts").iterdir(), key=str)
    if file.name.endswith(".md")
}
"""The prompts that come with llm2llm: name -> text."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The parts of a prompt file: `system` may be empty."""

    name: str
    system: str
    user: str


def given_to(name: str) -> frozenset[str]:
    """The placeholders that a prompt is given: those that the shipped one has."""
    return frozenset(_PLACEHOLDER.findall(SHIPPED[name]))


def load_prompt(name: str, overrides: Mapping[str, str]) -> Prompt:
    """A shipped prompt, or the user's own in its place.

    Args:
        name: A key of `SHIPPED`.
        overrides: Name -> a file, or the text itself, which has line breaks.

    Raises:
        UserError: An unreadable file, no `# user` part, an unknown placeholder, or one without which the prompt would
            not show the data.
    """
    if name not in overrides:
        return parse_prompt(name, SHIPPED[name], f"{name}.md")
    value = overrides[name]
    where = f"teacher_augment.prompts.{name}"
    if "\n" in value:
        return parse_prompt(name, value, where)
    try:
        text = Path(value).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(
            f"{where}: cannot read {value}: {problem}; give a file, or the prompt itself, which has line breaks"
        ) from None
    return parse_prompt(name, text, value)


def check_prompts(overrides: Mapping[str, str]) -> None:
    """Refuses overrides of prompts that are none, and texts that are wrong; files are read when the stage runs.

    Raises:
        ValueError: Names the prompt and the fix.
    """
    for name, value in overrides.items():
        if name not in SHIPPED:
            raise ValueError(
                f"prompts: {name!r} is no prompt{did_you_mean(name, SHIPPED)}; the prompts are {', '.join(SHIPPED)}"
            )
        if "\n" in value:
            try:
                parse_prompt(name, value, f"prompts.{name}")
            except UserError as problem:
                raise ValueError(str(problem)) from None


def parse_prompt(name: str, text: str, where: str) -> Prompt:
    """Takes a prompt file apart.

    Raises:
        UserError: See `load_prompt`; `where` names the file.
    """
    parts = _SECTION.split(text.replace("\r\n", "\n"))
    sections = dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
    if not sections.get("user") or len(parts) != 1 + 2 * len(sections):
        raise UserError(f"{where}: a prompt has one part under the line `# user`, and may have one under `# system`")
    known = given_to(name)
    used = set(_PLACEHOLDER.findall("\n".join(sections.values())))
    if unknown := sorted(used - known):
        raise UserError(
            f"{where}: {{{{{unknown[0]}}}}} is no placeholder of this prompt{did_you_mean(unknown[0], known)}; "
            f"it is given {', '.join(sorted(known))}"
        )
    if missing := sorted(known - used - MAY_BE_LEFT_OUT):
        raise UserError(f"{where}: {{{{{missing[0]}}}}} is missing: without it the prompt does not show the data")
    return Prompt(name, sections.get("system", ""), sections["user"])


def render(prompt: Prompt, **values: Any) -> list[Message]:
    """The messages of a prompt.

    Args:
        prompt: With placeholders.
        values: What each placeholder of the prompt stands for. `task` (text) and `count` (a number) go in as they are;
            everything else is data and goes in as JSON.
    """
    assert values.keys() == given_to(prompt.name), f"{prompt.name} is given {sorted(given_to(prompt.name))}"
    shown = {key: str(value) if key in _PLAIN else as_json(value) for key, value in values.items()}

    def filled(text: str) -> str:
        return _PLACEHOLDER.sub(lambda found: shown[found[1]], text)

    messages: list[Message] = [{"role": "system", "content": filled(prompt.system)}] if prompt.system else []
    return [*messages, {"role": "user", "content": filled(prompt.user)}]


def as_json(value: Any) -> str:
    """Data as a model is shown it: JSON over several lines, in which no `<` stands."""
    return json.dumps(value, ensure_ascii=False, indent=1).replace("<", "\\u003c")


def about(task: Task) -> str:
    """The value of the placeholder `task`."""
    said = task.description or task.instruction or f"The task is called {task.name}."
    return "\n".join(filter(None, (said, FORMS[task.form].in_words(task))))


def shown(question: str, choices: Sequence[str], tools: Sequence[str] = ()) -> dict[str, Any]:
    """The value of the placeholder `question`."""
    offered = {"tools": [json.loads(one) for one in tools]} if tools else {}
    return {"question": question, **({"choices": list(choices)} if choices else {}), **offered}
