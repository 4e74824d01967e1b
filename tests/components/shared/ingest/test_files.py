"""Files as programs leave them: the same rows out of each, and one clear message for what is none."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.files import Source, read_file
from llm2llm.components.shared.ingest.sources import is_file_source, read_examples, read_raw
from llm2llm.components.shared.tasks import Columns, Task

TICKETS = Task(
    name="t", form="classification", labels=["billing", "delivery"], columns=Columns(question="body", answer="queue")
)
NUMBERS = Task(name="n", form="numeric", columns=Columns(question="q", answer="a"))
ROWS = [{"body": "Invoice 0, from May, was charged twice", "queue": "billing"},
        {"body": "My päckchen has not come yet", "queue": "delivery"},
        {"body": "Invoice 2; “again”", "queue": "billing"}]  # fmt: skip
PAIRS = [(row["body"], row["queue"]) for row in ROWS]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TWICE = gzip.compress(gzip.compress(b"x", mtime=0), mtime=0)


def csv_text(delimiter: str = ",", end: str = "\r\n", more: str = "") -> str:
    head = delimiter.join(["body", "queue"]) + more
    return end.join([head, *(delimiter.join([f'"{body}"', queue]) + more for body, queue in PAIRS), ""])


def arrow(stream: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = pa.Table.from_pylist(ROWS)
        with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as file:
            file.write_table(table)

    return write


def text(content: str, encoding: str = "utf-8") -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content.encode(encoding)) and None


def zstd(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(content.encode())

    return write


def parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return bytes(sink.getvalue())


COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
FILES: dict[str, Callable[[Path], None]] = {
    "lines.jsonl": text(LINES),
    "lines.json": text(LINES),
    "LINES.JSON": text(LINES),
    "lines.ndjson": text("\ufeff" + LINES),
    "marks inside.jsonl": text("".join("\ufeff" + line for line in LINES.splitlines(keepends=True))),
    "powershell.jsonl": text(LINES, "utf-16"),
    "list.json": text(json.dumps(ROWS)),
    "list.jsonl": text(json.dumps(ROWS, indent=2)),
    "wrapped.json": text(json.dumps({"version": 1, "data": ROWS})),
    "columns.json": text(json.dumps(COLUMNS)),
    "pandas.json": text(json.dumps({name: dict(enumerate(cells)) for name, cells in COLUMNS.items()})),
    "pretty.json": text("\n".join(json.dumps(row, indent=2) for row in ROWS)),
    "pretty.jsonl": text("\n".join(json.dumps(row, indent=2) for row in ROWS)),
    "lines.data": text(LINES),
    "lines.csv": text(LINES),
    "table.jsonl": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
    "packed.jsonl": lambda path: path.write_bytes(gzip.compress(LINES.encode())) and None,
    "table.data.gz": lambda path: path.write_bytes(gzip.compress(parquet_bytes())) and None,
    "lines.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())) and None,
    "lines.json.zst": zstd(LINES),
    "comma.csv.zst": zstd(csv_text()),
    "comma.csv.bz2": lambda path: path.write_bytes(bz2.compress(csv_text().encode())) and None,
    "comma.csv.xz": lambda path: path.write_bytes(lzma.compress(csv_text().encode())) and None,
    "comma.csv": text(csv_text(), "utf-8-sig"),
    "semicolon.csv": text(csv_text(";")),
    "bar.csv": text(csv_text("|")),
    "tab.tsv": text(csv_text("\t")),
    "sep.csv": text("sep=;\r\n" + csv_text(";"), "utf-8-sig"),
    "quoted sep.csv": text('"sep=;"\r\n' + csv_text(";")),
    "blank after comma.csv": text(csv_text().replace('",', '", ').replace("body,", "body, ")),
    "one empty column.csv": text(csv_text(more=",")),
    "empty columns.csv": text(csv_text(more=",,,")),
    "empty rows.csv": text(csv_text() + ",\r\n,\r\n\r\n" + " , \r\n"),
    "unicode text.csv": text(csv_text("\t"), "utf-16"),
    "unicode big.csv": text("\ufeff" + csv_text(), "utf-16-be"),
    "windows.csv": text(csv_text(";"), "cp1252"),
    "mac.csv": text(csv_text(";", end="\r"), "mac-roman"),
    "cr.csv": text(csv_text(end="\r")),
    "table.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
    "file.arrow": arrow(stream=False),
    "stream.arrow": arrow(stream=True),
    "file.feather": arrow(stream=False),
    "stream.ipc": arrow(stream=True),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    found = read_examples(str(tmp_path / name), TICKETS)
    assert [(row.question, row.answer) for row in found] == PAIRS
    assert all(row.source.startswith(f"{name}:") for row in found)


@pytest.mark.parametrize("name", ["windows.csv", "mac.csv"])
def test_an_encoding_that_is_guessed_is_told(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    (note,) = read_raw(str(tmp_path / name), TICKETS, TICKETS.columns).notes
    assert note.endswith("where characters look wrong, set prepare.encoding")


def test_an_encoding_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("body,queue\nПосылка не пришла,delivery\n".encode("cp1251"))
    with pytest.raises(
        UserError, match=r"rows\.csv:2: not UTF-8 text; save the file as UTF-8, or set prepare\.encoding"
    ):
        read_examples(str(tmp_path / "rows.csv"), TICKETS)
    found = read_examples(str(tmp_path / "rows.csv"), TICKETS, encoding="cp1251")
    assert found[0].question == "Посылка не пришла"
    with pytest.raises(UserError, match="'cp12' is no encoding that Python knows"):
        read_examples(str(tmp_path / "rows.csv"), TICKETS, encoding="cp12")


def test_one_object_in_a_json_file_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({**ROWS[0], "choices": ["a", "b"]}))
    assert len(read_examples(str(tmp_path / "one.json"), TICKETS)) == 1


def save(folder: Path, parts: list[list[dict[str, Any]]], **state: Any) -> None:
    """As `datasets.Dataset.save_to_disk` does."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{len(parts):05}.arrow" for i in range(len(parts))]
    features = {"info": {"features": {"queue": {"names": ["delivery", "billing"], "_type": "ClassLabel"}}}}
    for name, rows in zip(names, parts, strict=True):
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(features)})
        with pa.ipc.new_stream(folder / name, table.schema) as file:
            file.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], **state}))


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    save(tmp_path / "saved", [ROWS[:2], ROWS[2:]])
    found = read_examples(str(tmp_path / "saved"), TICKETS)
    assert [(row.question, row.answer, row.source) for row in found] == [
        (*pair, f"saved:{number}") for number, pair in enumerate(PAIRS, start=1)
    ]
    coded = [{**row, "queue": ["delivery", "billing"].index(row["queue"])} for row in ROWS]
    save(tmp_path / "coded", [coded])  # class indices in the data set's order, not the task's
    assert [row.answer for row in read_examples(str(tmp_path / "coded"), TICKETS)] == [queue for _, queue in PAIRS]


