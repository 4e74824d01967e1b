"""The rows that users bring: files, data sets on the Hugging Face hub, shipped data.

tickets.jsonl   tickets.csv.gz       a file on this machine; see `ingest.files` for the kinds
saved/   saved/#test                 a folder that `datasets` saved with `save_to_disk`, and a split of one
s3://bucket/tickets.jsonl            a file in object storage; see `components.storage` for server and credentials
gs://  az://  https://  hf://        a file elsewhere, through fsspec where the package for it is installed
openai/gsm8k:main#train              a dataset on the Hugging Face hub: name[:config][@revision][#split]
builtin:support_tickets/seeds.jsonl  data that comes with llm2llm
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.text import with_first_command
from llm2llm.components.shared.data.jsonl import is_text
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.columns import is_empty
from llm2llm.components.shared.ingest.examples import RawRows, first_place, to_examples
from llm2llm.components.shared.ingest.formats import RowFormat, is_preference, joined, recognise
from llm2llm.components.shared.ingest.suffixes import check_suffix, is_data_file
from llm2llm.components.shared.tasks import Columns, Task

BUILTIN = "builtin:"
STORAGE = ("s3://", "minio://")
"""What `components.storage` fetches."""
PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "http": "aiohttp",
            "https": "aiohttp", "hf": "huggingface_hub", "oci": "ocifs", "webhdfs": "requests"}  # fmt: skip
"""The package that fsspec needs for a scheme."""


def is_file_source(source: str) -> bool:
    """Whether a source names a file or folder, here or elsewhere, rather than a dataset on the hub."""
    return source.startswith((BUILTIN, "/", "./", "../", "~")) or "://" in source or is_data_file(source)


def is_here(source: str) -> bool:
    """Whether a source is a file or folder of this machine that is there."""
    return "://" not in source and source_path(split_of(source)[0]).exists()


def split_of(source: str) -> tuple[str, str]:
    """(folder, split) of `folder#split`; any other source and an empty text."""
    if "#" not in source or "://" in source or source.startswith(BUILTIN) or source_path(source).exists():
        return source, ""
    folder, _, split = source.rpartition("#")
    return (folder, split) if folder and source_path(folder).is_dir() else (source, "")


def shown_source(source: str) -> str:
    """A source as errors may show it: without the user, password and query of a URL, which may hold secrets."""
    if "://" not in source or source.startswith(STORAGE):
        return source
    scheme, _, rest = source.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def builtin_path(name: str) -> Path:
    """Where the shipped file `builtin:NAME` lies.

    Raises:
        UserError: There is none of that name.
    """
    root = Path(str(resources.files("llm2llm.components"))).resolve() / "builtin"
    path = (root / name.removeprefix(BUILTIN)).resolve()
    if not path.is_file() or root not in path.parents:
        known = sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())
        raise UserError(f"{name}: no such shipped file; there are {', '.join(known)}")
    return path


def source_path(source: str) -> Path:
    """The local path of a file source."""
    if source.startswith("file://"):
        return Path(unquote(source.removeprefix("file://").removeprefix("localhost")))
    return builtin_path(source) if source.startswith(BUILTIN) else Path(os.path.expanduser(source))


@contextmanager
def source_file(source: str) -> Iterator[Path]:
    """A file source as a file on this machine, for as long as the block lasts; it keeps its name.

    Raises:
        UserError: It is elsewhere, and cannot be fetched: nothing under this name, no bucket, no permission, a scheme
            that is not known or whose package is not installed; or its name is no valid text, which no row could keep
            as its source.
    """
    if not is_text(source):
        raise UserError(f"{source!a}: the file's name is not UTF-8 text; rename the file")
    if "://" not in source or source.startswith("file://"):
        yield source_path(source)
        return
    with tempfile.TemporaryDirectory(prefix="llm2llm-") as folder:
        path = Path(folder) / (file_name(source) or "rows")
        if source.startswith(STORAGE):
            # boto3 takes a while, and few sources need it.
            from llm2llm.components.shared import storage

            path.write_bytes(storage.read_bytes(source))
        else:
            _download(source, path)
        yield path


def file_name(source: str) -> str:
    """The name of a source's file, without the query of a URL."""
    if source.startswith(STORAGE):
        return source.rpartition("/")[2]
    if "://" in source and not source.startswith("file://"):
        return unquote(urlsplit(source).path.rpartition("/")[2])
    return source_path(source).name


