"""What the loop in plain Python takes over of an earlier start: whole and unchanged work, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.pipelines.local import in_process


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Starts a stage with an input and gives how often it has really run so far."""
    runs: list[Any] = []

    def stage(*, rows: str, next_training_set: LocalArtifact, journal: LocalArtifact, breaks: bool) -> None:
        runs.append(rows)
        Path(next_training_set.path).write_text(rows * 100)
        if breaks:
            raise KeyboardInterrupt
        Path(journal.path).write_text("none")
        next_training_set.metadata["rows"] = len(rows)

    def go(rows: str = "abc", breaks: bool = False) -> int:
        def run(**given: Any) -> None:
            stage(breaks=breaks, **given)

        monkeypatch.setattr(in_process, "component", lambda name: SimpleNamespace(python_func=run))
        done = in_process.ProcessRunner(SimpleNamespace(), tmp_path)._done("dedupe", {"rows": rows})
        assert Path(done["next_training_set"].path).read_text() == rows * 100
        assert done["next_training_set"].metadata["rows"] == len(rows)
        return len(runs)

    return go


def test_whole_work_is_taken_over_and_other_inputs_are_other_work(start: Callable[..., int]) -> None:
    assert [start(), start(), start("abd"), start("abd"), start()] == [1, 1, 2, 2, 3]


def test_what_was_broken_off_is_not(start: Callable[..., int]) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(breaks=True)
    assert [start(), start()] == [2, 2]


@pytest.mark.parametrize("name", ["done.json", "next_training_set", "journal"])
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
