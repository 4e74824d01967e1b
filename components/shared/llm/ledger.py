"""The ledger: every paid answer with its request, so that no run pays for the same twice.

    <ledger>/3f/3fa94c...d1.json.gz      one entry per key, written once and never changed

A ledger is a local folder or an `s3://` prefix. An entry is gzipped JSON: the request, the body that was sent, the raw
response, its tokens, the run that paid, and the time. Entries are created atomically and only where none exists, so any
number of runs may share a ledger: the first entry for a key stays, and every writer is handed it. Two runs that send
the same request at the same time may both pay. Once one entry is stored, nobody pays for that key again.

An entry is checked when it is read: its key is the hash of its request. A damaged or misplaced entry is an error that
names it, and never the answer to another request.
"""

import dataclasses
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.jsonl import is_text, parse_json
from llm2llm.components.shared.llm.requests import LLMRequest, request_key

VERSION = 1
SUFFIX = ".json.gz"
LOOKUPS = 64
"""Look-ups at once: in object storage each waits tens of milliseconds, and a stage may have thousands."""
MAX_ENTRY = 64 * 2**20
"""Bytes of an entry's JSON; what unpacks to more is none of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One paid-for answer, beside all that is known about how it came."""

    key: str
    identity: str
    """Who was asked, as `ModelSettings.identity` gives it."""
    model: str
    request: Mapping[str, Any]
    """What the key is made of besides the identity: `messages`, `schema`, `temperature`, `max_tokens`, `sample` and
    `attempt` of the `LLMRequest`, its `top_p` below 1 and its `top_logprobs` above 0."""
    purpose: str = "write"
    parent_id: str | None = None
    sent: Mapping[str, Any] | None = None
    """The request as it was really sent: with the schema as a parameter, or in words."""
    text: str = ""
    refusal: str = ""
    truncated: bool = False
    detail: str = ""
    raw: Any = None
    """The whole answer as it came."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    share: float = 1.0
    """The share of the model's price that was paid: 0.5 for a batch."""
    attempts: int = 1
    lost_calls: int = 0
    lost_tokens: int = 0
    lost_usd: float = 0.0
    """What earlier tries of the same call may have cost at most, which broke after they were sent."""
    run: str
    """The run that paid."""
    written_at: str
    """In UTC, ISO 8601."""

    def llm_request(self) -> LLMRequest:
        """The request that it answers."""
        return LLMRequest(purpose=self.purpose, parent_id=self.parent_id, **self.request)


_FIELDS = {field.name for field in dataclasses.fields(Entry)}
_REQUIRED = {field.name for field in dataclasses.fields(Entry) if field.default is dataclasses.MISSING}


def request_of(request: LLMRequest) -> dict[str, Any]:
    """`Entry.request` of a request."""
    return {
        "messages": [dict(message) for message in request.messages],
        "schema": request.schema,
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "sample": request.sample,
        "attempt": request.attempt,
        **({"top_p": request.top_p} if request.top_p != 1 else {}),
        **({"top_logprobs": request.top_logprobs} if request.top_logprobs else {}),
    }


def entry_uri(ledger: str, key: str) -> str:
    """Where the entry for a key is."""
    return f"{ledger.rstrip('/')}/{key[:2]}/{key}{SUFFIX}"


def write_entry(ledger: str, entry: Entry) -> bool:
    """Stores an entry where none is; when this returns, it is on the disk or in the object store.

    Returns:
        False when there is one for this key already, which stays as it is.

    Raises:
        UserError: The ledger cannot be written to.
    """
    from llm2llm.components.shared import storage

    return storage.create_bytes(entry_uri(ledger, entry.key), _packed(entry))


def read_ledger(ledger: str, key: str) -> Entry:
    """The entry for a key.

    Raises:
        NotThere: There is none.
        UserError: It is damaged, or the entry of another call.
    """
    from llm2llm.components.shared import storage

    uri = entry_uri(ledger, key)
    return _unpacked(storage.read_bytes(uri), uri, key)


def find_entries(ledger: str, keys: Sequence[str]) -> dict[str, Entry]:
    """The entries that are there, by key; many are looked up at once.

    Raises:
        UserError: The ledger cannot be read, or an entry is damaged.
    """
    from llm2llm.components.shared.storage import NotThere

    def look(key: str) -> Entry | None:
        try:
            return read_ledger(ledger, key)
        except NotThere:
            return None

    return {entry.key: entry for entry in _at_once(look, keys) if entry is not None}


