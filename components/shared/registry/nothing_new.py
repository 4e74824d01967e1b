"""Runs that found nothing new, for the exit task that tells of it: Kubeflow calls them succeeded as any other.

<registry>/nothing_new/<run>.json     why; gone once it was told
"""

import json
from contextlib import suppress

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry.records import parse_document

NOTHING_NEW = "nothing_new"


def write_nothing_new(registry: str, run: str, why: str) -> None:
    """Writes down that a run ended early, and why.

    Args:
        registry: Folder or s3:// prefix, as `versions.registry_uri` gives it.
        run: Its id.
        why: In one sentence.
    """
    from llm2llm.components.shared.storage import join, write_bytes

    write_bytes(join(registry, NOTHING_NEW, f"{run}.json"), json.dumps({"why": why}).encode("ascii") + b"\n")


def take_nothing_new(registry: str, run: str) -> str:
    """Why a run ended early, which is then no longer written down; empty if it did not.

    Raises:
        UserError: The registry cannot be read, or the note is damaged.
    """
    from llm2llm.components.shared.storage import NotThere, delete, join, read_bytes

    uri = join(registry, NOTHING_NEW, f"{run}.json")
    try:
        why = str(parse_document(read_bytes(uri), uri).get("why") or "nothing new")
    except NotThere:
        return ""
    with suppress(UserError):  # told twice is worse than a file too many, and a run has one exit task
        delete(uri)
    return why
