"""Shared code of the backends that run a model in the stage's own pod: `vllm` and `transformers`.

fingerprint(settings)               a folder's content is part of what the ledger knows its answers by
answer_in_chunks(encoded, ...)         budget, model and ledger, chunk by chunk: a kill loses the chunk at most
"""

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.progress import Progress
from llm2llm.components.shared.lineage.embedded import FOLDER_FILE
from llm2llm.components.shared.llm.budget import Reservation, SpendTracker
from llm2llm.components.shared.llm.chat_completion import schema_in_words
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, Message, request_key, without_control_tokens
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.shared.models.prompts import encode_chat
from llm2llm.components.shared.storage import content_of, fetched, is_remote

WRITERS = 16
"""Threads that write to the ledger: in object storage a write takes some 20 ms, most of it waiting."""

WEIGHTS_NOT_WANTED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.pkl", "*.pickle"]
"""Files of a model repository that hold its weights once more, or as a pickle."""


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A request as a local model takes it."""

    request: LLMRequest
    key: str
    prompt: list[int]
    limit: int
    """The most tokens that may be written: `max_tokens`, or what the model's context leaves; 0: there is no room."""

    @property
    def seed(self) -> int:
        """From the key, so that the same request gets the same answer whatever else is asked with it."""
        return int(self.key[:8], 16)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote for a item."""

    text: str
    truncated: bool
    tokens: int


def fingerprint(settings: ModelSettings) -> ModelSettings:
    """The settings with a folder's content as its revision, where they name none: 16 hexadecimal digits of SHA-256.

    Without it the ledger would answer for whatever lies in a folder, say a student that has been trained anew, with
    what another model there once said.

    Raises:
        UserError: The folder is in object storage, and cannot be read there.
    """
    if is_remote(settings.model) and not settings.revision:
        return settings.model_copy(update={"revision": content_of(settings.model)[:16]})
    folder = Path(settings.model).expanduser()
    if settings.revision or not folder.is_dir():
        return settings
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FOLDER_FILE):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode("utf-8", "surrogateescape"))
    return settings.model_copy(update={"revision": whole.hexdigest()[:16]})


def find_model(settings: ModelSettings) -> str:
    """The folder of the model: a folder is itself, whatever its revision is called, and one in object storage a copy; a
    Hugging Face name is downloaded at the revision that the settings name, and stays a name where they name none.

    Raises:
        UserError: The folder or the revision cannot be downloaded.
    """
    if is_remote(settings.model):
        return str(fetched(settings.model))
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        return str(folder)
    name = settings.model
    if not settings.revision:
        return name
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(name, revision=settings.revision, ignore_patterns=WEIGHTS_NOT_WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as problem:
        raise not_loadable(settings, problem) from problem


def not_loadable(settings: ModelSettings, problem: Exception) -> UserError:
    """One line that names the model and the fix."""
    cause = problem.__cause__ if isinstance(problem, UserError) and problem.__cause__ else problem
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    what = re.sub(r"^student \S+: ", "", lines[0])
    at = f" at revision {settings.revision!r}" if settings.revision else ""
    return UserError(
        f"model {settings.model!r}{at}: cannot be loaded: {what} (it is a Hugging Face model name or a folder with "
        "safetensors)"
    )


def encode_requests(
    tokenizer: Any,
    requests: Sequence[LLMRequest],
    settings: ModelSettings,
    teacher: str,
    context: int | None,
    in_words: bool,
) -> list[EncodedRequest]:
    """The requests as token ids.

    Args:
        tokenizer: Of the model.
        requests: The requests.
        settings: Of the model.
        teacher: `vllm` or `transformers`.
        context: The most tokens that the model can read and write together; None: not known.
        in_words: Whether the form of an answer is asked for in words.
    """
    identity = settings.identity(teacher)
    encoded = []
    for request in requests:
        messages: Sequence[Message] = [
            {**message, "content": without_control_tokens(message["content"])} for message in request.messages
        ]
        if request.schema is not None and in_words:
            messages = schema_in_words(messages, request.schema)
        prompt = encode_chat(tokenizer, messages)
        limit = request.max_tokens if context is None else min(request.max_tokens, max(0, context - len(prompt)))
        encoded.append(EncodedRequest(request=request, key=request_key(identity, request), prompt=prompt, limit=limit))
    return encoded


def answer_in_chunks(
    encoded: Sequence[EncodedRequest],
    settings: ModelSettings,
    tracker: SpendTracker,
    teacher: str,
    chunk: int,
    generate: Callable[[list[EncodedRequest]], list[Completion]],
) -> dict[str, LLMResponse]:
    """The answer to each item, by its key.

    Args:
        encoded: In the order in which to work.
        settings: Of the model.
        tracker: See `SpendTracker`.
        teacher: `vllm` or `transformers`.
        chunk: The most encoded at once. All are in the ledger before the next ones are begun.
        generate: Gives what the model wrote for each item, in order.
    """
    identity = settings.identity(teacher)
    answers = {item.key: _too_long(item, settings) for item in encoded if item.limit < 1}
    pending = deque(item for item in encoded if item.limit > 0)
    progress = Progress("teacher", len(pending), "calls")
    total = len(pending)
    while pending:
        taken: list[tuple[EncodedRequest, Reservation]] = []
        while pending and len(taken) < chunk and (reservation := tracker.reserve(pending[0].request, settings.model)):
            taken.append((pending.popleft(), reservation))
        if not taken:
            if tracker.reserved:  # another teacher of the same run is at work, and may leave room
                time.sleep(0.2)
                continue
            item = pending.popleft()
            answers[item.key] = LLMResponse(
                request=item.request, key=item.key, outcome="over_budget", model=settings.model
            )
            continue
        try:
            written = generate([item for item, _ in taken])
        except BaseException:
            for _, reservation in taken:
                tracker.release(reservation)
            raise

        def keep(done: tuple[tuple[EncodedRequest, Reservation], Completion]) -> LLMResponse:
            (item, reservation), given = done
            answer = LLMResponse(
                request=item.request,
                key=item.key,
                outcome="answered",
                text=given.text,
                truncated=given.truncated,
                model=settings.model,
                input_tokens=len(item.prompt),
                output_tokens=given.tokens,
            )
            tracker.settle(reservation, answer)
            return tracker.store(identity, answer)

        with ThreadPoolExecutor(WRITERS, thread_name_prefix="ledger") as threads:
            for answer in threads.map(keep, zip(taken, written, strict=True)):
                answers[answer.key] = answer
        progress.show(total - len(pending))
    return answers


def _too_long(item: EncodedRequest, settings: ModelSettings) -> LLMResponse:
    return LLMResponse(
        request=item.request,
        key=item.key,
        outcome="failed",
        detail=f"the request has {len(item.prompt):,} tokens, and the model's context leaves none for an answer",
        model=settings.model,
    )
