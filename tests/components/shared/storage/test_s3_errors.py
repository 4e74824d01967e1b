"""One clear error for each thing that goes wrong with a server, and no secret in any of them."""

import datetime
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.endpoint import Endpoint

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.storage import (
    create_bytes,
    delete,
    download_folder,
    exists,
    list_uris,
    read_bytes,
    s3,
    upload_folder,
    write_bytes,
)
from tests.support.loopback import LoopbackServer
from tests.support.rgw import S3Server, User

SECRET = "wJalrXUtnFEMI-not-to-be-seen"
REGION = {"x-amz-bucket-region": "eu-west-1"}
CALLS: dict[str, Callable[[str], object]] = {
    "s3:GetObject": lambda uri: read_bytes(f"{uri}/a"),
    "s3:PutObject": lambda uri: write_bytes(f"{uri}/a", b""),
    "s3:DeleteObject": lambda uri: delete(f"{uri}/a"),
    "s3:ListBucket": lambda uri: list(list_uris(uri)),
}
"""A call for each permission that one can lack."""


def message(call: Callable[[str], object], uri: str) -> str:
    """The one line of the UserError that a call ends with."""
    with pytest.raises(UserError) as problem:
        call(uri)
    text = str(problem.value)
    assert uri.split("/a")[0] in text
    assert "\n" not in text
    assert SECRET not in text
    assert problem.value.__cause__ is None, "the chain would show what the one line leaves out"
    return text


