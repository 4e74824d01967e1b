r"""Rationales of tasks whose answer is a label or a letter: before the answer, or as a second task.

before        "It asks for money back.\n#### refund" is what the student writes; what stands after the mark is read
second_task   "refund" is what it writes; a twin of the row asks for the rationale in place of the answer. It is trained
              beside the row, and never asked when it counts (Hsieh et al. 2023, Distilling Step-by-Step)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm2llm.components.shared.tasks.task import Task

MARK = "####"


def check_rationale_as(task: "Task") -> None:
    """Refuses a place for rationales that there are not.

    Raises:
        ValueError: Names the key and the fix.
    """
    if task.rationale_as != "before" and not task.rationale:
        raise ValueError(f"rationale_as: {task.rationale_as!r} says how rationales are trained; set rationale: true")


def comes_before(task: "Task") -> bool:
    """Whether the student writes a rationale before its answer."""
    return task.rationale and task.rationale_as == "before"


def with_rationale(task: "Task", answer: str, rationale: str | None) -> str:
    """What the student writes."""
    if not comes_before(task):
        return answer
    return f"{rationale}\n{MARK} {answer}" if rationale else f"{MARK} {answer}"


def after_rationale(task: "Task", completion: str) -> str:
    """The part of a completion that is read for the answer: what stands after the first mark, where one is due."""
    _, mark, rest = completion.partition(MARK) if comes_before(task) else ("", "", "")
    return rest if mark else completion


def rationale_in(task: "Task", completion: str) -> str | None:
    """What stands before the mark; None when there is nothing, or no rationale is due."""
    return completion.split(MARK, 1)[0].strip() or None if comes_before(task) else None


def kept(task: "Task", rationale: str | None) -> str | None:
    """A row's rationale, where the task has a use for it.

    Raises:
        ValueError: It holds the mark after which the answer is read.
    """
    if not task.rationale or not (rationale or "").strip():
        return None
    if MARK in str(rationale):
        raise ValueError(f"the rationale holds {MARK}, after which the answer is read; take it out")
    return str(rationale).strip()


def asked_of_teacher(task: "Task") -> dict[str, Any]:
    """What the teacher returns before the answer."""
    described = "in one to three sentences, why the answer is right, ending before the answer itself"
    return {"rationale": {"type": "string", "description": described}} if task.rationale else {}
