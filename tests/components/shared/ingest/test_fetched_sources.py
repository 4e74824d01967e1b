"""Rows elsewhere, by URL: fetched where a package for the scheme is installed, else refused by name."""

import functools
import json
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.ingest.sources import is_file_source, read_examples, shown_source, source_file
from llm2llm.components.shared.tasks import Task
from llm2llm.pipelines.config.loading import load_config

COLOURS = Task(name="colours", form="classification", labels=["red", "green"])
ROW = {"question": "a ball", "answer": "red"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(address, folder) of a web server."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_rows_from_a_web_server(served: tuple[str, Path]) -> None:
    address, folder = served
    (folder / "my rows.jsonl").write_text(json.dumps(ROW))
    for query in ("", "?download=true&token=secret"):
        (row,) = read_examples(f"{address}/my%20rows.jsonl{query}", COLOURS)
        assert (row.question, row.source) == ("a ball", "my rows.jsonl:1")


def test_what_a_web_server_has_not_is_named_without_secrets(served: tuple[str, Path]) -> None:
    address, folder = served
    with pytest.raises(UserError) as caught:
        read_examples(f"{address}/none.jsonl?token=secret", COLOURS)
    assert str(caught.value) == f"{address}/none.jsonl: no such file, or the server is not reachable"
    (folder / "page.jsonl").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(UserError, match=r"page\.jsonl: a web page, not a file of rows"):
        read_examples(f"{address}/page.jsonl", COLOURS)
    with pytest.raises(UserError, match=r"rows\.txt: unknown kind of file"):
        read_examples(f"{address}/rows.txt", COLOURS)


def test_a_url_of_a_file_here(tmp_path: Path) -> None:
    (tmp_path / "my rows.jsonl").write_text(json.dumps(ROW))
    assert read_examples(f"file://{tmp_path}/my%20rows.jsonl", COLOURS)[0].source == "my rows.jsonl:1"
    with pytest.raises(UserError, match="no such file"):
        read_examples(f"file://{tmp_path}/none.jsonl", COLOURS)


@pytest.mark.parametrize(
    ("source", "blocked", "says"),
    [
        (
            "gs://bucket/rows.jsonl",
            "gcsfs",
            "gs:// needs the package gcsfs, which is not installed (pip install gcsfs)",
        ),
        ("az://box/rows.jsonl", "adlfs", "az:// needs the package adlfs, which is not installed (pip install adlfs)"),
        ("gs://bucket/rows.jsonl", "fsspec", "gs:// needs the package fsspec (pip install fsspec)"),
        ("nfs5://bucket/rows.jsonl", "", "nfs5:// is not known here; copy the file to a path of this machine"),
    ],
)
def test_a_scheme_that_cannot_be_read_is_refused_by_name(
    source: str, blocked: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if blocked:
        monkeypatch.setitem(sys.modules, blocked, None)
    with pytest.raises(UserError) as caught:
        read_examples(source, COLOURS)
    assert str(caught.value).startswith(f"{source}: {says}")


def test_a_scheme_of_fsspec() -> None:
    import fsspec

    with fsspec.open("memory://box/rows.csv", "w") as file:
        file.write("question,answer\na ball,red\n")
    assert is_file_source("memory://box/rows.csv")
    with source_file("memory://box/rows.csv") as path:
        assert path.name == "rows.csv"
    assert read_examples("memory://box/rows.csv", COLOURS)[0].source == "rows.csv:2"


def test_secrets_of_a_url_are_not_shown() -> None:
    assert shown_source("https://me:word@host.org/a/rows.csv?sig=x") == "https://host.org/a/rows.csv"
    assert shown_source("rows?.csv") == "rows?.csv"


def test_a_config_leaves_urls_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "{name: c, student: scratch, task: {name: c, form: text}, data: {seeds: 'gs://b/rows.jsonl', pool: rows.csv},"
        " teacher_augment: {teacher: pool}}"
    )
    data = load_config(str(tmp_path / "c.yaml"), resolve=True).data
    assert (data.seeds, data.pool) == ("gs://b/rows.jsonl", str(tmp_path / "rows.csv"))
