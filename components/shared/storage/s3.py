"""Objects on an S3 server, and the one client that a process has for it."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.storage.errors import code_of, explained, is_absent, no_s3, not_there
from llm2llm.components.shared.storage.uris import S3Name

WORKERS = 16
"""Requests under way at once in a folder's transfer."""

ATTEMPTS = 7
"""Tries of one request, with random waits of up to 1, 2, 4, 8, 16 and 32 seconds: on average half a minute
together, enough to sit out a server's restart."""

_WRITER = "llm2llm-writer"
"""The object's metadata that tells a writer whether the object it finds is its own."""

Client = Any
"""boto3 makes its clients at run time; they have no type."""

_client: Client = None
_client_key: tuple[Any, ...] = ()
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


# A child that was forked while another thread held the lock would wait for it for ever.
os.register_at_fork(after_in_child=_renew_lock)


def client() -> Client:
    """The client of this process for the server that the environment names; threads may share it.

    Raises:
        UserError: A variable that does not make sense.
    """
    global _client, _client_key
    environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "LLM2LLM_S3_"))}
    key = (os.getpid(), *sorted(environment.items()))
    with _lock:
        if key != _client_key:
            _client, _client_key = _new_client(environment), key
        return _client


def _new_client(environment: dict[str, str]) -> Client:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UserError("AWS_ENDPOINT_URL: a server's address starts with http:// or https://")
    addressing = environment.get("LLM2LLM_S3_ADDRESSING") or ("path" if endpoint else "auto")
    if addressing not in ("path", "virtual", "auto"):
        raise UserError(f"LLM2LLM_S3_ADDRESSING is {addressing!r}: write path or virtual")
    for variable in ("AWS_CA_BUNDLE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        if (path := environment.get(variable)) and not os.path.exists(os.path.expanduser(path)):
            raise UserError(f"{variable}: there is no file {path}: mount it, or unset the variable")
    options: dict[str, Any] = {}
    if endpoint and "AWS_REQUEST_CHECKSUM_CALCULATION" not in environment:
        # Many servers other than AWS refuse or ignore the x-amz-checksum headers; Content-MD5 is known everywhere.
        options["request_checksum_calculation"] = "when_required"
    if endpoint and "AWS_RESPONSE_CHECKSUM_VALIDATION" not in environment:
        options["response_checksum_validation"] = "when_required"
    if environment.get("LLM2LLM_S3_ANONYMOUS", "") not in ("", "0"):
        options["signature_version"] = UNSIGNED
    attempts = environment.get("AWS_MAX_ATTEMPTS") or str(ATTEMPTS)
    if not attempts.isdecimal() or int(attempts) < 1:
        raise UserError(f"AWS_MAX_ATTEMPTS is {attempts!r}: write a number from 1")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    try:
        return boto3.session.Session().client(
            "s3",
            # A server of one's own rarely cares, but a request cannot be signed without a region.
            region_name=region or ("us-east-1" if endpoint else None),
            config=Config(
                # The mode called standard waits a few seconds at most and grants all threads 35 retries together: a
                # server that restarts under a folder's upload would end it.
                retries={"mode": "legacy", "total_max_attempts": int(attempts)},
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=4 * WORKERS,
                s3={"addressing_style": addressing},
                **options,
            ),
        )
    except (BotoCoreError, ValueError) as problem:
        # Their texts name a profile, a region or an endpoint, and the last may hold a password.
        raise UserError(
            f"no S3 client can be made ({type(problem).__name__}): check AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE "
            "and the files that AWS_ variables name"
        ) from None


@contextmanager
def problems(place: S3Name) -> Iterator[None]:
    """Turns what boto3 raises in the block into the UserError that explains it."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except RetriesExceededError as problem:
        raise explained(problem.last_exception, place, client().meta.endpoint_url) from None
    except (ClientError, BotoCoreError, ResponseParserError, ConnectionError, TimeoutError) as problem:
        raise explained(problem, place, client().meta.endpoint_url) from None


def read_bytes(name: S3Name, start: int, end: int | None) -> bytes:
    """See `objects.read_bytes`."""
    if end is not None and end <= start:
        if size(name) is None:
            raise not_there(name)
        return b""
    with problems(name):
        found = _get(name, f"bytes={start}-{'' if end is None else end - 1}" if start or end is not None else None)
    if found is None:
        raise not_there(name)
    answer, data = found
    # A server may ignore the range and send the whole.
    return data if "ContentRange" in answer else data[start:end]


def size(name: S3Name) -> int | None:
    """In bytes; None when there is no such object."""
    with problems(name):
        found = _get(name, "bytes=0-0")
    if found is None:
        return None
    answer, _ = found
    return int(answer["ContentRange"].rpartition("/")[2] if "ContentRange" in answer else answer["ContentLength"])


def _get(name: S3Name, part: str | None) -> tuple[dict[str, Any], bytes] | None:
    """The answer and what was read; None when there is no such object, nothing when the part begins past its end.

    A HEAD would do to learn of an object, but its errors have no body: there a missing bucket looks like a missing
    object, and a wrong secret like a lacking permission.
    """
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

    options = {"Range": part} if part else {}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = client().get_object(Bucket=name.bucket, Key=name.key, **options)
        except ClientError as problem:
            if is_absent(problem):
                return None
            if code_of(problem) in ("InvalidRange", "416"):
                return {"ContentLength": 0}, b""
            raise
        _require_etag(answer, name)
        try:
            return answer, answer["Body"].read()
        except (IncompleteReadError, HTTPClientError, ConnectionError):
            # boto3 retries until an answer begins, not what breaks off later.
            if attempt == ATTEMPTS:
                raise
        _wait(attempt)
    raise AssertionError("the last attempt returns or raises")


def write_bytes(name: S3Name, data: bytes) -> None:
    """See `objects.write_bytes`."""
    with problems(name):
        answer = client().put_object(Bucket=name.bucket, Key=name.key, Body=data, ContentMD5=_md5(data))
        _require_etag(answer, name)


def create_bytes(name: S3Name, data: bytes) -> bool:
    """See `objects.create_bytes`."""
    from botocore.exceptions import ClientError

    writer = uuid.uuid4().hex
    with problems(name):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = client().put_object(
                    Bucket=name.bucket,
                    Key=name.key,
                    Body=data,
                    ContentMD5=_md5(data),
                    IfNoneMatch="*",
                    Metadata={_WRITER: writer},
                )
                _require_etag(answer, name)
                return True
            except ClientError as problem:
                if code_of(problem) in ("PreconditionFailed", "412"):
                    # A first try whose answer was lost has made the object that a later one finds.
                    tried_again = attempt > 1 or problem.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
                    return tried_again and _written_by(name) == writer
                # Another writer was at it at the same moment; nobody knows yet who wins.
                if code_of(problem) not in ("ConditionalRequestConflict", "409") or attempt == ATTEMPTS:
                    raise
                _wait(attempt)
    raise AssertionError("the last attempt returns or raises")


def _written_by(name: S3Name) -> str | None:
    found = _get(name, "bytes=0-0")
    return found[0].get("Metadata", {}).get(_WRITER) if found else None


def delete(name: S3Name) -> None:
    """See `objects.delete`."""
    with problems(name):
        client().delete_object(Bucket=name.bucket, Key=name.key)


class Listed(NamedTuple):
    """What a listing tells of one object."""

    size: int
    """In bytes."""
    modified: float
    """When it was written, in seconds since 1970."""
    etag: str
    """Changes with the content."""


def names(folder: S3Name) -> Iterator[tuple[str, int]]:
    """Name within the folder and size of every object below it, sorted by the names' bytes."""
    return ((name, about.size) for name, about in listed(folder))


def listed(folder: S3Name) -> Iterator[tuple[str, Listed]]:
    """Like `names`, with all that the listing tells."""
    prefix = f"{folder.key}/" if folder.key else ""
    token: dict[str, str] = {}
    while True:
        with problems(folder):
            page = client().list_objects_v2(Bucket=folder.bucket, Prefix=prefix, **token)
        for found in page.get("Contents", []):
            # Consoles make an empty object called `folder/` for a folder.
            if not found["Key"].endswith("/"):
                about = Listed(found["Size"], found["LastModified"].timestamp(), found["ETag"])
                yield found["Key"].removeprefix(prefix), about
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _require_etag(answer: dict[str, Any], name: S3Name) -> None:
    """Every S3 server sends an ETag; a console or a sign-in page says 200 to anything, and sends none."""
    if "ETag" not in answer:
        raise no_s3(name, client().meta.endpoint_url)


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _wait(attempt: int) -> None:
    """Like boto3's own waits, at random so that those who failed together do not return together."""
    time.sleep(random.random() * 2 ** (attempt - 1))


@contextmanager
def transfers() -> Iterator[Any]:
    """An s3transfer manager: many files at once, large ones in parts; an error in the block cancels the rest."""
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    # The one written in Python, whatever else is installed: its retries and errors are those that are tested.
    config = TransferConfig(max_concurrency=WORKERS, preferred_transfer_client="classic")
    with create_transfer_manager(client(), config) as manager:
        yield manager


def upload_files(files: Mapping[S3Name, Path]) -> None:
    """Stores files, many at once; the first error ends it.

    Raises:
        UserError: One of them cannot be stored.
        OSError: One of them cannot be read.
    """
    from botocore.exceptions import ClientError

    with transfers() as manager:
        under_way = [(name, path, manager.upload(os.fspath(path), *name)) for name, path in files.items()]
        for name, path, upload in under_way:
            with problems(name):
                try:
                    upload.result()
                except ClientError as problem:
                    if code_of(problem) != "NoSuchUpload":
                        raise
                    # The answer to an upload's last step was lost, and boto3 asked for that step again.
                    manager.upload(os.fspath(path), *name).result()
