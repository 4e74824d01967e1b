"""Servers that crash, answers that get lost, keys that are taken away: nothing is lost and nothing half-visible."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.endpoint import Endpoint

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.ledger import Entry, find_entries, list_entries, request_of, write_entry
from llm2llm.components.shared.llm.requests import LLMRequest, request_key
from llm2llm.components.shared.storage import (
    NotThere,
    create_bytes,
    download_folder,
    list_uris,
    read_bytes,
    read_manifest,
    upload_folder,
    write_bytes,
)
from tests.support.rgw import S3Server

pytestmark = pytest.mark.s3

FILES = 250


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Many files, so that there is time for things to go wrong while they are stored."""
    source = tmp_path / "folder"
    source.mkdir()
    for number in range(FILES):
        (source / f"{number:03d}").write_bytes(b"%d" % number * 5000)
    return source


def wait_until_half_way(server: S3Server, bucket: str) -> None:
    """Returns while an upload into the bucket is under way."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        stored = server.boto().list_objects_v2(Bucket=bucket).get("KeyCount", 0)
        if stored >= 10:
            assert stored < FILES, "the upload was over before anything could go wrong"
            return
    raise AssertionError("no upload began")


def test_an_upload_sits_out_a_restart_of_the_server(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    s3_server.use(monkeypatch)
    bucket = s3_server.bucket()
    uri = f"s3://{bucket}/folder"
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(upload_folder, folder, uri)
        wait_until_half_way(s3_server, bucket)
        s3_server.kill()
        time.sleep(0.5)
        s3_server.restart()
        while not upload.done():
            try:
                assert len(read_manifest(uri)) == FILES
                break
            except NotThere:
                time.sleep(0.02)
        upload.result()
    download_folder(uri, tmp_path / "back")
    assert {p.name: p.read_bytes() for p in (tmp_path / "back").iterdir()} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }


def test_an_upload_to_a_server_that_stays_away_leaves_no_folder(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    s3_server.use(monkeypatch, AWS_MAX_ATTEMPTS="2")
    bucket = s3_server.bucket()
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(upload_folder, folder, f"s3://{bucket}/folder")
        wait_until_half_way(s3_server, bucket)
        s3_server.kill()
        try:
            with pytest.raises(UserError, match="cannot be reached"):
                upload.result()
        finally:
            s3_server.restart()
    with pytest.raises(NotThere, match="no whole folder here"):
        download_folder(f"s3://{bucket}/folder", tmp_path / "back")
    upload_folder(folder, f"s3://{bucket}/folder")
    assert len(read_manifest(f"s3://{bucket}/folder")) == FILES


def test_a_process_that_is_killed_while_it_uploads_leaves_no_folder(
    s3_server: S3Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.use(monkeypatch)
    bucket = s3_server.bucket()
    code = f"from llm2llm.components.shared.storage import upload_folder; upload_folder({str(folder)!r}, 's3://{bucket}/folder')"
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_until_half_way(s3_server, bucket)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(NotThere):
        download_folder(f"s3://{bucket}/folder", tmp_path / "back")


def test_a_key_that_is_revoked_half_way_ends_the_upload_and_leaves_no_folder(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    user, bucket = s3_server.user(), s3_server.bucket()
    s3_server.let(user, bucket, "s3:*")
    s3_server.use(monkeypatch, user)
    # Its last file waits for the key to be gone.
    revoked = threading.Event()
    hold_back(monkeypatch, f"folder/{FILES - 1}", revoked)
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(upload_folder, folder, f"s3://{bucket}/folder")
        wait_until_half_way(s3_server, bucket)
        s3_server.revoke(user)
        revoked.set()
        # Ceph may already refuse a request of which it has not yet forgotten the key.
        with pytest.raises(
            UserError, match=r"does not know this access key: check AWS_ACCESS_KEY_ID|need s3:PutObject"
        ):
            upload.result()
    s3_server.use(monkeypatch)
    with pytest.raises(NotThere):
        download_folder(f"s3://{bucket}/folder", tmp_path / "back")


def hold_back(monkeypatch: pytest.MonkeyPatch, key: str, until: threading.Event) -> None:
    """Lets this process send the object of this key only after an event."""
    send = Endpoint._send

    def reserved(self: Endpoint, request: AWSPreparedRequest) -> object:
        if request.url.endswith(key):
            assert until.wait(30)
        return send(self, request)

    monkeypatch.setattr(Endpoint, "_send", reserved)


def test_a_race_to_create_has_one_winner_though_the_server_restarts(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.use(monkeypatch)
    bucket = s3_server.bucket()
    uris = [f"s3://{bucket}/{race}" for race in range(10)]

    def create_all(writer: int) -> list[bool]:
        return [create_bytes(uri, b"%d" % writer) for uri in uris]

    with ThreadPoolExecutor(20) as pool:
        racing = [pool.submit(create_all, writer) for writer in range(20)]
        deadline = time.monotonic() + 30
        while not s3_server.boto().list_objects_v2(Bucket=bucket).get("KeyCount") and time.monotonic() < deadline:
            pass
        s3_server.kill()
        assert not all(race.done() for race in racing)
        s3_server.restart()
        won = [race.result() for race in racing]
    for race, uri in enumerate(uris):
        winners = [writer for writer in range(20) if won[writer][race]]
        assert len(winners) == 1
        assert read_bytes(uri) == b"%d" % winners[0]


class LosesAnswers:
    """A way to the server on which the first `lost` answers are swallowed, after the server has done what was asked.

    Only answers to requests that begin with `to` count.
    """

    def __init__(self, port: int, lost: int, to: bytes = b"") -> None:
        self.port, self.lost, self.to = port, lost, to
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            asked: list[bytes] = []
            threading.Thread(target=self._forward, args=(client, server, asked), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client, asked), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, asked: list[bytes]) -> None:
        while data := client.recv(65536):
            asked.append(data)
            server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket, asked: list[bytes]) -> None:
        while data := server.recv(65536):
            # `100 Continue` is no answer yet.
            counts = b" 100 " not in data.split(b"\r\n")[0] and any(part.startswith(self.to) for part in asked)
            if self.lost and counts:
                self.lost -= 1
                break
            client.sendall(data)
        for one in (client, server):
            one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def loses_one_answer(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[LosesAnswers]:
    way = LosesAnswers(s3_server.port, 1)
    s3_server.use(monkeypatch, AWS_ENDPOINT_URL=way.url)
    yield way
    way.listening.close()


def test_a_writer_whose_answer_was_lost_knows_that_it_was_first(
    s3_server: S3Server, loses_one_answer: LosesAnswers
) -> None:
    uri = f"s3://{s3_server.bucket()}/object"
    assert create_bytes(uri, b"mine")
    assert loses_one_answer.lost == 0
    assert not create_bytes(uri, b"mine")


def test_a_writer_whose_refusal_was_lost_knows_that_it_was_not_first(
    s3_server: S3Server, loses_one_answer: LosesAnswers
) -> None:
    bucket = s3_server.bucket()
    s3_server.boto().put_object(Bucket=bucket, Key="object", Body=b"another's")
    assert not create_bytes(f"s3://{bucket}/object", b"mine")
    assert loses_one_answer.lost == 0


def test_a_large_file_whose_last_answer_was_lost_is_stored(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = s3_server.bucket()
    write_bytes(tmp_path / "folder" / "large", bytes(20 << 20))
    way = LosesAnswers(s3_server.port, 1, to=f"POST /{bucket}/folder/large?uploadId=".encode())
    s3_server.use(monkeypatch, AWS_ENDPOINT_URL=way.url)
    upload_folder(tmp_path / "folder", f"s3://{bucket}/folder")
    assert way.lost == 0
    download_folder(f"s3://{bucket}/folder", tmp_path / "back")
    assert read_bytes(tmp_path / "back" / "large") == bytes(20 << 20)
    way.listening.close()


def test_an_answer_that_breaks_off_is_fetched_again(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 40_000
    uri = f"s3://{s3_server.bucket()}/object"
    s3_server.use(monkeypatch)
    write_bytes(uri, data)

    way = LosesAnswers(s3_server.port, 0)
    answers: list[int] = []

    def breaks_off_once(server: socket.socket, client: socket.socket, _: list[bytes]) -> None:
        answers.append(0)
        first, sent = len(answers) == 1, 0
        while part := server.recv(65536):
            client.sendall(part)
            sent += len(part)
            if first and sent > len(data) // 2:
                break
        for one in (client, server):
            one.shutdown(socket.SHUT_RDWR)

    monkeypatch.setattr(way, "_answer", breaks_off_once)
    s3_server.use(monkeypatch, AWS_ENDPOINT_URL=way.url)
    assert read_bytes(uri) == data
    assert len(answers) == 2
    assert list(list_uris(uri.rpartition("/")[0])) == [uri]
    way.listening.close()


def entries(count: int) -> list[Entry]:
    """Answers that were paid for, for a ledger."""
    requests = [
        LLMRequest(messages=[{"role": "user", "content": f"row {number}"}], temperature=0.7, max_tokens=64)
        for number in range(count)
    ]
    when = "2026-01-01T00:00:00.000+00:00"
    return [
        Entry(key=request_key("who", request), identity="who", model="m", request=request_of(request),
              text="fine" * 500, run="r", written_at=when)
        for request in requests
    ]  # fmt: skip


def test_no_answer_is_lost_when_the_server_restarts_while_a_ledger_is_written(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.use(monkeypatch)
    bucket = s3_server.bucket()
    ledger, paid = f"s3://{bucket}/ledger", entries(FILES)
    with ThreadPoolExecutor(16) as pool:
        writing = [pool.submit(write_entry, ledger, entry) for entry in paid]
        wait_until_half_way(s3_server, bucket)
        s3_server.kill()
        time.sleep(0.5)
        s3_server.restart()
        assert all(one.result() for one in writing), "each was the first, whatever became of the answer to its writer"
    assert find_entries(ledger, [entry.key for entry in paid]) == {entry.key: entry for entry in paid}
    assert not write_entry(ledger, paid[0])


def test_a_process_that_is_killed_while_it_writes_a_ledger_leaves_whole_entries(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.use(monkeypatch)
    bucket = s3_server.bucket()
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from llm2llm.components.shared.llm.ledger import write_entry\n"
        "from tests.components.shared.storage.test_s3_faults import FILES, entries\n"
        f"list(ThreadPoolExecutor(8).map(lambda e: write_entry('s3://{bucket}/ledger', e), entries(FILES)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_until_half_way(s3_server, bucket)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    paid = {entry.key: entry for entry in entries(FILES)}
    there = list(list_entries(f"s3://{bucket}/ledger"))  # a damaged one would raise
    assert 10 <= len(there) < FILES
    assert all(entry == paid[entry.key] for entry in there)
    for entry in paid.values():
        write_entry(f"s3://{bucket}/ledger", entry)
    assert len(list(list_entries(f"s3://{bucket}/ledger"))) == FILES


def test_a_full_quota_is_named_and_leaves_nothing_half_visible(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    s3_server.use(monkeypatch)
    bucket = s3_server.bucket()
    upload_folder(folder, f"s3://{bucket}/before")
    quota = ("--quota-scope=bucket", f"--bucket={bucket}", f"--uid={s3_server.owner.name}")
    s3_server.admin("quota", "set", *quota, f"--max-objects={FILES + 10}")
    s3_server.admin("quota", "enable", *quota)
    s3_server.kill()  # it keeps what it knows of quotas for minutes
    s3_server.restart()
    with pytest.raises(UserError, match=f"s3://{bucket}/after/.*quota is used up: delete something or raise the quota"):
        upload_folder(folder, f"s3://{bucket}/after")
    with pytest.raises(NotThere):
        read_manifest(f"s3://{bucket}/after")
    (entry,) = entries(1)
    with pytest.raises(UserError, match="quota is used up"):
        write_entry(f"s3://{bucket}/ledger", entry)
    assert find_entries(f"s3://{bucket}/ledger", [entry.key]) == {}
    download_folder(f"s3://{bucket}/before", tmp_path / "back")  # what was there is whole
    s3_server.admin("quota", "disable", *quota)
    s3_server.kill()
    s3_server.restart()
    assert write_entry(f"s3://{bucket}/ledger", entry)
    upload_folder(folder, f"s3://{bucket}/after")
    assert len(read_manifest(f"s3://{bucket}/after")) == FILES


def test_a_key_that_is_revoked_while_a_ledger_is_written_loses_no_answer_that_was_stored(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, bucket = s3_server.user(), s3_server.bucket()
    s3_server.let(user, bucket, "s3:*")
    s3_server.use(monkeypatch, user)
    ledger, paid = f"s3://{bucket}/ledger", entries(40)
    assert all(write_entry(ledger, entry) for entry in paid[:20])
    s3_server.revoke(user)
    with pytest.raises(UserError, match=r"does not know this access key|need s3:(Put|Get)Object"):
        list(map(partial(write_entry, ledger), paid[20:]))  # Ceph may take a while to forget the key
    keys = (f"--access-key={user.access_key}", f"--secret-key={user.secret_key}")
    s3_server.admin("key", "create", f"--uid={user.name}", "--key-type=s3", *keys)
    stored = list(list_entries(ledger))
    assert {entry.key for entry in paid[:20]} <= {entry.key for entry in stored}
    assert all(entry in paid for entry in stored)
    assert not write_entry(ledger, paid[0])
