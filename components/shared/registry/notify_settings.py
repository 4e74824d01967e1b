"""What can be set about telling how a run ended; `notify` and `detect_changes` share it."""

from typing import Literal

from pydantic import Field

from llm2llm.components.shared.base.settings import Settings

RunEnding = Literal["succeeded", "failed", "terminated", "nothing_new"]


class NotifySettings(Settings):
    """The `notify` section of a config: one message when a run has ended. Fixed when the pipeline is compiled."""

    kind: Literal["none", "webhook", "slack"] = "none"
    """`webhook`: a JSON object with `outcome`, `pipeline`, `run`, `reason`, `text` and the main figures. `slack`: what
    Slack's incoming webhooks take, and those of Mattermost, Rocket.Chat and Discord (`/slack`). `none`: nobody is
    told."""
    url_env: str = Field("LLM2LLM_NOTIFY_URL", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable with the address, which is a secret. In a cluster `placement.secrets` gives it to stage
    `notify`."""
    outcomes: list[RunEnding] = Field(default=["succeeded", "failed", "terminated", "nothing_new"], min_length=1)
    """The endings that are told. `nothing_new`: the run ended early by `promote.only_if_new`."""
