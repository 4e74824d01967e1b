"""What a task form must say about itself: a file of this folder makes one `Form`, and `FORMS` names it.

    FORM = Form(
        about="one of a label set",
        target=target, parse=parse, matches=matches, normalise=normalise, teacher_properties=teacher_properties,
        takes={"labels": check_labels}, classes=classes, has_labels=True,
    )

The rest of llm2llm asks a form what it can do and never which one it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.tasks.forms.metrics import Metric

if TYPE_CHECKING:  # a task looks its form up here
    from llm2llm.components.shared.tasks.task import Task

ROUGE_L = 0.9
"""From which ROUGE-L on a row leaks, where no task is known or nothing but numbers tells rows apart."""


def accept(task: "Task") -> None:
    """Every value of a task's field will do."""


def no_rationale(task: "Task", completion: str) -> str | None:
    """None: the student writes the answer alone."""
    return None


def no_words(task: "Task") -> str:
    """Nothing that the teacher's schema does not say."""
    return ""


@dataclass(frozen=True, slots=True)
class FieldCount:
    """Parts of answers, counted: those of an answer that are right, those that are wrong, right ones that it lacks."""

    right: int
    wrong: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The functions and properties of a form. They take the task for its own fields, such as its labels."""

    about: str
    """What the answer is, in a few words: the help says "`NAME` (...)"."""
    target: Callable[["Task", str, str | None], str]
    """(task, answer, rationale) -> the completion that the student is trained on."""
    parse: Callable[["Task", str], str | None]
    """(task, completion) -> the answer that it gives; None when there is none to read."""
    matches: Callable[["Task", str, str], bool]
    """(task, parsed, answer) -> whether a parsed answer is the right one."""
    normalise: Callable[["Task", Any, list[str], str | None], tuple[str, str | None]]
    """(task, answer, choices, rationale) -> answer and rationale of a row that a user or a teacher brings, in the
    form's own terms. Raises ValueError: what is wrong with the answer, in words for a person."""
    teacher_properties: Callable[["Task"], dict[str, Any]]
    """(task) -> JSON schema of what the teacher returns beside the question: keys of `Example`."""
    rationale_in: Callable[["Task", str], str | None] = no_rationale
    """(task, completion) -> its rationale, without the answer; None when there is none."""

    in_words: Callable[["Task"], str] = no_words
    """(task) -> what every teacher is told of the answers beside the task's description; empty: nothing."""
    before_question: Callable[["Task"], str] = no_words
    """(task) -> what the student is shown between the instruction and every question; empty: nothing."""

    takes: Mapping[str, Callable[["Task"], None]] = field(default_factory=dict)
    """The fields of a task that only some forms have, each with a check that raises ValueError: what is wrong with its
    value. Other forms refuse the field."""
    classes: Callable[["Task", int], list[str]] | None = None
    """(task, number of a row's choices) -> what the row may be answered with, in order. They are what mode `score`
    compares, what class weights, slices and the confusion matrix count, and what EL2N and margin are of. None where
    answers are open."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Metrics of the form's own, by the name that `task.metric` has; beside accuracy and, with `classes`, those of
    labels."""
    has_labels: bool = False
    """Whether the answer is one of `task.labels`, the same for all rows: rows are drawn by label."""
    has_choices: bool = False
    """Whether a row has choices of its own, and its answer is the letter of one; a number is then an index."""
    has_free_text: bool = False
    """Whether the answer is a text that can be put in other words: a judge may grade it, and that a question's answer
    has changed cannot be told."""
    masks_numbers: bool = False
    """Whether the numbers in a question decide its answer: the same text with other numbers is a leak and a template,
    and a paraphrase keeps them."""
    checks_arithmetic: bool = False
    """Whether a rationale calculates, and ends at the answer."""
    holds_json: bool = False
    """Whether an answer is an object or a list: rows and teachers may give it as it is, and rows have its JSON text."""
    check_tools: Callable[["Task", str, Sequence[str]], None] | None = None
    """(task, answer, the row's tools) -> raises ValueError: a call of a tool that the row does not offer, or with
    arguments that it does not take. None where rows offer no tools."""
    fits: Callable[["Task", str], bool] | None = None
    """(task, parsed) -> whether an answer that can be read is of the kind that right ones are. None where whatever can
    be read is."""
    field_counts: Callable[["Task", str | None, str], dict[tuple[str, str], FieldCount]] | None = None
    """(task, parsed, answer) -> by field and kind of the answers' parts, how many are right, wrong and missing. A kind,
    which may be empty, tells parts of one field apart, such as labels. None where an answer is right as a whole or not
    at all."""
    constraint: Callable[["Task"], dict[str, Any] | None] | None = None
    """(task) -> JSON schema that a student's decoding is held to where the backend can. None where there is none."""
    leak_rouge_l: float = ROUGE_L
    """From which ROUGE-L on a row leaks. Short texts share most of their words by chance."""

    @property
    def has_classes(self) -> bool:
        """Whether the answers to a row are a known, finite set."""
        return self.classes is not None