def test_a_folder_of_several_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "data" / "saved" / "train", [ROWS])
    save(tmp_path / "data" / "saved" / "test", [ROWS[:1]])
    (tmp_path / "data" / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert len(read_examples(str(tmp_path / "data" / "saved"), TICKETS)) == 3
    assert len(read_examples(f"{tmp_path}/data/saved#test", TICKETS)) == 1
    monkeypatch.chdir(tmp_path)
    assert len(read_examples("data/saved#test", TICKETS)) == 1
    with pytest.raises(UserError, match=r"no split 'valid'; it has train, test: write .*saved#train"):
        read_examples("data/saved#valid", TICKETS)


def test_a_saved_selection_and_other_folders_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "saved", [ROWS], _indices_files=[{"filename": "indices.arrow"}])
    with pytest.raises(UserError, match=r"saved: holds a selection of rows; save the data set again after flatten"):
        read_examples(str(tmp_path / "saved"), TICKETS)
    with pytest.raises(UserError, match=r": is a folder; give a file \(.*\) or a folder of datasets' save_to_disk"):
        read_examples(str(tmp_path), TICKETS)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"broken: state\.json cannot be read"):
        read_examples(str(tmp_path / "broken"), TICKETS)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.csv", b"body,queue,,\na,billing,x,\n", None),  # a cell under no name says nothing about the row
        ("rows.csv", b"body,queue\na,billing,x\n", "rows.csv:2: the row has 3 cells, the header 2"),
        ("rows.csv", b"sep=;\nbody;queue\na\n", "rows.csv:3: the row has 1 cells, the header 2"),
        ("rows.csv", b"sep=;\nbody;queue;body\n", "rows.csv:2: two columns are called 'body'"),
        ("rows.csv", b"body,queue\na\0b,billing\n", "rows.csv:2: column 'body' holds the control character U+0000"),
        ("rows.json", b'{"train": [{"body": "a"}], "test": [{"body": "b"}]}', "rows.json: has rows under 'train', 't"),
        ("rows.json", b'{"body": "a", "queue": "billing"}\n{"body": "b"\n', "rows.json:2: not JSON: Expecting"),
        ("rows.json", b'{"body": "a"\n', "rows.json: not JSON: Expecting"),
        ("rows.json", '[{"body": "ä"}]'.encode("latin-1"), "rows.json:1: not UTF-8 text; save the file as UTF-8"),
        ("rows.csv", b"PK\x03\x04...", "rows.csv: a workbook or an archive; save the sheet as CSV UTF-8"),
        ("rows.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146", "a pointer of Git LFS"),
        ("rows.csv", b"\n<html><body>Sign in", "rows.csv: a web page, not a file of rows"),
        ("rows.jsonl.gz", TWICE, "rows.jsonl.gz: is compressed twice; unpack it once"),
        ("rows.jsonl.gz", b"no gzip", "rows.jsonl.gz: not a whole .gz file"),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "rows.jsonl.gz: not a whole .gz file"),
        ("rows.jsonl.zst", b"no zstd", "rows.jsonl.zst: not a whole .zst file"),
        ("rows.jsonl.xz", b"no xz", "rows.jsonl.xz: not a whole .xz file"),
        ("rows.arrow", b"ARROW1 and then nothing", "rows.arrow: not a whole Arrow file"),
        ("rows.xlsx.gz", b"", "rows.xlsx.gz: a workbook; save the sheet as CSV UTF-8"),
        ("rows.gz", b"", "rows.gz: unknown kind of file ''"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, says: str | None) -> None:
    (tmp_path / name).write_bytes(content)
    if says is None:
        assert len(read_examples(str(tmp_path / name), TICKETS)) == 1
        return
    with pytest.raises(UserError) as caught:
        read_examples(str(tmp_path / name), TICKETS)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "name", ["rows.csv.gz", "rows.TSV", "rows.arrow", "a b (1).jsonl.zst", "gs://b/rows", "x#y.csv"]
)
def test_files_by_their_names(name: str) -> None:
    assert is_file_source(name)


