"""Notes in the ledger about a batch in progress, so that an interrupted run finds it again.

batches/<hash of the keys>.json   written before the batch is made: its tag and the keys of its requests
batches/<tag>.id                  written when the endpoint has said under what id it works on it
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.jsonl import parse_json
from llm2llm.components.shared.llm.budget import SpendTracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What the ledger knows about a batch from before it is made until all its answers are in the ledger."""

    tag: str
    """In the batch's metadata, as `llm2llm`."""
    identity: str
    run: str
    """The run that sent it, or was about to."""
    made_at: float
    """Seconds since 1970."""
    keys: list[str]
    version: int = 1


def folder_of(tracker: SpendTracker) -> str:
    assert tracker.ledger is not None
    return f"{tracker.ledger.rstrip('/')}/batches"


def read_notes(tracker: SpendTracker, identity: str) -> dict[str, Note]:
    """The notes of a teacher's batches by their URIs, oldest first."""
    if tracker.ledger is None:
        return {}
    from llm2llm.components.shared import storage

    notes = {}
    for uri in storage.list_uris(folder_of(tracker)):
        if uri.endswith(".json"):
            try:
                data = storage.read_bytes(uri)
            except storage.NotThere:
                continue  # another run has just collected it
            note = _note(uri, data)
            if note.identity == identity:
                notes[uri] = note
    return dict(sorted(notes.items(), key=lambda item: (item[1].made_at, item[0])))


def _note(uri: str, data: bytes) -> Note:
    try:
        note = Note(**parse_json(data.decode("utf-8")))
        if note.version == 1 and all(isinstance(key, str) for key in note.keys) and note.made_at >= 0:
            return note
    except (TypeError, ValueError):
        pass
    raise UserError(f"{uri}: is no note of a batch; remove it to have what it was about sent again, or restore it")


def write_note(tracker: SpendTracker, note: Note) -> str | None:
    """The note's URI, empty without a ledger; None when another run has noted the same requests."""
    if tracker.ledger is None:
        return ""
    from llm2llm.components.shared import storage

    name = hashlib.sha256("\n".join([note.identity, *note.keys]).encode("utf-8")).hexdigest()[:32]
    uri = f"{folder_of(tracker)}/{name}.json"
    return uri if storage.create_bytes(uri, json.dumps(asdict(note)).encode("utf-8")) else None


def noted_id(tracker: SpendTracker, note: Note) -> str:
    from llm2llm.components.shared import storage

    try:
        return storage.read_bytes(f"{folder_of(tracker)}/{note.tag}.id").decode("utf-8")
    except storage.NotThere:
        return ""


def note_id(tracker: SpendTracker, note: Note, batch: str) -> None:
    if tracker.ledger is not None:
        from llm2llm.components.shared import storage

        storage.create_bytes(f"{folder_of(tracker)}/{note.tag}.id", batch.encode("utf-8"))


def delete_note(uri: str) -> None:
    from llm2llm.components.shared import storage

    storage.delete(uri)
