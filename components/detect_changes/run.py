"""`detect_changes` from artifacts to artifacts."""

from collections.abc import Mapping
from typing import Any

from llm2llm.components.detect_changes.changes import detect_changes
from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import Artifact, Inputs, read_config
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.registry.digests import with_rows
from llm2llm.components.shared.registry.settings import PromoteSettings
from llm2llm.components.shared.registry.versions import registry_uri
from llm2llm.components.shared.stage import stage_lifecycle


def run(
    *,
    seeds_set: Artifact,
    validation_set: Artifact | None,
    config: Artifact,
    settings: Mapping[str, Any],
    notes: Artifact,
) -> bool:
    """See the component."""
    inputs: Inputs = {"seeds_set": seeds_set, "validation_set": validation_set, "config": config}
    with stage_lifecycle("detect_changes", inputs=inputs, outputs={"notes": notes}):
        checked = PromoteSettings.load(settings, "promote")
        if not checked.registry:
            raise UserError("promote.registry: no registry is set; give a folder or an s3:// prefix")
        found, why = detect_changes(
            registry_uri(checked.registry),
            read_rows(seeds_set.path, "examples", Example),
            read_rows(validation_set.path, "examples", Example) if validation_set else None,
            with_rows(read_config(config), seeds_set),
            checked,
        )
        ending = "The run goes on." if found else "The run ends here, and that is no failure."
        write_text(notes.path, f"# {'Something new' if found else 'Nothing new'}\n\n{why}. {ending}\n")
        print(f"detect_changes: {why}; {'the run goes on' if found else 'the run ends here'}", flush=True)
        return found
