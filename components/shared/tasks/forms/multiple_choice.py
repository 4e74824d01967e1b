"""Form `multiple_choice`: the answer is the letter of one of the choices shown below the question.

target   "C"
read     "C", "(C)", "C. the text", "The answer is C."
grade    the same letter
"""

import re
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.base.text import after_cues
from llm2llm.components.shared.tasks.forms.base import Form, accept
from llm2llm.components.shared.tasks.forms.rationales import (
    after_rationale,
    asked_of_teacher,
    check_rationale_as,
    kept,
    rationale_in,
    with_rationale,
)
from llm2llm.components.shared.tasks.options import option_of, text_of_value

if TYPE_CHECKING:
    from llm2llm.components.shared.tasks.task import Task

_LETTER_FIRST = re.compile(r"[\s(\[{<*_\"'`$#]*([A-Za-z])(?![\w'’])")
_LETTER_ALONE = re.compile(r"(?<![\w'’])([A-HJ-Z]|(?<=[(\[{])I(?=[)\]}]))(?![\w'’])")
# "A dog", "I think", but not "A is right", "A or B"
_WORD_FOLLOWS = re.compile(r"\s+(?!(?:is|because|since)\b|(?:or|and)\s+\(?[A-Z](?!\w))[^\W\d_]")
_OTHER_LETTER_FOLLOWS = re.compile(r"\)?(?:\s+(?:or|and)\s+|\s*[,/&]\s*|-)\(?[A-Z](?![\w'’])")

_LETTERED = re.compile(r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z]))(?:[.):]*|[.):\s-]\s*(\S.*))", re.DOTALL)
"""`B`, `(B)`, `B.`, `B) the text`, `(B) the text`, `B: the text`."""


def check_choice_count(task: "Task") -> None:
    """Refuses a number of choices that letters cannot name.

    Raises:
        ValueError: Names the key and the value.
    """
    if task.choice_count is not None and not 2 <= task.choice_count <= 26:
        raise ValueError(f"choice_count: from 2 to 26, got {task.choice_count}")


def classes(task: "Task", choices: int) -> list[str]:
    """The letters of the choices."""
    return list(ascii_uppercase[:choices])


def target(task: "Task", answer: str, rationale: str | None) -> str:
    """The completion that the student is trained on."""
    return with_rationale(task, answer, rationale)


def parse(task: "Task", completion: str) -> str | None:
    """The letter that a completion gives; None when it gives none, or several and no telling which.

    `A` and `I` are words too: in running text they are an answer only where no word follows, and `I` only in brackets.
    A letter beyond the task's `choice_count` is none.
    """
    letters = ascii_uppercase[: task.choice_count or 26]
    text = after_rationale(task, completion).strip()
    parts = [*reversed(after_cues(text)), text]
    for part in parts:
        match = _LETTER_FIRST.match(part)
        if match and match[1].upper() in letters and not _is_word(match):
            return None if _OTHER_LETTER_FOLLOWS.match(part, match.end(1)) else match[1].upper()
    for part in parts:
        alone = {m[1] for m in _LETTER_ALONE.finditer(part) if m[1] in letters and not _is_word(m)}
        if len(alone) == 1:
            return alone.pop()
    return None


def _is_word(match: re.Match[str]) -> bool:
    """Whether the letter of a match is the word `A` or `I`."""
    return match[1].upper() in "AI" and _WORD_FOLLOWS.match(match.string, match.end(1)) is not None


def matches(task: "Task", parsed: str, answer: str) -> bool:
    """Whether a parsed letter is the right one."""
    return parsed == answer


def normalise(task: "Task", answer: Any, choices: list[str], rationale: str | None) -> tuple[str, str | None]:
    """(letter, rationale) of a row, whose answer is a letter (`B`, `(b)`, `B. the text`) or the text of a choice. A
    number is a choice's own text, in any spelling; it is never an index here.

    Raises:
        ValueError: Too few, too many or repeated choices, an answer that is none of them, or may be two.
    """
    if task.choice_count is not None and len(choices) != task.choice_count:
        raise ValueError(f"expected {task.choice_count} choices, got {len(choices)}")
    if not 2 <= len(choices) <= 26:
        raise ValueError(f"expected 2 to 26 choices, got {len(choices)}; columns.choices says where they are")
    if len(set(choices)) < len(choices):
        raise ValueError("two of the choices are the same")
    text = text_of_value(answer)
    letters = ascii_uppercase[: len(choices)]
    readings = set()
    if (place := option_of(answer, choices)) is not None:
        readings.add(letters[place])
    if (lettered := _LETTERED.fullmatch(text)) and (letter := (lettered[1] or lettered[2]).upper()) in letters:
        said = (lettered[3] or "").strip()
        if not said or option_of(said, choices) == letters.index(letter):
            readings.add(letter)
    if len(readings) > 1:
        raise ValueError(
            f"the answer {text!r} may be {' or '.join(sorted(readings))}: it is the text of one choice and the letter "
            "of another"
        )
    if not readings:
        raise ValueError(
            f"the answer {text!r} is none of the choices: a letter {letters[0]} to {letters[-1]}, or a choice's text"
        )
    return readings.pop(), kept(task, rationale)


def teacher_properties(task: "Task") -> dict[str, Any]:
    """JSON schema of what the teacher returns beside the question."""
    count = task.choice_count
    choices: dict[str, Any] = {"type": "array", "items": {"type": "string"}, "description": "exactly one is right"}
    if count is not None:
        choices |= {"minItems": count, "maxItems": count}
    letters = list(ascii_uppercase[: count or 26])
    return {
        "choices": choices,
        **asked_of_teacher(task),
        "answer": {"type": "string", "enum": letters, "description": "the letter of the right choice"},
    }


FORM = Form(
    about="a letter",
    target=target,
    parse=parse,
    matches=matches,
    normalise=normalise,
    teacher_properties=teacher_properties,
    rationale_in=rationale_in,
    takes={"choice_count": check_choice_count, "rationale": accept, "rationale_as": check_rationale_as},
    classes=classes,
    has_choices=True,
    leak_rouge_l=0.8,
)
