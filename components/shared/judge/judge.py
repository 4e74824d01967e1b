"""Asks a language model for verdicts on open answers.

    completion -> [the same text: correct, empty: unparseable] or a judge -> verdict -> grade

Only what no rule can grade is asked, and the same answer to the same question once. A verdict that did not come is
never taken for a wrong answer: more of them than the settings allow end the stage.

A completion may hold anything, also words to the judge. So it is shown as data: as JSON between marks that it cannot
close, without what a chat template would read as a control token. And of what the judge writes only a verdict that
stands alone is taken: one among other words may be a quotation.
"""

import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, get_args

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.shared.data.schemas import Example, Outcome
from llm2llm.components.shared.judge.settings import JudgeSettings, check_judge
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.json_answers import only_object
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, Message
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.tasks.measured import metric_of

JudgeVerdict = Literal["correct", "wrong"]
BEST = 10
"""The best score that a judge is asked for; 0 is the worst."""
_VERDICT: dict[str, Any] = {"verdict": {"type": "string", "enum": list(get_args(JudgeVerdict))}}
_SCORE: dict[str, Any] = {"score": {"type": "integer", "enum": list(range(BEST + 1))}}

SHOWN = 300
"""Characters of an unreadable verdict that an error message shows."""

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


class NotJudged(RuntimeError):
    """More verdicts did not come than `max_failed_fraction` allows."""


def judge_answers(
    task: Task, asked: Sequence[tuple[Example, str]], settings: JudgeSettings
) -> tuple[list[tuple[str | None, Outcome]], list[list[LLMResponse]]]:
    """Grades completions: by rule where a rule can, else by a judge (reference-guided, as in Zheng et al., "Judging
    LLM-as-a-judge with MT-Bench and Chatbot Arena", NeurIPS 2023, section 3.4). With `task.metric: judge_score` the
    judge gives a score, and an answer is right from `right_from` on; see `scores_of`.

    Args:
        task: With `match: judge` and a rubric.
        asked: Examples, and what a student wrote.
        settings: Who judges.

    Returns:
        ((parsed, outcome) as of `tasks.grade`, in order; what the judge answered about each, nothing where a rule
        graded). Where a missing verdict is allowed, the answer it was asked for is (None, "unparseable").

    Raises:
        UserError: The task needs no judge, the model cannot be asked at all, or the budget is too small.
        NotJudged: Too many verdicts did not come.
    """
    _check_task(task, settings)
    grades = [tasks.grade(task, completion, example.answer, example.also_right) for example, completion in asked]
    unsure = [i for i, (_, outcome) in enumerate(grades) if outcome == "wrong"]
    prompt, form = ("score", _SCORE) if _is_scored(task) else ("judge", _VERDICT)
    requests = [_request(prompt, form, task, settings, asked[i][0], answer=grades[i][0]) for i in unsure]
    told: list[list[LLMResponse]] = [[] for _ in asked]
    for i, (verdict, answers) in zip(unsure, _verdicts(requests, settings), strict=True):
        told[i] = answers
        if verdict is None:
            grades[i] = None, "unparseable"
        elif verdict == "correct" if isinstance(verdict, str) else verdict >= settings.right_from * BEST - 1e-9:
            grades[i] = grades[i][0], "correct"
    return grades, told


def scores_of(
    task: Task, grades: Sequence[tuple[str | None, Outcome]], told: Sequence[Sequence[LLMResponse]]
) -> list[float | None]:
    """The score of each answer in [0, 1], out of what `judge_answers` returns: the judge's, or by rule 1 for the right
    answer's own text and 0 for what cannot be read; None for a task whose metric is another."""
    if not _is_scored(task):
        return [None] * len(grades)
    scores: list[float | None] = []
    for (_, outcome), answers in zip(grades, told, strict=True):
        read = _read(answers[-1]) if answers else None
        scores.append(read / BEST if isinstance(read, int) else float(outcome == "correct"))
    return scores


def _is_scored(task: Task) -> bool:
    metric = metric_of(task)
    return metric is not None and metric.by_judge


def _check_task(task: Task, settings: JudgeSettings) -> None:
    try:
        check_judge(task, settings)
    except ValueError as problem:
        raise UserError(f"evaluate.{problem}") from None


def _request(
    prompt: str, form: dict[str, Any], task: Task, settings: JudgeSettings, example: Example, **answers: str | None
) -> LLMRequest:
    # The reason comes first: a verdict that is written before it is a guess that the reason then defends.
    properties = {"reason": {"type": "string"}, **form}
    return LLMRequest(
        messages=_messages(prompt, task, question=example.question, reference=example.answer, **answers),
        schema={
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        },
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        top_p=settings.top_p,
        purpose="judge",
        parent_id=example.id,
    )


