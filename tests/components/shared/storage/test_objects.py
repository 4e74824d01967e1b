"""Single objects: what holds on a disk holds on a server."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.storage import (
    NotThere,
    append_generation,
    create_bytes,
    delete,
    exists,
    join,
    latest_generation,
    list_objects,
    list_uris,
    read_bytes,
    size,
    write_bytes,
)
from tests.support.rgw import S3Server

NAMES = ["a", "b", "d/a", "d/e/ü f", "d-", "d.x", "Z", "é", "100%", "a+b&c=d"]
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["write", "create"]), st.sampled_from(NAMES), st.binary(max_size=20)),
    st.tuples(st.sampled_from(["read", "exists", "size", "delete"]), st.sampled_from(NAMES)),
    st.tuples(st.just("range"), st.sampled_from(NAMES), st.integers(0, 25), st.none() | st.integers(0, 25)),
    st.tuples(st.just("list"), st.sampled_from(["", "d", "d/e", "none"])),
    st.tuples(st.just("append"), st.integers(0, 3), st.binary(max_size=5)),
    st.tuples(st.just("latest")),
)


def outcome(base: str, operation: tuple[Any, ...]) -> Any:
    """What one operation returns; names are relative to `base`, so that two places can be compared."""
    do, *arguments = operation
    at = join(base, arguments[0]) if arguments and isinstance(arguments[0], str) and arguments[0] else base
    called: dict[str, Callable[[], Any]] = {
        "write": lambda: write_bytes(at, arguments[1]),
        "create": lambda: create_bytes(at, arguments[1]),
        "read": lambda: read_bytes(at),
        "range": lambda: read_bytes(at, arguments[1], arguments[2]),
        "exists": lambda: exists(at),
        "size": lambda: size(at),
        "delete": lambda: delete(at),
        "list": lambda: [uri.removeprefix(base) for uri in list_uris(at)],
        "append": lambda: append_generation(join(base, "pointer"), arguments[1], after=arguments[0]),
        "latest": lambda: latest_generation(join(base, "pointer")),
    }
    try:
        return called[do]()
    except NotThere:
        return NotThere


@pytest.mark.s3
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, min_size=1, max_size=12))
def test_a_disk_and_a_server_do_the_same(
    operations: list[tuple[Any, ...]],
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    s3_server.use(monkeypatch)
    local, remote = str(tmp_path_factory.mktemp("local")), f"s3://{s3_server.bucket()}/base"
    for operation in operations:
        assert outcome(local, operation) == outcome(remote, operation), operation


def test_what_was_written_is_read_whole_and_in_part(place: str) -> None:
    uri = join(place, "object")
    write_bytes(uri, b"something else, and longer")
    write_bytes(uri, b"0123456789")
    assert read_bytes(uri) == b"0123456789"
    assert read_bytes(uri, 2, 5) == b"234"
    assert read_bytes(uri, 7) == b"789"
    assert read_bytes(uri, end=2) == b"01"
    assert read_bytes(uri, 5, 5) == read_bytes(uri, 10, 20) == b""
    assert (size(uri), exists(uri)) == (10, True)


def test_what_is_not_there_is_said_by_name(place: str) -> None:
    uri = join(place, "none")
    for call in (read_bytes, size, lambda uri: read_bytes(uri, 3, 3), lambda uri: read_bytes(uri, 1)):
        with pytest.raises(NotThere, match=f"{uri} is not there"):
            call(uri)
    assert not exists(uri)
    assert list(list_uris(place)) == []
    delete(uri)


def test_a_listing_has_every_page_in_the_order_of_bytes(place: str) -> None:
    names = sorted((f"{'ü' if number % 2 else 'u'}/{number}" for number in range(1001)), key=str.encode)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda name: write_bytes(join(place, name), b""), names))
    write_bytes(place + "-beside", b"a folder's neighbour with a name that begins alike")
    assert list(list_uris(place)) == [join(place, name) for name in names]


def test_of_many_threads_exactly_one_creates(place: str) -> None:
    for race in range(5):
        uri, start = join(place, f"race-{race}"), threading.Barrier(20)

        def create(number: int, uri: str = uri, start: threading.Barrier = start) -> bool:
            start.wait()
            return create_bytes(uri, b"%d" % number)

        with ThreadPoolExecutor(20) as pool:
            won = list(pool.map(create, range(20)))
        assert won.count(True) == 1
        assert read_bytes(uri) == b"%d" % won.index(True)
    assert len(list(list_uris(place))) == 5


def _move_until_won(prefix: str, number: int) -> list[int]:
    """Appends one generation that says who wrote it and which it saw; returns the number it won."""
    while True:
        seen, _ = latest_generation(prefix) or (0, b"")
        if append_generation(prefix, b"%d after %d" % (number, seen), after=seen):
            return [number, seen + 1]


@pytest.mark.slow
def test_of_many_processes_each_moves_a_pointer_once(place: str) -> None:
    prefix = join(place, "production")
    assert latest_generation(prefix) is None
    # Forked on purpose, with a client already in use: a child must make its own.
    with multiprocessing.get_context("fork").Pool(20) as pool:
        moves = pool.starmap(_move_until_won, [(prefix, number) for number in range(20)], chunksize=1)
    assert sorted(generation for _, generation in moves) == list(range(1, 21))
    for number, generation in moves:
        assert read_bytes(join(prefix, f"{generation:06d}")) == b"%d after %d" % (number, generation - 1)
    assert latest_generation(prefix) == (20, read_bytes(join(prefix, "000020")))
    assert not append_generation(prefix, b"from the past", after=7)


def test_a_writer_that_is_killed_leaves_nothing_to_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "kept", b"old")

    def killed(*_: object) -> None:
        os._exit(9)

    for call in (lambda: write_bytes(tmp_path / "kept", b"new"), lambda: create_bytes(tmp_path / "fresh", b"new")):
        child = os.fork()
        if not child:
            monkeypatch.setattr(os, "fsync", killed)
            call()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list(list_uris(tmp_path)) == [f"{tmp_path}/kept"]
    assert read_bytes(tmp_path / "kept") == b"old"


def test_a_path_that_cannot_hold_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for call in (
        lambda: write_bytes(tmp_path / "file" / "below", b""),
        lambda: write_bytes(tmp_path / "folder", b""),
        lambda: create_bytes(tmp_path / "file" / "below", b""),
        lambda: delete(tmp_path / "folder"),
    ):
        with pytest.raises(UserError, match=str(tmp_path)):
            call()
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_without_hard_links_a_create_is_refused_rather_than_unsafe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(UserError, match="no hard links"):
        create_bytes(tmp_path / "a", b"")
    assert os.listdir(tmp_path) == []


def test_a_listing_tells_sizes_and_times(place: str) -> None:
    before = time.time() - 2  # servers know whole seconds, by a clock of their own
    for name, data in (("b", b"12"), ("a/c", b"")):
        write_bytes(join(place, name), data)
    found = list(list_objects(place))
    assert [(one.uri, one.size) for one in found] == [(join(place, "a/c"), 0), (join(place, "b"), 2)]
    assert all(before <= one.modified <= time.time() + 2 for one in found)
    assert list(list_objects(join(place, "none"))) == []
