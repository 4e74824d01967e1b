"""What `train` is handed."""

from pydantic import Field

from llm2llm.components.shared.base.settings import RandomSeed, StageSettings
from llm2llm.components.shared.tasks import AnyTask
from llm2llm.components.shared.training.settings import FineTuneSettings


class TrainStage(StageSettings):
    """The settings of stage `train`."""

    task: AnyTask
    student: str = Field(min_length=1)
    train: FineTuneSettings = FineTuneSettings()
    random_seed: RandomSeed = 0

    def named_sources(self) -> dict[str, str]:
        return {"student": self.student}
