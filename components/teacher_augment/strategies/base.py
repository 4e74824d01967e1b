"""What a strategy must say about itself: a file of this folder makes one `Strategy`, and `STRATEGIES` names it.

    STRATEGY = Strategy(about="each error in other words", write=write)

The stage asks a strategy what it needs and never which one it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.tasks.forms import forms_with_field
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.replies import Reply


def fits_every_task(task: Task) -> str:
    """Nothing speaks against it."""
    return ""


def needs_rationales(task: Task) -> str:
    """What speaks against a strategy that writes rationales: a task whose students write none."""
    if task.rationale:
        return ""
    known = " or ".join(map(repr, forms_with_field("rationale")))
    return (
        f"writes rationales, and the students of task {task.name!r} are not trained on any; set task.rationale: true, "
        f"which form {known} knows, or choose another strategy"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A strategy's function, and what the stage must know of it."""

    about: str
    """What is asked for, in a few words: the help says "`NAME` ..."."""
    write: Callable[[Context], list[Reply]]
    """Has the requested rows written: for each request as many drafts and problems as it asks for rows, in one reply or
    in several."""
    asks: Literal["teacher", "student", "nobody"] = "teacher"
    """Which language model writes. `student` is the one of the iteration before; `nobody`: the rows are made without
    any, as a baseline."""
    fits_offline: bool = False
    """Whether a teacher without a language model can write for it as well: rows like the parent are all it wants."""
    draws_parents: bool = False
    """Whether rows are written from seeds drawn at random, as many as there are errors, instead of from the errors."""
    keeps_question: bool = False
    """Whether a row has its parent's question and right answer, and only its rationale is new: that one must not be the
    parent's, and nothing is left to verify."""
    unfit: Callable[[Task], str] = fits_every_task
    """(task) -> what speaks against the strategy, as the rest of a sentence that its name begins; empty: nothing."""
