"""What `report` is handed: nothing; the run's config is an artifact, which it shows."""

from llm2llm.components.shared.base.settings import StageSettings


class ReportStage(StageSettings):
    """The settings of stage `report`."""
