"""What stage `notify`, the exit task, is handed and needs."""

from typing import TYPE_CHECKING

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.pipelines.config.placement_settings import PlacementSettings
from llm2llm.pipelines.kubeflow.apply_placement import config_maps_of, secrets_of

if TYPE_CHECKING:
    from llm2llm.pipelines.config import Config


def ending_text(config: "Config") -> str:
    """`notify` of the config and the registry, as JSON: an exit task cannot take anything from the stages before it."""
    values = {"notify": config.notify.model_dump(mode="json", exclude_defaults=True)}
    return settings_text({**values, "registry": config.promote.registry} if config.promote.registry else values)


def check_address(config: "Config", placement: PlacementSettings) -> None:
    """Refuses a pipeline whose exit task would have no address to tell.

    Raises:
        UserError: No secret gives it to stage `notify`.
    """
    variable = config.notify.url_env
    given = {one.env for one in secrets_of(placement, "notify")} | {
        one.env for one in config_maps_of(placement, "notify")
    }
    if variable not in given:
        raise UserError(
            f"notify.url_env: no secret gives {variable} to stage notify; add to placement.secrets: {{env: {variable}, "
            "secret: NAME, key: KEY, stages: [notify]}"
        )
