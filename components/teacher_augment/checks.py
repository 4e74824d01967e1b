"""Checks of a generated row that need no model.

Each check is a function of a row that returns what is wrong in words, or an empty string. Its name goes into the row's
`checks` when it passes, and is the reason of the reject when it does not. How often each refuses a real row was
measured on GSM8K (8,792 rows) and SNIPS (14,484 rows), with bounds from a sample of 10 to 300 of them: `arithmetic`
0.5% of GSM8K's, most of which are wrong indeed, `length` up to 0.1%, `script` 0.01% of SNIPS, the others none.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.text import after_cues, folded
from llm2llm.components.shared.data.schemas import Example, Reason
from llm2llm.components.shared.llm.requests import without_control_tokens
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.tasks.rationale import MADE_UP, wrong_rationale

Check = Literal["arithmetic", "given_away", "boilerplate", "control_tokens", "length", "script"]

REASONS: dict[Check, Reason] = {
    "arithmetic": "wrong_arithmetic",
    "given_away": "gives_answer_away",
    "boilerplate": "boilerplate",
    "control_tokens": "control_tokens",
    "length": "unusual_length",
    "script": "other_script",
}
"""The reject's reason when a check fails."""

PASSED: dict[Check, str] = {
    "arithmetic": "right arithmetic",
    "given_away": "answer not given away",
    "boilerplate": "no boilerplate",
    "control_tokens": "no control tokens",
    "length": "usual length",
    "script": "usual script",
}
"""What `Example.checks` says when it passes."""

LENGTH_FACTOR = 3
"""A text may be three times as long as the longest of the seeds, and a third as long as the shortest."""
OTHER_SCRIPT = 0.1
"""The share of letters that may be of scripts which no seed uses: names and quotations."""

