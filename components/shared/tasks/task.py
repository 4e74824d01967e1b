"""What a task is: plain data. The functions that give it meaning are in the module of its form."""

from typing import Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.tasks.chat import ChatSettings

Form = Literal["classification", "multiple_choice", "numeric", "text"]


class Columns(Settings):
    """Which of a user's columns holds what."""

    question: str = "question"
    """The text that the student is shown."""
    answer: str = "answer"
    """The right answer: a label, a letter or number of a choice, a number, a text."""
    choices: str | list[str] | None = None
    """Multiple choice only: one column that holds a list, or a list of columns that hold one choice each."""
    rationale: str | None = None
    """A worked solution, where it has a column of its own. `numeric` also finds it before `####` in the answer."""
    skills: str | None = None
    """A list of what it takes to answer, for the selection `skills`."""
    id: str | None = None
    """The user's own row ids; they must be unique, and are kept beside ours."""


class Task(Settings):
    """A task as a user configures it in YAML; the shipped ones are constants of this type."""

    name: str
    """What reports call it."""
    form: Form
    """`classification` (one of a label set), `multiple_choice` (a letter), `numeric` (a number) or `text` (exact or
    normalised match, or the verdict of a judge)."""
    instruction: str = ""
    """Put before every question, in training and evaluation alike; may be empty."""
    question_cue: str = "Question"
    """The word before the question in the student's prompt."""
    answer_cue: str = "Answer"
    """The word after which the student answers."""
    labels: list[str] = Field(default=[])
    """`classification`: every label. A whole number as the answer of a user's row is an index into this list,
    unless a label is a number itself."""
    match: Literal["exact", "normalised", "judge"] = "normalised"
    """`text`: when an answer is right. `exact`: it is the same text; `normalised`: the same but for case, white space
    and punctuation at the ends; `judge`: that, or a language model (`evaluate.judge`) says so by the `rubric`."""
    rubric: str = ""
    """`match: judge` only: what the judge goes by, such as what a right answer must say and what it may leave out."""
    rationale: bool = False
    """`numeric`: whether the student writes a rationale, then `#### number`, as in GSM8K."""
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

    @model_validator(mode="after")
    def _form_fits(self) -> Self:
        if self.form == "classification":
            if len(self.labels) < 2:
                raise ValueError(f"labels: a classification needs at least two labels, got {self.labels}")
            if len(set(self.labels)) < len(self.labels):
                raise ValueError(f"labels: each label once, got {self.labels}")
            if bad := [label for label in self.labels if not label or label != label.strip()]:
                raise ValueError(f"labels: no empty label and no white space around one, got {bad[0]!r}")
        elif self.labels:
            raise ValueError(f"labels: only for form 'classification', this is form {self.form!r}; remove labels")
        if self.rationale and self.form != "numeric":
            raise ValueError(f"rationale: only for form 'numeric', this is form {self.form!r}; remove rationale")
        if self.choice_count is not None and self.form != "multiple_choice":
            raise ValueError(f"choice_count: only for form 'multiple_choice', this is form {self.form!r}; remove it")
        if self.choice_count is not None and not 2 <= self.choice_count <= 26:
            raise ValueError(f"choice_count: from 2 to 26, got {self.choice_count}")
        if self.match == "judge" and self.form != "text":
            raise ValueError(f"match: 'judge' is for form 'text', and this is form {self.form!r}; remove match")
        if self.match == "judge" and not self.rubric.strip():
            raise ValueError("rubric: missing; match 'judge' needs one: say when an answer is right")
        if self.rubric and self.match != "judge":
            raise ValueError(
                f"rubric: only for match 'judge', this is match {self.match!r}; set match, or remove rubric"
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: at least 1, got {self.max_new_tokens}")
        return self
