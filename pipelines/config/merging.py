"""Values of one mapping laid over another's."""

from collections.abc import Mapping
from typing import Any


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mapping by mapping; lists and other values stand as a whole."""
    both = dict(below)
    for key, value in above.items():
        there = both.get(key)
        both[key] = merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return both