_OPENERS = re.compile(
    r"\W*(?:(?:sure|certainly|of course|absolutely|okay|great)\b\s*[,!.:—–-]"
    r"|here(?:['’]s| is| are)\b[^.?!\n]{0,60}\b(?:example|question|version|paraphrase|problem|solution|rewrit\w+)s?\b"
    r"|as an ai\b|i(?:['’]m| am) sorry\b"
    r"|(?:new |another |similar |rewritten )?(?:question|example|problem|paraphrase|solution)(?: \d+)?\s*:)",
    re.IGNORECASE,
)
_CLOSERS = re.compile(
    r"(?:let me know if|i hope (?:this|that) helps|feel free to|(?:this|the) (?:new )?(?:example|question) "
    r"(?:tests|practi[sc]es|requires the model)|the model_answered)\b[^\n]{0,200}$",
    re.IGNORECASE,
)
_MARKED_RIGHT = re.compile(
    r"[(\[]\s*(?:correct|right|the answer|correct answer|right answer)\s*[)\]]|✓|✔|✅", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Usual:
    """What the seeds are like: the bounds of what is usual."""

    question: tuple[float, float]
    """The least and most characters of a question."""
    rationale: tuple[float, float] | None
    """Of a rationale; None where no seed has one."""
    scripts: frozenset[str]
    """The scripts of letters: LATIN, CYRILLIC, CJK."""


def usual(seeds: Sequence[Example]) -> Usual:
    """The bounds that rows are held to."""
    rationales = [len(seed.rationale) for seed in seeds if seed.rationale]
    return Usual(
        question=_bounds([len(seed.question) for seed in seeds]),
        rationale=_bounds(rationales) if rationales else None,
        scripts=frozenset(_scripts(text for seed in seeds for text in _texts(seed))),
    )


def _bounds(lengths: Sequence[int]) -> tuple[float, float]:
    return min(lengths) / LENGTH_FACTOR, max(lengths) * LENGTH_FACTOR


def failed_check(
    row: Example, parent: Example, task: Task, bounds: Usual, wanted: Sequence[Check]
) -> tuple[Check, str] | None:
    """The first of the wanted checks that a row fails, with what is wrong; None when it passes all.

    Args:
        row: As `tasks.normalise` has made it.
        parent: The seed that it was written from; what stands in that is no fault of the row.
        task: Says what can be checked.
        bounds: What the seeds are like.
        wanted: Which checks to make, in this order.
    """
    for check in wanted:
        if check == "arithmetic":
            wrong = _arithmetic(row, parent, task)
        elif check == "given_away":
            wrong = given_away(task, row.question, row.choices, row.answer)
        elif check == "boilerplate":
            wrong = _boilerplate(row, parent, task)
        elif check == "control_tokens":
            wrong = _control_tokens(row)
        elif check == "length":
            wrong = _length(row, bounds)
        else:
            wrong = _script(row, bounds)
        if wrong:
            return check, wrong
    return None


def _arithmetic(row: Example, parent: Example, task: Task) -> str:
    if not FORMS[task.form].checks_arithmetic or not row.rationale:
        return ""
    wrong = wrong_rationale(row.question, row.rationale, row.answer)
    # A seed that calculates with numbers of its own has rows that do so as well.
    if wrong and wrong_rationale(parent.question, parent.rationale or "", parent.answer) == wrong == MADE_UP:
        return ""
    return wrong


def given_away(task: Task, question: str, choices: Sequence[str], answer: str) -> str:
    """How a question tells its own answer; empty when it does not.

    A label, a number or a text may well stand in a question without being told as the answer ("play music", a price
    that comes out again), so only this counts: the answer after an answer cue ("The answer is 72", "#### 72"), a label
    that is no ordinary word (`PlayMusic`, `play_music`), a choice that is marked as the right one.
    """
    cued = [part for part in after_cues(question) if part.strip()]
    if "####" in question:
        cued.append(question.rsplit("####", 1)[1])
    for part in cued:
        parsed = tasks.parse(task, part.strip().split("\n", 1)[0])
        if parsed is not None and tasks.matches(task, parsed, answer):
            return f"the question says that the answer is {answer}"
    if FORMS[task.form].has_labels and _is_a_name(answer) and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", question):
        return f"the question holds the label {answer}"
    for text in (question, *choices) if FORMS[task.form].has_choices else ():
        if marked := _MARKED_RIGHT.search(text):
            return f"{marked[0]!r} marks the answer"
    return ""


def _is_a_name(label: str) -> bool:
    """Whether a label is written as no word is: `PlayMusic`, `play_music`, `B2`."""
    return re.search(r"[a-z][A-Z]|_|\w\d|\d\w", label) is not None


def _boilerplate(row: Example, parent: Example, task: Task) -> str:
    cue = re.compile(rf"\W*(?:{re.escape(task.question_cue)}|{re.escape(task.answer_cue)})\s*:", re.IGNORECASE)
    for text, of_parent in ((row.question, parent.question), (row.rationale or "", parent.rationale or "")):
        for pattern in (cue, _OPENERS):
            if (found := pattern.match(text)) and not pattern.match(of_parent):
                return f"it begins with {found[0].strip()!r}"
        if (found := _CLOSERS.search(text)) and not _CLOSERS.search(of_parent):
            return f"it ends with {found[0].strip()!r}"
    return ""


def _control_tokens(row: Example) -> str:
    if any(without_control_tokens(text) != text for text in _texts(row)):
        return "it holds a control token of a chat template"
    return ""


def _length(row: Example, bounds: Usual) -> str:
    for name, text, limits in (
        ("question", row.question, bounds.question),
        ("rationale", row.rationale, bounds.rationale),
    ):
        if text and limits and not limits[0] <= len(text) <= limits[1]:
            return (
                f"the {name} has {len(text):,} characters; within three times that of the seeds is "
                f"{limits[0]:,.0f} to {limits[1]:,.0f}"
            )
    return ""


def _script(row: Example, bounds: Usual) -> str:
    letters = _scripts(_texts(row))
    other = {script: count for script, count in letters.items() if script not in bounds.scripts}
    if sum(other.values()) > OTHER_SCRIPT * letters.total():
        return (
            f"{sum(other.values())} of {letters.total()} letters are {max(other, key=lambda s: (other[s], s)).lower()}"
        )
    return ""


def _scripts(texts: Iterable[str]) -> Counter[str]:
    """How many letters of each script there are. A letter's name begins with its script's."""
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
    scripts: Counter[str] = Counter()
    for character, count in characters.items():
        if script := _script_of(character):
            scripts[script] += count
    return scripts


@lru_cache(maxsize=10_000)
def _script_of(character: str) -> str:
    """Empty for what is no letter."""
    return unicodedata.name(character, "UNKNOWN").split()[0] if character.isalpha() else ""


def _texts(row: Example) -> list[str]:
    return [row.question, *row.choices, row.rationale or "", row.answer]


def same_choices(choices: Sequence[str]) -> bool:
    """Whether two choices are the same but for case, white space and punctuation at the ends: then two are right, or
    neither."""
    seen = [folded(choice) or choice for choice in choices]
    return len(set(seen)) < len(seen)
