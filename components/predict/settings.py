"""What `predict` is handed."""

from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.tasks import AnyTask


class PredictStage(StageSettings):
    """The settings of stage `predict`."""

    task: AnyTask
    evaluate: AnswerSettings = AnswerSettings()
