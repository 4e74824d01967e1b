"""Strategy `cot`: several distinct rationales of the teacher for each error (Ho et al. 2023, Fine-tune-CoT).

The teacher solves the question without having seen the answer, at a temperature, as often as rows are wanted; a
rationale that reaches the right answer becomes a row with the error's question and answer.
"""

from functools import partial

from llm2llm.components.shared import tasks
from llm2llm.components.shared.llm.requests import Answer
from llm2llm.components.shared.tasks import Task
from llm2llm.components.teacher_augment.context import Context, Rows, reply
from llm2llm.components.teacher_augment.parsing import read_solution
from llm2llm.components.teacher_augment.prompt_files import about, render, shown
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.strategies.base import Strategy, needs_rationales
from llm2llm.components.teacher_augment.until_usable import Question, Unusable, ask_until


def write(context: Context) -> list[Reply]:
    """A reply for each row that is wanted; a rationale to another answer is dropped as `wrong_answer`."""
    prompt = context.prompt("solve")

    def question(part: Request) -> Question[Rows]:
        teacher = context.teacher_for(part.parent.id, part.number)
        parent = part.parent
        messages = render(prompt, task=about(context.task), question=shown(parent.question, parent.choices))
        ask = teacher.says(messages, tasks.answer_schema(context.task), "rationale", parent.id)
        return Question(teacher, ask, partial(_read, part=part, task=context.task))

    parts = context.single_rows()
    told = ask_until(context.asking, [question(part) for part in parts])
    return [reply(part, one) for part, one in zip(parts, told, strict=True)]


def _read(answer: Answer, part: Request, task: Task) -> Rows:
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