# Numbers


@pytest.mark.parametrize(
    "kind", [pa.float16(), pa.float32(), pa.float64(), pa.decimal128(10, 4), pa.decimal256(40, 10), pa.string()]
)
def test_a_number_column_is_what_a_person_wrote(tmp_path: Path, kind: pa.DataType) -> None:
    written = ["0.1", "0.2", "1.1", "2.5", "3", "-4.4"]
    make: Callable[[str], Any] = str
    if pa.types.is_floating(kind):
        make = np.float16 if kind == pa.float16() else float
    elif pa.types.is_decimal(kind):
        make = Decimal
    column = pa.array([make(value) for value in written], kind)
    for name, table in (("flat", {"a": column}), ("nested", {"a": pa.StructArray.from_arrays([column], ["b"])})):
        pq.write_table(pa.table({"q": [f"question {i}" for i in range(6)], **table}), tmp_path / f"{name}.parquet")
        columns = Columns(question="q", answer="a" if name == "flat" else "a.b")
        assert [row.answer for row in read_examples(str(tmp_path / f"{name}.parquet"), NUMBERS, columns)] == written


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_short_float_is_read_as_its_shortest_decimal(tmp_path_factory: Any, value: float) -> None:
    path = tmp_path_factory.getbasetemp() / "floats.parquet"
    pq.write_table(
        pa.table({"a": pa.array([value], pa.float32()), "l": pa.array([[value]], pa.list_(pa.float32()))}), path
    )
    ((_, row),) = read_file(Source(path, path.name))
    assert row["a"] == row["l"][0] == float(str(np.float32(value)))
    assert np.float32(row["a"]) == np.float32(value)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("72k", "72k"),
        ("$1.2M", "$1.2M"),
        ("3万", "3万"),
        (1e22, "1" + "0" * 22),
        (-0.0, "0"),
        (1e-7, "1e-07"),
        (2.50, "2.5"),
    ],
)
def test_numbers_in_rows(tmp_path: Path, answer: Any, kept: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"q": "how many?", "a": answer}))
    assert read_examples(str(tmp_path / "rows.jsonl"), NUMBERS)[0].answer == kept


@pytest.mark.parametrize("answer", ["2 dozen", "5m", "3:30 PM", "5兆", "3万5", "1,5 Mio."])
def test_numbers_that_could_be_two_are_refused(tmp_path: Path, answer: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"q": "how many?", "a": answer}))
    with pytest.raises(UserError, match=r"rows\.jsonl:1: .*\(column 'a'\)"):
        read_examples(str(tmp_path / "rows.jsonl"), NUMBERS)


# Control characters


def read_one(tmp_path: Path, line: str) -> Example:
    (tmp_path / "rows.jsonl").write_text(line)
    columns = Columns(question="q", answer="a", rationale="why")
    (row,) = read_examples(str(tmp_path / "rows.jsonl"), Task(name="n", form="numeric", rationale=True), columns)
    return row


def test_tex_whose_backslashes_were_not_doubled_is_repaired(tmp_path: Path) -> None:
    once = read_one(tmp_path, r'{"q": "What is $\frac{3}{4} \times 16$?", "why": "$\beta \neq 0$, so 12.", "a": "12"}')
    twice = read_one(
        tmp_path, r'{"q": "What is $\\frac{3}{4} \\times 16$?", "why": "$\\beta \\neq 0$, so 12.", "a": "12"}'
    )
    assert once == twice
    assert once.question == r"What is $\frac{3}{4} \times 16$?"


def test_other_control_characters_name_row_and_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl:1: column 'q' holds the control character U\+0000 before 'x'"):
        read_one(tmp_path, r'{"q": "a\u0000x", "why": "b", "a": "12"}')
