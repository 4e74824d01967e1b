"""The body of stage `configure`."""

import json
from collections.abc import Mapping
from typing import Any

from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.settings_text import read_settings_text
from llm2llm.components.shared.data.artifacts import Artifact
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.pipelines.config.compiled import check_compiled
from llm2llm.pipelines.config.config import ImageSettings
from llm2llm.pipelines.config.data_versions import data_versions
from llm2llm.pipelines.config.form import from_parameters
from llm2llm.pipelines.config.stage_settings import stage_settings


def configured(name: str, compiled: str, parameters: Mapping[str, Any], artifact: Artifact) -> dict[str, str]:
    """Checks a run's parameters, writes its config to `artifact`, and returns every stage's settings as text.

    Raises:
        SystemExit: For anything that `from_parameters` and `check_compiled` find.
    """
    with stage_lifecycle("configure", outputs={"config": artifact}):
        fixed = read_settings_text(compiled, "compiled")
        config = from_parameters(name, parameters, ImageSettings.load(fixed["images"], "images"))
        check_compiled(config, fixed)
        values = config.model_dump(mode="json", exclude={"placement"})
        write_text(artifact.path, json.dumps(values, indent=2) + "\n")
        return stage_settings(config, data_versions(dict(config.data)))