def _download(source: str, path: Path) -> None:
    shown, scheme = shown_source(source), source.partition("://")[0].lower()
    elsewhere = "copy the file to a path of this machine or a volume, or to s3://"
    try:
        import fsspec
    except ImportError:
        raise UserError(f"{shown}: {scheme}:// needs the package fsspec (pip install fsspec); or {elsewhere}") from None
    if scheme not in fsspec.available_protocols():
        raise UserError(f"{shown}: {scheme}:// is not known here; {elsewhere}")
    try:
        with fsspec.open(source, "rb") as remote, open(path, "wb") as local:
            shutil.copyfileobj(remote, local, 1 << 20)
    except ImportError:
        package = PACKAGES.get(scheme, f"that fsspec needs for {scheme}")
        raise UserError(
            f"{shown}: {scheme}:// needs the package {package}, which is not installed (pip install {package}); or "
            f"{elsewhere}"
        ) from None
    except FileNotFoundError:
        unreachable = ", or the server is not reachable" if scheme in ("http", "https") else ""
        raise UserError(f"{shown}: no such file{unreachable}") from None
    except Exception as problem:  # whatever the client of the scheme raises; its message may repeat the URL
        first_line = (str(problem).strip() or "no further word").split("\n", 1)[0].replace(source, shown)
        query = urlsplit(source).query
        first_line = first_line.replace(query, "...") if query else first_line
        raise UserError(f"{shown}: cannot be fetched ({type(problem).__name__}: {first_line[:300]})") from None


def read_examples(
    source: str,
    task: Task,
    columns: Columns | None = None,
    row_format: RowFormat = "auto",
    encoding: str = "auto",
    unanswered: bool = False,
) -> list[Example]:
    """A user's rows as examples of a task, in the order of the source, every one checked.

    Args:
        source: A file or dataset name; see the module's own docstring.
        task: Says what a valid answer is.
        columns: Where question and answer are; default: the task's own mapping.
        row_format: How rows hold question and answer; see `ingest.formats`.
        encoding: Of text files; see `base.text.decode_text`.
        unanswered: Whether a row may lack its answer, which is then empty: questions to be asked.

    Raises:
        UserError: Names the source, the row and the column of what is missing, empty or wrong; also for a source
            without any row, and for an id of the user's own that stands twice.
    """
    columns = columns or task.columns
    raw = read_raw(source, task, columns, row_format, encoding, unanswered)
    return to_examples(raw, task, columns, first_place([raw], task, columns, unanswered), unanswered)


def read_raw(
    source: str, task: Task, columns: Columns, row_format: RowFormat = "auto", encoding: str = "auto",
    unanswered: bool = False,
) -> RawRows:  # fmt: skip
    """The rows of a source, and their format; arguments and errors as of `read_examples`."""
    notes: list[str] = []
    # A class index is its name, whose order may be another, unless it is said that numbers are places in the labels.
    labels = None if columns.answer_numbers == "auto" else task.labels
    rows = [(place, _with_commands(row)) for place, row in _records(source, labels, encoding, notes)]
    if not rows:
        raise UserError(f"{shown_source(source)}: no rows")
    found = recognise(rows[0][1], columns, unanswered) if row_format == "auto" else row_format
    if found == "columns":
        if row_format == "auto" and _has_context(rows, columns):
            for _, row in rows:
                row["question"] = joined([_plain(row.get("context")), _plain(row.get("question"))])
            notes.append("column 'context' is put before the question; prepare.format: columns leaves it out")
        elif (columns.question, columns.answer) == ("instruction", "output"):
            left_out = sum(not is_empty(row.get("input")) for _, row in rows)
            if left_out:
                notes.append(f"column 'input', not empty in {left_out} rows, is not read; prepare.format: alpaca does")
    if found == "prompt_completion" and is_preference(rows[0][1]):
        notes.append("the rows are preferences: what was preferred is the answer, what was rejected is left out")
    return RawRows(source, found, rows, notes)


