"""Strategy `paraphrase`: each error in other words (Abaskohi et al. 2023, LM-CPPF). Answer, choices and rationale stay.

In a numeric task the numbers must stay as well; a paraphrase with others is dropped as `changed_numbers`.
"""

from collections import Counter
from functools import partial

from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.shared.tasks import FORMS
from llm2llm.components.shared.tasks.numbers import read_numbers
from llm2llm.components.teacher_augment.context import Context, Rows, example_data, reply
from llm2llm.components.teacher_augment.parsing import questions_schema, read_questions
from llm2llm.components.teacher_augment.prompt_files import about, render
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.strategies.base import Strategy
from llm2llm.components.teacher_augment.until_usable import Query, query_until_usable


def write(context: Context) -> list[Reply]:
    """A reply for each part of each request."""
    prompt = context.prompt("paraphrase")
    keeps_numbers = FORMS[context.task.form].masks_numbers

    def question(part: Request) -> Query[Rows]:
        teacher = context.teacher_for(part.parent.id, part.number)
        data = example_data(part.parent)
        messages = render(prompt, task=about(context.task), count=part.count, example=data)
        request = teacher.request(messages, questions_schema(part.count), "write", part.parent.id)
        return Query(teacher, request, partial(_read, part=part, keeps_numbers=keeps_numbers))

    parts = context.parts()
    told = query_until_usable(context.call_log, [question(part) for part in parts])
    return [reply(part, one) for part, one in zip(parts, told, strict=True)]


def _read(answer: LLMResponse, part: Request, keeps_numbers: bool) -> Rows:
    questions, problems = read_questions(answer, part.count)
    parent = part.parent
    drafts = []
    for question in questions:
        if keeps_numbers and Counter(read_numbers(question)) != Counter(read_numbers(parent.question)):
            problems.append(Problem("changed_numbers", "the paraphrase has other numbers than the question", question))
        else:
            drafts.append(Draft(question, parent.answer, parent.choices, parent.rationale))
    return drafts, problems


STRATEGY = Strategy(about="each error in other words", write=write)
