"""Files and folders that are whole or not there."""
# ruff: noqa: PT012  # what is raised must be raised inside of the block that writes

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.atomic import atomic_file, atomic_folder, write_text
from llm2llm.components.shared.base.errors import UserError


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestFile:
    def test_is_there_only_at_the_end(self, tmp_path: Path) -> None:
        target = tmp_path / "a" / "b.txt"
        with atomic_file(target) as partial:
            partial.write_text("new", encoding="utf-8")
            assert not target.exists()
        assert target.read_text(encoding="utf-8") == "new"
        assert everything(tmp_path) == ["a", "a/b.txt"]

    def test_replaces_an_old_one(self, tmp_path: Path) -> None:
        write_text(tmp_path / "b.txt", "old")
        write_text(tmp_path / "b.txt", "é\n")
        assert (tmp_path / "b.txt").read_bytes() == "é\n".encode()

    @pytest.mark.parametrize("problem", [ValueError("no"), KeyboardInterrupt()])
    def test_an_exception_leaves_the_old_one_and_nothing_else(self, tmp_path: Path, problem: BaseException) -> None:
        write_text(tmp_path / "b.txt", "old")
        with pytest.raises(type(problem)), atomic_file(tmp_path / "b.txt") as partial:
            partial.write_text("half")
            raise problem
        assert everything(tmp_path) == ["b.txt"]
        assert (tmp_path / "b.txt").read_text() == "old"

    @pytest.mark.parametrize("whole", [atomic_file, atomic_folder])
    def test_a_connection_that_breaks_is_no_full_disk(self, whole: Callable[..., Any], tmp_path: Path) -> None:
        with pytest.raises(ConnectionResetError), whole(tmp_path / "out"):
            raise ConnectionResetError("by peer")
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_is_named_with_the_fix(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as caught, atomic_file(tmp_path / "b.txt") as partial:
            partial.write_text("half")
            raise full_disk()
        assert str(caught.value) == (
            f"cannot write {tmp_path}/b.txt: the disk is full: free some space or choose another output folder"
        )
        assert everything(tmp_path) == []

    def test_a_file_where_a_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("a file")
        with pytest.raises(UserError, match=r"cannot write .*a/b\.txt"):
            write_text(tmp_path / "a" / "b.txt", "x")
        assert everything(tmp_path) == ["a"]

    def test_a_name_that_is_too_long(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="File name too long"):
            write_text(tmp_path / ("x" * 255), "x")

    def test_a_read_only_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(UserError, match="the file system is read-only: choose another output folder"):
            write_text(tmp_path / "b.txt", "x")
        assert everything(tmp_path) == []

    def test_a_folder_of_that_name(self, tmp_path: Path) -> None:
        (tmp_path / "b.txt").mkdir()
        with pytest.raises(UserError, match="Is a directory"):
            write_text(tmp_path / "b.txt", "x")
        assert everything(tmp_path) == ["b.txt"]


class TestFolder:
    def test_takes_the_place_of_an_old_one(self, tmp_path: Path) -> None:
        target = tmp_path / "model"
        for number in (1, 2):
            with atomic_folder(target) as partial:
                (partial / f"file{number}").write_text("x")
        assert everything(tmp_path) == ["model", "model/file2"]

    @pytest.mark.parametrize("problem", [ValueError("no"), KeyboardInterrupt()])
    def test_an_exception_leaves_the_old_one_and_nothing_else(self, tmp_path: Path, problem: BaseException) -> None:
        with atomic_folder(tmp_path / "model") as partial:
            (partial / "old").write_text("x")
        with pytest.raises(type(problem)), atomic_folder(tmp_path / "model") as partial:
            (partial / "new").write_text("x")
            raise problem
        assert everything(tmp_path) == ["model", "model/old"]

    def test_killed_while_it_takes_the_place_it_leaves_no_part_of_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with atomic_folder(tmp_path / "model") as partial:
            (partial / "a").write_text("x")
            (partial / "b").write_text("x")
        remove, seen = shutil.rmtree, list[list[str]]()

        def watched(path: Path, **more: Any) -> None:
            seen.append(everything(tmp_path / "model"))
            remove(path, **more)
            seen.append(everything(tmp_path / "model"))

        monkeypatch.setattr(shutil, "rmtree", watched)
        with atomic_folder(tmp_path / "model") as partial:
            (partial / "new").write_text("x")
            seen.append(everything(tmp_path / "model"))
        assert set(map(tuple, seen)) == {("a", "b"), ("new",)}

    def test_a_full_disk_is_named_with_the_fix(self, tmp_path: Path) -> None:
        with (
            pytest.raises(UserError, match=r"cannot write .*model: the disk is full"),
            atomic_folder(tmp_path / "model"),
        ):
            raise full_disk()
        assert everything(tmp_path) == []

    def test_what_a_killed_attempt_left_is_not_taken_over(self, tmp_path: Path) -> None:
        left = tmp_path / f".model.partial-{os.getpid()}"
        left.mkdir()
        (left / "half").write_text("x")
        with atomic_folder(tmp_path / "model") as partial:
            (partial / "whole").write_text("x")
        assert everything(tmp_path) == ["model", "model/whole"]
