"""What `predict` is handed."""

from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.shared.tasks import AnyTask
from llm2llm.components.shared.training.settings import AnswerSettings


class PredictStage(StageSettings):
    """The settings of stage `predict`."""

    task: AnyTask
    evaluate: AnswerSettings = AnswerSettings()
