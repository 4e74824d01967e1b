"""Teacher `batch`: an endpoint's batch API (OpenAI's `/v1/files` and `/v1/batches`): within a day, at half the price.

`prices` are those of normal calls, as for every teacher; half of them is reckoned with and booked.

Nothing is sent twice, though the process may be killed at any moment of the day that it waits. What guards it lies in
the ledger, beside the answers:

    batches/<hash of the keys>.json   written before the batch is made: its tag and the keys of its requests
    batches/<tag>.id                  written when the endpoint has said under what id it works on it

The next start finds the first, whatever else it asks for by then. Without the second it looks through the endpoint's
list for a batch that has the tag in its metadata, and only when there is none the requests are sent again. A signal
therefore needs no answer: the batch goes on, and the next start collects it. Both are removed once every answer is in
the ledger.
"""

import hashlib
import io
import json
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.progress import Progress
from llm2llm.components.shared.data.jsonl import parse_json
from llm2llm.components.shared.llm.backends.in_process import schema_in_words
from llm2llm.components.shared.llm.budget import Reservation, SpendTracker
from llm2llm.components.shared.llm.client import Send
from llm2llm.components.shared.llm.ledger import entry_uri
from llm2llm.components.shared.llm.requests import (
    LLMRequest,
    LLMResponse,
    read_completion,
    request_key,
    without_control_tokens,
)
from llm2llm.components.shared.llm.settings import ModelSettings, api_key

PRICE_SHARE = 0.5
"""What a batch costs of the normal price."""
MOST_REQUESTS = 50_000
"""Of one batch: OpenAI's limit."""
MOST_BYTES = 200 * 10**6
"""Of one batch's file: OpenAI's limit."""
FIRST_WAIT, LONGEST_WAIT = 5.0, 120.0
"""Seconds between two looks at the batches; each wait is half as long again as the one before."""
PATIENCE = 3600.0
"""Seconds without an answer from the endpoint after which waiting ends; the batches go on."""
MAKING = 600.0
"""Seconds that another run is given to send a batch that it has noted. After these it is taken for dead."""
WRITERS = 16
"""Threads that write to the ledger."""
MOST_LISTED = 10_000
"""Batches of an endpoint's list that are looked through for one of ours."""
MAX_LINE = 2 * 2**20
"""Bytes of one result; a longer one is passed over."""
DETAIL_LIMIT = 500

_ENDED = ("completed", "failed", "expired", "cancelled")


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


@dataclass(slots=True, eq=False)
class _Batch:
    note: Note
    uri: str
    """Of the note; empty without a ledger."""
    id: str = ""
    """Empty while another run is about to send it."""
    reservations: dict[str, Reservation] = field(default_factory=dict)
    """By key: what this call waits for."""
    finished: int = 0


@contextmanager
def opened(settings: ModelSettings) -> Iterator[Send]:
    """The backend, which keeps nothing from one batch of requests to the next."""
    yield send


def send(requests: Sequence[LLMRequest], settings: ModelSettings, tracker: SpendTracker) -> list[LLMResponse]:
    """Sends the requests as batches, waits for them, and stores every answer in the ledger.

    What is in a batch that an earlier start has sent is waited for, not sent again, also when another run has sent it.
    Requests that a batch did not answer, because they broke or because it expired, failed or was cancelled, come back
    as `failed`; asked again, they go into another batch. Without a ledger a batch is forgotten with the process.

    Args:
        requests: No two with the same key, and none that the ledger has.
        settings: `structured: auto` is `json_schema` here: that a server takes no schema shows only in the results.
        tracker: See `SpendTracker`.

    Raises:
        UserError: The endpoint cannot be reached, refuses the key, or does not know the model or a batch.
    """
    identity = settings.identity("batch")
    keys = [request_key(identity, request) for request in requests]
    pending = dict(zip(keys, requests, strict=True))
    answers: dict[str, LLMResponse] = {}
    with _Endpoint(settings) as endpoint:
        endpoint.check_models()
        while pending:
            # In this order: a note is removed only after its answers are in the ledger, so a batch that another run
            # has just collected is seen in the one place or in the other.
            notes = _notes(tracker, identity)
            for found in tracker.find(identity, list(pending.values())):
                if found is not None:
                    answers[found.key] = found
                    del pending[found.key]
            known = _known(endpoint, tracker, notes, pending)
            noted = {key for batch in known for key in batch.note.keys}
            new, raced = _new(endpoint, tracker, {key: request for key, request in pending.items() if key not in noted})
            batches = [batch for batch in [*known, *new] if batch.reservations]
            for batch, state in _ended(endpoint, tracker, batches):
                came = _collect(endpoint, tracker, batch, state)
                answers |= came
                pending = {key: request for key, request in pending.items() if key not in came}
                _forget(tracker, batch, came)
            if not batches and not raced:
                if not tracker.reserved:
                    break
                time.sleep(0.2)  # another teacher of the same run is at work, and may leave room in the budget
    for key, request in pending.items():
        answers[key] = LLMResponse(request=request, key=key, outcome="over_budget", model=settings.model)
    return [answers[key] for key in keys]


