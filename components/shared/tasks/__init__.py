"""Tasks: what the student is asked, how its answer is read and graded, what the teacher must return.

A task is data (`task.Task`). Its form, one of `forms.FORMS`, has the functions and says what its rows have. The
paper's five are constants: gsm8k, casehold, snips, trec, sst2.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Annotated, Any

from pydantic import BeforeValidator

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.thoughts import without_thoughts
from llm2llm.components.shared.data.schemas import Example, Outcome
from llm2llm.components.shared.tasks.forms import FORMS
from llm2llm.components.shared.tasks.forms.base import FieldCount, Form
from llm2llm.components.shared.tasks.forms.classification import same_label
from llm2llm.components.shared.tasks.shipped import casehold, gsm8k, snips, sst2, trec
from llm2llm.components.shared.tasks.task import Columns, Task

__all__ = ["FORMS", "SECOND_TASK", "TASKS", "AnyTask", "Columns", "FieldScore", "Form", "Task", "answer_schema",
           "answer_text", "answers_with_calls", "check_tools", "field_scores", "grade", "is_second_task",
           "load_task", "matches", "normalise", "parse", "prompt", "rationale_in", "rationale_prompt", "row_score",
           "target", "teacher_schema", "with_shots"]  # fmt: skip


SECOND_TASK = ":rationale"
"""What the id of a row's twin ends with, which asks for the rationale."""

TASKS: dict[str, Task] = {module.TASK.name: module.TASK for module in (gsm8k, casehold, snips, trec, sst2)}


def load_task(value: str | Mapping[str, Any]) -> Task:
    """A task from a config: a shipped task's name, or a mapping with the fields of `Task`.

    A mapping whose `name` is a shipped task and that has no `form` changes only the fields that it names.

    Raises:
        UserError: Unknown name, unknown key, contradiction.
    """
    values: dict[str, Any] = {"name": value} if isinstance(value, str) else dict(value)
    name = values.get("name")
    if "form" in values or not isinstance(name, str):
        return Task.load(values, "task")
    if name not in TASKS:
        hint = did_you_mean(name, TASKS)
        raise UserError(
            f"task: {name!r} is no shipped task ({', '.join(TASKS)}){hint}; for a task of your own set "
            f"task.form to one of {', '.join(FORMS)}"
        )
    shipped = TASKS[name].model_dump()
    if isinstance(columns := values.get("columns"), Mapping):
        values["columns"] = {**shipped["columns"], **columns}
    return Task.load({**shipped, **values}, "task")


def prompt(task: Task, question: str, choices: list[str], tools: Sequence[str] = ()) -> str:
    """What the student is shown, word for word the same in training and evaluation; it ends with the answer cue.

    Args:
        task: Gives instruction and cues.
        question, choices: Of the row.
        tools: Of the row, where its student has no template that shows them.
    """
    parts = [task.instruction] if task.instruction else []
    if words := FORMS[task.form].before_question(task):
        parts.append(words)
    parts += ["Tools:", *tools] if tools else []
    parts += [f"{task.question_cue}: {question}", *_options(choices), f"{task.answer_cue}:"]
    return "\n".join(parts)


def _options(choices: Sequence[str]) -> list[str]:
    return [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]


def with_shots(task: Task, shots: Sequence[Example], example: Example) -> Example:
    """The row with other rows and their right answers before its question: of its `prompt` comes a few-shot prompt,
    in which the instruction stands once. The id stays."""
    before = ""
    for shot in shots:
        lines = [shot.question, *_options(shot.choices)]
        lines.append(f"{task.answer_cue}: {target(task, shot.answer, shot.rationale)}")
        before += "\n".join(lines) + f"\n\n{task.question_cue}: "
    return replace(example, question=before + example.question)


def is_second_task(task: Task) -> bool:
    """Whether rationales are trained beside answers, and not before them."""
    return task.rationale and task.rationale_as == "second_task"


def rationale_prompt(task: Task, question: str, choices: list[str]) -> str:
    """What the student is shown where a rationale is the second task: as `prompt`, with another cue at the end."""
    return prompt(task, question, choices).removesuffix(f"{task.answer_cue}:") + "Rationale:"


def target(task: Task, answer: str, rationale: str | None) -> str:
    """The completion that the student is trained on."""
    return FORMS[task.form].target(task, answer, rationale)


def parse(task: Task, completion: str) -> str | None:
    """The answer read out of a completion, or None when there is none to read.

    Thoughts before the answer are set aside. Where a model goes on with the next question, as base models do, only what
    comes before that counts.
    """
    return FORMS[task.form].parse(task, _until_next_question(task, completion))


def rationale_in(task: Task, completion: str) -> str | None:
    """The rationale of a completion, without the mark and the answer after it; None when there is none."""
    return FORMS[task.form].rationale_in(task, _until_next_question(task, completion))


def _until_next_question(task: Task, completion: str) -> str:
    return without_thoughts(completion).strip().split(f"\n{task.question_cue}:", 1)[0]


def matches(task: Task, parsed: str, answer: str) -> bool:
    """Whether a parsed answer is the right one."""
    return FORMS[task.form].matches(task, parsed, answer)


def grade(task: Task, completion: str, answer: str, also_right: Sequence[str] = ()) -> tuple[str | None, Outcome]:
    """(parsed, outcome) of a completion; `unparseable` is not the same as `wrong`. Right is any of the right answers.

    Where the task's match is `judge`, `wrong` says no more than that it is not the right answer's own text: whether it
    is right all the same, `judge.judge_answers` finds out.
    """
    parsed = parse(task, completion)
    if parsed is None:
        return None, "unparseable"
    right = any(matches(task, parsed, one) for one in (answer, *also_right))
    return parsed, "correct" if right else "wrong"


