"""Strategy `llm2llm`: examples similar to each error (Lee et al. 2024), and `random`, the same from any seed.

Unlike the reference implementation, the teacher is shown what the student answered: the same question needs other
practice when it was misread than when it was miscounted.
"""

from functools import partial

from llm2llm.components.shared import tasks
from llm2llm.components.teacher_augment.context import Context, Rows, example_data, reply
from llm2llm.components.teacher_augment.parsing import read_drafts
from llm2llm.components.teacher_augment.prompt_files import about, render
from llm2llm.components.teacher_augment.replies import Reply, Request
from llm2llm.components.teacher_augment.strategies.base import Strategy
from llm2llm.components.teacher_augment.until_usable import Query, query_until_usable


def write(context: Context) -> list[Reply]:
    """A reply for each part of each request."""
    prompt = context.prompt("llm2llm")

    def question(part: Request) -> Query[Rows]:
        teacher = context.teacher_for(part.parent.id, part.number)
        data = example_data(part.parent, part.error)
        messages = render(prompt, task=about(context.task), count=part.count, example=data)
        schema = tasks.teacher_schema(context.task, part.count)
        request = teacher.request(messages, schema, "write", part.parent.id)
        return Query(teacher, request, partial(read_drafts, task=context.task, count=part.count))

    parts = context.parts()
    told = query_until_usable(context.call_log, [question(part) for part in parts])
    return [reply(part, one) for part, one in zip(parts, told, strict=True)]


STRATEGY = Strategy(about="rows similar to each error, as in the paper", write=write, fits_offline=True)
RANDOM = Strategy(
    about="the same from seeds drawn at random, the control", write=write, fits_offline=True, draws_parents=True
)
