"""What the student of a fold is trained on, everything but the fold, and how: as `train` does, losses apart."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.out_of_fold import out_of_fold as room
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.sampling import fold_of
from llm2llm.components.shared.data.schemas import Example, Prediction, content_id
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.storage import exists, join, write_bytes
from llm2llm.components.shared.tasks import load_task
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings


def test_no_row_with_a_held_out_question_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cot` writes other rationales for a seed's own question; its answer stands in each of them."""
    seeds = [
        Example(id=content_id(question, [], "a way", "1"), question=question, rationale="a way", answer="1")
        for question in (f"How many {thing} are left of one?" for thing in ("hats", "boats", "cups", "doors"))
    ]
    others = [
        replace(
            seed, id=content_id(seed.question.upper(), [], "another", "1"), question=seed.question.upper(),
            rationale="another", parent_id=seed.id, iteration=1, strategy="cot",
        )
        for seed in seeds
    ]  # fmt: skip
    trained: dict[str, Any] = {}

    def train(job: Any, output: Path) -> None:
        trained["rows"] = job.training_set

    monkeypatch.setattr(room, "train_on_devices", train)
    monkeypatch.setattr(room, "predict_beside_training", lambda *_: [])
    fold_by_id = fold_of({seed.id: seed.answer for seed in seeds}, 2, 0)
    for fold in (0, 1):
        room.out_of_fold(
            [*seeds, *others], load_task("gsm8k"), "scratch", FineTuneSettings(), AnswerSettings(), fold, 2, 1, 0
        )
        held_out = {seed.question.lower() for seed in seeds if fold_by_id[seed.id] == fold}
        kept = [row.question.lower() for row in trained["rows"]]
        assert len(kept) == 4
        assert not held_out & set(kept)


def test_checkpoints_are_kept_until_the_student_has_answered(
    tmp_path: Path, example: Callable[..., Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = [example(f"How many are {number}?", str(number)) for number in range(4)]
    settings = FineTuneSettings(checkpoint_uri=str(tmp_path / "place"), record_losses=True)
    jobs: list[TrainingJob] = []

    def train(job: TrainingJob, output: Path) -> None:
        jobs.append(job)
        assert job.checkpoints is not None
        write_bytes(join(job.checkpoints, "step"), b"")

    def fold(answer: Callable[..., list[Prediction]]) -> str:
        monkeypatch.setattr(room, "train_on_devices", train)
        monkeypatch.setattr(room, "predict_beside_training", answer)
        room.out_of_fold(seeds, load_task("gsm8k"), "scratch", settings, AnswerSettings(), 0, 2, 1, 0)
        return str(jobs[-1].checkpoints)

    def cut_off(*_: object) -> list[Prediction]:
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        fold(cut_off)
    assert exists(join(str(jobs[0].checkpoints), "step")), "a retry goes on from them"
    assert not exists(join(fold(lambda *_: []), "step"))
    assert jobs[0].checkpoints == jobs[1].checkpoints
    assert not jobs[0].settings.record_losses, "two passes over the seeds, whose losses nobody would read"


def test_a_disk_without_room_for_the_student_is_a_users_mistake(
    example: Callable[..., Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = [example(f"How many are {number}?", str(number)) for number in range(4)]

    def train(job: TrainingJob, output: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room, "train_on_devices", train)
    with pytest.raises(UserError, match=r"cannot write .*/student: the disk is full"):
        room.out_of_fold(seeds, load_task("gsm8k"), "scratch", FineTuneSettings(), AnswerSettings(), 0, 2, 1, 0)
