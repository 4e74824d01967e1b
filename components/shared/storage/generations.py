"""A pointer that many may try to move, and exactly one does: numbered objects, each created once.

    found = latest_generation("s3://models/production")          (3, b"...") or None
    append_generation("s3://models/production", data, after=3)   True: it is generation 4; False: another was faster

A server's `If-Match` would be the obvious way, but servers disagree on it (Ceph 16.2 takes an ETag without its quotes
only) and local file systems have nothing like it. `If-None-Match: *` is known to all of them. What the pointer was
before stays readable; no generation may ever be deleted, or a slow writer could become a number's second owner.
"""

import re

from llm2llm.components.shared.storage.objects import Uri, create_bytes, list_uris, read_bytes
from llm2llm.components.shared.storage.uris import join

_NAME = re.compile(r"[0-9]{6,}")


def append_generation(prefix: Uri, data: bytes, after: int) -> bool:
    """Makes the generation after `after`, unless someone else has.

    Args:
        prefix: The pointer: a folder of its own.
        data: What it points to from now on.
        after: The number that `latest_generation` gave; 0 when there was none.

    Returns:
        False when that generation is there already: read it, decide again.

    Raises:
        UserError: It cannot be written.
    """
    assert after >= 0, f"generations count from 1: {after}"
    return create_bytes(join(prefix, f"{after + 1:06d}"), data)


def latest_generation(prefix: Uri) -> tuple[int, bytes] | None:
    """The newest generation's number and content; None when there is none.

    Raises:
        UserError: It cannot be read.
    """
    numbers = [int(name) for uri in list_uris(prefix) if _NAME.fullmatch(name := uri.rpartition("/")[2])]
    if not numbers:
        return None
    number = max(numbers)
    return number, read_bytes(join(prefix, f"{number:06d}"))
