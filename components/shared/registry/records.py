"""What a version says about itself: three small JSON files beside its weights, in a form of their own.

They are read years later, by a newer llm2llm, to compare against: they do not change when the rows' schemas do.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from llm2llm.components.shared.base.errors import UserError

RECORD, ANSWERS, TRAINED_ON, CARD = "llm2llm.json", "validation_answers.json", "trained_on.json", "README.md"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A set of rows: how many, and what tells it from any other."""

    n: int
    generated: int = 0
    """How many of them a teacher wrote."""
    digest: str
    """`digests.of_ids` of the rows' ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A student's score on one split."""

    n: int
    correct: int
    unparseable: int
    accuracy: float
    low: float
    high: float
    """The 95% Wilson interval of the accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """What a model that wrote or checked rows was asked for this student, in all iterations up to its own."""

    teacher: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    """The price of the tokens, whoever paid it; None when it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A threshold for a label, chosen on validation, and what it came to there."""

    label: str
    threshold: float
    max_false_positive_rate: float
    recall: float | None
    false_positive_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a person says of a student (`promote.card`)."""

    license: str = ""
    language: list[str] = field(default_factory=list)
    intended_use: str = ""
    out_of_scope: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a student is and how it was made. `llm2llm.json`. No times and no run: the pointer has those."""

    name: str
    """The config's name."""
    task: str
    form: str
    student: str
    """What was fine-tuned: `scratch`, a Hugging Face name, a folder, an s3:// prefix."""
    adapter: bool
    """Whether the folder holds a PEFT adapter, and not full weights."""
    head: str = "language_model"
    """`classifier` of a student that scores labels."""
    iteration: int
    seeds: Rows
    training: Rows
    validation: Rows
    accuracy: dict[str, Accuracy]
    """By split: `seeds`, `validation`, `test`."""
    baseline: dict[str, Accuracy]
    """The same of iteration 0, which was trained on the seeds alone."""
    threshold: Threshold | None = None
    """From which probability on a label counts as given (`evaluate.threshold`); None where none was wanted."""
    teaching: list[Teaching] = field(default_factory=list)
    said: Said = Said()
    data: dict[str, str] = field(default_factory=dict)
    """Where the rows came from: `seeds`, `validation`, `test`, as the config names them."""
    random_seed: int
    config_digest: str
    """`digests.of_config`."""
    code: str
    """The version of llm2llm, with a hash of its source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Which validation rows a student answers right. `validation_answers.json`."""

    graded_with: str
    """`digests.of_grading`: answers that were asked or graded another way do not compare."""
    correct: dict[str, bool]
    """By the row's id."""
    metric: str = "accuracy"
    """What decided (`task.metric`)."""
    measures: dict[str, list[float]] = field(default_factory=dict)
    """What the metric keeps of each answer, by the row's id; empty for the accuracy."""
    always: str | None = None
    """The answer that the student gives to every row, although several are right; None where there is no such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """What a student has seen. `trained_on.json`."""

    seeds: list[str]
    """The ids of the seeds, sorted."""
    rows: list[str]
    """The ids of all rows of the training set, sorted."""
    questions: list[str]
    """`digests.of_question` of each, sorted: the same question under another answer or rationale has another id."""


Document = Record | Answers | TrainedOn
D = TypeVar("D", Record, Answers, TrainedOn)

FILES: dict[type[Document], str] = {Record: RECORD, Answers: ANSWERS, TrainedOn: TRAINED_ON}


def to_document(document: Document) -> bytes:
    """A document as its file holds it; equal documents are equal bytes."""
    values = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(document)}
    # ASCII only: a config's text may hold half a surrogate pair, which UTF-8 cannot.
    return json.dumps(values, indent=1, sort_keys=True).encode("ascii") + b"\n"


def from_document(kind: type[D], data: bytes, where: str) -> D:
    """The document in these bytes; fields that a newer llm2llm has added are passed over.

    Raises:
        UserError: It is none of this kind.
    """
    values = parse_document(data, where)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{where}: has schema version {values.get('schema_version')!r}, and this llm2llm reads {SCHEMA_VERSION}; "
            "use the llm2llm that wrote it"
        )
    return checked(kind, values, where)


T = TypeVar("T")


def checked(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from plain values; those that it has no field for are passed over.

    Raises:
        UserError: A field is missing or of another type.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: damaged: field {place!r}: {first['msg']}; restore it from a copy") from None


def parse_document(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: It is none.
    """
    try:
        values = json.loads(data)
    except ValueError as problem:
        raise UserError(f"{where}: damaged: not JSON ({problem}); restore it from a copy") from None
    if not isinstance(values, dict):
        raise UserError(f"{where}: damaged: no JSON object; restore it from a copy")
    return values
