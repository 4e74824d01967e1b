"""Form `text`: the answer is a short text.

target   "Marie Curie"
read     the completion, after an answer cue if it begins with one
grade    the same text; with match: normalised (default) case, white space and punctuation at the ends do not count;
         with match: judge another text may be right as well, see `judge`
"""

import re
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.base.text import folded
from llm2llm.components.shared.tasks.forms.base import Form
from llm2llm.components.shared.tasks.forms.metrics import JUDGE_SCORE

if TYPE_CHECKING:
    from llm2llm.components.shared.tasks.task import Task

_LEADING_CUE = re.compile(r"(?:(?:the\s+)?(?:final\s+)?answer(?:\s+is\b\s*:?|\s*[:=])|(?-i:A)\s*:)\s*", re.IGNORECASE)


def target(task: "Task", answer: str, rationale: str | None) -> str:
    """The completion that the student is trained on."""
    return answer


def parse(task: "Task", completion: str) -> str | None:
    """The text that a completion gives; None when it is empty."""
    text = completion.strip()
    if cue := _LEADING_CUE.match(text):
        text = text[cue.end() :].strip()
    return text or None


def matches(task: "Task", parsed: str, answer: str) -> bool:
    """Whether a parsed text is the right one, under the task's `match`."""
    right = parse(task, answer) or answer  # an answer that itself begins with a cue
    if task.match == "exact" or not folded(right):
        return parsed == right
    return folded(parsed) == folded(right)


def normalise(task: "Task", answer: Any, choices: list[str], rationale: str | None) -> tuple[str, str | None]:
    """(answer, None) of a user's row.

    Raises:
        ValueError: The answer is empty.
    """
    text = str(answer).strip()
    if not text:
        raise ValueError("the answer is empty")
    return text, None


def teacher_properties(task: "Task") -> dict[str, Any]:
    """JSON schema of what the teacher returns beside the question."""
    return {"answer": {"type": "string", "description": "the right answer, nothing else"}}


FORM = Form(
    about="a text: exact or normalised match, or the verdict of a judge",
    target=target,
    parse=parse,
    matches=matches,
    normalise=normalise,
    teacher_properties=teacher_properties,
    has_free_text=True,
    metrics={"judge_score": JUDGE_SCORE},
    leak_rouge_l=0.8,
)
