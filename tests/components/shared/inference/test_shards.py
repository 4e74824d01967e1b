"""Rows shared among pods leave what one pod leaves, byte for byte; batches that do not fit into memory are halved."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TokenizersBackend

from llm2llm.components.evaluate.component import evaluate
from llm2llm.components.predict.component import predict as predict_stage
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.journal import read_journal
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import SPLITS, Example, Prediction
from llm2llm.components.shared.inference import generate as answer_module
from llm2llm.components.shared.inference import questions as question_module
from llm2llm.components.shared.inference.generate import MORE_MEMORY, answer
from llm2llm.components.shared.inference.predict import predict, predict_share
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.lineage.embedded import content_hash
from llm2llm.components.shared.models.memory import in_pieces
from llm2llm.components.shared.tasks import Task
from tests.support.builders import journal_artifact, outputs_of, score, splits_artifact


class Stages:
    """`predict` and `evaluate` on files in a folder."""

    def __init__(self, folder: Path, student: Path, splits: dict[str, list[Example]], task: Task) -> None:
        self.folder = folder
        self.student = LocalArtifact(str(student))
        self.splits = splits_artifact(folder, **splits)
        self.journal = journal_artifact(folder)
        self.task = task.model_dump()

    def predict(self, shard: int, shards: int, settings: dict[str, Any]) -> LocalArtifact:
        outputs = outputs_of("predict", self.folder / f"shard {shard} of {shards}")
        predict_stage.python_func(
            model=self.student,
            splits=self.splits,
            settings=settings_text({"task": self.task, "evaluate": {**settings, "shards": shards}}),
            shard=shard,
            iteration=0,
            **outputs,
        )
        return outputs["predictions"]

    def evaluate(
        self, name: str, settings: dict[str, Any], shards: Sequence[LocalArtifact] | None = None
    ) -> dict[str, LocalArtifact]:
        outputs = outputs_of("evaluate", self.folder / name)
        evaluate.python_func(
            splits=self.splits,
            previous_journal=self.journal,
            settings=settings_text({"task": self.task, "evaluate": settings}),
            model=None if shards else self.student,
            shard_predictions=shards,
            iteration=0,
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
        parts = [stages.predict(shard, shards, settings) for shard in range(shards)]
        sizes = [len(read_rows(part.path, "predictions", Prediction)) for part in parts]
        assert sum(sizes) == 24
        if shards == 3:
            assert all(sizes), "each has something to do"
        together = stages.evaluate(f"of {shards}", settings, parts[::-1])
        for name, artifact in alone.items():
            assert content_hash(together[name].path) == content_hash(artifact.path), (shards, name)
        assert {one.training_rows for one in read_journal(together["journal"]).scores} == {24}, "without the model"
    confusion = json.loads(Path(alone["confusion"].path).read_text())
    assert alone["confusion"].metadata["confusionMatrix"] == confusion
    assert sum(map(sum, confusion["matrix"])) == 6, "validation"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [AnswerSettings(batch_size=1), AnswerSettings(batch_size=1, mode="score"), AnswerSettings(batch_size=1, samples=2)],
    ids=["greedy", "score", "samples"],
)
def test_of_many_rows_a_shard_encodes_its_own(
    rows: list[Example], colours: Task, taught_student: Path, monkeypatch: pytest.MonkeyPatch, settings: AnswerSettings
) -> None:
    monkeypatch.setattr(question_module, "FEW", 5)
    monkeypatch.setattr(question_module, "BLOCK", 2)
    splits: dict[Any, list[Example]] = {"seeds": rows[:6], "test": rows[6:16]}
    whole = predict(taught_student, splits, 0, None, colours, settings)
    encoded: list[str] = []
    call = TokenizersBackend.__call__

    def counted(tokenizer: Any, text: Any = None, *rest: Any, **others: Any) -> Any:
        encoded.extend([text] if isinstance(text, str) else text)
        return call(tokenizer, text, *rest, **others)

    monkeypatch.setattr(TokenizersBackend, "__call__", counted)
    found: list[Prediction] = []
    for shard in range(3):
        encoded.clear()
        own, _ = predict_share(taught_student, splits, 0, None, colours, settings, shard, 3)
        asked = {
            row.question for some in splits.values() for row in some if any(row.question in one for one in encoded)
        }
        assert asked == {row.question for row in rows for one in own if one.example_id == row.id}
        assert 0 < len(own) < 16
        found += own
    assert sorted(found, key=lambda one: (SPLITS.index(one.split), one.example_id)) == whole


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
    parts = [stages.predict(shard, 3, {"batch_size": 4}) for shard in (0, 2)]
    with pytest.raises(SystemExit, match="2"):
        stages.evaluate("of two", {"batch_size": 4}, parts)
    assert "rows are missing in the predictions of 2 shards" in capsys.readouterr().err


def test_a_shard_beyond_the_last_is_refused(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        stages.predict(3, 3, {})
    assert "shard 3 of 3: shards are numbered from 0 to 2" in capsys.readouterr().err


def test_neither_a_student_nor_shards_is_refused(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate.python_func(
            splits=stages.splits,
            previous_journal=stages.journal,
            settings=settings_text({"task": stages.task}),
            **outputs_of("evaluate", stages.folder / "out"),
        )
    assert "evaluate: neither a model nor shard_predictions; give one of the two" in capsys.readouterr().err
    assert not (stages.folder / "out").exists()


@pytest.mark.slow
def test_scores_join_the_journal_and_are_held_against_iteration_0(stages: Stages) -> None:
    stages.journal = journal_artifact(stages.folder, "past", scores=[score(0, "seeds", 0, 11)])
    outputs = outputs_of("evaluate", stages.folder / "out")
    evaluate.python_func(
        splits=stages.splits,
        previous_journal=stages.journal,
        settings=settings_text({"task": stages.task}),
        model=stages.student,
        iteration=1,
        **outputs,
    )
    scores = read_journal(outputs["journal"]).scores
    assert [(one.iteration, one.split) for one in scores] == [
        (0, "seeds"), (1, "seeds"), (1, "validation"), (1, "test")
    ]  # fmt: skip
    assert scores[1].gain == scores[1].accuracy > 0
    assert scores[2].gain is None, "validation was not asked in iteration 0"


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
