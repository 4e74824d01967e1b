"""Rows shared among pods leave what one pod leaves, byte for byte; batches that do not fit into memory are halved."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from llm2llm.components.answer.run import run as run_answer
from llm2llm.components.evaluate.run import run as run_evaluate
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import LocalArtifact, write_artifact
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Prediction, Score
from llm2llm.components.shared.inference import generate as answer_module
from llm2llm.components.shared.inference.generate import MORE_MEMORY, answer
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.lineage.embedded import content_hash
from llm2llm.components.shared.models.memory import in_pieces
from llm2llm.components.shared.tasks import Task


class Stages:
    """`answer` and `evaluate` on files in a folder."""

    def __init__(self, folder: Path, student: Path, splits: dict[str, list[Example]], task: Task) -> None:
        self.folder = folder
        self.student = LocalArtifact(str(student))
        self.sets = {}
        for name, rows in splits.items():
            self.sets[f"{name}_set"] = LocalArtifact(str(folder / name))
            write_artifact(self.sets[f"{name}_set"], "examples", rows)
        self.task = task.model_dump()

    def answer(self, shard: int, shards: int, settings: dict[str, Any]) -> LocalArtifact:
        written = LocalArtifact(str(self.folder / f"shard {shard} of {shards}"))
        run_answer(
            model=self.student,
            **self.sets,
            task=self.task,
            shard=shard,
            shards=shards,
            iteration=0,
            settings=settings,
            predictions=written,
        )
        return written

    def evaluate(
        self, name: str, settings: dict[str, Any], shards: Sequence[LocalArtifact] | None = None
    ) -> dict[str, LocalArtifact]:
        (self.folder / name).mkdir()
        names = ("predictions", "history", "metrics", "confusion")
        outputs = {output: LocalArtifact(str(self.folder / name / output)) for output in names}
        run_evaluate(
            model=None if shards else self.student,
            **self.sets,
            shard_predictions=shards,
            first_predictions=None,
            task=self.task,
            previous_history=None,
            iteration=0,
            settings=settings,
            **outputs,
        )
        return outputs


@pytest.fixture
def stages(tmp_path: Path, rows: list[Example], colours: Task, taught_student: Path) -> Stages:
    splits = {"seeds": rows[:11], "validation": rows[11:17], "test": rows[17:]}
    return Stages(tmp_path, taught_student, splits, colours)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 4},
        {"batch_size": 3, "samples": 4, "temperature": 2.0, "hardness": True},
        {"batch_size": 5, "mode": "score"},
    ],
    ids=["greedy", "samples and hardness", "score"],
)
def test_any_number_of_shards_leaves_the_same(stages: Stages, settings: dict[str, Any]) -> None:
    alone = stages.evaluate("alone", settings)
    for shards in (1, 3, 12):
        parts = [stages.answer(shard, shards, settings) for shard in range(shards)]
        sizes = [len(read_rows(part.path, "predictions", Prediction)) for part in parts]
        assert sum(sizes) == 24
        if shards == 3:
            assert all(sizes), "each has something to do"
        together = stages.evaluate(f"of {shards}", settings, parts[::-1])
        for name, artifact in alone.items():
            assert content_hash(together[name].path) == content_hash(artifact.path), (shards, name)
    (seeds, *_) = read_rows(alone["history"].path, "scores", Score)
    assert seeds.training_rows == 24, "without the model"
    confusion = json.loads(Path(alone["confusion"].path).read_text())
    assert alone["confusion"].metadata["confusionMatrix"] == confusion
    assert sum(map(sum, confusion["matrix"])) == 6, "validation"


@pytest.mark.slow
def test_times_are_shown_and_not_kept(stages: Stages) -> None:
    outputs = stages.evaluate("alone", {})
    shown, kept = outputs["metrics"].metadata, json.loads(Path(outputs["metrics"].path).read_text())
    for name in ("import_seconds", "load_seconds", "first_token_seconds", "rows_per_second"):
        assert shown[name] >= 0
        assert name not in kept
    assert shown["test_accuracy"] == kept["test_accuracy"]


@pytest.mark.slow
def test_a_run_without_all_its_shards_fails(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [stages.answer(shard, 3, {"batch_size": 4}) for shard in (0, 2)]
    with pytest.raises(SystemExit, match="2"):
        stages.evaluate("of two", {"batch_size": 4}, parts)
    assert "rows are missing in the predictions of 2 shards" in capsys.readouterr().err


def test_a_shard_beyond_the_last_is_refused(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        stages.answer(3, 3, {})
    assert "shard 3 of 3: shards are numbered from 0 to 2" in capsys.readouterr().err


class TestHalving:
    def tight(self, room: int) -> Any:
        tried: list[int] = []

        def work(piece: Sequence[int]) -> list[int]:
            tried.append(len(piece))
            if len(piece) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return [10 * one for one in piece]

        return work, tried

    def test_a_piece_that_does_not_fit_is_halved_and_the_size_kept(self) -> None:
        work, tried = self.tight(room=5)
        assert in_pieces(range(16), 16, work, "evaluate", MORE_MEMORY) == ([10 * n for n in range(16)], 4)
        assert tried == [16, 8, 4, 4, 4, 4]

    def test_a_row_that_does_not_fit_is_one_clear_error(self) -> None:
        work, tried = self.tight(room=0)
        with pytest.raises(UserError, match=r"not even one row fits into memory; .*evaluate\.gpus"):
            in_pieces(range(8), 4, work, "evaluate", MORE_MEMORY)
        assert tried == [4, 2, 1]

    def test_other_failures_stay_failures(self) -> None:
        def broken(piece: Sequence[int]) -> list[int]:
            raise RuntimeError("shapes do not match")

        with pytest.raises(RuntimeError, match="shapes do not match"):
            in_pieces(range(8), 4, broken, "evaluate", MORE_MEMORY)

    @pytest.mark.slow
    def test_answers_stay_the_same(
        self,
        rows: list[Example],
        colours: Task,
        taught_student: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        expected = answer(taught_student, rows, colours, AnswerSettings(batch_size=16))
        generate = answer_module._generate

        def on_a_small_device(model: Any, tokenizer: Any, wanted: Any, *rest: Any) -> Any:
            if len(wanted) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return generate(model, tokenizer, wanted, *rest)

        monkeypatch.setattr(answer_module, "_generate", on_a_small_device)
        assert answer(taught_student, rows, colours, AnswerSettings(batch_size=16)) == expected
        said = capsys.readouterr().out
        assert said.count("out of memory") == 2, "16, 8; then 4 fits, also in the next batch"
