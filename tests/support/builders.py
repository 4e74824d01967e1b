"""Rows and artifacts for tests, with whatever a test does not care about filled in."""

from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.statistics import wilson_interval
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.schemas import (
    Call,
    Decision,
    Example,
    Prediction,
    Reject,
    Score,
    Split,
    StudentError,
    content_id,
)


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
