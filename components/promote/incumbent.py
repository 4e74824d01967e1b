"""Asks the version in production about today's validation rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.registry import digests
from llm2llm.components.shared.registry.records import Answers, Record, TrainedOn
from llm2llm.components.shared.registry.versions import find_version, read_document
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.tasks.measured import measured, metric_of


@dataclass(frozen=True, slots=True)
class Incumbent:
    """A version in production, and its answers."""

    version: str
    record: Record
    correct: dict[str, bool] = field(default_factory=dict)
    """By the id of each validation row that it was not trained on."""
    measures: dict[str, list[float]] = field(default_factory=dict)
    """What the metric keeps of each of these answers; empty for the accuracy."""
    left_out: int = 0
    """Validation rows that it was trained on."""
    answered_now: int = 0
    """Rows that it was asked just now."""


def read_incumbent(
    registry: str, version: str, validation: Sequence[Example], task: Task, config: Mapping[str, Any]
) -> Incumbent:
    """The version with its answers to the validation rows: those that came with it, and the rest asked now.

    A row that it was trained on, itself or the same question with another answer or rationale, is left out: there it
    would look better than it is.

    Raises:
        UserError: The version is damaged, or must be asked and cannot be loaded here.
    """
    uri = find_version(registry, version)
    record, trained_on = read_document(uri, Record), read_document(uri, TrainedOn)
    ids, questions = set(trained_on.rows), set(trained_on.questions)
    fresh = [
        row
        for row in validation
        if row.id not in ids and digests.of_question(row.question, row.choices) not in questions
    ]
    answers = read_document(uri, Answers)
    metric = metric_of(task)
    known = answers.correct if answers.graded_with == digests.of_grading(config) else {}
    if metric is not None:
        known = {
            row: right for row, right in known.items() if answers.metric == task.metric and row in answers.measures
        }
    missing = [row for row in fresh if row.id not in known]
    correct = {row.id: known[row.id] for row in fresh if row.id in known}
    measures = {row: answers.measures[row] for row in correct} if metric else {}
    if missing:
        print(f"promote: asking {version}, which is in production, {len(missing):,} validation rows", flush=True)
        said = _asked(uri, version, missing, task, config)
        correct |= {one.example_id: one.outcome == "correct" for one in said}
        measures |= measured(task, metric, missing, said) if metric else {}
    return Incumbent(version, record, correct, measures, len(validation) - len(fresh), len(missing))


def _asked(uri: str, version: str, rows: Sequence[Example], task: Task, config: Mapping[str, Any]) -> list[Prediction]:
    from llm2llm.components.shared.storage import fetched

    folder: Path = fetched(uri)
    return ask(
        folder,
        rows,
        task,
        config,
        f"{version}, which is in production, has no answers to {len(rows):,} of the validation rows and",
    )


def ask(student: Path, rows: Sequence[Example], task: Task, config: Mapping[str, Any], who: str) -> list[Prediction]:
    """The graded answers of a student, asked in one place and once for each row.

    Args:
        student: Its folder, or a name on the hub.
        rows: What to ask.
        task: Of these rows.
        config: The run's, which says how students are asked.
        who: Must be asked; for the error.

    Raises:
        UserError: It cannot be loaded here.
    """
    settings = AnswerSettings.load(config.get("evaluate") or {}, "evaluate").model_copy(
        update={"shards": 1, "samples": 1, "hardness": False}
    )
    if settings.backend == "vllm" and find_spec("vllm") is None:
        settings = settings.model_copy(update={"backend": "transformers"})
    if settings.backend == "transformers":  # this stage's pod may have fewer GPUs than that of evaluate
        settings = settings.model_copy(update={"gpus": 1})
    if settings.mode == "score" and not FORMS[task.form].has_classes:
        settings = settings.model_copy(update={"mode": "generate"})
    try:
        from llm2llm.components.shared.inference.predict import predict
    except ModuleNotFoundError as problem:
        raise UserError(
            f"promote: {who} must be asked, which needs the package {problem.name}: run the stage promote in the image "
            "of evaluate"
        ) from None
    return predict(student, {"validation": rows}, iteration=0, fold=None, task=task, settings=settings)
