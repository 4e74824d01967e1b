"""Rows and artifacts for tests, with whatever a test does not care about filled in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.statistics import wilson_interval
from llm2llm.components.shared.data.artifacts import LocalArtifact, write_artifact
from llm2llm.components.shared.data.journal import Journal, Spending, write_journal
from llm2llm.components.shared.data.schemas import (
    Call,
    Confusion,
    Control,
    Decision,
    Example,
    Prediction,
    Reject,
    Score,
    Split,
    StudentError,
    Trial,
    content_id,
)
from llm2llm.components.shared.data.splits import write_splits
from llm2llm.components.stages import STAGES


def artifacts(folder: Path, *names: str) -> dict[str, LocalArtifact]:
    """An artifact for each name, in a folder."""
    return {name: LocalArtifact(str(folder / name)) for name in names}


def example(
    question: str, answer: str = "A", choices: list[str] | None = None, rationale: str | None = None, **fields: Any
) -> Example:
    """An example with its content id."""
    row_id = content_id(question, choices or [], rationale, answer)
    return Example(id=row_id, question=question, answer=answer, choices=choices or [], rationale=rationale, **fields)


def prediction(
    row: Example, parsed: str | None, split: Split = "seeds", iteration: int = 0, **fields: Any
) -> Prediction:
    """What a student said to a row; None for what cannot be read."""
    outcome = "unparseable" if parsed is None else "correct" if parsed == row.answer else "wrong"
    values: dict[str, Any] = {"completion": parsed or "?", "outcome": outcome, **fields}
    return Prediction(example_id=row.id, split=split, iteration=iteration, parsed=parsed, **values)


def student_error(seed: Example, iteration: int = 0, completion: str = "B", **fields: Any) -> StudentError:
    """The error of a student that answered a seed wrongly, or with `parsed=None` in a way that cannot be read."""
    parsed = fields.pop("parsed", completion)
    values: dict[str, Any] = {"outcome": "unparseable" if parsed is None else "wrong", **fields}
    return StudentError(
        iteration=iteration,
        example_id=seed.id,
        question=seed.question,
        choices=seed.choices,
        rationale=seed.rationale,
        answer=seed.answer,
        completion=completion,
        parsed=parsed,
        **values,
    )


def score(iteration: int, split: Split, correct: int, n: int, rows: int = 4, unparseable: int = 0) -> Score:
    """Of a student that was trained on `rows` rows."""
    low, high = wilson_interval(correct, n)
    return Score(
        iteration=iteration,
        split=split,
        n=n,
        correct=correct,
        unparseable=unparseable,
        accuracy=correct / n,
        low=low,
        high=high,
        training_rows=rows,
    )


def control(correct_ids: Sequence[str], n: int, split: Split = "test", steps: int = 50, iteration: int = 1) -> Control:
    """The seeds alone, for as many steps, with these rows right."""
    right = len(correct_ids)
    low, high = wilson_interval(right, n)
    return Control(
        name="steps",
        iteration=iteration,
        split=split,
        n=n,
        correct=right,
        unparseable=0,
        accuracy=right / n,
        low=low,
        high=high,
        steps=steps,
        correct_ids=sorted(correct_ids),
    )


def trial(number: int, settings: str, correct_ids: Sequence[str], n: int, chosen: bool = False, **more: Any) -> Trial:
    """Settings that were tried, with these validation rows right."""
    right = len(correct_ids)
    low, high = wilson_interval(right, n)
    return Trial(
        number=number, settings=settings, chosen=chosen, split="validation", n=n, correct=right, unparseable=0,
        accuracy=right / n, low=low, high=high, correct_ids=sorted(correct_ids), **more,
    )  # fmt: skip


def confusion(right: str, given: str | None, n: int = 1, split: Split = "test", iteration: int = 1) -> Confusion:
    return Confusion(iteration=iteration, split=split, right=right, given=given, n=n)


def decision(
    iteration: int = 0, errors: int = 3, best: int = 0, go_on: bool = False, reason: str = "limit reached"
) -> Decision:
    """Of the selection `wrong`."""
    return Decision(
        iteration=iteration, selection="wrong", errors=errors, go_on=go_on, reason=reason, best_iteration=best
    )


def reject(iteration: int, reason: str, question: str = "a rejected row", **fields: Any) -> Reject:
    values: dict[str, Any] = {
        "stage": "dedupe",
        "id": content_id(question, [], str(iteration), reason),
        "answer": "A",
        **fields,
    }
    return Reject(iteration=iteration, reason=reason, question=question, **values)


def call(key: str = "k", iteration: int = 1, **fields: Any) -> Call:
    """A request that a teacher answered at once."""
    values: dict[str, Any] = {
        "teacher": "openai",
        "model": "a-teacher",
        "outcome": "answered",
        "attempts": 1,
        "input_tokens": 10,
        "output_tokens": 3,
        **fields,
    }
    return Call(key=key, iteration=iteration, parent_id=values.pop("parent_id", None), **values)


def outputs_of(stage: str, folder: Path) -> dict[str, LocalArtifact]:
    """An artifact for each output of a stage, in a folder."""
    return artifacts(folder, *STAGES[stage].outputs)


def rows_artifact(folder: Path, name: str, kind: str, rows: Sequence[Any]) -> LocalArtifact:
    """Rows of a kind, written."""
    made = LocalArtifact(str(folder / name))
    write_artifact(made, kind, rows)
    return made


def splits_artifact(folder: Path, name: str = "splits", **splits: Sequence[Example]) -> LocalArtifact:
    """Seeds, validation and test, written; a split that is not given is empty."""
    made = LocalArtifact(str(folder / name))
    write_splits(made, splits)  # type: ignore[arg-type]  # the keys are splits
    return made


def journal_artifact(
    folder: Path, name: str = "journal", spent: Spending | None = None, **rows: Sequence[Any]
) -> LocalArtifact:
    """A journal with rows of the kinds given, such as `scores`, written."""
    made = LocalArtifact(str(folder / name))
    write_journal(made, Journal().with_more(spent=spent, **rows))
    return made


def content(artifact: LocalArtifact) -> dict[str, bytes]:
    """The bytes of an artifact: of each file of a folder by its path in it, of a file under its own name."""
    path = Path(artifact.path)
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in path.rglob("*") if one.is_file()}
