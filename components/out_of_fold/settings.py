"""What `out_of_fold` is handed."""

from pydantic import Field

from llm2llm.components.shared.base.settings import RandomSeed, Settings, StageSettings
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.tasks import AnyTask
from llm2llm.components.shared.training.settings import FineTuneSettings


class FoldSettings(Settings):
    """What `out_of_fold` needs of the config's `filter_errors` section."""

    folds: int = Field(3, ge=2)
    only_above: float | None = Field(None, gt=0, lt=1)
    """Train only when the student of this iteration solves more than this share of its seeds; None: always."""


class OutOfFoldStage(StageSettings):
    """The settings of stage `out_of_fold`."""

    task: AnyTask
    student: str = Field(min_length=1)
    train: FineTuneSettings = FineTuneSettings()
    evaluate: AnswerSettings = AnswerSettings()
    out_of_fold: FoldSettings = FoldSettings()
    random_seed: RandomSeed = 0

    def named_sources(self) -> dict[str, str]:
        return {"student": self.student}
