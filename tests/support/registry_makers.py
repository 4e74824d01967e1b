"""Students that are quickly made, for tests of the registry and of promotion."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.promote.promote import decide, keep_candidate
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.shared.data.schemas import Example, Prediction, Score
from llm2llm.components.shared.registry.production import Generation
from llm2llm.components.shared.tasks import Task
from tests.support.builders import call, decision, example, prediction, score

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


def predictions(
    validation: Sequence[Example],
    right: Callable[[int], bool],
    iteration: int = 0,
    wrong: Callable[[Example], str] = lambda row: "?",
) -> list[Prediction]:
    """The answers to validation rows, of which the i-th is right if `right(i)`."""
    said = [row.answer if right(i) else wrong(row) for i, row in enumerate(validation)]
    return [prediction(row, one, "validation", iteration) for row, one in zip(validation, said, strict=True)]


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
    as_it_is: bool = False,
    says: Callable[[Example], str] = lambda row: "?",
) -> str:
    """Stores the candidate of a run that answers the i-th validation row right if `right(i)`; `folder` is made to look
    like a student's, unless it is one already (`as_it_is`). What is not right is as `says` says."""
    correct = sum(right(i) for i in range(len(validation)))
    history = [score(iteration, "validation", correct, len(validation)), score(iteration, "test", correct, 100)]
    return keep_candidate(
        registry,
        run,
        folder if as_it_is else model_folder(folder, content or run.encode()),
        predictions(validation, right, iteration, says),
        history,
        training,
        [row for row in training if not row.generated],
        validation,
        [call(iteration=iteration, model="teacher-8b", input_tokens=100, output_tokens=20, usd=0.01)],
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
    scores: Sequence[Score] = (),
    **settings: Any,
) -> tuple[dict[str, Any], Generation | None]:
    """Decides on the candidate of a run, in mode promote unless it is said."""
    checked = PromoteSettings(registry=registry, **{"mode": "promote", **settings})
    return decide(
        registry,
        run,
        decision(iteration, best=iteration),
        scores,
        seeds,
        validation,
        TASK,
        config,
        checked,
        random_seed=0,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def as_json(path: Path) -> Any:
    return json.loads(path.read_text())