def _with_commands(value: Any) -> Any:
    """A row whose texts begin as they were meant to; see `with_first_command`."""
    if isinstance(value, str):
        return with_first_command(value) if value[:1].isspace() else value
    if isinstance(value, dict):
        return {name: _with_commands(inner) for name, inner in value.items()}
    return [_with_commands(inner) for inner in value] if isinstance(value, list) else value


def _has_context(rows: Sequence[tuple[str, dict[str, Any]]], columns: Columns) -> bool:
    """Whether rows have a text in `context` that no mapping names; only beside the names that no one has set."""
    if (columns.question, columns.answer) != ("question", "answer"):
        return False
    texts = [row.get("context") for _, row in rows if not is_empty(row.get("context"))]
    return bool(texts) and all(isinstance(text, str) for text in texts)


def _plain(value: Any) -> str:
    return "" if is_empty(value) else str(value)


def _records(
    source: str, labels: Sequence[str] | None, encoding: str, notes: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of a source; a place is `file:line` or `dataset:row`, as a person would look it up."""
    if not is_file_source(source) and not is_here(source):
        yield from _hub_records(source, labels)
        return
    if "://" in source and not source.startswith("file://"):
        check_suffix(file_name(source))  # before anything is fetched
    # Arrow takes a while, and who only compiles has not got it.
    from llm2llm.components.shared.ingest.files import Source, read_file

    source, split = split_of(source)
    with source_file(source) as path:
        if not path.exists():
            raise UserError(f"{shown_source(source)}: no such file")
        name = file_name(source) or path.name
        yield from read_file(Source(path, name, encoding=encoding, labels=labels, split=split, notes=notes))


def _hub_records(source: str, labels: Sequence[str] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a dataset on the hub. Its own code is never run: `datasets` reads data files only.

    Class indices become class names where the names are `labels`, whose order may be another, or `labels` is None.
    Other indices stay what they are.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{source}: no such file, and reading it as a Hugging Face dataset needs the package datasets "
            "(pip install 'llm2llm[train]')"
        ) from None
    import pyarrow as pa

    from llm2llm.components.shared.ingest.files import converter, named_classes

    name, _, split = source.partition("#")
    name, _, revision = name.partition("@")
    name, _, config = name.partition(":")
    try:
        data = datasets.load_dataset(name, config or None, split=split or "train", revision=revision or None)
    except Exception as problem:  # whatever the hub client raises, the user's fix is the name or the network
        first_line = str(problem).strip().split("\n", 1)[0]
        raise UserError(
            f"{source}: no such file, and not readable as a Hugging Face dataset name[:config][@revision][#split]: "
            f"{type(problem).__name__}: {first_line}"
        ) from None
    classes = {
        column: feature.names
        for column, feature in data.features.items()
        if isinstance(feature, datasets.ClassLabel) and (labels is None or set(feature.names) <= set(labels))
    }
    short = {"float16": pa.float16(), "float32": pa.float32()}
    converters = {
        column: convert
        for column, feature in data.features.items()
        if isinstance(feature, datasets.Value) and (convert := converter(short.get(feature.dtype, pa.null())))
    }
    for number, row in enumerate(data, start=1):
        row = {column: converters[column](one) if column in converters else one for column, one in row.items()}
        yield f"{name}:{number}", named_classes(row, classes)
