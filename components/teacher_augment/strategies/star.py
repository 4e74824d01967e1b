"""Strategy `star`: the student's own rationales (Zelikman et al. 2022, STaR).

The student is asked as it is asked in training and evaluation, at a temperature. A rationale that reaches the answer,
by the task's grader, is kept. Where it does not, the student is asked once more with the answer as a hint
(rationalization), and the row is written as if it had not been given one.
"""

import re

from llm2llm.components.shared import tasks
from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.shared.tasks import Task
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.prompt_files import render
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.strategies.base import Strategy, needs_rationales
from llm2llm.components.teacher_augment.until_usable import RAW_LIMIT, Query, QueryResult, query_until_usable

_OF_A_HINT = re.compile(
    r"\bhint(?:s|ed)?\b|\b(?:was|were|is|am) (?:given|told) (?:the|that the) (?:right |correct )?answer", re.I
)


def write(context: Context) -> list[Reply]:
    """A reply for each row that is wanted; where neither rationale reaches the answer it is a `wrong_answer`."""
    hint = context.prompt("star_hint")

    def question(part: Request, hinted: bool) -> Query[Draft | Problem]:
        parent = part.parent
        asked = parent.question
        if hinted:
            asked += "\n" + render(hint, answer=parent.answer)[-1]["content"]
        student = context.teacher_for(parent.id, part.number)
        text = tasks.prompt(context.task, asked, parent.choices, parent.tools)
        request = student.request([{"role": "user", "content": text}], None, "rationale", parent.id)
        return Query(student, request, lambda answer: _read(answer, part, context.task))

    # A rationale that fails is tried again with the hint instead of being asked for once more.
    parts = context.single_rows()
    told = query_until_usable(context.call_log, [question(part, False) for part in parts], attempts=1)
    failed = [i for i, one in enumerate(told) if isinstance(one.value, Problem)]
    hinted = query_until_usable(context.call_log, [question(parts[i], True) for i in failed], attempts=1)
    for i, one in zip(failed, hinted, strict=True):
        told[i] = one
    return [_reply(part, one) for part, one in zip(parts, told, strict=True)]


def _read(answer: LLMResponse, part: Request, task: Task) -> Draft | Problem:
    parent = part.parent
    raw = answer.answer[:RAW_LIMIT]
    parsed = tasks.parse(task, answer.answer)
    rationale = tasks.rationale_in(task, answer.answer)
    if answer.truncated or parsed is None or rationale is None:
        return Problem("wrong_answer", "the student's rationale ends without an answer", raw)
    if not tasks.matches(task, parsed, parent.answer):
        return Problem("wrong_answer", f"the rationale reaches {parsed}, and the answer is {parent.answer}", raw)
    if _OF_A_HINT.search(rationale) and not _OF_A_HINT.search(parent.question):
        return Problem("wrong_answer", "the rationale speaks of the hint", raw)
    return Draft(parent.question, parent.answer, parent.choices, rationale, checks=["reaches the answer"])


def _reply(part: Request, told: QueryResult[Draft | Problem]) -> Reply:
    came = told.problem or told.value
    drafts = [came] if isinstance(came, Draft) else []
    problems = [came] if isinstance(came, Problem) else []
    return Reply(part, told.call, drafts, problems, told.teacher.name)


def _unfit(task: Task) -> str:
    if tasks.is_second_task(task):
        return "takes the rationale that the student writes before its answer; set task.rationale_as: before"
    return needs_rationales(task)


STRATEGY = Strategy(
    about="the student's own rationales", write=write, asks="student", keeps_question=True, unfit=_unfit
)
