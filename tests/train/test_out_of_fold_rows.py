"""What the student of a fold is trained on: everything but the fold, whatever stands in other rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.out_of_fold import out_of_fold as room
from llm2llm.components.rows.folds import fold_of
from llm2llm.components.rows.kinds import Example, content_id
from llm2llm.components.students.settings import AnswerSettings, FineTuneSettings
from llm2llm.components.tasks import load_task


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
    monkeypatch.setattr(room, "predict", lambda *_: [])
    fold_by_id = fold_of(seeds, 2, 0)
    for fold in (0, 1):
        room.out_of_fold(
            [*seeds, *others], load_task("gsm8k"), "scratch", FineTuneSettings(), AnswerSettings(), fold, 2, 1, 0
        )
        held_out = {seed.question.lower() for seed in seeds if fold_by_id[seed.id] == fold}
        kept = [row.question.lower() for row in trained["rows"]]
        assert len(kept) == 4
        assert not held_out & set(kept)
