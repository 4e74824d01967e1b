"""What `detect_changes` is handed."""

from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.shared.registry.settings import PromoteSettings


class DetectChangesStage(StageSettings):
    """The settings of stage `detect_changes`."""

    promote: PromoteSettings
