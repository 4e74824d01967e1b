"""A run's config: typed sections, loading from YAML, the form of the compiled pipeline."""

from llm2llm.pipelines.config.compiled import check_compiled, compiled_settings
from llm2llm.pipelines.config.config import Config, ImageSettings
from llm2llm.pipelines.config.form import FORM_PARAMETERS, from_parameters, to_parameters
from llm2llm.pipelines.config.loading import check_config, load_config, shipped_configs

__all__ = [
    "FORM_PARAMETERS",
    "Config",
    "ImageSettings",
    "check_compiled",
    "check_config",
    "compiled_settings",
    "from_parameters",
    "load_config",
    "shipped_configs",
    "to_parameters",
]
