"""Tasks as users configure them, and what all forms have in common: prompt, target, the teacher's schema."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models import prompts
from llm2llm.components.shared.tasks import FORMS, TASKS, Columns, Task, load_task

OWN: dict[str, Task] = {
    "classification": Task(name="own", form="classification", labels=["red", "blue"]),
    "json": Task(
        name="own",
        form="json",
        answer_schema={
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
        },
    ),
    "multiple_choice": Task(name="own", form="multiple_choice", choice_count=3),
    "numeric": Task(name="own", form="numeric", rationale=True),
    "text": Task(name="own", form="text"),
}

# A row as in the data set, the prompt, the target, and a completion that is wrong.
WORKED: dict[str, tuple[str, list[str], Any, str, str, str]] = {
    "gsm8k": (
        "Weng earns $12 an hour. How much in 50 minutes?", [],
        "Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\nShe earned 0.2 x 50 = $<<0.2*50=10>>10.\n#### 10",
        "Solve the problem step by step. End with #### and the answer as a number.\n"
        "Question: Weng earns $12 an hour. How much in 50 minutes?\nAnswer:",
        "Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\nShe earned 0.2 x 50 = $<<0.2*50=10>>10.\n#### 10",
        "Weng earns 12 * 50 = $<<12*50=600>>600.\n#### 600",
    ),
    "casehold": (
        "standing. See Doe v. Roe (<HOLDING>).", ["one", "two", "three", "four", "five"], "three",
        "Which holding statement belongs where the citing text says <HOLDING>? Answer with its letter.\n"
        "Citing text: standing. See Doe v. Roe (<HOLDING>).\nA. one\nB. two\nC. three\nD. four\nE. five\nAnswer:",
        "C", "D",
    ),
    "snips": (
        "add clem burke in my playlist", [], "AddToPlaylist",
        "Which intent does the command have?\nCommand: add clem burke in my playlist\nIntent:",
        "AddToPlaylist", "PlayMusic",
    ),
    "trec": (
        "How did serfdom develop ?", [], "description",
        "What kind of answer does the question ask for?\nQuestion: How did serfdom develop ?\nKind:",
        "description", "entity",
    ),
    "sst2": (
        "loves its characters", [], "positive",
        "Is the sentence from a film review positive or negative?\nSentence: loves its characters\nSentiment:",
        "positive", "negative",
    ),
}  # fmt: skip


def test_the_papers_five_tasks_are_shipped() -> None:
    assert list(TASKS) == ["gsm8k", "casehold", "snips", "trec", "sst2"] == list(WORKED)
    assert set(FORMS) == set(OWN)


@pytest.mark.parametrize("name", TASKS)
def test_worked_example(name: str) -> None:
    question, choices, raw_answer, prompt, target, wrong = WORKED[name]
    task = load_task(name)
    answer, rationale = tasks.normalise(task, raw_answer, choices, None)
    assert tasks.prompt(task, question, choices) == prompt
    assert tasks.target(task, answer, rationale) == target
    assert tasks.grade(task, " " + target, answer)[1] == "correct"
    assert tasks.grade(task, wrong, answer)[1] == "wrong"
    assert tasks.grade(task, "", answer) == (None, "unparseable")
    # What is a row already stays what it is.
    assert tasks.normalise(task, answer, choices, rationale) == (answer, rationale)


class CharacterTokenizer:
    """A token for each character."""

    chat_template = None
    eos_token_id = 0
    added_tokens_decoder: ClassVar[dict[int, object]] = {}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}


@pytest.mark.parametrize("name", TASKS)
def test_training_and_evaluation_use_the_same_prompt(name: str, example: Callable[..., Example]) -> None:
    question, choices, raw_answer, prompt, target, _ = WORKED[name]
    task = TASKS[name]
    answer, rationale = tasks.normalise(task, raw_answer, choices, None)
    row = example(question, answer, choices=choices, rationale=rationale)
    trained = prompts.encode(CharacterTokenizer(), task, row)
    assert trained.prompt == prompts.encode_prompt(CharacterTokenizer(), task, row) == [ord(c) for c in prompt]
    assert "".join(map(chr, trained.completion)) == f" {target}\0"


def test_a_prompt_without_instruction_begins_with_the_question() -> None:
    assert tasks.prompt(OWN["text"], "Who?", []) == "Question: Who?\nAnswer:"


def test_a_shipped_task_by_name_and_with_changes() -> None:
    assert load_task("gsm8k") is not None
    assert load_task("gsm8k") == load_task({"name": "gsm8k"}) == TASKS["gsm8k"]
    changed = load_task({"name": "casehold", "max_new_tokens": 2, "columns": {"question": "context"}})
    assert changed.max_new_tokens == 2
    assert changed.columns == TASKS["casehold"].columns.model_copy(update={"question": "context"})
    assert changed.model_copy(update={"max_new_tokens": 4, "columns": TASKS["casehold"].columns}) == TASKS["casehold"]


def test_a_task_of_ones_own() -> None:
    task = load_task(
        {"name": "tone", "form": "classification", "labels": ["kind", "rude"], "columns": {"answer": "tone"}}
    )
    assert task.columns == Columns(question="question", answer="tone")
    assert load_task({"name": "gsm8k", "form": "text"}) == Task(name="gsm8k", form="text")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("gsm8", r"task: 'gsm8' is no shipped task \(gsm8k, casehold, .*\); did you mean 'gsm8k'\?; for a task"),
        ("tone", r"task: 'tone' is no shipped task .*set task\.form to one of " + ", ".join(FORMS)),
        ({}, r"task\.name: missing"),
        ({"name": ["gsm8k"]}, r"task\.name: .*\(got \['gsm8k'\]\)"),
        ({"form": "text"}, r"task\.name: missing"),
        ({"name": "x", "form": "regression"}, r"task\.form: .*'regression'"),
        ({"name": "gsm8k", "instructions": "x"}, r"task\.instructions: unknown key; did you mean 'instruction'\?"),
        ({"name": "x", "form": "text", "columns": {"id_": "a"}}, r"task\.columns\.id_: unknown key; did you mean 'id'"),
        ({"name": "gsm8k", "columns": {"answr": "a"}}, r"task\.columns\.answr: unknown key; did you mean 'answer'\?"),
        ({"name": "gsm8k", "columns": "answer"}, r"task\.columns: "),
        ({"name": "x", "form": "classification"}, "at least two labels, got"),
        ({"name": "x", "form": "classification", "labels": ["a"]}, "at least two labels, got"),
        ({"name": "x", "form": "classification", "labels": ["a", "a"]}, "each label once"),
        ({"name": "x", "form": "classification", "labels": ["a", ""]}, "no empty label"),
        ({"name": "x", "form": "classification", "labels": ["a", " b"]}, "no empty label and no white space around"),
        ({"name": "x", "form": "classification", "labels": ["a", "<think>"]}, "'<think>' marks a thought"),
        ({"name": "x", "form": "classification", "labels": ["a", 1]}, r"task\.labels\.1: .*\(got 1\)"),
        ({"name": "x", "form": "classification", "labels": {"a": "A", "b": " "}}, "that of 'b' is empty; write one"),
        ({"name": "x", "form": "classification", "labels": {"a": "A", "b": 3}}, r"label_descriptions\.b: .*got 3"),
        ({"name": "sst2", "label_descriptions": {"postive": "x"}}, "'postive' is no label; did you mean 'positive'"),
        ({"name": "sst2", "labels": {"a": "x", "b": "y"}, "label_descriptions": {"a": "z"}}, "given twice"),
        ({"name": "sst2", "describe_labels_to": "both"}, "describe_labels_to: 'both', and no label has a description"),
        ({"name": "x", "form": "text", "label_descriptions": {"a": "b"}}, "label_descriptions: only for form 'class"),
        ({"name": "x", "form": "text", "labels": ["a", "b"]}, "labels: only for form 'classification'"),
        ({"name": "x", "form": "text", "rationale": True}, "rationale: only for form 'classification' or 'mult"),
        ({"name": "snips", "rationale_as": "second_task"}, "rationale_as: 'second_task' says .*set rationale: true"),
        ({"name": "gsm8k", "rationale_as": "second_task"}, "rationale_as: only for form 'classification' or 'multiple"),
        ({"name": "x", "form": "text", "choice_count": 4}, "choice_count: only for form 'multiple_choice'"),
        ({"name": "x", "form": "multiple_choice", "choice_count": 1}, "choice_count: from 2 to 26, got 1"),
        ({"name": "x", "form": "multiple_choice", "choice_count": 27}, "choice_count: from 2 to 26, got 27"),
        ({"name": "x", "form": "text", "max_new_tokens": 0}, "max_new_tokens: at least 1, got 0"),
        ({"name": "x", "form": "text", "match": "fuzzy"}, r"task\.match: .*'fuzzy'"),
        ({"name": "x", "form": "text", "match": "judge"}, "rubric: missing; match 'judge' needs one"),
        ({"name": "x", "form": "text", "match": "judge", "rubric": " "}, "rubric: missing"),
        ({"name": "x", "form": "text", "rubric": "the year"}, "rubric: only for match 'judge', this is match 'norm"),
        ({"name": "x", "form": "json"}, "answer_schema: missing; form 'json' needs the JSON schema"),
        ({"name": "x", "form": "json", "answer_schema": {"type": "string"}}, "an object or a list, and .* 'string'"),
        ({"name": "x", "form": "json", "answer_schema": {"type": "objct"}}, "type 'objct' is none of .*mean 'object'"),
        ({"name": "x", "form": "json", "answer_schema": {"tpye": 1}}, "keyword 'tpye' is not supported; did you mean"),
        ({"name": "x", "form": "json", "answer_schema": "no-such.json"}, "neither a schema nor a JSON or YAML file"),
        ({"name": "x", "form": "text", "answer_schema": {"type": "object"}}, "answer_schema: only for form 'json'"),
        ({"name": "gsm8k", "match": "judge", "rubric": "x"}, "match: 'judge' is for form 'text', and this is form"),
    ],
)  # fmt: skip
def test_load_task_refuses(value: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_task(value)


def check_schema(schema: dict[str, Any]) -> None:
    """A JSON schema that endpoints with structured output take: closed objects, every property required."""
    if "anyOf" in schema:
        for inner in schema["anyOf"]:
            check_schema(inner)
        return
    kind = schema["type"]
    if kind == "object":
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
        for inner in schema["properties"].values():
            check_schema(inner)
    elif kind == "array":
        check_schema(schema["items"])
    else:
        assert kind in ("string", "null")
        assert "enum" not in schema or len(set(schema["enum"])) == len(schema["enum"]) > 1


@pytest.mark.parametrize("task", [*TASKS.values(), *OWN.values()], ids=lambda task: f"{task.name}-{task.form}")
def test_teacher_schema(task: Task) -> None:
    schema = tasks.teacher_schema(task, 3)
    check_schema(schema)
    examples = schema["properties"]["examples"]
    assert (examples["minItems"], examples["maxItems"]) == (3, 3)
    more = {"multiple_choice": ["choices"], "numeric": ["rationale"]}
    assert list(examples["items"]["properties"]) == ["question", *more.get(task.form, []), "answer"]


def test_teacher_schema_names_labels_and_letters() -> None:
    def answer(task: Task) -> Any:
        return tasks.teacher_schema(task, 1)["properties"]["examples"]["items"]["properties"]["answer"]["enum"]

    assert answer(TASKS["sst2"]) == ["negative", "positive"]
    assert answer(TASKS["casehold"]) == list("ABCDE")
    properties = tasks.teacher_schema(TASKS["casehold"], 1)["properties"]["examples"]["items"]["properties"]
    assert (properties["choices"]["minItems"], properties["choices"]["maxItems"]) == (5, 5)
