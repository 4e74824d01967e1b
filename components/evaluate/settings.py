"""What `evaluate` is handed."""

from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.tasks import AnyTask


class EvaluateStage(StageSettings):
    """The settings of stage `evaluate`."""

    task: AnyTask
    evaluate: AnswerSettings = AnswerSettings()