@pytest.mark.s3
@pytest.mark.parametrize("action", CALLS)
def test_each_mistake_has_a_message_of_its_own(
    action: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, uri = CALLS[action], f"s3://{s3_server.bucket()}"
    s3_server.use(monkeypatch, AWS_MAX_ATTEMPTS="1")
    assert "s3://no-such-bucket: there is no such bucket" in message(call, "s3://no-such-bucket")

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert "the secret does not belong to the access key" in message(call, uri)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "does not know this access key: check AWS_ACCESS_KEY_ID" in message(call, uri)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "there are no credentials: set AWS_ACCESS_KEY_ID" in message(call, uri)

    s3_server.use(monkeypatch, LLM2LLM_S3_ANONYMOUS="1")
    assert f"not permitted: these credentials need {action} there" in message(call, uri)
    s3_server.use(monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1")
    assert "http://127.0.0.1:1 cannot be reached: check AWS_ENDPOINT_URL" in message(call, uri)
    s3_server.use(monkeypatch, AWS_ENDPOINT_URL=f"http://me:{SECRET}@nowhere.invalid", AWS_MAX_ATTEMPTS="1")
    assert "http://nowhere.invalid cannot be reached" in message(call, uri)
    s3_server.use(monkeypatch, AWS_ENDPOINT_URL=s3_server.endpoint.replace("http", "https"), AWS_MAX_ATTEMPTS="1")
    assert "it speaks plain HTTP there: write http://" in message(call, uri)
    s3_server.use(monkeypatch, AWS_ENDPOINT_URL=s3_server.tls_endpoint, AWS_MAX_ATTEMPTS="1")
    assert "certificate is not trusted: set AWS_CA_BUNDLE" in message(call, uri)


@pytest.mark.s3
def test_a_certificate_of_ones_own_is_trusted_by_its_file(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"s3://{s3_server.bucket()}/a"
    s3_server.use(monkeypatch, AWS_ENDPOINT_URL=s3_server.tls_endpoint, AWS_CA_BUNDLE=str(s3_server.authority))
    write_bytes(uri, b"1")
    assert read_bytes(uri) == b"1"


@pytest.mark.s3
def test_credentials_come_from_a_mounted_file(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = f"s3://{s3_server.bucket()}/a"
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {s3_server.access_key}\naws_secret_access_key = {s3_server.secret_key}\n"
    )
    s3_server.use(monkeypatch, AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    write_bytes(uri, b"1")
    assert exists(uri)


@pytest.mark.s3
def test_a_public_bucket_is_read_without_credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3_server.bucket()
    s3_server.boto().put_object(Bucket=bucket, Key="a", Body=b"1", ACL="public-read")
    s3_server.use(monkeypatch, LLM2LLM_S3_ANONYMOUS="1", AWS_ACCESS_KEY_ID="nobody")
    assert read_bytes(f"s3://{bucket}/a") == b"1"


@pytest.mark.s3
def test_a_lacking_permission_is_named(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    user, bucket = s3_server.user(), s3_server.bucket()
    s3_server.use(monkeypatch, user)
    for allowed in CALLS:
        # What the user has stored in the round before would be the user's own to read.
        s3_server.boto().put_object(Bucket=bucket, Key="a", Body=b"1")
        s3_server.let(user, bucket, allowed)
        for action, call in CALLS.items():
            if action == allowed:
                call(f"s3://{bucket}")
            else:
                assert f"need {action} there" in message(call, f"s3://{bucket}")


@pytest.mark.s3
def test_a_clock_that_is_off_is_named(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.auth

    now = botocore.auth.get_current_datetime

    def later(*arguments: object, **keywords: object) -> datetime.datetime:
        return now(*arguments, **keywords) + datetime.timedelta(hours=2)

    s3_server.use(monkeypatch)
    uri = f"s3://{s3_server.bucket()}"
    monkeypatch.setattr(botocore.auth, "get_current_datetime", later)
    for call in CALLS.values():
        assert "clock and the server's are too far apart" in message(call, uri)


@pytest.mark.s3
def test_a_full_quota_is_named_and_leaves_no_folder(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    user = s3_server.user()
    bucket = s3_server.bucket(user)
    s3_server.admin("quota", "set", "--quota-scope=user", f"--uid={user.name}", "--max-objects=10")
    s3_server.admin("quota", "enable", "--quota-scope=user", f"--uid={user.name}")
    for number in range(30):
        write_bytes(tmp_path / "folder" / str(number), b"1")
    s3_server.use(monkeypatch, user)
    quota = "quota is used up: delete something or raise the quota"
    assert quota in message(lambda uri: upload_folder(tmp_path / "folder", f"{uri}/folder"), f"s3://{bucket}")
    with pytest.raises(UserError, match="no whole folder here"):
        download_folder(f"s3://{bucket}/folder", tmp_path / "back")
    assert quota in message(lambda uri: create_bytes(f"{uri}/one-more", b""), f"s3://{bucket}")


class Refusing:
    """A server that answers every request with one error, and counts them."""

    def __init__(self) -> None:
        self.status, self.code, self.headers, self.body = 503, "SlowDown", dict[str, str](), ""
        self.requests = 0
        refusing = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                refusing.requests += 1
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = (
                    refusing.body or f"<Error><Code>{refusing.code}</Code><Message>{SECRET}</Message></Error>"
                ).encode()
                self.send_response(refusing.status)
                for name, value in {"Content-Length": str(len(body)), **refusing.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = LoopbackServer(Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def refusing(no_server: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    server = Refusing()
    for name, value in S3Server(Path(), 0, 0, User("", "key", SECRET)).environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    yield server
    server.close()


@pytest.mark.parametrize(
    ("status", "code", "headers", "what"),
    [
        (400, "AuthorizationHeaderMalformed", REGION, "in another region: set AWS_REGION=eu-west-1"),
        (301, "PermanentRedirect", REGION, "in another region: set AWS_REGION=eu-west-1"),
        (400, "IllegalLocationConstraintException", {}, "another region: set AWS_REGION to the bucket's"),
        (400, "ExpiredToken", {}, "token is no longer valid"),
        (507, "XMinioStorageFull", {}, "the server's disks are full"),
        (501, "NotImplemented", {}, "the server lacks this operation"),
        (418, "Teapot", {}, "refused PutObject \\(Teapot\\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", [write_bytes, create_bytes])
def test_what_other_servers_say_is_explained(
    refusing: Refusing, status: int, code: str, headers: dict[str, str], what: str, call: Callable[[str, bytes], object]
) -> None:
    refusing.status, refusing.code, refusing.headers = status, code, headers
    with pytest.raises(UserError, match=what) as problem:
        call("s3://bucket/key", b"")
    assert SECRET not in str(problem.value)


@pytest.mark.parametrize(
    ("status", "code", "what"),
    [
        (503, "SlowDown", "was too busy \\(SlowDown\\) 7 times in a row"),
        (429, "TooManyRequests", "was too busy"),
        (500, "InternalError", "failed \\(InternalError\\) 7 times in a row"),
    ],
)
def test_a_busy_or_failing_server_is_asked_again_with_growing_random_waits(
    refusing: Refusing, monkeypatch: pytest.MonkeyPatch, status: int, code: str, what: str
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    refusing.status, refusing.code = status, code
    with pytest.raises(UserError, match=what):
        read_bytes("s3://bucket/key")
    assert refusing.requests == s3.ATTEMPTS
    assert len({wait / 2**number for number, wait in enumerate(waits)}) == s3.ATTEMPTS - 1
    assert all(0 <= wait <= 2**number for number, wait in enumerate(waits))


@pytest.mark.parametrize("status", [200, 400, 403, 404])
def test_a_server_that_does_not_speak_s3_is_named(
    refusing: Refusing, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    refusing.status, refusing.body = status, f"<html><meta><body>{SECRET}</body></html>"
    for action, call in CALLS.items():
        # S3 says 204 to a DELETE, but nothing is lost when a page says 200.
        if (action, status) != ("s3:DeleteObject", 200):
            text = message(call, "s3://bucket")
            assert "check AWS_ENDPOINT_URL" in text
            # boto3 takes a 200 with a page for a failure of the server where it expects XML or nothing.
            assert f"{refusing.url} does not speak S3" in text or (status == 200 and action != "s3:GetObject")


def test_a_role_that_the_identity_service_refuses_is_named(
    refusing: Refusing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(SECRET)
    refusing.status, refusing.body = 403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/trainer")
    for call in CALLS.values():
        assert "identity service refused the role (AccessDenied): check AWS_ROLE_ARN" in message(call, "s3://bucket")


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("AWS_ENDPOINT_URL", f"me:{SECRET}@server:9000", "starts with http:// or https://"),
        ("AWS_ENDPOINT_URL_S3", "http://", "no S3 client can be made"),
        ("LLM2LLM_S3_ADDRESSING", "dns", "write path or virtual"),
        ("AWS_CA_BUNDLE", "/no/such/file", "AWS_CA_BUNDLE: there is no file /no/such/file"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/file", "AWS_WEB_IDENTITY_TOKEN_FILE: there is no file"),
        ("AWS_MAX_ATTEMPTS", "many", "AWS_MAX_ATTEMPTS is 'many'"),
        ("AWS_PROFILE", "nobody", "no S3 client can be made"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(
    no_server: None, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, what: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=what) as problem:
        read_bytes("s3://bucket/key")
    assert SECRET not in str(problem.value)


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "https://bucket.s3.amazonaws.com/key"),
        ({"AWS_REGION": "eu-west-1"}, "https://bucket.s3.eu-west-1.amazonaws.com/key"),
        ({"AWS_ENDPOINT_URL": "http://minio:9000"}, "http://minio:9000/bucket/key"),
        (
            {"AWS_ENDPOINT_URL": "http://else", "AWS_ENDPOINT_URL_S3": "http://minio:9000"},
            "http://minio:9000/bucket/key",
        ),
        ({"AWS_ENDPOINT_URL": "http://minio:9000", "LLM2LLM_S3_ADDRESSING": "virtual"}, "http://bucket.minio:9000/key"),
        ({"LLM2LLM_S3_ADDRESSING": "path", "AWS_REGION": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/bucket/key"),
    ],
)
def test_the_environment_says_which_server_and_how_buckets_are_addressed(
    no_server: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET, **variables}.items():
        monkeypatch.setenv(name, value)
    sent: list[str] = []

    def send(_: Endpoint, request: AWSPreparedRequest) -> None:
        sent.append(request.url)
        raise ConnectionAbortedError

    monkeypatch.setattr(Endpoint, "_send", send)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UserError):
        read_bytes("s3://bucket/key")
    assert sent == [url]


def test_a_process_has_one_client_until_its_environment_changes(
    no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    first = s3.client()
    assert s3.client() is first
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, b"own" if s3.client() is not first else b"the parent's")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 20) == b"own"
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert s3.client().meta.region_name == "eu-west-2"
