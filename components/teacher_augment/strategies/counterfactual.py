"""Strategy `counterfactual`: each error, changed as little as makes another answer right (Kaushik et al. 2020).

The pair shows the student what the answer hangs on. In a classification the new label is the one that the student took
the error for, where it took it for one: that is the border it does not see.
"""

import random
from functools import partial

from llm2llm.components.shared import tasks
from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.teacher_augment.context import Context, Rows, example_data, reply
from llm2llm.components.teacher_augment.parsing import read_drafts
from llm2llm.components.teacher_augment.prompt_files import about, render
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.strategies.base import Strategy
from llm2llm.components.teacher_augment.until_usable import Query, query_until_usable


def write(context: Context) -> list[Reply]:
    """A reply for each part of each request; a version whose answer has not changed is dropped as `same_answer`."""
    prompt = context.prompt("counterfactual")

    def question(part: Request) -> Query[Rows]:
        teacher = context.teacher_for(part.parent.id, part.number)
        wanted = _new_label(part, context.task, f"{context.random_seed}:{part.parent.id}:{part.number}")
        messages = render(
            prompt, task=about(context.task), count=part.count, example=example_data(part.parent), new_answer=wanted
        )
        request = teacher.request(messages, tasks.teacher_schema(context.task, part.count), "write", part.parent.id)
        return Query(teacher, request, partial(_read, part=part, task=context.task))

    parts = context.parts()
    told = query_until_usable(context.call_log, [question(part) for part in parts])
    return [reply(part, one) for part, one in zip(parts, told, strict=True)]


def _new_label(part: Request, task: Task, seed: str) -> str | None:
    """The label that the new version should have; None where the task has no labels."""
    if not FORMS[task.form].has_labels:
        return None
    others = [label for label in task.labels if label != part.parent.answer]
    if part.error is not None and part.error.parsed in others:
        return part.error.parsed
    return random.Random(seed).choice(others)


def _read(answer: LLMResponse, part: Request, task: Task) -> Rows:
    """Any other answer will do, even where a certain one was asked for: the row is right all the same."""
    drafts, problems = read_drafts(answer, task, part.count)
    changed = [draft for draft in drafts if not _same(draft, part, task)]
    same = [
        Problem("same_answer", "the answer has not changed", draft.question) for draft in drafts if draft not in changed
    ]
    return changed, problems + same


def _same(draft: Draft, part: Request, task: Task) -> bool:
    answer, _ = tasks.normalise(task, draft.answer, [choice.strip() for choice in draft.choices], draft.rationale)
    if FORMS[task.form].has_choices:  # a letter says nothing when the choices have changed places
        right = ord(answer) - ord("A"), ord(part.parent.answer) - ord("A")
        return draft.choices[right[0]].strip() == part.parent.choices[right[1]]
    return tasks.matches(task, answer, part.parent.answer)


def _unfit(task: Task) -> str:
    if not FORMS[task.form].has_free_text:
        return ""
    return f"changes which of the known answers is right, and form {task.form!r} has no such; choose another strategy"


STRATEGY = Strategy(about="each error changed so that its answer changes", write=write, unfit=_unfit)