def _known(
    endpoint: "_Endpoint", tracker: SpendTracker, notes: Mapping[str, Note], pending: Mapping[str, LLMRequest]
) -> list[_Batch]:
    """The batches that answer some of the requests, with money set aside for as many answers as it is there for."""
    batches = []
    for uri, note in notes.items():
        wanted = [key for key in note.keys if key in pending]
        if not wanted:
            continue
        batch = _Batch(note, uri, id=_noted_id(tracker, note) or endpoint.find(note))
        if not batch.id and (note.run == tracker.run or time.time() - note.made_at > MAKING):
            _delete(uri)  # whoever noted it ended before it was sent
            continue
        if batch.id:
            _note_id(tracker, note, batch.id)
            print(f"teacher: waits for {len(wanted):,} answers of batch {batch.id}, which was sent before", flush=True)
        for key in wanted:
            if reservation := tracker.reserve(pending[key], endpoint.settings.model, PRICE_SHARE):
                batch.reservations[key] = reservation
        batches.append(batch)
    return batches


def _new(endpoint: "_Endpoint", tracker: SpendTracker, pending: Mapping[str, LLMRequest]) -> tuple[list[_Batch], bool]:
    """The batches that were made of as many of the requests as there is money for; and whether another run was faster
    to note one of them, which is to be looked for again."""
    batches, raced, waiting = [], False, deque(pending.items())
    while waiting:
        reservations: dict[str, Reservation] = {}
        data = bytearray()
        while waiting and len(reservations) < MOST_REQUESTS:
            key, request = waiting[0]
            line = _line(key, request, endpoint.settings)
            if reservations and len(data) + len(line) > MOST_BYTES:
                break
            waiting.popleft()
            if reservation := tracker.reserve(request, endpoint.settings.model, PRICE_SHARE):
                reservations[key] = reservation
                data += line
        if not reservations:
            break
        identity = endpoint.settings.identity("batch")
        note = Note(
            tag=uuid.uuid4().hex, identity=identity, run=tracker.run, made_at=time.time(), keys=sorted(reservations)
        )
        uri = _write_note(tracker, note)
        if uri is None:
            raced = True
            for reservation in reservations.values():
                tracker.release(reservation)
            continue
        batch = _Batch(note, uri, endpoint.make(note, bytes(data)), reservations)
        _note_id(tracker, note, batch.id)
        batches.append(batch)
        print(
            f"teacher: sent {len(reservations):,} requests as batch {batch.id}; a restart waits for the same",
            flush=True,
        )
    return batches, raced


def _line(key: str, request: LLMRequest, settings: ModelSettings) -> bytes:
    line = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": _body(request, settings)}
    return json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n"


