"""What a task is: plain data. The functions that give it meaning are those of its form, `FORMS[task.form]`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from llm2llm.components.shared.base.settings import Settings, in_words, one_of
from llm2llm.components.shared.tasks.chat import ChatSettings
from llm2llm.components.shared.tasks.forms import FORMS, METRICS, forms_with, forms_with_field, metrics_of
from llm2llm.components.shared.tasks.json_schema import expanded


class Columns(Settings):
    """Which of a user's columns holds what. A name may be a path into nested columns, such as `meta.label` or
    `answers.text.0`."""

    question: str | list[str] = "question"
    """The text that the student is shown. Of several columns, such as `[subject, body]`, the texts that are not empty
    are joined, with an empty line between them."""
    answer: str = "answer"
    """The right answer: a label, a letter or number of a choice, a number, a text. For form `text` it may be a list of
    right answers: the first is what the student is trained on, the others count as right too. For form `json` it is
    JSON text, or a nested column that is the answer itself."""
    answer_numbers: Literal["auto", "text", "from_zero", "from_one"] = "auto"
    """What a whole number in the answer column is, where answers are labels or choices: `text`, the label's or choice's
    own; `from_zero` or `from_one`, its place. `auto`: text where only that is possible, a place counted from 0 where a
    0 occurs among the answers; else the row is refused."""
    choices: str | list[str] | None = None
    """Multiple choice only: one column that holds a list, or a list of columns that hold one choice each. A column may
    also hold `{text: [...], label: [...]}` or `{A: ..., B: ...}`: the answer is then one of these labels."""
    rationale: str | None = None
    """A worked solution, where it has a column of its own. `numeric` also finds it before `####` in the answer."""
    skills: str | None = None
    """A list of what it takes to answer, for the selection `skills`."""
    tools: str | None = None
    """`json`: a list of the tools that the row offers, as OpenAI's API has them, or its JSON text. Without a
    `task.answer_schema` the answer is a list of calls, `[{name, arguments}]`, each of one of these tools."""
    id: str | None = None
    """The user's own row ids; they must be unique, and are kept beside ours."""


class Task(Settings):
    """A task as a user configures it in YAML; the shipped ones are constants of this type."""

    name: str
    """What reports call it."""
    form: Annotated[str, one_of(FORMS)] = Field(description=f"What an answer is: {in_words(FORMS)}.")
    instruction: str = ""
    """Put before every question, in training and evaluation alike; may be empty."""
    question_cue: str = "Question"
    """The word before the question in the student's prompt."""
    answer_cue: str = "Answer"
    """The word after which the student answers."""
    labels: list[str] = Field(default=[])
    """`classification`: every label. `columns.answer_numbers` says what numbers in a user's rows are. A mapping
    `{label: description}` sets `label_descriptions` as well."""
    label_descriptions: dict[str, str] = Field(default={})
    """`classification`: what labels mean, for those that have a description: when a question has this label."""
    describe_labels_to: Literal["teacher", "both", "nobody"] = "teacher"
    """`classification`: who is shown the descriptions: the teacher, which writes, checks and judges rows by them, or
    also the student, before every question, in training and evaluation alike."""
    match: Literal["exact", "normalised", "judge"] = "normalised"
    """`text`: when an answer is right. `exact`: it is the same text; `normalised`: the same but for case, white space
    and punctuation at the ends; `judge`: that, or a language model (`evaluate.judge`) says so by the `rubric`."""
    metric: str = Field(
        "accuracy",
        description=f"What patience, the best iteration and promotion go by: {in_words(METRICS)}.",
    )
    rubric: str = ""
    """`match: judge` only: what the judge goes by, such as what a right answer must say and what it may leave out."""
    rationale: bool = False
    """`numeric`, `classification`, `multiple_choice`: whether the student is taught rationales: it writes one, then
    `#### answer`, as in GSM8K. See also `rationale_as`."""
    rationale_as: Literal["before", "second_task"] = "before"
    """`classification`, `multiple_choice` with `rationale`: `before` the answer, or as a `second_task`: a training row
    has a twin that asks for the rationale alone, and evaluation asks for the answer alone (Distilling Step-by-Step)."""
    answer_schema: dict[str, Any] | None = None
    """`json`: the JSON schema of every answer, or a JSON or YAML file that has it, on the machine where the config is
    read. Known are type, enum, const, properties, required, additionalProperties (false where nothing is said), items,
    anyOf, oneOf, allOf of one schema, nullable, `$ref` within the schema, and the bounds of numbers, lengths and counts
    (minimum, exclusiveMinimum, multipleOf, minLength, pattern, minItems, minProperties and the like).
    The student writes an object's names in the order of `properties`. Lists are compared in their order, but
    `uniqueItems: true` makes one a set, and `x-unordered: true` a multiset."""
    choice_count: int | None = None
    """`multiple_choice`: how many choices each row must have; None for any number from 2 to 26."""
    columns: Columns = Columns()
    """Where a user's rows hold question and answer."""
    description: str = ""
    """What the teacher is told about the task."""
    max_new_tokens: int = 32
    """The longest completion, in tokens, that the student may generate; raised where a right answer is longer."""
    chat: ChatSettings = ChatSettings()
    """How the student's chat template is used."""

    @model_validator(mode="before")
    @classmethod
    def _labels_with_descriptions(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(labels := values.get("labels"), dict):
            return values
        if values.get("label_descriptions"):
            raise ValueError("label_descriptions: given twice, here and in labels; keep one of them")
        described = {label: text for label, text in labels.items() if text is not None}
        return {**values, "labels": list(labels), "label_descriptions": described}

    @field_validator("answer_schema", mode="before")
    @classmethod
    def _read_schema(cls, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = yaml.safe_load(Path(value).expanduser().read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
                raise ValueError(f"neither a schema nor a JSON or YAML file that can be read: {problem}") from None
        return expanded(value)

    @model_validator(mode="after")
    def _form_fits(self) -> Self:
        form = FORMS[self.form]
        only_some = {field for one in FORMS.values() for field in one.takes}
        for field in (name for name in Task.model_fields if name in only_some):
            if check := form.takes.get(field):
                check(self)
            elif getattr(self, field) != Task.model_fields[field].default:
                known = _named(forms_with_field(field))
                raise ValueError(f"{field}: only for {known}, this is form {self.form!r}; remove {field}")
        if self.metric not in (known_metrics := metrics_of(self.form)):
            raise ValueError(
                f"metric: {self.metric!r} is not for form {self.form!r}; it has {', '.join(map(repr, known_metrics))}"
            )
        if known_metrics[self.metric].by_judge and self.match != "judge":
            raise ValueError(
                f"metric: {self.metric!r} is what a judge says; set match: judge and a rubric, or metric: accuracy"
            )
        if self.match == "judge" and not form.has_free_text:
            known = _named(forms_with("has_free_text"))
            raise ValueError(f"match: 'judge' is for {known}, and this is form {self.form!r}; remove match")
        if self.match == "judge" and not self.rubric.strip():
            raise ValueError("rubric: missing; match 'judge' needs one: say when an answer is right")
        if self.rubric and self.match != "judge":
            raise ValueError(
                f"rubric: only for match 'judge', this is match {self.match!r}; set match, or remove rubric"
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: at least 1, got {self.max_new_tokens}")
        return self


def _named(forms: Iterable[str]) -> str:
    """Forms in words: form 'numeric', or form 'numeric' or 'text'."""
    return f"form {' or '.join(map(repr, forms))}"
