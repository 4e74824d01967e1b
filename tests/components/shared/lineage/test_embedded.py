"""The record inside artifacts: it is found again, changes nothing that is read, and is no part of the content hash."""

import json
import os
import string
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.hashing import hash_of
from llm2llm.components.shared.data.parquet import ROW_GROUP, kind_of, read_notes, read_rows, write_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.lineage import embedded
from llm2llm.components.shared.lineage.embedded import (
    FOLDER_FILE,
    FOOTER_KEY,
    can_hold,
    content_hash,
    content_hash_of_bytes,
    content_hash_of_entries,
    content_hash_once_embedded,
    embed_record,
    read_embedded,
)

RECORD = {"version": 2, "stage": "prepare", "python": "3.11.2", "text": "é"}
OTHER = RECORD | {"python": "3.13.0", "libraries": {"pyarrow": "99"}}

rows = st.lists(
    st.builds(
        Example,
        id=st.text(string.hexdigits, min_size=1),
        question=st.text(st.characters(exclude_categories=["Cs"])),
        answer=st.sampled_from(["a", "b"]),
        choices=st.lists(st.text(string.ascii_letters), max_size=3),
        confidence=st.none() | st.floats(0, 1),
    ),
    max_size=5,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.text().filter(lambda key: key != "lineage"), json_values, max_size=4)


def rows_of(count: int) -> list[Example]:
    return [Example(id=str(n), question=f"question {n} " * 5, answer="a") for n in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


@given(rows=rows)
def test_rows_and_their_hash_are_the_same_with_any_record(folder: Path, rows: list[Example]) -> None:
    path = folder / "rows"
    write_rows(path, "examples", rows, {"training_rows": 3})
    expected = content_hash_once_embedded(path)
    assert content_hash(path) == hash_of(path), "that of all bytes, as long as there is no record"
    for record in (RECORD, OTHER):
        embed_record(path, record)
        assert read_embedded(path) == record
        assert content_hash(path) == expected == content_hash_of_bytes(path.read_bytes())
        assert read_rows(path, "examples", Example) == rows
        assert read_notes(path) == {"training_rows": 3}
    assert kind_of(path) == "examples"


@given(value=objects)
def test_so_it_is_with_a_json_object(folder: Path, value: dict[str, Any]) -> None:
    path = folder / "object"
    path.write_text(json.dumps(value))
    expected = content_hash_once_embedded(path)
    assert content_hash(path) == hash_of(path)
    for record in (RECORD, OTHER):
        embed_record(path, record)
        assert read_embedded(path) == record
        assert content_hash(path) == expected == content_hash_of_bytes(path.read_bytes())
        assert json.loads(path.read_text()) == value | {"lineage": record}


def test_and_with_a_folder(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("w")
    before = content_hash(tmp_path)
    assert before == hash_of(tmp_path) == content_hash_once_embedded(tmp_path)
    for record in (RECORD, OTHER):
        embed_record(tmp_path, record)
        assert read_embedded(tmp_path) == record
        assert content_hash(tmp_path) == before
    files = {name: ((tmp_path / name).stat().st_size, hash_of(tmp_path / name)) for name in ("weights", FOLDER_FILE)}
    assert content_hash_of_entries(files) == before, "in object storage, by its manifest"
    (tmp_path / "weights").write_text("v")
    assert content_hash(tmp_path) != before


def test_the_bytes_of_the_rows_stay_where_they_are(tmp_path: Path) -> None:
    """Of several groups, each of which can still be read alone."""
    path = tmp_path / "rows"
    write_rows(path, "examples", rows_of(2 * ROW_GROUP + 1))
    body, before = path.read_bytes(), pq.read_metadata(path)
    embed_record(path, RECORD | {"long": "x" * 20_000})
    after = pq.read_metadata(path)
    assert [after.row_group(n).to_dict() for n in range(3)] == [before.row_group(n).to_dict() for n in range(3)]
    footer = int.from_bytes(body[-8:-4], "little") + 8
    assert path.read_bytes().startswith(body[:-footer])
    assert pq.ParquetFile(path).read_row_group(2).num_rows == 1
    assert path.stat().st_size < len(body) + 25_000, "the record is there once"


@pytest.mark.parametrize("change", ["rows", "order", "notes", "kind"])
def test_every_change_of_the_content_is_another_hash(tmp_path: Path, change: str) -> None:
    some, notes, kind = rows_of(3), {"training_rows": 3}, "examples"
    write_rows(tmp_path / "before", kind, some, notes)
    match change:
        case "rows":
            some = some[:2]
        case "order":
            some = some[::-1]
        case "notes":
            notes = {"training_rows": 4}
        case "kind":
            kind = "candidates"
    write_rows(tmp_path / "after", kind, some, notes)
    for name in ("before", "after"):
        embed_record(tmp_path / name, RECORD)
    assert content_hash(tmp_path / "before") != content_hash(tmp_path / "after")


def test_every_changed_byte_of_the_rows_is_another_hash(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write_rows(path, "examples", rows_of(1))
    embed_record(path, RECORD)
    content, sha256 = path.read_bytes(), content_hash(path)
    body = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for place in range(body):
        assert content_hash_of_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]) != sha256
    for cut in (1, 8, 100, len(content) - body, len(content) - 2):
        assert content_hash_of_bytes(content[:-cut]) != sha256


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"# Markdown", b'{"a": 1}\n{"a": 2}\n', b"[1]", b"PAR1", b"PAR1 PAR1", b"{", b"\xff{}"]
)
def test_what_can_hold_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert not can_hold(tmp_path / "a")
    assert read_embedded(tmp_path / "a") is None
    assert content_hash(tmp_path / "a") == content_hash_once_embedded(tmp_path / "a") == hash_of(tmp_path / "a")
    with pytest.raises(ValueError, match="cannot hold"):
        embed_record(tmp_path / "a", RECORD)
    assert (tmp_path / "a").read_bytes() == content


@pytest.mark.parametrize("lineage", ['"mine"', "7", "{}", '{"version": 3, "stage": "x"}', '{"version": 2}'])
def test_a_users_own_key_of_that_name_is_content(tmp_path: Path, lineage: str) -> None:
    (tmp_path / "a").write_text(f'{{"lineage": {lineage}}}')
    assert read_embedded(tmp_path / "a") is None
    assert content_hash(tmp_path / "a") == hash_of(tmp_path / "a")


def test_nothing_there_holds_none(tmp_path: Path) -> None:
    assert read_embedded(tmp_path / "nothing") is None


def test_a_full_disk_leaves_the_rows_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows"
    write_rows(path, "examples", rows_of(3))
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded.shutil, "copymode", full)
    with pytest.raises(UserError, match="the disk is full"):
        embed_record(path, RECORD)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["rows"]


def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write_rows(path, "examples", rows_of(1))
    path.chmod(0o640)
    embed_record(path, RECORD)
    assert path.stat().st_mode & 0o777 == 0o640
    assert pq.read_metadata(path).metadata.keys() == {b"ARROW:schema", b"llm2llm", FOOTER_KEY}
