"""What a teacher without a language model must say about itself: a file of this folder makes one `OfflineTeacher`, and
`OFFLINE` names it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm2llm.components.shared.tasks import Task
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.replies import Reply

if TYPE_CHECKING:  # the settings look the teacher up here
    from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings


def writes_for_every_task(task: Task) -> str:
    """Nothing speaks against it."""
    return ""


def nothing_to_check(settings: "TeacherAugmentSettings") -> None:
    """The teacher has no settings of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineTeacher:
    """A teacher's function, and what the stage and the config must know of it."""

    about: str
    """Who writes, in a few words: the help says "`NAME` (...)"."""
    write: Callable[[Context], list[Reply]]
    """Answers `context.requests`, in their order; the same context is answered with the same rows."""
    check: Callable[["TeacherAugmentSettings"], None] = nothing_to_check
    """(settings) -> raises ValueError: which key is missing, and the fix."""
    unfit: Callable[[Task], str] = writes_for_every_task
    """(task) -> what speaks against the teacher, as the rest of a sentence that its name begins; empty: nothing."""
    draws_from_pool: bool = False
    """Whether it takes rows from the labelled pool, and so needs one."""