def _messages(prompt: str, task: Task, **data: str | None) -> list[Message]:
    """The messages of `prompts/<prompt>.md`. The task's own words go in as they are, data as JSON in which no `<`
    stands, so that it cannot close the marks around it."""
    about = task.description or task.instruction or f"The task is called {task.name}."
    shown = {"task": about, "rubric": task.rubric.strip()}
    for name, value in data.items():
        shown[name] = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    return [
        {"role": role, "content": _PLACEHOLDER.sub(lambda found: shown[found[1]], text)}
        for role, text in zip(("system", "user"), _prompt(prompt), strict=True)
    ]


@lru_cache
def _prompt(name: str) -> tuple[str, str]:
    """The parts `# system` and `# user` of a prompt file."""
    text = (resources.files("llm2llm.components.shared.judge") / "prompts" / f"{name}.md").read_text("utf-8")
    system, user = text.split("\n# system\n", 1)[1].split("\n# user\n", 1)
    return system.strip(), user.strip()


def _verdicts(
    requests: Sequence[LLMRequest], settings: JudgeSettings
) -> list[tuple[str | int | None, list[LLMResponse]]]:
    """(verdict or score, None where none came; all that the judge answered) of each request, in order.

    Raises:
        UserError, NotJudged: See `judge_answers`.
    """
    if not requests:
        return []
    tracker = SpendTracker(
        run=os.environ.get(RUN_VARIABLE) or uuid.uuid4().hex,
        ledger=settings.ledger or None,
        budget=settings.budget,
        prices=settings.prices,
    )
    verdicts: list[str | int | None] = [None] * len(requests)
    told: list[list[LLMResponse]] = [[] for _ in requests]
    problems: dict[int, tuple[str, str]] = {}
    pending = list(range(len(requests)))
    with open_teacher(settings, settings.teacher, tracker) as judge:
        for attempt in range(settings.attempts):
            answers = judge([replace(requests[i], attempt=attempt) for i in pending])
            again = []
            for i, answer in zip(pending, answers, strict=True):
                told[i].append(answer)
                verdicts[i] = _read(answer)
                if verdicts[i] is not None:
                    problems.pop(i, None)
                    continue
                # That a verdict could not be read says more than that there was no money to ask once more.
                if answer.outcome != "over_budget" or i not in problems:
                    problems[i] = _problem(answer)
                if answer.outcome == "answered":
                    again.append(i)
            pending = again
            if not pending:
                break
    paid = tracker.paid
    line = f"judge: {len(requests):,} verdicts asked for, {len(problems):,} did not come; paid now: "
    print(
        f"{line}{paid.calls:,} requests, {paid.tokens:,} tokens" + (f", ${paid.usd:,.4f}" if settings.prices else ""),
        flush=True,
    )
    _check_problems(problems, len(requests), settings)
    return list(zip(verdicts, told, strict=True))


def _read(answer: LLMResponse) -> str | int | None:
    """The verdict or score of an answer that is one; None for anything else."""
    assert answer.request.schema is not None, "a verdict has a form"
    if answer.outcome != "answered" or answer.refusal:
        return None
    found = only_object(answer.answer, answer.request.schema)
    if found is None:
        return None
    verdict: str | int = found["verdict"] if "verdict" in found else found["score"]
    return verdict


def _problem(answer: LLMResponse) -> tuple[str, str]:
    """(what is wrong in a word or two, in detail) with an answer that holds no verdict."""
    if answer.outcome == "over_budget":
        return "over budget", "the budget was used up before it could be asked"
    if answer.outcome == "failed":
        return "failed", answer.detail
    if answer.refusal:
        return "refused", answer.refusal[:SHOWN]
    if answer.truncated:
        return "truncated", "the verdict hit max_tokens"
    return "unreadable", f"the answer is no verdict: {(answer.answer or answer.detail or answer.text)[:SHOWN]!r}"


def _check_problems(problems: dict[int, tuple[str, str]], asked: int, settings: JudgeSettings) -> None:
    if len(problems) <= settings.max_failed_fraction * asked:
        return
    counts = Counter(word for word, _ in problems.values())
    kept = (
        "what was paid for is in the ledger"
        if settings.ledger
        else "set evaluate.judge.ledger to keep what is paid for"
    )
    if counts["over budget"]:
        raise UserError(
            f"evaluate.judge.budget: used up with {counts['over budget']:,} of {asked:,} verdicts not asked for; raise "
            f"it; {kept}"
        )
    what = ", ".join(f"{count:,} {word}" for word, count in sorted(counts.items()))
    raise NotJudged(
        f"judge: {len(problems):,} of {asked:,} verdicts did not come ({what}; for example: "
        f"{problems[min(problems)][1]}), more than evaluate.judge.max_failed_fraction {settings.max_failed_fraction}; "
        f"{kept}"
    )
