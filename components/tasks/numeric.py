"""Form `numeric`: the answer is one number, with or without a rationale before it.

    target   "48/2 = 24 in May. 48+24 = 72.\n#### 72"  with a rationale, else "72"
    read     "... #### 72", "A: 72", "The answer is $72.00.", "72 clips", or a last line that ends with "= 72"
    grade    equal as exact fractions: 0.5 is 1/2, 5 is not -5, 1/2 is not 12
"""

import re
from fractions import Fraction
from typing import Any

from llm2llm.components.tasks.numbers import CURRENCY, find_numbers, show, tidy
from llm2llm.components.tasks.task import Task
from llm2llm.components.tasks.words import after_last_cue

MARKER = "####"
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}")
_ENDS_WITH_EQUALS = re.compile(rf"=\s*[{CURRENCY}]?\s*$")


def target(task: Task, answer: str, rationale: str | None) -> str:
    """The completion that the student is trained on."""
    if not task.rationale:
        return answer
    return f"{rationale}\n{MARKER} {answer}" if rationale else f"{MARKER} {answer}"


def parse(task: Task, completion: str) -> str | None:
    """The number that a completion gives as its answer, as `show` writes it; None when there is no telling which.

    In order: the number after the first `####` (what follows is babble: a model that goes on writing has answered);
    in the last `\\boxed{}`; after the last answer cue; in the last line, when it holds exactly one number or ends
    with `= number`.
    """
    text = tidy(_LATEX_FRACTION.sub(r" \1/\2", completion.replace("\\$", "$").replace("**", "")))
    if MARKER in text:
        marked = text.split(MARKER, 1)[1].strip()
        return _first(marked.split("\n", 1)[0])
    if boxed := _BOXED.findall(text):
        return _first(boxed[-1])
    cued = after_last_cue(text)
    if cued is not None and (found := _first(cued.strip().split("\n", 1)[0])) is not None:
        return found
    lines = [line for line in text.splitlines() if line.strip()]
    return _only_or_result(lines[-1]) if lines else None


def _first(text: str) -> str | None:
    """The first number of a text, unless it goes on to calculate: in `12*2 = 24` the answer is 24."""
    numbers = find_numbers(text)
    if not numbers:
        return None
    if len(numbers) > 1 and "=" in text:
        return _only_or_result(text)
    return show(numbers[0][2])


def _only_or_result(line: str) -> str | None:
    numbers = find_numbers(line)
    if len(numbers) == 1:
        return show(numbers[0][2])
    if numbers and _ENDS_WITH_EQUALS.search(line[: numbers[-1][0]]):
        return show(numbers[-1][2])
    return None


def matches(task: Task, parsed: str, answer: str) -> bool:
    """Whether a parsed answer equals the right one, as numbers."""
    right = number(answer)
    return right is not None and number(parsed) == right


def number(answer: str) -> Fraction | None:
    """The value of a right answer; None when it is not exactly one number."""
    numbers = find_numbers(tidy(answer))
    return numbers[0][2] if len(numbers) == 1 else None


def normalise(task: Task, answer: Any, choices: list[str], rationale: str | None) -> tuple[str, str | None]:
    """(answer, rationale) of a user's row: GSM8K's `rationale #### 72` is taken apart.

    Raises:
        ValueError: The answer is not one number.
    """
    text = str(answer).strip()
    if MARKER in text:
        before, text = (part.strip() for part in text.rsplit(MARKER, 1))
        rationale = rationale or before or None
    if number(text) is None:
        raise ValueError(f"the answer must be one number, got {text!r}")
    return text, rationale if task.rationale else None


def teacher_properties(task: Task) -> dict[str, Any]:
    """JSON schema of what the teacher returns beside the question."""
    answer = {"type": "string", "description": "the final answer: one number, digits only, no unit"}
    if not task.rationale:
        return {"answer": answer}
    rationale = {"type": "string", "description": "the solution step by step, one step a line, without the final mark"}
    return {"rationale": rationale, "answer": answer}
