"""What can be set about `prepare`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.leakage.settings import LeakSettings
from llm2llm.components.shared.tasks.task import Columns


class PrepareSettings(Settings):
    """The `prepare` section of a config."""

    seed_count: int = Field(0, ge=0)
    """How many rows to draw as seeds, stratified by label for classification; 0: all that are left."""
    seed_fraction: float = Field(1.0, gt=0, le=1)
    """Which share of the rows to draw as seeds, when `seed_count` is 0."""
    validation_fraction: float = Field(0.2, gt=0, lt=1)
    """Which share of the seed rows to set apart as validation, when no validation rows are given."""
    contradictions: Literal["refuse", "drop"] = "refuse"
    """What to do with one question that has two answers: stop and name the rows, or drop every one of them."""
    leak: LeakSettings = LeakSettings()
    """What keeps rows like those of validation and test out of seeds, pool and general rows; as `dedupe.leak`."""
    replay_columns: Columns = Columns()
    """Where `data.replay` has question and answer, such as `{question: instruction, answer: output}`."""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Self:
        if self.seed_count and self.seed_fraction != 1.0:
            raise ValueError(
                f"seed_count {self.seed_count} and seed_fraction {self.seed_fraction} contradict each other; set one"
            )
        return self
