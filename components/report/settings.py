"""What can be set about reports. The stage is handed nothing: the run's config, which it shows, is an artifact."""

from pydantic import Field

from llm2llm.components.shared.base.settings import Settings, StageSettings


class ReportSettings(Settings):
    """The `report` section of a config."""

    each_iteration: bool | None = None
    """Whether there is a report after each iteration, so that a run can be looked at while it goes on and one that
    fails has left some; else only once the loop has ended. In a cluster each costs two pods, and 7 KB of the Workflow,
    whose size is limited. Not set: on, but in a cluster only where the Workflow stays below 900 KB."""
    mlflow_experiment: str = Field("", max_length=250)
    """The experiment of an MLflow tracking server that a finished run is logged to, as one run: params, metrics of each
    iteration, report, and the student where the run leaves one in an output folder or a registry. The server is in the
    environment variable MLFLOW_TRACKING_URI of `llm2llm run`, or in a cluster of stage `report` (`placement.env`); its
    credentials in MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD
    (`placement.secrets`). One that is away fails no run. Empty: nothing is logged."""
    mlflow_model: bool = True
    """Whether the student's weights are uploaded there too."""


class ReportStage(StageSettings):
    """The settings of stage `report`."""