def _body(request: LLMRequest, settings: ModelSettings) -> dict[str, Any]:
    messages = [{**message, "content": without_control_tokens(message["content"])} for message in request.messages]
    # OpenAI's newer models take only the one name, and other servers only the other. To try costs up to a day here.
    at_openai = str(urlsplit(settings.url).hostname).endswith(("openai.com", "openai.azure.com"))
    limit = "max_completion_tokens" if at_openai else "max_tokens"
    body: dict[str, Any] = {"model": settings.model, "temperature": request.temperature, limit: request.max_tokens}
    if request.schema is not None and settings.structured == "words":
        messages = [dict(message) for message in schema_in_words(messages, request.schema)]
    elif request.schema is not None:
        schema = {"name": "answer", "schema": dict(request.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {**body, "messages": messages}


def _ended(endpoint: "_Endpoint", tracker: SpendTracker, batches: Sequence[_Batch]) -> Iterator[tuple[_Batch, Any]]:
    """Each batch, with its state, when it has ended; one that another run never sent is dropped, its money freed."""
    waiting = list(batches)
    finished: dict[str, int] = {}
    progress = Progress("teacher", sum(len(batch.reservations) for batch in waiting), "calls")
    wait, heard = FIRST_WAIT, time.monotonic()
    while waiting:
        for batch in list(waiting):
            if not batch.id:
                batch.id = _noted_id(tracker, batch.note) or endpoint.find(batch.note)
            if not batch.id:
                if time.time() - batch.note.made_at > MAKING:
                    waiting.remove(batch)
                    for reservation in batch.reservations.values():
                        tracker.release(reservation)
                continue
            state = endpoint.look(batch, silent=time.monotonic() - heard)
            if state is None:
                continue
            heard = time.monotonic()
            counts = state.request_counts
            finished[batch.id] = min(counts.completed + counts.failed, len(batch.reservations)) if counts else 0
            if state.status in _ENDED:
                waiting.remove(batch)
                finished[batch.id] = len(batch.reservations)
                yield batch, state
        if finished:
            progress.show(sum(finished.values()))
        if waiting:
            time.sleep(wait)
            wait = min(1.5 * wait, LONGEST_WAIT)


def _collect(endpoint: "_Endpoint", tracker: SpendTracker, batch: _Batch, state: Any) -> dict[str, LLMResponse]:
    """What came of each request for which a batch was waited, by key; the answers are in the ledger."""
    results: dict[str, Mapping[str, Any]] = {}
    ours, odd = set(batch.note.keys), 0
    # The answers come first: where both files speak of a request, it was answered, and paid for.
    for file in filter(None, (state.output_file_id, state.error_file_id)):
        for line in io.BytesIO(endpoint.content(file)):
            result = _result(line)
            if result is None or result["custom_id"] not in ours or result["custom_id"] in results:
                odd += bool(line.strip())
            else:
                results[result["custom_id"]] = result
    if odd:
        print(f"teacher: batch {batch.id}: passed over {odd:,} lines that are no result or a second one", flush=True)
    if state.status != "completed":
        print(f"teacher: batch {batch.id} {state.status}: {len(results):,} of {len(ours):,} have a result", flush=True)
    identity = batch.note.identity

    def settle(item: tuple[str, Reservation]) -> LLMResponse:
        key, reservation = item
        result = results.get(key)
        answer = _read(reservation.request, key, result, state, endpoint)
        if answer.outcome == "answered":
            assert result is not None
            tracker.settle(reservation, answer)
            sent = _body(reservation.request, endpoint.settings)
            return tracker.store(identity, answer, sent=sent, raw=result["response"]["body"], share=PRICE_SHARE)
        if _may_be_billed(result, state):
            tracker.settle(reservation, None)
        else:
            tracker.release(reservation)
        return answer

    with ThreadPoolExecutor(WRITERS, thread_name_prefix="ledger") as threads:
        return {answer.key: answer for answer in threads.map(settle, batch.reservations.items())}


def _result(line: bytes) -> dict[str, Any] | None:
    """A line of a batch's results, where it is one."""
    try:
        value = parse_json(line.decode("utf-8")) if len(line) <= MAX_LINE else None
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("custom_id"), str) else None


def _status(result: Mapping[str, Any]) -> Any:
    response = result.get("response")
    return response.get("status_code") if isinstance(response, Mapping) else None


def _may_be_billed(result: Mapping[str, Any] | None, state: Any) -> bool:
    """Of a request without an answer: what the endpoint says it refused, or never came to, costs nothing."""
    return bool(state.status == "completed") if result is None else bool(_status(result) == 200)


def _read(
    request: LLMRequest, key: str, result: Mapping[str, Any] | None, state: Any, endpoint: "_Endpoint"
) -> LLMResponse:
    answer: dict[str, Any] = {"request": request, "key": key, "model": endpoint.settings.model}
    if result is None:
        detail = f"batch {state.id} ({state.status}) has no result for it{_errors(state)}"
        return LLMResponse(**answer, outcome="failed", detail=endpoint.plain(detail))
    if _status(result) != 200:
        return LLMResponse(**answer, outcome="failed", detail=endpoint.plain(_refused(result)))
    try:
        return LLMResponse(**answer, outcome="answered", **read_completion(result["response"].get("body")))
    except ValueError as problem:
        return LLMResponse(**answer, outcome="failed", detail=str(problem))


def _refused(result: Mapping[str, Any]) -> str:
    """What the endpoint says about a request that it did not answer."""
    error, status = result.get("error"), _status(result)
    if not isinstance(error, Mapping) and status is not None:
        body = result["response"].get("body")
        error = body.get("error") if isinstance(body, Mapping) else None
    said = error if isinstance(error, Mapping) else {}
    parts = [
        f"HTTP {status}" if status is not None else "",
        said.get("code"),
        said.get("message"),
    ]
    return ": ".join(str(part) for part in parts if part and isinstance(part, str | int)) or (
        "no answer, and no reason given"
    )


def _errors(state: Any) -> str:
    """Why a batch failed as a whole, such as a limit of the account."""
    found = [str(error.message) for error in (state.errors.data or [] if state.errors else []) if error.message]
    return f": {found[0]}" if found else ""


# What the ledger holds about batches.


def _folder(tracker: SpendTracker) -> str:
    assert tracker.ledger is not None
    return f"{tracker.ledger.rstrip('/')}/batches"


def _notes(tracker: SpendTracker, identity: str) -> dict[str, Note]:
    """The notes of a teacher's batches by their URIs, oldest first."""
    if tracker.ledger is None:
        return {}
    from llm2llm.components.shared import storage

    notes = {}
    for uri in storage.list_uris(_folder(tracker)):
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


def _write_note(tracker: SpendTracker, note: Note) -> str | None:
    """The note's URI, empty without a ledger; None when another run has noted the same requests."""
    if tracker.ledger is None:
        return ""
    from llm2llm.components.shared import storage

    name = hashlib.sha256("\n".join([note.identity, *note.keys]).encode("utf-8")).hexdigest()[:32]
    uri = f"{_folder(tracker)}/{name}.json"
    return uri if storage.create_bytes(uri, json.dumps(asdict(note)).encode("utf-8")) else None


def _noted_id(tracker: SpendTracker, note: Note) -> str:
    from llm2llm.components.shared import storage

    try:
        return storage.read_bytes(f"{_folder(tracker)}/{note.tag}.id").decode("utf-8")
    except storage.NotThere:
        return ""


def _note_id(tracker: SpendTracker, note: Note, batch: str) -> None:
    if tracker.ledger is not None:
        from llm2llm.components.shared import storage

        storage.create_bytes(f"{_folder(tracker)}/{note.tag}.id", batch.encode("utf-8"))


def _forget(tracker: SpendTracker, batch: _Batch, came: Mapping[str, LLMResponse]) -> None:
    """Removes the note of a batch that has nothing more to give."""
    if tracker.ledger is None:
        return
    from llm2llm.components.shared import storage

    if all(key in came or storage.exists(entry_uri(tracker.ledger, key)) for key in batch.note.keys):
        _delete(batch.uri)
        _delete(f"{_folder(tracker)}/{batch.note.tag}.id")


def _delete(uri: str) -> None:
    from llm2llm.components.shared import storage

    storage.delete(uri)


class _Endpoint:
    """The endpoint's files and batches. What it says comes without the key."""

    def __init__(self, settings: ModelSettings) -> None:
        import openai

        self.settings = settings
        self._key = api_key(settings)
        self._client = openai.OpenAI(
            base_url=settings.url,
            # Servers in a cluster often need no key, and the client insists on one.
            api_key=self._key or "none",
            timeout=settings.timeout,
            max_retries=settings.tries - 1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.close()

    def check_models(self) -> None:
        """Asks for the list of models before anything is paid for.

        Raises:
            UserError: The endpoint cannot be reached, refuses the key, or does not list the model.
        """
        import openai

        try:
            known = [model.id for model in self._client.models.list().data]
        except openai.APIError as problem:
            # Some servers have no list, and some keys may not see it; the first call will show.
            if isinstance(problem, openai.APIStatusError) and problem.status_code in (403, 404, 405, 501):
                return
            raise self._error(problem) from None
        except (AttributeError, TypeError, ValueError):
            raise UserError(
                f"teacher {self.settings.url}: what it answers is no list of models; check url (it usually ends in /v1)"
            ) from None
        if known and self.settings.model not in known:
            shown = ", ".join(sorted(known)[:10])
            raise UserError(
                f"model: {self.settings.url} has no model {self.settings.model!r}"
                f"{did_you_mean(self.settings.model, known)}; it has {self.plain(shown)}"
            )

    def make(self, note: Note, data: bytes) -> str:
        """Sends a batch; gives its id. When that breaks, it is looked for before the next try: it may be there."""
        import openai

        tries, wait = self.settings.tries, 1.0
        try:
            file = self._client.files.create(file=(f"llm2llm-{note.tag}.jsonl", data), purpose="batch")
            while True:
                try:
                    batch = self._client.with_options(max_retries=0).batches.create(
                        input_file_id=file.id,
                        endpoint="/v1/chat/completions",
                        completion_window="24h",
                        metadata={"llm2llm": note.tag},
                    )
                    break
                except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError):
                    time.sleep(wait)
                    tries, wait = tries - 1, min(2 * wait, 60.0)
                    if found := self.find(note):
                        return found
                    if not tries:
                        raise
        except openai.APIError as problem:
            raise self._error(problem) from None
        if not isinstance(batch.id, str) or not batch.id:
            raise UserError(f"teacher {self.settings.url}: what it answers is no batch; has it a batch API?")
        return batch.id

    def find(self, note: Note) -> str:
        """The id of the batch with a note's tag in its metadata; empty when there is none."""
        import openai

        try:
            for number, batch in enumerate(self._client.batches.list(limit=100)):
                if (batch.metadata or {}).get("llm2llm") == note.tag:
                    return str(batch.id)
                if number >= MOST_LISTED:
                    break
        except openai.APIError as problem:
            raise self._error(problem) from None
        return ""

    def look(self, batch: _Batch, silent: float) -> Any:
        """The state of a batch; None when the endpoint is silent, which is borne for an hour.

        Args:
            batch: With its id.
            silent: Seconds since the endpoint last answered.
        """
        import openai

        try:
            return self._client.batches.retrieve(batch.id)
        except openai.NotFoundError:
            fix = f"; when it is gone, remove {batch.uri} to have its requests sent, and paid for, again"
            raise UserError(
                f"teacher {self.settings.url}: knows no batch {batch.id}; is it of another account or project?"
                f"{fix if batch.uri else ''}"
            ) from None
        except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError) as problem:
            if silent < PATIENCE:
                return None
            raise UserError(
                f"{self._error(problem)}; batch {batch.id} goes on, and the next start collects it"
            ) from None
        except openai.APIError as problem:
            raise self._error(problem) from None

    def content(self, file: str) -> bytes:
        """A file of results."""
        import openai

        try:
            data = self._client.files.content(file).content
        except openai.APIError as problem:
            raise self._error(problem) from None
        return data.replace(self._key.encode("utf-8"), b"***") if self._has_key() else data

    def plain(self, text: str) -> str:
        """A text without the key: some servers and proxies repeat it in what they answer."""
        return (text.replace(self._key, "***") if self._has_key() else text)[:DETAIL_LIMIT]

    def _has_key(self) -> bool:
        return len(self._key) >= 8  # shorter is no key but a word: "none", "EMPTY"

    def _error(self, problem: Any) -> UserError:
        """One line that names the endpoint and the fix, and never the key."""
        import openai

        where = f"teacher {self.settings.url}"
        if isinstance(problem, openai.AuthenticationError | openai.PermissionDeniedError):
            return UserError(
                f"{where}: refuses the key (HTTP {problem.status_code}); set the environment variable "
                f"{self.settings.api_key_env}"
            )
        if isinstance(problem, openai.NotFoundError):
            return UserError(f"{where}: HTTP 404; it has no batch API there; check url (it usually ends in /v1)")
        if isinstance(problem, openai.APIConnectionError):
            cause: BaseException = problem
            while cause.__cause__ is not None:
                cause = cause.__cause__
            return UserError(f"{where}: cannot be reached ({self.plain(str(cause))}); is it up, is the URL right?")
        return UserError(f"{where}: {self.plain(f'{type(problem).__name__}: {problem.message}')}")
