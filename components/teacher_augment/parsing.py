"""Parses what a language model wrote; nothing in it is trusted."""

import json
import re
from collections.abc import Sequence
from typing import Any

from llm2llm.components.shared import tasks
from llm2llm.components.shared.data.schemas import Reason
from llm2llm.components.shared.llm.json_answers import read_object
from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.shared.tasks import Task
from llm2llm.components.teacher_augment.replies import Draft, Problem
from llm2llm.components.teacher_augment.until_usable import RAW_LIMIT, Unusable

_REFUSAL = re.compile(
    r"\W*(?:i(?:['’]m| am) (?:sorry|afraid|unable|not able)|sorry\b|as an ai\b|i apologi[sz]e"
    r"|i (?:can(?:['’]t|not)|won['’]t|will not|must decline)\b)",
    re.IGNORECASE,
)


def object_in(response: LLMResponse, *keys: str) -> dict[str, Any]:
    """The first JSON object of an answer that has all of the keys, read as `json_answers` does: thoughts are passed
    over, and what is nearly JSON is repaired where it then fits the schema.

    Raises:
        Unusable: `truncated`, `empty`, `refused` or `unparseable`.
    """
    found = read_object(response.answer, keys, response.request.schema, complete=not response.truncated)
    if found is None:
        raise no_object(response)
    return found.value


def no_object(response: LLMResponse) -> Unusable:
    """Why an answer is not the object that was asked for."""
    text = response.answer
    if response.truncated:
        return Unusable("truncated", "the answer hit max_tokens")
    if not text.strip():
        thoughts = "the model wrote thoughts and no answer" if response.text.strip() else ""
        return Unusable("empty", response.detail or thoughts or "the answer is empty")
    if _REFUSAL.match(text):
        return Unusable("refused", text[:RAW_LIMIT])
    return Unusable("unparseable", "the answer is not the JSON object that was asked for")


def read_drafts(response: LLMResponse, task: Task, count: int) -> tuple[list[Draft], list[Problem]]:
    """The examples of an answer of the form `tasks.teacher_schema`: drafts and problems, `count` of them together.

    Raises:
        Unusable: Not one of them is an example of the task.
    """
    items = object_in(response, "examples")["examples"]
    if not isinstance(items, list):
        raise no_object(response)
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for item in items[:count]:
        read = _example(item, task)
        if isinstance(read, Draft):
            drafts.append(read)
        else:
            problems.append(read)
    if not drafts:
        raise Unusable(problems[0].reason, problems[0].detail) if problems else Unusable("empty", "no example came")
    missing = [Problem("missing", f"{len(items)} of {count} examples came")] * (count - len(drafts) - len(problems))
    return drafts, problems + missing


def _example(item: Any, task: Task) -> Draft | Problem:
    def problem(reason: Reason, detail: str) -> Problem:
        return Problem(reason, detail, json.dumps(item)[:RAW_LIMIT])

    if not isinstance(item, dict):
        return problem("unparseable", "an example is not an object")
    question, answer = item.get("question"), tasks.answer_text(task, item.get("answer"))
    choices, rationale = item.get("choices") or [], item.get("rationale")
    if not isinstance(question, str) or answer is None:
        return problem("unparseable", "an example lacks its question or answer")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        return problem("unparseable", "an example's choices are no list of texts")
    draft = Draft(question, answer, choices, rationale if isinstance(rationale, str) else None)
    try:
        tasks.normalise(task, draft.answer, [choice.strip() for choice in draft.choices], draft.rationale)
    except ValueError as wrong:
        return problem("invalid", str(wrong))
    return draft


def read_questions(response: LLMResponse, count: int) -> tuple[list[str], list[Problem]]:
    """Like `read_drafts`, for an answer of the form `questions_schema`.

    Raises:
        Unusable: Not one of them is a question.
    """
    items = object_in(response, "examples")["examples"]
    if not isinstance(items, list):
        raise no_object(response)
    texts = [item.get("question") if isinstance(item, dict) else None for item in items[:count]]
    questions = [text for text in texts if isinstance(text, str) and text.strip()]
    if not questions:
        raise Unusable("unparseable", "no example has a question")
    problems = [Problem("unparseable", "an example lacks its question")] * (len(texts) - len(questions))
    return questions, problems + [Problem("missing", f"{len(items)} of {count} examples came")] * (count - len(texts))


def questions_schema(count: int) -> dict[str, Any]:
    """The JSON schema of an answer that holds questions only."""
    return objects_schema("examples", {"question": {"type": "string"}}, count, count)


def objects_schema(name: str, properties: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    """The JSON schema of `{name: [{...}, ...]}`."""
    items = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": items, "minItems": least, "maxItems": most}},
        "required": [name],
        "additionalProperties": False,
    }


def read_solution(response: LLMResponse, task: Task, choices: Sequence[str]) -> tuple[str, str | None]:
    """(answer, rationale) of an answer of the form `tasks.answer_schema`, in the form's own terms.

    Raises:
        Unusable: It gives no answer that the task knows.
    """
    found = object_in(response, "answer")
    value, rationale = tasks.answer_text(task, found["answer"]), found.get("rationale")
    if value is None:
        raise Unusable("unparseable", f"the answer is of another type than those of form {task.form!r}")
    try:
        return tasks.normalise(task, value, list(choices), rationale if isinstance(rationale, str) else None)
    except ValueError as problem:
        raise Unusable("invalid", str(problem)) from None
