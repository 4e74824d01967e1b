"""What `promote` is handed; `PromoteSettings` lives with the registry, as `detect_changes` reads it too."""

from pydantic import Field

from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.shared.registry.settings import PromoteSettings as PromoteSettings
from llm2llm.components.shared.tasks import AnyTask


class PromoteStage(StageSettings):
    """The settings of stage `promote`."""

    task: AnyTask
    promote: PromoteSettings
    random_seed: int = Field(0, ge=0)
    """Of the bootstrap."""
