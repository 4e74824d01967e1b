"""Strategy `self`: the student is the teacher (Zhao et al. 2024, SELF-GUIDE).

First the student writes a question, shown an error and a few other seeds; then it answers it, greedily and as it is
asked in evaluation. Two filters stand in between, as in the paper: noise (apologies, talk about itself, repetition) and
length, two standard deviations around the mean of the seeds, and half the mean at least. For a student that follows
instructions: one from random weights writes nothing of use.
"""

import random
import re
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llm2llm.components.shared import tasks
from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.parsing import object_in
from llm2llm.components.teacher_augment.prompt_files import about, render, shown
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.strategies.base import Strategy
from llm2llm.components.teacher_augment.until_usable import RAW_LIMIT, Query, QueryResult, Unusable, query_until_usable

SHOWN = 4
"""How many examples the student is shown, the error first."""
DEVIATIONS = 2.0

_NOISE = re.compile(
    r"\b(?:sorry|apologi[sz]e|as an? (?:ai|language model)|i cannot|i can['’]t|my training data)\b", re.I
)

Asked = tuple[str, list[str]]
"""A question and its choices."""


def write(context: Context) -> list[Reply]:
    """A reply for each row that is wanted."""
    parts = context.single_rows()
    usual = _usual_length([len(seed.question) for seed in context.seeds])
    told = query_until_usable(context.call_log, [_input(context, part, usual) for part in parts])
    written = [i for i, one in enumerate(told) if one.value is not None and not isinstance(one.value, Problem)]
    answered = query_until_usable(context.call_log, [_output(context, parts[i], told[i]) for i in written], attempts=1)
    outputs = dict(zip(written, answered, strict=True))
    return [_reply(part, one, outputs.get(i)) for i, (part, one) in enumerate(zip(parts, told, strict=True))]


def _input(context: Context, part: Request, usual: tuple[float, float]) -> Query[Asked | Problem]:
    others = [seed for seed in context.seeds if seed.id != part.parent.id]
    rng = random.Random(f"{context.random_seed}:{part.parent.id}:{part.number}")
    examples = [part.parent, *rng.sample(others, min(SHOWN - 1, len(others)))]
    student = context.teacher_for(part.parent.id, part.number)
    messages = render(
        context.prompt("self_question"),
        task=about(context.task),
        examples=[shown(seed.question, seed.choices, seed.tools) for seed in examples],
    )
    request = student.request(messages, _schema(context.task), "write", part.parent.id)
    return Query(student, request, partial(_read_input, task=context.task, usual=usual))


def _schema(task: Task) -> dict[str, Any]:
    properties: dict[str, Any] = {"question": {"type": "string"}}
    if FORMS[task.form].has_choices:
        properties["choices"] = tasks.teacher_schema(task, 1)["properties"]["examples"]["items"]["properties"][
            "choices"
        ]
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _read_input(answer: LLMResponse, task: Task, usual: tuple[float, float]) -> Asked | Problem:
    found = object_in(answer, *_schema(task)["required"])
    question, choices = found["question"], found.get("choices", [])
    if not isinstance(question, str) or not question.strip():
        raise Unusable("unparseable", "there is no question")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise Unusable("unparseable", "the choices are no list of texts")
    if _NOISE.search(question):
        return Problem("noise", "the question is talk about the writer", question[:RAW_LIMIT])
    if _repeats(question):
        return Problem("noise", "the question repeats itself", question[:RAW_LIMIT])
    if not usual[0] <= len(question) <= usual[1]:
        detail = f"{len(question):,} characters; usual are {usual[0]:,.0f} to {usual[1]:,.0f}"
        return Problem("unusual_length", detail, question[:RAW_LIMIT])
    return question, choices if FORMS[task.form].has_choices else []


def _repeats(text: str) -> bool:
    """Whether most of a text is the same few words again: what small models fall into."""
    words = text.split()
    return len(words) >= 20 and len({tuple(words[i : i + 3]) for i in range(len(words) - 2)}) < 0.5 * (len(words) - 2)


def _usual_length(lengths: Sequence[int]) -> tuple[float, float]:
    mean = statistics.fmean(lengths)
    spread = max(DEVIATIONS * statistics.pstdev(lengths), mean / 2)
    return mean - spread, mean + spread


def _output(context: Context, part: Request, told: QueryResult[Asked | Problem]) -> Query[Draft | Problem]:
    assert told.value is not None, "only what was written is answered"
    assert not isinstance(told.value, Problem), "only what passed the filters is answered"
    question, choices = told.value
    text = tasks.prompt(context.task, question, choices, part.parent.tools)
    request = told.teacher.request(
        [{"role": "user", "content": text}], None, "rationale", part.parent.id, temperature=0.0
    )
    read: Callable[[LLMResponse], Draft | Problem] = partial(
        _read_output, task=context.task, question=question, choices=choices
    )
    return Query(told.teacher, request, read, fresh=False)


def _read_output(answer: LLMResponse, task: Task, question: str, choices: list[str]) -> Draft | Problem:
    parsed = None if answer.truncated else tasks.parse(task, answer.answer)
    if parsed is None:
        return Problem("no_answer", "the student gives no answer to its own question", question[:RAW_LIMIT])
    return Draft(question, parsed, choices, tasks.rationale_in(task, answer.answer))


def _reply(part: Request, asked: QueryResult[Asked | Problem], output: QueryResult[Draft | Problem] | None) -> Reply:
    came = asked.problem or asked.value if output is None else output.problem or output.value
    drafts = [came] if isinstance(came, Draft) else []
    problems = [came] if isinstance(came, Problem) else []
    return Reply(part, asked.call, drafts, problems, asked.teacher.name)


STRATEGY = Strategy(about="rows that the student writes itself", write=write, asks="student")
