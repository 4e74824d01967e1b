"""Runs the stage on artifacts in a folder, in this process or, to be killed, in one of its own.

python -m tests.support.run_augment_stage arguments.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.artifacts import LocalArtifact, write_artifact
from llm2llm.components.shared.data.journal import Journal, write_journal
from llm2llm.components.shared.data.schemas import Example, StudentError
from llm2llm.components.teacher_augment.component import teacher_augment
from tests.support.builders import artifacts

OUTPUTS = ("candidates", "journal")


def prepare(folder: Path, seeds: Sequence[Example], errors: Sequence[StudentError]) -> Path:
    """Writes what the stage reads."""
    write_journal(LocalArtifact(str(folder / "journal")), Journal(errors=errors))
    write_artifact(LocalArtifact(str(folder / "training")), "examples", seeds)
    return folder


def go(folder: str | Path, output: str | Path, task: Any, settings: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    """Runs it on a prepared folder and returns its artifacts by name; keywords stand for inputs of the component."""
    folder, output = Path(folder), Path(output)
    outputs = artifacts(output, *OUTPUTS)
    inputs: dict[str, Any] = {
        "previous_journal": LocalArtifact(str(folder / "journal")),
        "training_set": LocalArtifact(str(folder / "training")),
        "settings": settings_text({"task": task, "teacher_augment": settings, "random_seed": 0}),
    }
    teacher_augment.python_func(**{**inputs, **keywords}, **outputs)
    return outputs


if __name__ == "__main__":
    go(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
