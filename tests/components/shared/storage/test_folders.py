"""Folders: whole or absent, on a disk and on a server."""

import json
import os
from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.storage import (
    NotThere,
    delete,
    delete_folder,
    download_folder,
    exists,
    join,
    list_uris,
    read_bytes,
    read_manifest,
    upload_folder,
    write_bytes,
)
from llm2llm.components.shared.storage.folders import MANIFEST

LARGE = 20 << 20
"""Above the limit from which a file goes in parts."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder like a student's: a large file, small ones, an empty one, folders."""
    folder = tmp_path / "model"
    for name, data in {
        "model.safetensors": os.urandom(1 << 20) * (LARGE >> 20),
        "config.json": b"{}",
        "empty": b"",
        "tokenizer/odd name ü.json": b"[1]",
    }.items():
        write_bytes(folder / name, data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder on this machine."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_back_as_it_was(place: str, model: Path, tmp_path: Path) -> None:
    manifest = upload_folder(model, place)
    assert list(manifest) == ["config.json", "empty", "model.safetensors", "tokenizer/odd name ü.json"]
    assert read_manifest(place) == manifest
    write_bytes(tmp_path / "back" / "old", b"gone afterwards")
    download_folder(place, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(model)


def test_equal_folders_have_equal_manifests(place: str, model: Path) -> None:
    upload_folder(model, join(place, "1"))
    upload_folder(model, join(place, "2"))
    assert read_bytes(join(place, "1", MANIFEST)) == read_bytes(join(place, "2", MANIFEST))


def test_a_stored_folder_is_replaced_as_a_whole(place: str, model: Path, tmp_path: Path) -> None:
    upload_folder(model, place)
    (model / "empty").unlink()
    (model / "config.json").write_bytes(b"{1}")
    upload_folder(model, place)
    download_folder(place, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(model)
    assert not exists(join(place, "empty"))


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("model.safetensors", b"\0" * (LARGE - 1), "was truncated: 20,971,519 bytes instead of 20,971,520"),
        ("model.safetensors", b"\0" * LARGE, "was changed \\(its SHA-256"),
        ("config.json", b"{}\n", "was changed: 3 bytes instead of 2"),
        ("tokenizer/odd name ü.json", None, "is missing"),
    ],
)
def test_a_damaged_file_is_found_and_named_on_the_next_read(
    place: str, model: Path, tmp_path: Path, name: str, data: bytes | None, what: str
) -> None:
    upload_folder(model, place)
    if data is None:
        delete(join(place, name))
    else:
        write_bytes(join(place, name), data)
    with pytest.raises(UserError, match=f"{join(place, name)} {what}"):
        download_folder(place, tmp_path / "back")
    assert not [entry for entry in os.listdir(tmp_path) if "back" in entry]


def test_without_its_manifest_a_folder_is_not_there(place: str, model: Path, tmp_path: Path) -> None:
    for cause in ("never stored", "upload cut off"):
        if cause == "upload cut off":
            upload_folder(model, place)
            delete(join(place, MANIFEST))
        with pytest.raises(NotThere, match="no whole folder here"):
            download_folder(place, tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_a_folder_of_another_tool_is_fetched_without_a_manifest(place: str, tmp_path: Path) -> None:
    with pytest.raises(NotThere):
        download_folder(place, tmp_path / "back", manifest=False)
    write_bytes(join(place, "a"), b"1")
    write_bytes(join(place, "b/c"), b"")
    download_folder(place, tmp_path / "back", manifest=False)
    assert contents(tmp_path / "back") == {"a": b"1", "b/c": b""}


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a//b", "", "./a"])
def test_a_manifest_that_names_a_file_outside_is_refused(place: str, tmp_path: Path, name: str) -> None:
    write_bytes(join(place, "outside"), b"x")
    files = {name: {"size": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}
    write_bytes(join(place, MANIFEST), json.dumps({"version": 1, "files": files}).encode())
    with pytest.raises(UserError, match="no name of a file within the folder"):
        download_folder(place, tmp_path / "deep" / "back")
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"version": 1}',
        b'{"version": 1, "files": {"a": 1}}',
        b'{"version": 1, "files": {"a": {"size": 1, "sha256": ""}}}',
        b"\xff",
    ],
)
def test_a_manifest_that_is_none_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    write_bytes(tmp_path / "place" / MANIFEST, data)
    with pytest.raises(UserError, match=f"{MANIFEST} is no manifest"):
        download_folder(tmp_path / "place", tmp_path / "back")


def test_a_manifest_of_a_later_version_is_refused(tmp_path: Path) -> None:
    write_bytes(tmp_path / "place" / MANIFEST, b'{"version": 2, "files": {}}')
    with pytest.raises(UserError, match="version 2, this llm2llm reads 1"):
        read_manifest(tmp_path / "place")


def test_what_is_no_file_is_refused_before_anything_is_stored(place: str, model: Path) -> None:
    os.symlink(model / "tokenizer", model / "link")
    with pytest.raises(UserError, match="link is a link to a folder"):
        upload_folder(model, place)
    (model / "link").unlink()
    os.symlink(model / "gone", model / "dangling")
    with pytest.raises(UserError, match="dangling is no file"):
        upload_folder(model, place)
    with pytest.raises(UserError, match="none is no folder"):
        upload_folder(model / "none", place)
    assert list(list_uris(place)) == []


def test_a_link_to_a_file_is_stored_as_the_file(place: str, model: Path, tmp_path: Path) -> None:
    os.symlink(model / "config.json", model / "linked.json")
    upload_folder(model, place)
    download_folder(place, tmp_path / "back")
    assert not (tmp_path / "back" / "linked.json").is_symlink()
    assert (tmp_path / "back" / "linked.json").read_bytes() == b"{}"


def test_a_removed_folder_is_gone_and_its_neighbour_is_not(place: str, model: Path) -> None:
    upload_folder(model, join(place, "1"))
    write_bytes(join(place, "10", "kept"), b"")
    delete_folder(join(place, "1"))
    delete_folder(join(place, "1"))
    assert list(list_uris(place)) == [join(place, "10", "kept")]


def test_a_whole_bucket_is_not_removed() -> None:
    with pytest.raises(UserError, match="whole bucket"):
        delete_folder("s3://bucket")
