"""The pointer to the version in production: generations, each written once, the newest counts.

move(registry, to="snips-3fa94c01b2d4", kind="promote", after=current(registry), ...)    None: another was faster
move(registry, to="snips-9f86d081884c", kind="rollback", ...)                            back; nothing is deleted
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry.records import checked, parse_document

POINTER = "production"
SCHEMA_VERSION = 1
READERS = 16

Kind = Literal["promote", "by_hand", "rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One move of the pointer."""

    number: int
    """From 1."""
    kind: Kind
    """`promote`: a run's decision. `by_hand`: a person took a run's candidate. `rollback`: a person went back."""
    version: str
    """What is in production from then on."""
    previous: str | None
    """What was before."""
    run: str | None
    """The run that made the version, where it was promoted; None for a rollback."""
    at: str
    """When, in UTC, ISO 8601."""
    verdict: dict[str, Any] | None = None
    """Why: the run's verdict, as it left it; see `promote.verdict`."""


def current(registry: str) -> Generation | None:
    """The newest generation; None while nothing has ever been in production.

    Raises:
        UserError: The pointer cannot be read, or is damaged.
    """
    from llm2llm.components.shared.storage import join, latest_generation

    found = latest_generation(join(registry, POINTER))
    return None if found is None else _from_json(found[1], registry, found[0])


def generations(registry: str) -> list[Generation]:
    """All of them, oldest first.

    Raises:
        UserError: One cannot be read, is damaged or missing.
    """
    from llm2llm.components.shared.storage import NotThere, join, read_bytes

    newest = current(registry)
    if newest is None:
        return []

    def read(number: int) -> Generation:
        try:
            data = read_bytes(join(registry, POINTER, f"{number:06d}"))
        except NotThere:
            raise UserError(
                f"{join(registry, POINTER)}: generation {number} is gone, and none may be: restore it from a copy"
            ) from None
        return _from_json(data, registry, number)

    with ThreadPoolExecutor(READERS) as threads:
        return [*threads.map(read, range(1, newest.number)), newest]


def move(
    registry: str,
    *,
    to: str,
    kind: Kind,
    after: Generation | None,
    run: str | None = None,
    verdict: dict[str, Any] | None = None,
) -> Generation | None:
    """Moves the pointer to a version that is there, whole.

    Args:
        registry: Folder or s3:// prefix.
        to: The version.
        kind, run, verdict: See `Generation`.
        after: What `current` gave when the decision was made.

    Returns:
        The new generation; None when somebody else moved the pointer since: decide again.

    Raises:
        UserError: It cannot be written.
    """
    from llm2llm.components.shared.storage import append_generation, join

    made = Generation(
        number=after.number + 1 if after else 1,
        kind=kind,
        version=to,
        previous=after.version if after else None,
        run=run,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=verdict,
    )
    data = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(made)}, indent=1, sort_keys=True).encode() + b"\n"
    return made if append_generation(join(registry, POINTER), data, after=made.number - 1) else None


def way_back(history: Sequence[Generation]) -> list[str]:
    """The versions that rollbacks would come to, oldest first; the last is the one in production.

    A rollback takes what came after its target off the way, so a second one goes further back and not forth again:
    after a, b and c were promoted and c was rolled back to b, the way is a, b.
    """
    way: list[str] = []
    for generation in history:
        way = _step(way, generation)
    return way


def rolled_back(history: Sequence[Generation]) -> dict[str, int]:
    """The versions that a person took out of production and that have not come back: which generation did it."""
    out: dict[str, int] = {}
    way: list[str] = []
    for generation in history:
        before, way = way, _step(way, generation)
        if generation.kind == "rollback":
            out |= {version: generation.number for version in before if version not in way}
        out.pop(generation.version, None)
    return out


def _step(way: Sequence[str], generation: Generation) -> list[str]:
    if generation.kind == "rollback" and generation.version in way:
        return list(way[: way.index(generation.version) + 1])
    return [*way, generation.version]


def _from_json(data: bytes, registry: str, number: int) -> Generation:
    where = f"{registry.rstrip('/')}/{POINTER}/{number:06d}"
    values = parse_document(data, where)
    if values.pop("schema_version", None) != SCHEMA_VERSION:
        raise UserError(f"{where}: not of a schema version that this llm2llm reads ({SCHEMA_VERSION}); use a newer one")
    found = checked(Generation, values, where)
    if found.number != number:
        raise UserError(f"{where}: damaged: it says that it is generation {found.number}; restore it from a copy")
    return found