def list_entries(ledger: str) -> Iterator[Entry]:
    """Every entry of a ledger, in the order of the keys.

    Raises:
        UserError: There is no ledger, or an entry is damaged.
    """
    from llm2llm.components.shared import storage

    def read(uri: str) -> Entry:
        return _unpacked(storage.read_bytes(uri), uri, uri.rsplit("/", 1)[1].removesuffix(SUFFIX))

    uris = (uri for uri in storage.list_uris(ledger) if uri.endswith(SUFFIX))
    empty = True
    while some := list(islice(uris, 16 * LOOKUPS)):
        empty = False
        yield from _at_once(read, some)
    if empty:
        raise UserError(
            f"{ledger}: holds no ledger; give the folder or s3:// prefix that the run was given as its ledger"
        )


def ledger_summary(ledger: str) -> str:
    """What a ledger holds, for a person: calls, tokens and runs for each model and purpose.

    Raises:
        UserError: There is no ledger, or an entry is damaged.
    """
    calls: Counter[tuple[str, str]] = Counter()
    tokens: Counter[tuple[str, str]] = Counter()
    runs: dict[tuple[str, str], set[str]] = {}
    for entry in list_entries(ledger):
        about = entry.identity, entry.purpose
        calls[about] += 1
        tokens[about] += (entry.input_tokens or 0) + (entry.output_tokens or 0)
        runs.setdefault(about, set()).add(entry.run)
    lines = [f"{ledger}: {calls.total():,} answers, {tokens.total():,} tokens"]
    for about in sorted(calls):
        identity, purpose = about
        count = len(runs[about])
        lines.append(
            f"  {identity}  {purpose}: {calls[about]:,} answers, {tokens[about]:,} tokens, paid for by {count} "
            f"run{'' if count == 1 else 's'}"
        )
    return "\n".join(lines)


def entry_text(entry: Entry, indent: int | None = 2) -> str:
    """An entry as JSON, for a person; on one line without an indent."""
    return _json(entry, indent=indent)


def _at_once(work: Any, items: Sequence[str]) -> list[Any]:
    """`work` of every item, in order; the first error ends it."""
    if len(items) < 2:
        return [work(item) for item in items]
    # A thread takes several: to hand one over costs more than to look for a local file.
    size = max(1, min(32, len(items) // (4 * LOOKUPS)))
    groups = [items[start : start + size] for start in range(0, len(items), size)]

    def work_all(group: Sequence[str]) -> list[Any]:
        return [work(item) for item in group]

    with ThreadPoolExecutor(min(LOOKUPS, len(groups)), thread_name_prefix="ledger") as threads:
        try:
            return [result for results in threads.map(work_all, groups) for result in results]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _json(entry: Entry, indent: int | None = None) -> str:
    value = {"version": VERSION} | {name: getattr(entry, name) for name in _FIELDS}
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent)
    # Half a surrogate pair, which a teacher can write, has no UTF-8.
    return text if is_text(text) else json.dumps(value, sort_keys=True, indent=indent)


def _packed(entry: Entry) -> bytes:
    # Level 6 takes twice as long to make an entry smaller by 8%.
    return gzip.compress(_json(entry).encode("utf-8"), compresslevel=1, mtime=0)


def _unpacked(data: bytes, uri: str, key: str) -> Entry:
    """The entry in these bytes, checked against the key that it is stored under."""
    fix = "move it away to have that call paid for again, or restore it"
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            text = file.read(MAX_ENTRY + 1)
        if len(text) > MAX_ENTRY:
            raise ValueError(f"unpacks to more than {MAX_ENTRY:,} bytes")
        value = parse_json(text.decode("utf-8"))
    except (OSError, EOFError, zlib.error, ValueError) as problem:
        raise UserError(f"ledger entry {uri}: damaged ({problem}); {fix}") from None
    if not isinstance(value, dict) or "version" not in value or not value.keys() >= _REQUIRED:
        raise UserError(f"ledger entry {uri}: is no entry of a ledger; {fix}")
    if value["version"] != VERSION:
        raise UserError(
            f"ledger entry {uri}: has version {value['version']!r}, and this llm2llm knows {VERSION}; use the llm2llm "
            "that wrote it, or another ledger"
        )
    try:
        entry = Entry(**{name: value[name] for name in value.keys() & _FIELDS})
        right = request_key(entry.identity, entry.llm_request())
    except (TypeError, ValueError, AttributeError) as problem:
        raise UserError(f"ledger entry {uri}: is no entry of a ledger ({problem}); {fix}") from None
    if not entry.key == key == right:
        raise UserError(f"ledger entry {uri}: holds another call, {right}; {fix}")
    return entry
