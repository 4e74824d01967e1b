"""Runs the stage on artifacts in a folder, in this process or, to be killed, in one of its own.

python -m tests.support.run_augment_stage arguments.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.shared.data.artifacts import LocalArtifact, write_artifact
from llm2llm.components.shared.data.schemas import Example, StudentError
from llm2llm.components.teacher_augment.run import run
from tests.support.builders import artifacts

OUTPUTS = ("candidates", "rejects", "calls")


def prepare(folder: Path, seeds: Sequence[Example], errors: Sequence[StudentError]) -> Path:
    """Writes what the stage reads."""
    write_artifact(LocalArtifact(str(folder / "errors")), "errors", errors)
    write_artifact(LocalArtifact(str(folder / "training")), "examples", seeds)
    return folder


def go(folder: str | Path, output: str | Path, task: Any, settings: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    """Runs it on a prepared folder and returns its artifacts by name; keywords stand for inputs of `run`."""
    folder, output = Path(folder), Path(output)
    outputs = artifacts(output, *OUTPUTS)
    inputs: dict[str, Any] = {
        "errors": LocalArtifact(str(folder / "errors")),
        "training_set": LocalArtifact(str(folder / "training")),
        "pool_set": None,
        "task": {"name": task} if isinstance(task, str) else task,
        "previous_rejects": None,
        "previous_calls": None,
        "student_model": None,
        "iteration": 1,
        "teacher": settings.get("teacher", "openai"),
        "teacher_model": settings.get("model", ""),
        "teacher_url": settings.get("url", "https://api.openai.com/v1"),
        "examples_per_error": settings.get("examples_per_error", 1),
        "random_seed": 0,
        "settings": {
            key: value
            for key, value in settings.items()
            if key not in ("teacher", "model", "url", "examples_per_error")
        },
    }
    run(**{**inputs, **keywords}, **outputs)
    return outputs


if __name__ == "__main__":
    go(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
