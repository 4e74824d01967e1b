"""What can be set about reports. The stage is handed nothing: the run's config, which it shows, is an artifact."""

from llm2llm.components.shared.base.settings import Settings, StageSettings


class ReportSettings(Settings):
    """The `report` section of a config."""

    each_iteration: bool = True
    """Whether there is a report after each iteration, so that a run can be looked at while it goes on and one that
    fails has left some; else only once the loop has ended. In a cluster each costs two pods, and 7 KB of the Workflow,
    whose size is limited."""


class ReportStage(StageSettings):
    """The settings of stage `report`."""
