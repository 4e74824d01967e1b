"""What a strategy is given."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.data.schemas import Example, StudentError
from llm2llm.components.shared.tasks import Task
from llm2llm.components.teacher_augment.prompt_files import Prompt, load_prompt, shown
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.requests import in_parts
from llm2llm.components.teacher_augment.until_usable import CallLog, OpenTeacher, QueryResult

if TYPE_CHECKING:  # the settings look strategies up, which are given this
    from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings

Rows = tuple[list[Draft], list[Problem]]
"""What an answer holds: drafts and problems, as many together as were asked for."""


@dataclass(frozen=True)
class Context:
    """One iteration's work for the `write(context) -> list[Reply]` of a strategy or an offline teacher."""

    requests: Sequence[Request]
    """Which rows to write from, and how many from each."""
    errors: Sequence[StudentError]
    seeds: Sequence[Example]
    task: Task
    settings: "TeacherAugmentSettings"
    iteration: int
    random_seed: int
    teachers: Sequence[OpenTeacher]
    """Who may be asked; for `star` and `self` the student."""
    call_log: CallLog
    training_set: Sequence[Example] = ()
    """All rows so far: what is not to be written again. So are the next two for offline teachers alone."""
    pool: Sequence[Example] = ()
    """Labelled rows to draw from."""
    used: Set[str] = frozenset()
    """Ids of rows that were generated and rejected before."""

    def prompt(self, name: str) -> Prompt:
        """The shipped prompt of that name, or the user's own.

        Raises:
            UserError: The user's own is none.
        """
        return load_prompt(name, self.settings.prompts)

    def teacher_for(self, *what: object) -> OpenTeacher:
        """Who is asked for something: one of several teachers, by their weights. The same is always asked of the same
        one, whatever else is asked, so that a run with other errors finds it in the ledger."""
        digest = hashlib.sha256(":".join(map(str, (self.random_seed, self.iteration, *what))).encode()).digest()
        place = int.from_bytes(digest[:8]) / 2**64 * sum(teacher.weight for teacher in self.teachers)
        for teacher in self.teachers[:-1]:
            place -= teacher.weight
            if place < 0:
                return teacher
        return self.teachers[-1]

    def parts(self) -> list[Request]:
        """The requests, none for more rows than one call may ask for."""
        return [part for request in self.requests for part in in_parts(request, self.settings.rows_per_call)]

    def single_rows(self) -> list[Request]:
        """The requests, each for one row."""
        return [part for request in self.requests for part in in_parts(request, 1)]


def example_data(row: Example, error: StudentError | None = None) -> Mapping[str, Any]:
    """The value of the placeholder `example`: a row with its answer and, where there is one, the student's."""
    data = shown(row.question, row.choices, row.tools)
    if row.rationale:
        data["rationale"] = row.rationale
    data["right_answer"] = row.answer
    if error is not None and error.outcome != "correct":
        data["model_answered"] = error.completion
    return data


def reply(part: Request, told: QueryResult[Rows]) -> Reply:
    """What came of a part of a request, for the stage."""
    if told.problem is not None:
        return Reply(part, told.call, [], [told.problem] * part.count, told.teacher.name)
    assert told.value is not None, "a value or a problem"
    drafts, problems = told.value
    return Reply(part, told.call, drafts, problems, told.teacher.name)
