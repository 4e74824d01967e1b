"""What the loop in plain Python takes over of an earlier start: whole and unchanged work, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.pipelines.local.in_process import _done


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., int]:
    """Starts a stage with an input and gives how often it has really run so far."""
    runs: list[Any] = []

    def stage(*, rows: str, training_set: LocalArtifact, rejects: LocalArtifact, breaks: bool) -> None:
        runs.append(rows)
        Path(training_set.path).write_text(rows * 100)
        if breaks:
            raise KeyboardInterrupt
        Path(rejects.path).write_text("none")
        training_set.metadata["rows"] = len(rows)

    def go(rows: str = "abc", breaks: bool = False) -> int:
        def run(**given: Any) -> None:
            stage(breaks=breaks, **given)

        done = _done(tmp_path, "dedupe", run, ["training_set", "rejects"], {"rows": rows})
        assert Path(done["training_set"].path).read_text() == rows * 100
        assert done["training_set"].metadata["rows"] == len(rows)
        return len(runs)

    return go


def test_whole_work_is_taken_over_and_other_inputs_are_other_work(start: Callable[..., int]) -> None:
    assert [start(), start(), start("abd"), start("abd"), start()] == [1, 1, 2, 2, 3]


def test_what_was_broken_off_is_not(start: Callable[..., int]) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(breaks=True)
    assert [start(), start()] == [2, 2]


@pytest.mark.parametrize("name", ["done.json", "training_set", "rejects"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "removed", "other bytes"])
def test_nor_is_what_has_been_damaged_since(start: Callable[..., int], tmp_path: Path, name: str, damage: str) -> None:
    assert start() == 1
    file = tmp_path / "dedupe" / name
    content = file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "emptied": b"", "other bytes": b"\xff\xfe"}[damage])
    assert [start(), start()] == [2, 2]
