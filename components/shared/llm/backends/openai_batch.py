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

import io
import json
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from llm2llm.components.shared.base.progress import Progress
from llm2llm.components.shared.data.jsonl import parse_json
from llm2llm.components.shared.llm.backends.openai_batch_api import BatchEndpoint
from llm2llm.components.shared.llm.backends.openai_batch_notes import (
    Note,
    delete_note,
    folder_of,
    note_id,
    noted_id,
    read_notes,
    write_note,
)
from llm2llm.components.shared.llm.budget import Reservation, SpendTracker
from llm2llm.components.shared.llm.chat_completion import chat_request, read_completion
from llm2llm.components.shared.llm.client import Send
from llm2llm.components.shared.llm.ledger import entry_uri
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, request_key
from llm2llm.components.shared.llm.settings import ModelSettings

PRICE_SHARE = 0.5
"""What a batch costs of the normal price."""
MOST_REQUESTS = 50_000
"""Of one batch: OpenAI's limit."""
MOST_BYTES = 200 * 10**6
"""Of one batch's file: OpenAI's limit."""
FIRST_WAIT, LONGEST_WAIT = 5.0, 120.0
"""Seconds between two looks at the batches; each wait is half as long again as the one before."""
MAKING = 600.0
"""Seconds that another run is given to send a batch that it has noted. After these it is taken for dead."""
WRITERS = 16
"""Threads that write to the ledger."""
MAX_LINE = 2 * 2**20
"""Bytes of one result; a longer one is passed over."""

_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(slots=True, eq=False)
class Batch:
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
    with BatchEndpoint(settings) as endpoint:
        endpoint.check_models()
        while pending:
            # In this order: a note is removed only after its answers are in the ledger, so a batch that another run
            # has just collected is seen in the one place or in the other.
            notes = read_notes(tracker, identity)
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
    endpoint: BatchEndpoint, tracker: SpendTracker, notes: Mapping[str, Note], pending: Mapping[str, LLMRequest]
) -> list[Batch]:
    """The batches that answer some of the requests, with money set aside for as many answers as it is there for."""
    batches = []
    for uri, note in notes.items():
        wanted = [key for key in note.keys if key in pending]
        if not wanted:
            continue
        batch = Batch(note, uri, id=noted_id(tracker, note) or endpoint.find(note))
        if not batch.id and (note.run == tracker.run or time.time() - note.made_at > MAKING):
            delete_note(uri)  # whoever noted it ended before it was sent
            continue
        if batch.id:
            note_id(tracker, note, batch.id)
            print(f"teacher: waits for {len(wanted):,} answers of batch {batch.id}, which was sent before", flush=True)
        for key in wanted:
            if reservation := tracker.reserve(pending[key], endpoint.settings.model, PRICE_SHARE):
                batch.reservations[key] = reservation
        batches.append(batch)
    return batches


def _new(endpoint: BatchEndpoint, tracker: SpendTracker, pending: Mapping[str, LLMRequest]) -> tuple[list[Batch], bool]:
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
        uri = write_note(tracker, note)
        if uri is None:
            raced = True
            for reservation in reservations.values():
                tracker.release(reservation)
            continue
        batch = Batch(note, uri, endpoint.make(note, bytes(data)), reservations)
        note_id(tracker, note, batch.id)
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
    # OpenAI's newer models take only the one name, and other servers only the other. To try costs up to a day here.
    at_openai = str(urlsplit(settings.url).hostname).endswith(("openai.com", "openai.azure.com"))
    return chat_request(
        request,
        settings.model,
        in_words=settings.structured == "words",
        limit_name="max_completion_tokens" if at_openai else "max_tokens",
        extra=settings.extra_body,
    )


def _ended(endpoint: BatchEndpoint, tracker: SpendTracker, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Any]]:
    """Each batch, with its state, when it has ended; one that another run never sent is dropped, its money freed."""
    waiting = list(batches)
    finished: dict[str, int] = {}
    progress = Progress("teacher", sum(len(batch.reservations) for batch in waiting), "calls")
    wait, heard = FIRST_WAIT, time.monotonic()
    while waiting:
        for batch in list(waiting):
            if not batch.id:
                batch.id = noted_id(tracker, batch.note) or endpoint.find(batch.note)
            if not batch.id:
                if time.time() - batch.note.made_at > MAKING:
                    waiting.remove(batch)
                    for reservation in batch.reservations.values():
                        tracker.release(reservation)
                continue
            state = endpoint.look(batch.id, batch.uri, silent=time.monotonic() - heard)
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


def _collect(endpoint: BatchEndpoint, tracker: SpendTracker, batch: Batch, state: Any) -> dict[str, LLMResponse]:
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
    request: LLMRequest, key: str, result: Mapping[str, Any] | None, state: Any, endpoint: BatchEndpoint
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


def _forget(tracker: SpendTracker, batch: Batch, came: Mapping[str, LLMResponse]) -> None:
    """Removes the note of a batch that has nothing more to give."""
    if tracker.ledger is None:
        return
    from llm2llm.components.shared import storage

    if all(key in came or storage.exists(entry_uri(tracker.ledger, key)) for key in batch.note.keys):
        delete_note(batch.uri)
        delete_note(f"{folder_of(tracker)}/{batch.note.tag}.id")
