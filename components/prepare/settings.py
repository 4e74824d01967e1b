"""Settings of a run's data and of `prepare`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.shared.base.settings import RandomSeed, Settings, StageSettings
from llm2llm.components.shared.ingest.settings import RowsSettings
from llm2llm.components.shared.leakage.settings import LeakSettings
from llm2llm.components.shared.tasks import AnyTask


class DataSettings(Settings):
    """The `data` section: files (JSON Lines, JSON, CSV, TSV, Parquet, Arrow, also compressed), folders that `datasets`
    saved, Hugging Face dataset names, or `builtin:...`."""

    seeds: str = Field(min_length=1)
    """Labelled rows to draw the seeds from: a file or a Hugging Face dataset, `name[:config][#split]`. A
    relative path is relative to the config."""
    validation: str = ""
    """Rows to decide by; empty: a share of the seed rows is split off."""
    test: str = ""
    """Rows to report on; never used to decide. May be empty."""
    pool: str = ""
    """Further labelled rows for the teacher `pool`. May be empty."""
    replay: str = ""
    """General rows, so that the student keeps what it knew; `train.replay_fraction` says how many. May be empty."""


class PrepareSettings(RowsSettings):
    """The `prepare` section of a config."""

    seed_count: int = Field(0, ge=0)
    """How many rows to draw as seeds, stratified by label for classification; 0: all that are left."""
    seed_fraction: float = Field(1.0, gt=0, le=1)
    """Which share of the rows to draw as seeds, when `seed_count` is 0."""
    validation_fraction: float = Field(0.2, gt=0, lt=1)
    """Which share of the seed rows to set apart as validation, when no validation rows are given."""
    random_seed: int | None = Field(None, ge=0)
    """Decides which rows are drawn, apart from the random seed of training; empty: the run's `random_seed`."""
    contradictions: Literal["refuse", "drop"] = "refuse"
    """What to do with one question that has two answers: stop and name the rows, or drop every one of them."""
    leak: LeakSettings = LeakSettings()
    """What keeps rows like those of validation and test out of seeds, pool and general rows; as `dedupe.leak`."""

    def draws_by(self, random_seed: int) -> int:
        """The random seed of the draws, given the run's."""
        return random_seed if self.random_seed is None else self.random_seed

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Self:
        if self.seed_count and self.seed_fraction != 1.0:
            raise ValueError(
                f"seed_count {self.seed_count} and seed_fraction {self.seed_fraction} contradict each other; set one"
            )
        return self


class PrepareStage(StageSettings):
    """The settings of stage `prepare`."""

    task: AnyTask
    data: DataSettings
    prepare: PrepareSettings = PrepareSettings()
    random_seed: RandomSeed = 0
    data_versions: dict[str, str] = Field(default={})
    """What each source was when the run began: other rows under the same name are another input to Kubeflow's cache."""

    def named_sources(self) -> dict[str, str]:
        return {name: source for name, source in self.data if source}
