"""What can be set about the controls, and what stage `controls` is handed."""

from pydantic import Field

from llm2llm.components.shared.base.settings import Settings, StageSettings
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.llm.settings import Budget, Price, TeacherSettings
from llm2llm.components.shared.tasks import AnyTask, Task
from llm2llm.components.shared.training.settings import SCRATCH, FineTuneSettings


class ControlSettings(Settings):
    """The `controls` section of a config: what the report holds the delivered student against. They are measured once,
    when the loop has ended, on validation and test."""

    steps: bool | None = None
    """Equal compute: whether to train the base student on the seeds alone for as many optimiser steps as the delivered
    student had, with the same schedule and batch. The report's headline is the gain over it. Not set: on where it costs
    less than one iteration, which is with `train.start_from: base` and `train.nodes: 1`. With `start_from: previous` it
    needs the steps of all iterations together. With several nodes it cannot be trained. With `train.max_steps` it costs
    nothing: iteration 0 has had as many steps."""
    untrained: bool | None = None
    """Whether to ask the student as it is before any training, once as it stands and once with `shots` seeds in its
    prompt. Not set: on where it costs no more than answers, which is with a pretrained student that writes
    (`train.head`) and without a judge."""
    shots: int = Field(4, ge=0, le=100)
    """`untrained`: how many seeds, one of each label or choice by turns, stand with their answers before each question;
    fewer where the student's context has no room for them. 0: it is not asked so."""
    teacher_share: float = Field(0, ge=0, le=1)
    """The teacher as a ceiling: the most that asking it the validation questions may cost, as a share of
    `teacher_augment.budget`; what the loop has left is never exceeded either. As many rows are asked as that pays for,
    drawn at random. 0: it is not asked, as its answers teach the student nothing and are paid for. Of several teachers
    the one with the largest weight is asked."""

    def with_steps(self, train: FineTuneSettings) -> bool:
        """Whether the control of equal compute is wanted."""
        return (train.start_from == "base" and train.nodes == 1) if self.steps is None else self.steps

    def with_untrained(self, train: FineTuneSettings, student: str, task: Task) -> bool:
        """Whether the student before its training is asked; one from scratch knows nothing, and a classifier has no
        head before it."""
        wanted = task.match != "judge" if self.untrained is None else self.untrained
        return student != SCRATCH and not train.classifies and wanted

    def any_wanted(self, train: FineTuneSettings, student: str, task: Task) -> bool:
        """Whether the pipeline has the stage at all."""
        return self.with_steps(train) or self.with_untrained(train, student, task) or self.teacher_share > 0


class CeilingSettings(Settings):
    """Who is asked as the control `teacher`, and with which money: of `teacher_augment`."""

    teacher: TeacherSettings
    attempts: int = Field(3, ge=1, le=20)
    ledger: str = ""
    cache: bool = True
    budget: Budget = Budget()
    prices: dict[str, Price] = Field(default={})


class ControlsStage(StageSettings):
    """The settings of stage `controls`."""

    task: AnyTask
    student: str = Field(min_length=1)
    train: FineTuneSettings = FineTuneSettings()
    evaluate: AnswerSettings = AnswerSettings()
    controls: ControlSettings = ControlSettings()
    ceiling: CeilingSettings | None = None
    random_seed: int = Field(0, ge=0)

    def named_sources(self) -> dict[str, str]:
        return {"student": self.student}
