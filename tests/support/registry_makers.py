"""Students that are quickly made, for tests of the registry and of promotion."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.promote.promote import decide, keep_candidate
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.shared.base.statistics import wilson_interval
from llm2llm.components.shared.data.schemas import Call, Decision, Example, Prediction, Score, content_id
from llm2llm.components.shared.registry.production import Generation
from llm2llm.components.shared.tasks import Task

COLOURS = ["red", "green", "blue"]
TASK = Task(name="colours", form="classification", labels=COLOURS, answer_cue="Colour", max_new_tokens=4)
CONFIG: dict[str, Any] = {
    "name": "colours",
    "student": "scratch",
    "task": TASK.model_dump(mode="json"),
    "data": {"seeds": "s3://bucket/seeds.jsonl", "validation": "/data/out/validation.jsonl", "test": ""},
    "evaluate": {},
    "train": {"epochs": 3},
    "promote": {"registry": "somewhere"},
}


def example(question: str, answer: str, **fields: Any) -> Example:
    return Example(id=content_id(question, [], None, answer), question=question, answer=answer, **fields)


def rows(n: int, word: str = "row") -> list[Example]:
    """n examples, whose labels take turns."""
    return [example(f"{word} {i}", COLOURS[i % 3]) for i in range(n)]


SEEDS = rows(12, "seed")
VALIDATION = rows(100, "validation")


def model_folder(folder: Path, content: bytes = b"weights") -> Path:
    """A folder that looks like a student's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(content)
    (folder / "README.md").write_text("another tool's card")
    (folder / "chat").mkdir(exist_ok=True)
    (folder / "chat" / "template.jinja").write_text("{{ prompt }}")
    return folder


def predictions(validation: Sequence[Example], right: Callable[[int], bool], iteration: int = 0) -> list[Prediction]:
    return [
        Prediction(
            example_id=row.id,
            split="validation",
            iteration=iteration,
            completion=row.answer if right(i) else "?",
            parsed=row.answer if right(i) else None,
            outcome="correct" if right(i) else "wrong",
        )
        for i, row in enumerate(validation)
    ]


def score(split: Any, iteration: int, correct: int, n: int) -> Score:
    low, high = wilson_interval(correct, n)
    return Score(
        iteration=iteration, split=split, n=n, correct=correct, unparseable=0, accuracy=correct / n, low=low, high=high,
        training_rows=n,
    )  # fmt: skip


def decision(iteration: int = 0, go_on: bool = False, best: int = 0) -> Decision:
    return Decision(
        iteration=iteration, selection="wrong", errors=3, go_on=go_on, reason="iteration limit 0 reached",
        best_iteration=best,
    )  # fmt: skip


def call(iteration: int = 1) -> Call:
    return Call(
        key="k", iteration=iteration, parent_id=None, teacher="openai", model="teacher-8b", outcome="answered",
        attempts=1, input_tokens=100, output_tokens=20, usd=0.01,
    )  # fmt: skip


def keep(
    registry: str,
    run: str,
    folder: Path,
    right: Callable[[int], bool],
    validation: Sequence[Example] = VALIDATION,
    training: Sequence[Example] = SEEDS,
    iteration: int = 0,
    config: dict[str, Any] = CONFIG,
    content: bytes | None = None,
) -> str:
    """Stores the candidate of a run that answers the i-th validation row right if `right(i)`."""
    correct = sum(right(i) for i in range(len(validation)))
    history = [score("validation", iteration, correct, len(validation)), score("test", iteration, correct, 100)]
    return keep_candidate(
        registry,
        run,
        model_folder(folder, content or run.encode()),
        predictions(validation, right, iteration),
        history,
        training,
        [row for row in training if not row.generated],
        validation,
        [call(iteration)],
        config,
        iteration,
        random_seed=0,
    )


def finish(
    registry: str,
    run: str,
    validation: Sequence[Example] = VALIDATION,
    config: dict[str, Any] = CONFIG,
    iteration: int = 0,
    seeds: Sequence[Example] = SEEDS,
    **settings: Any,
) -> tuple[dict[str, Any], Generation | None]:
    """Decides on the candidate of a run, in mode promote unless it is said."""
    checked = PromoteSettings(registry=registry, **{"mode": "promote", **settings})
    return decide(
        registry, run, decision(iteration, best=iteration), seeds, validation, TASK, config, checked, random_seed=0
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def as_json(path: Path) -> Any:
    return json.loads(path.read_text())
