"""What `notify` is handed; `NotifySettings` lives with the registry, as `detect_changes` reads it too."""

from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.shared.registry.notify_settings import NotifySettings as NotifySettings


class NotifyStage(StageSettings):
    """The settings of stage `notify`: none, as it runs when the stage that hands out settings may have failed."""
