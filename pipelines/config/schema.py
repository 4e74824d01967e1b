"""The JSON schema of a config file, for editors: what a person may write, where `Config` is what comes of it."""

from typing import Any

from llm2llm.components.shared.tasks import TASKS
from llm2llm.pipelines.config.config import Config

DRAFT = "https://json-schema.org/draft/2020-12/schema"
BASE = "A shipped config whose values stand where this file sets none; sections are merged key by key."


def config_schema() -> dict[str, Any]:
    """A JSON schema (draft 2020-12) in which unknown keys are errors and every key has its description and default.

    A file may say less than `Config` holds: a task by its name, a placement by its profile. What several keys say
    together is checked by `load_config` only.
    """
    schema = _without_titles(Config.model_json_schema())
    task = schema["$defs"]["Task"]
    # A mapping with a shipped task's name changes only the keys that it has.
    task["required"] = ["name"]
    # What a config may say in other words: a mapping of labels to their descriptions, and a file's name.
    labels, answers = task["properties"]["labels"], task["properties"]["answer_schema"]
    described = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
    labels["anyOf"] = [{"type": labels.pop("type"), "items": labels.pop("items")}, described]
    answers["anyOf"].append({"type": "string"})
    about = schema["properties"]["task"].pop("description")
    schema["properties"]["task"] = {
        "description": about,
        "anyOf": [{"enum": sorted(TASKS)}, {"$ref": "#/$defs/Task"}],
    }
    schema["$defs"]["PlacementSettings"].pop("required", None)
    # With a base, what is not set here is the base's.
    schema["properties"] = {"base": {"type": "string", "description": BASE}, **schema["properties"]}
    schema["anyOf"] = [{"required": ["base", "name"]}, {"required": schema.pop("required")}]
    schema["$defs"]["DataSettings"].pop("required", None)
    return {"$schema": DRAFT, "title": "A config of llm2llm", **schema}


def _without_titles(node: Any) -> Any:
    """Without the titles that pydantic makes from names: they say nothing that the key does not."""
    if isinstance(node, dict):
        return {key: _without_titles(one) for key, one in node.items() if key != "title" or not isinstance(one, str)}
    return [_without_titles(one) for one in node] if isinstance(node, list) else node
