"""What `promote` is handed; `PromoteSettings` lives with the registry, as `detect_changes` reads it too."""

from llm2llm.components.shared.base.settings import RandomSeed, StageSettings
from llm2llm.components.shared.registry.settings import PromoteSettings as PromoteSettings
from llm2llm.components.shared.tasks import AnyTask


class PromoteStage(StageSettings):
    """The settings of stage `promote`."""

    task: AnyTask
    promote: PromoteSettings
    random_seed: RandomSeed = 0
    """Of the bootstrap."""
