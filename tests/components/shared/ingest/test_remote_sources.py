"""Rows, grammars and synonyms in object storage, on a real server."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.ingest.sources import is_file_source, read_examples
from llm2llm.components.shared.ingest.suffixes import SUFFIXES
from llm2llm.components.shared.storage import write_bytes
from llm2llm.components.shared.tasks import Task
from llm2llm.components.teacher_augment.offline.grammar import load_grammar
from llm2llm.components.teacher_augment.strategies.eda import load_synonyms
from tests.support.rgw import S3Server

pytestmark = pytest.mark.s3

ROWS = [{"question": "a red ball", "answer": "red"}, {"question": "the sky, today", "answer": "blue"}]


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    s3_server.use(monkeypatch)
    return s3_server.bucket()


def as_file(suffix: str, folder: Path) -> bytes:
    """The rows as a file of this kind."""
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
        return (folder / "rows.parquet").read_bytes()
    if suffix in (".arrow", ".feather", ".ipc"):
        table = pa.Table.from_pylist(ROWS)
        with pa.ipc.new_file(folder / "rows.arrow", table.schema) as file:
            file.write_table(table)
        return (folder / "rows.arrow").read_bytes()
    if suffix in (".csv", ".tsv"):
        text = b'question,answer\na red ball,red\n"the sky, today",blue\n'
        return (
            text
            if suffix == ".csv"
            else text.replace(b",red", b"\tred").replace(b",blue", b"\tblue").replace(b"question,", b"question\t")
        )
    if suffix == ".json":
        return json.dumps({"data": ROWS}).encode()
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_come_from_a_bucket_as_from_a_folder(bucket: str, colours: Task, tmp_path: Path, suffix: str) -> None:
    data = as_file(suffix, tmp_path)
    (tmp_path / f"rows{suffix}").write_bytes(data)
    write_bytes(f"s3://{bucket}/data/rows{suffix}", data)
    remote = read_examples(f"s3://{bucket}/data/rows{suffix}", colours)
    assert remote == read_examples(str(tmp_path / f"rows{suffix}"), colours)
    assert [row.question for row in remote] == [row["question"] for row in ROWS]
    assert read_examples(f"minio://{bucket}/data/rows{suffix}", colours) == remote


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"question": "a red ball", "answer": "red"}\n{"question"\n', r"error: rows.jsonl:2: not JSON"),
        (b'{"question": "a red ball", "answer": "rouge"}\n', r"error: rows.jsonl:1: the answer 'rouge'"),
        (b"\xff", r"error: rows.jsonl:1: not UTF-8"),
        (b"", r"error: s3://BUCKET/rows.jsonl: no rows"),
    ],
)
def test_a_wrong_row_is_named_without_the_place_of_the_copy(
    bucket: str, colours: Task, data: bytes, message: str
) -> None:
    write_bytes(f"s3://{bucket}/rows.jsonl", data)
    with pytest.raises(UserError) as raised:
        read_examples(f"s3://{bucket}/rows.jsonl", colours)
    assert message.replace("BUCKET", bucket) in f"error: {raised.value}"


def test_what_cannot_be_read_is_named_with_the_cause(
    bucket: str, colours: Task, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=f"s3://{bucket}/rows.jsonl is not there"):
        read_examples(f"s3://{bucket}/rows.jsonl", colours)
    with pytest.raises(UserError, match="s3://none-of-mine: there is no such bucket"):
        read_examples("s3://none-of-mine/rows.jsonl", colours)
    with pytest.raises(UserError, match=r"unknown kind of file '\.txt'"):
        read_examples(f"s3://{bucket}/rows.txt", colours)
    s3_server.use(monkeypatch, s3_server.user())
    with pytest.raises(UserError, match="not permitted: these credentials need s3:GetObject"):
        read_examples(f"s3://{bucket}/rows.jsonl", colours)


def test_a_bucket_is_no_dataset_on_the_hub() -> None:
    assert is_file_source("s3://bucket/rows")
    assert is_file_source("minio://bucket/rows.jsonl")


def test_a_grammar_and_synonyms_come_from_a_bucket(bucket: str) -> None:
    write_bytes(f"s3://{bucket}/grammar.yaml", b"patterns: {red: ['a {thing} in red']}\nslots: {thing: [hat]}\n")
    write_bytes(f"s3://{bucket}/synonyms.yaml", b"big: [large, huge]\n")
    assert load_grammar(f"s3://{bucket}/grammar.yaml").slots == {"thing": ["hat"]}
    assert load_synonyms(f"s3://{bucket}/synonyms.yaml") == {"big": ["large", "huge"]}
    with pytest.raises(UserError, match="is not there"):
        load_grammar(f"s3://{bucket}/other.yaml")
