"""Strategy `cot`: several distinct rationales of the teacher for each error (Ho et al. 2023, Fine-tune-CoT).

The teacher solves the question without having seen the answer, at a temperature, as often as rows are wanted; a
rationale that reaches the right answer becomes a row with the error's question and answer.
"""

from functools import partial

from llm2llm.components.shared import tasks
from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.shared.tasks import Task
from llm2llm.components.teacher_augment.context import Context, Rows, reply
from llm2llm.components.teacher_augment.parsing import read_solution
from llm2llm.components.teacher_augment.prompt_files import about, render, shown
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.strategies.base import Strategy, needs_rationales
from llm2llm.components.teacher_augment.until_usable import Query, Unusable, query_until_usable


def write(context: Context) -> list[Reply]:
    """A reply for each row that is wanted; a rationale to another answer is dropped as `wrong_answer`."""
    prompt = context.prompt("solve")

    def question(part: Request) -> Query[Rows]:
        teacher = context.teacher_for(part.parent.id, part.number)
        parent = part.parent
        asked = shown(parent.question, parent.choices, parent.tools)
        messages = render(prompt, task=about(context.task), question=asked)
        request = teacher.request(messages, tasks.answer_schema(context.task), "rationale", parent.id)
        return Query(teacher, request, partial(_read, part=part, task=context.task))

    parts = context.single_rows()
    told = query_until_usable(context.call_log, [question(part) for part in parts])
    return [reply(part, one) for part, one in zip(parts, told, strict=True)]


def _read(answer: LLMResponse, part: Request, task: Task) -> Rows:
    parent = part.parent
    given, rationale = read_solution(answer, task, parent.choices)
    if not rationale or not rationale.strip():
        raise Unusable("unparseable", "the solution has no rationale")
    if not tasks.matches(task, given, parent.answer):
        detail = f"the rationale reaches {given}, and the answer is {parent.answer}"
        return [], [Problem("wrong_answer", detail, rationale)]
    return [Draft(parent.question, parent.answer, parent.choices, rationale, checks=["reaches the answer"])], []


STRATEGY = Strategy(
    about="several rationales of the teacher for each error", write=write, keeps_question=True, unfit=needs_rationales
)