def normalise(task: Task, answer: Any, choices: list[str], rationale: str | None) -> tuple[str, str | None]:
    """(answer, rationale) of a row that a user or a teacher brings, in the form's own terms.

    Raises:
        ValueError: What is wrong with the answer, in words for a person.
    """
    answer, rationale = FORMS[task.form].normalise(task, answer, choices, rationale)
    parsed, outcome = grade(task, target(task, answer, rationale), answer)
    if outcome != "correct":
        raise ValueError(f"a student that repeats this row word for word would be graded {outcome}: its answer "
                         f"{answer!r} would be read as {parsed!r}")  # fmt: skip
    return answer, rationale


def row_score(task: Task, parsed: str | None, answer: str, also_right: Sequence[str] = ()) -> float:
    """How far an answer is right, in [0, 1]: where answers have fields the F1 of its parts, 1 for a right one; else 0
    or 1. The best over the right answers."""
    counts = FORMS[task.form].field_counts
    best = 0.0
    for one in (answer, *also_right):
        if parsed is not None and matches(task, parsed, one):
            return 1.0
        if counts is not None:
            best = max(best, FieldScore.of("", "", counts(task, parsed, one).values()).f1 or 0.0)
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldScore:
    """How well one field of the answers is found, over several rows."""

    field: str
    """Empty: all fields together (micro average)."""
    kind: str
    """Which of the field's parts; empty: all of them."""
    right: int
    wrong: int
    missing: int
    precision: float | None
    """Of the parts that were given, the share that is right; None where none was given."""
    recall: float | None
    """Of the parts that should be there, the share that was given; None where there is none."""
    f1: float | None
    """Their harmonic mean; None where there are neither."""

    @classmethod
    def of(cls, field: str, kind: str, counts: Iterable[FieldCount]) -> "FieldScore":
        """The score of counts, summed."""
        counts = list(counts)
        right, wrong, missing = (sum(getattr(one, name) for one in counts) for name in ("right", "wrong", "missing"))
        return cls(
            field=field,
            kind=kind,
            right=right,
            wrong=wrong,
            missing=missing,
            precision=right / (right + wrong) if right + wrong else None,
            recall=right / (right + missing) if right + missing else None,
            f1=2 * right / (2 * right + wrong + missing) if right + wrong + missing else None,
        )


def field_scores(task: Task, answers: Iterable[tuple[str | None, str]]) -> list[FieldScore]:
    """Precision, recall and F1 of each field, and of each of its kinds where it has such; first of all together.

    Args:
        task: Empty for one whose answers have no fields.
        answers: (parsed, right answer) of each row.
    """
    counts = FORMS[task.form].field_counts
    if counts is None:
        return []
    found: defaultdict[tuple[str, str], list[FieldCount]] = defaultdict(list)
    for parsed, answer in answers:
        for (field, kind), count in counts(task, parsed, answer).items():
            for name in {(field, kind), (field, ""), ("", "")}:
                found[name].append(count)
    return [FieldScore.of(*name, found[name]) for name in sorted(found)]


def answers_with_calls(task: Task) -> bool:
    """Whether an answer is a list of tool calls, `[{"name": ..., "arguments": {...}}]`."""
    return FORMS[task.form].check_tools is not None and task.answer_schema is None


def check_tools(task: Task, answer: str, tools: Sequence[str]) -> None:
    """Holds the calls of an answer against the tools that its row offers.

    Raises:
        ValueError: Names the call and what is wrong with it.
    """
    if (check := FORMS[task.form].check_tools) is not None:
        check(task, answer, tools)


def teacher_schema(task: Task, count: int) -> dict[str, Any]:
    """The JSON schema of a teacher's answer: `{"examples": [{"question": ..., "answer": ...}]}`, `count` of them."""
    properties = {"question": {"type": "string"}, **FORMS[task.form].teacher_properties(task)}
    example = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {
        "type": "object",
        "properties": {"examples": {"type": "array", "items": example, "minItems": count, "maxItems": count}},
        "required": ["examples"],
        "additionalProperties": False,
    }


def answer_schema(task: Task) -> dict[str, Any]:
    """The JSON schema of a solution: `{"rationale": ..., "answer": ...}`, the rationale where the task has one."""
    properties = {key: of for key, of in FORMS[task.form].teacher_properties(task).items() if key != "choices"}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def answer_text(task: Task, answer: Any) -> str | None:
    """An answer of the form `answer_schema` as text, a label in the task's own spelling; None for what is no answer of
    the task's form."""
    if FORMS[task.form].holds_json:
        return answer if isinstance(answer, str) else json.dumps(answer) if isinstance(answer, dict | list) else None
    if isinstance(answer, bool):
        return json.dumps(answer)  # whether `true` is an answer is for the form to say
    if not isinstance(answer, str | int | float):
        return None
    text = str(answer)
    return (same_label(task, text) if FORMS[task.form].has_labels else None) or text


def _loaded(value: Any) -> Any:
    return load_task(value) if isinstance(value, str | Mapping) else value


AnyTask = Annotated[Task, BeforeValidator(_loaded)]
"""The type of a setting that is a task, by a shipped one's name or with all its fields."""
