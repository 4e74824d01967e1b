r"""Form `numeric`: the answer is one number, with or without a rationale before it.

target   "48/2 = 24 in May. 48+24 = 72.\n#### 72"  with a rationale, else "72"
read     "... #### 72", "A: 72", "The answer is $72.00.", "\boxed{72}", "72 clips", or a last line "48 + 24 = 72 clips"
grade    equal as exact fractions: 0.5 is 1/2, 5 is not -5, 1/2 is not 12
"""

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.base.text import after_cues
from llm2llm.components.shared.tasks.forms.base import Form, accept
from llm2llm.components.shared.tasks.markup import plain
from llm2llm.components.shared.tasks.numbers import CURRENCY, find_numbers, read_numbers, show, tidy, unclear_magnitude

if TYPE_CHECKING:
    from llm2llm.components.shared.tasks.task import Task

MARKER = "####"
# Chat models write headings with four hashes as well: "#### Step 1", "#### 1. Find the eggs".
_MARKED = re.compile(
    rf"(?<!#)#{{4}}(?!#)\s*+(?!\d+[.):] [^\W\d])([-+~<(\[{{\"'`.\\{CURRENCY} ]*+(?:minus |negative )?\d.*)",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed ?\{([^{}]*)\}")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
# After a number that is a part of something else: "3 + 4", "9x2", "18 or 20", "3:30", "1'000", "1 000".
_GOES_ON = re.compile(rf"%? ?(?:[-+*/×÷x^:,'~]|to|and|or)? ?[-+{CURRENCY}]? ?\d")


def target(task: "Task", answer: str, rationale: str | None) -> str:
    """The completion that the student is trained on."""
    if not task.rationale:
        return answer
    return f"{rationale}\n{MARKER} {answer}" if rationale else f"{MARKER} {answer}"


def parse(task: "Task", completion: str) -> str | None:
    r"""The number that a completion gives as its answer, as `show` writes it; None when there is no telling which.

    In order: after the first `####` that a number follows (what comes later is babble: a model that goes on writing
    has answered); in the last `\boxed{}`; after the last answer cue that a number follows; a first line that is nothing
    but a number, unless a rationale is due; the last line, when it holds one number, a result `= number` or one bold
    number.
    """
    text = plain(tidy(completion))
    bare = text.replace("**", "")
    if marked := _MARKED.search(bare):
        return _answer(marked[1])
    if bare.rstrip().endswith(MARKER):  # cut off right before the answer
        return None
    if boxed := _BOXED.findall(bare):
        return _answer(boxed[-1])
    for cued in reversed(after_cues(bare)):
        if (found := _answer(_lines(cued)[0])) is not None:
            return found
    lines = _lines(bare)
    if not task.rationale and not re.search(r"[^\W\d_]", lines[0]) and (found := _only(lines[0])) is not None:
        return found
    bold = _BOLD.findall(_lines(text)[-1])
    found = _only(lines[-1])
    return _only(bold[0]) if found is None and len(bold) == 1 else found


def rationale_in(task: "Task", completion: str) -> str | None:
    """What stands before the mark; None when there is nothing, or no rationale is due."""
    return completion.split(MARKER, 1)[0].strip() or None if task.rationale else None


def _lines(text: str) -> list[str]:
    """The lines that hold a letter or digit; one empty line when there are none."""
    return [line for line in text.splitlines() if re.search(r"[^\W_]", line)] or [""]


def _answer(text: str) -> str | None:
    """The number of a text that is known to give the answer: the only one, the result of `=`, else the first."""
    found = _only(text)
    return _at_start(text) if found is None and "=" not in text else found


def _only(text: str) -> str | None:
    """The one number of a text; of several, the result after the last `=`."""
    if len(find_numbers(text)) > 1:
        _, equals, text = text.rpartition("=")
        if not equals:
            return None
    return _at_start(text)


def _at_start(text: str) -> str | None:
    """The first number of a text, unless it goes on to calculate, to a range or to a list."""
    numbers = find_numbers(text)
    if not numbers or _GOES_ON.match(text, numbers[0][1]):
        return None
    is_list = len(numbers) > 1 and numbers[1][0] == numbers[0][0]
    return None if is_list else show(numbers[0][2])


def matches(task: "Task", parsed: str, answer: str) -> bool:
    """Whether a parsed answer equals the right one, as numbers."""
    right = number(answer)
    return right is not None and number(parsed) == right


def number(answer: str) -> Fraction | None:
    """The value of a right answer; None when it is not exactly one number."""
    numbers = read_numbers(answer)
    return numbers[0] if len(numbers) == 1 else None


def normalise(task: "Task", answer: Any, choices: list[str], rationale: str | None) -> tuple[str, str | None]:
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
    if unclear := unclear_magnitude(text):
        raise ValueError(f"{unclear!r} may be a multiple or have a unit: write the number out, in digits alone")
    return text, rationale if task.rationale else None


def teacher_properties(task: "Task") -> dict[str, Any]:
    """JSON schema of what the teacher returns beside the question."""
    answer = {"type": "string", "description": "the final answer: one number, digits only, no unit"}
    if not task.rationale:
        return {"answer": answer}
    rationale = {"type": "string", "description": "the solution step by step, one step a line, without the final mark"}
    return {"rationale": rationale, "answer": answer}


FORM = Form(
    about="a number",
    target=target,
    parse=parse,
    matches=matches,
    normalise=normalise,
    teacher_properties=teacher_properties,
    rationale_in=rationale_in,
    takes={"rationale": accept},
    masks_numbers=True,
    checks_arithmetic=True,
    # A problem in numbers is caught under other names and numbers, as its template is the secret: of GSM8K's 7,473
    # training problems 10 are caught, which are test problems in that sense.
    leak_rouge_l=0.72,
)
