"""What can be tuned, and what stage `tune` is handed."""

import itertools
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from llm2llm.components.shared.base.sampling import seeded_key
from llm2llm.components.shared.base.settings import RandomSeed, Settings, StageSettings
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.tasks import AnyTask
from llm2llm.components.shared.training.settings import FineTuneSettings

MOST_TRIALS = 50
"""Each is a training, and with folds as many as there are folds."""

_Above = Annotated[float, Field(gt=0)]
_NotBelow = Annotated[float, Field(ge=0)]
_Number = Annotated[int, Field(ge=1)]


class TuneSettings(Settings):
    """The `tune` section of a config: settings of `train` to try on the seeds before the loop, which then trains with
    the best. Each key that is not left out has two values or more; every combination is one trial. Of equally good ones
    the first in the given order is taken. Fixed when the pipeline is compiled: whether there is anything to tune."""

    learning_rate: list[_Above] | None = None
    """Values of `train.learning_rate`."""
    epochs: list[_Above] | None = None
    """Values of `train.epochs`."""
    batch_size: list[_Number] | None = None
    """Values of `train.batch_size`."""
    scheduler: list[Literal["cosine", "linear", "constant"]] | None = None
    """Values of `train.scheduler`."""
    warmup: list[Annotated[float, Field(ge=0, lt=1)]] | None = None
    """Values of `train.warmup`."""
    weight_decay: list[_NotBelow] | None = None
    """Values of `train.weight_decay`."""
    neftune_alpha: list[_NotBelow] | None = None
    """Values of `train.neftune_alpha`."""
    lora_rank: list[_Number] | None = None
    """Values of `train.lora_rank`."""
    lora_alpha: list[_Number] | None = None
    """Values of `train.lora_alpha`."""
    trials: int = Field(0, ge=0, le=MOST_TRIALS)
    """How many of the combinations to try, drawn at random by `random_seed`; 0: all of them, which may be 50 at
    most."""
    folds: int = Field(0, ge=0, le=20)
    """0: each trial is one training on the seeds, scored on the validation rows. 2 or more: so many trainings, each
    scored on the seeds that it was held back, so that validation decides about iterations alone; for as many times the
    price."""

    @field_validator("*", mode="before")
    @classmethod
    def _values_to_choose_from(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name in KEYS and value is not None:
            if not isinstance(value, list) or len(value) < 2:
                raise ValueError(
                    "a list of two values or more to choose from; a single one belongs in train." + str(info.field_name)
                )
            if any(isinstance(one, bool) for one in value):
                raise ValueError("expected numbers, not truth values")
        return value

    @model_validator(mode="after")
    def _grid_fits(self) -> Self:
        for key, values in self.tried.items():
            if twice := [one for place, one in enumerate(values) if one in values[:place]]:
                raise ValueError(f"{key}: {twice[0]!r} stands there twice; remove one")
        if not self.tried:
            for key in ("trials", "folds"):
                if getattr(self, key):
                    raise ValueError(f"{key}: {getattr(self, key)}, and nothing to tune; name values of a key of train")
            return self
        size = len(self._grid())
        if size > MOST_TRIALS and not self.trials:
            raise ValueError(
                f"{size:,} combinations, more than {MOST_TRIALS} trials; name fewer values, or set trials to try so "
                "many of them, drawn at random"
            )
        if self.trials >= size or self.trials == 1:
            raise ValueError(
                f"trials: {self.trials} of {size} combinations; set it to 2 or more and fewer than these, or remove it"
            )
        if self.folds == 1:
            raise ValueError("folds: 1 holds back all seeds; set 2 or more, or 0 to score on validation")
        return self

    @property
    def tried(self) -> dict[str, list[Any]]:
        """The keys of `train` that are tuned, each with its values; none where nothing is."""
        return {key: values for key in KEYS if (values := getattr(self, key)) is not None}

    def _grid(self) -> list[dict[str, Any]]:
        return [dict(zip(self.tried, values, strict=True)) for values in itertools.product(*self.tried.values())]

    def combinations(self, random_seed: int) -> list[dict[str, Any]]:
        """What to try, in the order of the grid: the first key changes slowest."""
        grid = self._grid()
        if not self.trials:
            return grid
        places = sorted(range(len(grid)), key=lambda one: seeded_key(random_seed, "tune", json.dumps(grid[one])))
        return [grid[place] for place in sorted(places[: self.trials])]

    def check(self, train: FineTuneSettings) -> None:
        """Checks that the settings of the training leave open what is tuned.

        Raises:
            ValueError: They do not; names the keys and the fix.
        """
        if not self.tried:
            return
        default = FineTuneSettings.model_validate({"method": train.method})
        for key in self.tried:
            if (now := getattr(train, key)) != (usual := getattr(default, key)):
                raise ValueError(
                    f"tune.{key} has values to try, and train.{key} is {now!r}; remove one of the two (or set "
                    f"train.{key}: {usual!r}, its default)"
                )
            if key.startswith("lora_") and not train.adapts:
                raise ValueError(
                    f"tune.{key} is for an adapter, and train.method is {train.method!r}; remove it, or set "
                    "train.method: lora"
                )
        if "epochs" in self.tried and train.max_steps:
            raise ValueError(
                f"tune.epochs: epochs change nothing with train.max_steps {train.max_steps}; remove one of the two"
            )
        if train.nodes > 1:
            raise ValueError(f"tune: its trials train in one pod, and train.nodes is {train.nodes}; set train.nodes: 1")


KEYS = tuple(name for name in TuneSettings.model_fields if name not in ("trials", "folds"))
"""The keys of `train` that can be tuned."""


class TuneStage(StageSettings):
    """The settings of stage `tune`."""

    task: AnyTask
    student: str = Field(min_length=1)
    train: FineTuneSettings = FineTuneSettings()
    evaluate: AnswerSettings = AnswerSettings()
    tune: TuneSettings = TuneSettings()
    random_seed: RandomSeed = 0
    handed_on: Mapping[str, Any] = Field(default={})
    """Sections of the stages that get their settings from this one, and that it needs not itself."""

    def named_sources(self) -> dict[str, str]:
        return {"student": self.student}
