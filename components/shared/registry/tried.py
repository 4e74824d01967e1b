"""Students that were not good enough, so that a schedule does not train the same one every night.

<registry>/tried/<key>.json     the verdict; the key is made of what decided it
"""

import hashlib
import json
from typing import Any

from llm2llm.components.shared.registry.records import parse_document

TRIED = "tried"


def tried_uri(registry: str, seeds: str, validation: str, config: str, conditions: str, incumbent: str) -> str:
    """Where the verdict is on what comes of these seeds and this config, under these conditions of a promotion, against
    this version in production.

    Args:
        registry: Folder or s3:// prefix.
        seeds, validation: `digests.of_ids` of the rows.
        config: `digests.of_config`.
        conditions: `digests.of_conditions`.
        incumbent: The version; empty: there was none.
    """
    from llm2llm.components.shared.storage import join

    key = hashlib.sha256("\n".join([seeds, validation, config, conditions, incumbent]).encode()).hexdigest()[:20]
    return join(registry, TRIED, f"{key}.json")


def write_tried(uri: str, verdict: dict[str, Any]) -> None:
    """Writes down that a run has tried, and what came of it."""
    from llm2llm.components.shared.storage import write_bytes

    write_bytes(uri, json.dumps(verdict, sort_keys=True).encode("ascii") + b"\n")


def read_tried(uri: str) -> dict[str, Any] | None:
    """The verdict; None when nobody has tried.

    Raises:
        UserError: It cannot be read, or is damaged.
    """
    from llm2llm.components.shared.storage import NotThere, read_bytes

    try:
        return parse_document(read_bytes(uri), uri)
    except NotThere:
        return None
