"""What can be set about the controls, and what stage `controls` is handed."""

from pydantic import Field

from llm2llm.components.shared.base.settings import Settings, StageSettings
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.tasks import AnyTask
from llm2llm.components.shared.training.settings import FineTuneSettings


class ControlSettings(Settings):
    """The `controls` section of a config: what the report holds the delivered student against. They are measured once,
    when the loop has ended, on validation and test."""

    steps: bool | None = None
    """Equal compute: whether to train the base student on the seeds alone for as many optimiser steps as the delivered
    student had, with the same schedule and batch. The report's headline is the gain over it. Not set: on where it costs
    less than one iteration, which is with `train.start_from: base` and `train.nodes: 1`. With `start_from: previous` it
    needs the steps of all iterations together. With several nodes it cannot be trained. With `train.max_steps` it costs
    nothing: iteration 0 has had as many steps."""

    def with_steps(self, train: FineTuneSettings) -> bool:
        """Whether the control of equal compute is wanted."""
        return (train.start_from == "base" and train.nodes == 1) if self.steps is None else self.steps

    def any_wanted(self, train: FineTuneSettings) -> bool:
        """Whether the pipeline has the stage at all."""
        return self.with_steps(train)


class ControlsStage(StageSettings):
    """The settings of stage `controls`."""

    task: AnyTask
    student: str = Field(min_length=1)
    train: FineTuneSettings = FineTuneSettings()
    evaluate: AnswerSettings = AnswerSettings()
    controls: ControlSettings = ControlSettings()
    random_seed: int = Field(0, ge=0)

    def named_sources(self) -> dict[str, str]:
        return {"student": self.student}
