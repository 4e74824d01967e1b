"""What `detect_changes` is handed."""

from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.shared.registry.notify_settings import NotifySettings
from llm2llm.components.shared.registry.settings import PromoteSettings


class DetectChangesStage(StageSettings):
    """The settings of stage `detect_changes`."""

    promote: PromoteSettings
    notify: NotifySettings = NotifySettings()
    """Whether somebody is told of a run that ends early."""
