"""Rows in Parquet files and JSON lines: schemas, refusals, whole files only."""

import dataclasses
import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import LocalArtifact, read_optional, write_artifact
from llm2llm.components.shared.data.jsonl import json_lines, write_json_lines
from llm2llm.components.shared.data.parquet import kind_of, read_rows, schema, write_rows
from llm2llm.components.shared.data.schemas import KINDS, VERSION, Example, Prediction, Score, content_id
from tests.support.builders import score

# The columns of each kind; `?` marks those that may be null. Who changes this raises VERSION, but for a new column that
# has a default: files of before are read without it.
COLUMNS = {
    "examples": "id:string question:string choices:list rationale:string? answer:string tools:list also_right:list "
    "skills:list source:string source_id:string? parent_id:string? by_way_of:string? iteration:int64 strategy:string? "
    "teacher:string? call_key:string? checks:list confidence:double? votes:list vote_shares:doubles",
    "predictions": "example_id:string split:string iteration:int64 fold:int64? completion:string parsed:string? "
    "outcome:string truncated:bool samples:int64 samples_correct:int64 samples_unparseable:int64 confidence:double? "
    "flag_probability:double? loss:double? label_probability:double? margin:double? rival:string? el2n:double? "
    "base_loss:double? early_loss:double? judge_score:double? judge_calls:int64 judge_input_tokens:int64? "
    "judge_output_tokens:int64? judge_usd:double?",
    "errors": "iteration:int64 example_id:string question:string choices:list rationale:string? answer:string "
    "completion:string parsed:string? outcome:string fold:int64? difficulty:string hardness:double? suspect:bool",
    "rejects": "iteration:int64 stage:string reason:string detail:string score:double? neighbour_id:string? "
    "neighbour:string? id:string question:string choices:list rationale:string? answer:string parent_id:string? "
    "by_way_of:string? strategy:string? teacher:string? call_key:string?",
    "calls": "key:string iteration:int64 parent_id:string? purpose:string strategy:string? teacher:string model:string "
    "outcome:string attempts:int64 input_tokens:int64? output_tokens:int64? usd:double?",
    "scores": "iteration:int64 split:string n:int64 correct:int64 unparseable:int64 accuracy:double low:double "
    "high:double training_rows:int64 rows_too_long:int64 rows_truncated:int64 rows_replayed:int64 steps:int64 "
    "validation_losses:doubles correct_ids:list "
    "metric:string value:double? value_low:double? value_high:double? measures:doubles macro_f1:double? "
    "balanced_accuracy:double? calibration_error:double? flag_label:string flag_threshold:double? "
    "flag_positives:int64 flag_found:int64 flag_negatives:int64 flag_false_alarms:int64 "
    "gain:double? gain_low:double? gain_high:double? "
    "gain_p:double? judge_calls:int64 judge_input_tokens:int64? "
    "judge_output_tokens:int64? judge_usd:double?",
    "decisions": "iteration:int64 selection:string errors:int64? suspects:int64 retired:int64 go_on:bool reason:string "
    "best_iteration:int64 reference_iteration:int64? judge_calls:int64 judge_input_tokens:int64? "
    "judge_output_tokens:int64? judge_usd:double?",
    "controls": "name:string iteration:int64 split:string n:int64 correct:int64 unparseable:int64 accuracy:double "
    "low:double high:double steps:int64 correct_ids:list asked_ids:list shots:int64 judge_calls:int64 "
    "judge_input_tokens:int64? judge_output_tokens:int64? judge_usd:double?",
    "trials": "number:int64 settings:string chosen:bool split:string folds:int64 n:int64 correct:int64 "
    "unparseable:int64 accuracy:double low:double high:double correct_ids:list metric:string value:double? "
    "value_low:double? value_high:double? failed:string iteration:int64 judge_calls:int64 judge_input_tokens:int64? "
    "judge_output_tokens:int64? judge_usd:double?",
    "confusions": "iteration:int64 split:string right:string given:string? n:int64",
}
COLUMNS["candidates"] = COLUMNS["examples"]


def test_the_schemas_are_those_of_version_5() -> None:
    assert VERSION == 5
    assert set(COLUMNS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_schema(kind: str) -> None:
    columns = []
    for field in schema(kind):
        name = str(field.type)
        if pa.types.is_list(field.type):
            name = {pa.string(): "list", pa.float64(): "doubles"}[field.type.value_type]
        columns.append(f"{field.name}:{name}{'?' if field.nullable else ''}")
        if pa.types.is_list(field.type):
            assert not field.type.value_field.nullable
    assert " ".join(columns) == COLUMNS[kind]


def test_a_file_without_columns_that_came_later_is_read_with_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_rows(path, "scores", [replace(score(0, "test", 1, 2), steps=9)])
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["steps"]), path)
    assert read_rows(path, "scores", Score) == [score(0, "test", 1, 2)]
    pq.write_table(table.drop_columns(["accuracy"]), path)
    with pytest.raises(UserError, match="its columns are others"):
        read_rows(path, "scores", Score)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(codec="utf-8"), max_size=20),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "doubles": st.lists(st.floats(allow_nan=False), max_size=3),
    "list": st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=3),
}


def rows_of(kind: str) -> st.SearchStrategy[Any]:
    fields = {}
    hints = get_type_hints(KINDS[kind])
    for column in COLUMNS[kind].split():
        name, _, type_name = column.partition(":")
        values = VALUES[type_name.removesuffix("?")]
        if get_origin(hints[name]) is Literal:
            values = st.sampled_from(get_args(hints[name]))
        fields[name] = st.none() | values if type_name.endswith("?") else values
    return st.builds(KINDS[kind], **fields)


ROW_LISTS = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(rows_of(kind), max_size=4))
)


@given(ROW_LISTS)
def test_any_rows_come_back_from_parquet_and_json_lines(tmp_path_factory: Any, drawn: tuple[str, list[Any]]) -> None:
    kind, rows = drawn
    folder = tmp_path_factory.getbasetemp()
    write_rows(folder / "rows", kind, rows)
    assert read_rows(folder / "rows", kind, KINDS[kind]) == rows
    assert kind_of(folder / "rows") == kind
    write_json_lines(folder / "rows.jsonl", rows)
    assert read_rows(folder / "rows.jsonl", kind, KINDS[kind]) == rows


@pytest.fixture
def rows(example: Callable[..., Example]) -> list[Example]:
    return [
        example("2+2?", "4", rationale="2+2=4", source="seeds.jsonl:1", source_id="a"),
        example("Which?", "B", choices=["x", "y"], parent_id="p", iteration=1, checks=["valid answer"]),
    ]


def test_the_file_names_kind_and_version(tmp_path: Path, rows: list[Example]) -> None:
    path = tmp_path / "rows"
    write_rows(path, "candidates", rows)
    assert json.loads(pq.read_schema(path).metadata[b"llm2llm"]) == {"kind": "candidates", "version": VERSION}
    assert pq.read_table(path).num_rows == 2  # any reader of Parquet can open it


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, rows: list[Example]) -> None:
    write_rows(tmp_path / "a" / "rows", "examples", rows)
    write_rows(tmp_path / "b" / "rows", "examples", iter(rows))
    assert (tmp_path / "a" / "rows").read_bytes() == (tmp_path / "b" / "rows").read_bytes()


def test_a_path_that_looks_like_a_partition(tmp_path: Path, rows: list[Example]) -> None:
    path = tmp_path / "iteration=1" / "rows.parquet"
    write_rows(path, "examples", rows)
    assert read_rows(path, "examples", Example) == rows


def test_another_kind_is_refused_naming_both(tmp_path: Path, rows: list[Example]) -> None:
    write_rows(tmp_path / "rows", "candidates", rows)
    with pytest.raises(UserError, match=r"/rows: expected 'examples' rows, found 'candidates' rows"):
        read_rows(tmp_path / "rows", "examples", Example)
    with pytest.raises(UserError, match=r"/rows: expected 'scores' rows, found 'candidates' rows"):
        read_rows(tmp_path / "rows", "scores", Score)


def foreign(path: Path, metadata: dict[bytes, bytes] | None, columns: dict[str, list[str]] | None = None) -> Path:
    pq.write_table(pa.table(columns or {"question": ["2+2?"]}).replace_schema_metadata(metadata), path)
    return path


@pytest.mark.parametrize("metadata", [None, {b"llm2llm": b"not JSON"}, {b"llm2llm": b"[1]"}, {b"llm2llm": b"{}"}])
def test_parquet_that_names_no_kind_is_refused(tmp_path: Path, metadata: dict[bytes, bytes] | None) -> None:
    path = foreign(tmp_path / "rows", metadata)
    with pytest.raises(UserError, match=r"/rows: expected 'examples' rows, but the file names no kind"):
        read_rows(path, "examples", Example)
    with pytest.raises(UserError, match=r"/rows: names no kind of rows"):
        kind_of(path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "rows", {b"llm2llm": b'{"kind": "examples", "version": 99}'})
    with pytest.raises(UserError, match=r"/rows: 'examples' rows of schema version 99, this llm2llm reads version 5"):
        read_rows(path, "examples", Example)


def test_a_file_from_before_a_field_with_a_default_is_read(tmp_path: Path) -> None:
    scores = [
        Score(iteration=0, split="test", n=2, correct=1, unparseable=0, accuracy=0.5, low=0, high=1, training_rows=3)
    ]
    write_rows(tmp_path / "new", "scores", scores)
    pq.write_table(pq.read_table(tmp_path / "new").drop(["measures", "macro_f1"]), tmp_path / "old")
    assert read_rows(tmp_path / "old", "scores", Score) == scores
    pq.write_table(pq.read_table(tmp_path / "new").drop(["n"]), tmp_path / "broken")
    with pytest.raises(UserError, match="its columns are others"):
        read_rows(tmp_path / "broken", "scores", Score)


def test_other_columns_under_our_name_are_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "rows", {b"llm2llm": b'{"kind": "examples", "version": 5}'})
    with pytest.raises(UserError, match=r"says that it holds 'examples' rows, but its columns are others: question"):
        read_rows(path, "examples", Example)


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, rows: list[Example], keep: int) -> None:
    path = tmp_path / "rows"
    write_rows(path, "examples", rows)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"/rows: not a whole Parquet file"):
        read_rows(path, "examples", Example)
    with pytest.raises(UserError, match=r"/rows: not a whole Parquet file"):
        kind_of(path)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/none: no such file"):
        read_rows(tmp_path / "none", "examples", Example)
    with pytest.raises(UserError, match=r"/none: no such file"):
        kind_of(tmp_path / "none")
    with pytest.raises(UserError, match=r"is a folder; give a file of 'examples' rows"):
        read_rows(tmp_path, "examples", Example)
    with pytest.raises(UserError, match=r"is a folder; give one of the Parquet files in it"):
        kind_of(tmp_path)


def lines(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def test_json_lines_with_defaults(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "rows.jsonl", {"question": "2+2?", "answer": "4"}, {"id": "mine", "question": "q", "answer": "a"}
    )
    first, second = read_rows(path, "examples", Example)
    assert first == Example(id=content_id("2+2?", [], None, "4"), question="2+2?", answer="4")
    assert second.id == "mine"
    assert read_rows(lines(tmp_path / "empty.jsonl"), "examples", Example) == []


PREDICTION = {
    "example_id": "x",
    "split": "seeds",
    "iteration": 0,
    "completion": "4",
    "parsed": "4",
    "outcome": "correct",
}


@pytest.mark.parametrize(
    ("kind", "line", "says"),
    [
        ("examples", {"question": "q", "answer": "a", "choises": []},
         "unknown field 'choises' for 'examples' rows; did you mean 'choices'?"),
        ("examples", {"input": "q", "output": "a"},
         "unknown field 'input' for 'examples' rows; they have id, question, choices, rationale, answer"),
        ("examples", {"question": "q"}, "field 'answer': Field required"),
        ("examples", {"question": "q", "answer": 4}, "field 'answer': Input should be a valid string (got 4)"),
        ("examples", {"question": "q", "answer": "a", "choices": "x"}, "field 'choices': Input should be a valid list"),
        ("examples", {"question": "q", "answer": "a", "choices": [1]}, "field 'choices.0': Input should be"),
        ("examples", {"question": "\ud800", "answer": "a"}, "field 'question' holds half a surrogate pair"),
        ("predictions", {**PREDICTION, "split": "seedz"},
         "field 'split': Input should be 'seeds', 'validation', 'test' or 'generated' (got 'seedz')"),
        ("predictions", {**PREDICTION, "iteration": "one"}, "field 'iteration': Input should be a valid integer"),
        ("examples", [1], "expected a JSON object, got list"),
    ],
)  # fmt: skip
def test_json_lines_that_are_refused(tmp_path: Path, kind: str, line: Any, says: str) -> None:
    good = PREDICTION if kind == "predictions" else {"question": "2+2?", "answer": "4"}
    path = lines(tmp_path / "rows.jsonl", good, line)
    with pytest.raises(UserError) as caught:
        read_rows(path, kind, KINDS[kind])
    assert str(caught.value).startswith(f"{path}:2: {says}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"a": 1}\n\n{"a": \n', ":3: not JSON: Expecting value"),
        (b"[" * 100_000, ":1: not JSON: nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", ":1: not JSON: "),
        (b'{"a": 1}\n{"a": "\xff"}\n', ":2: not UTF-8 text"),
        ('{"a": 1}'.encode("utf-16"), ":1: not UTF-8 text"),
        (b"\x00\xff\xfe", ":1: not UTF-8 text"),
    ],
)
def test_what_is_no_json_lines(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(json_lines(path))
    assert str(caught.value).startswith(f"{path}{says}")


def test_json_lines_with_what_editors_leave(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": "\xe2\x80\xa8"}')
    assert list(json_lines(path)) == [(1, {"a": 1}), (4, {"a": "\u2028"})]
    with pytest.raises(UserError, match=r"cannot read .*none: No such file"):
        list(json_lines(tmp_path / "none"))


def test_half_a_surrogate_pair_survives_json_lines(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "rows.jsonl", [{"a": "\ud83d"}, {"a": "ü"}])
    assert list(json_lines(tmp_path / "rows.jsonl")) == [(1, {"a": "\ud83d"}), (2, {"a": "ü"})]
    assert "ü".encode() in (tmp_path / "rows.jsonl").read_bytes()


# A file is there whole or not at all.


def write_parquet(path: Path, rows: Any) -> None:
    write_rows(path, "examples", rows)


WRITERS = pytest.mark.parametrize("write", [write_parquet, write_json_lines])


@WRITERS
def test_rows_that_fail_leave_what_was_there(tmp_path: Path, rows: list[Example], write: Callable[..., None]) -> None:
    def failing() -> Iterator[Example]:
        yield rows[0]
        raise RuntimeError("the teacher hung up")

    path = tmp_path / "out" / "rows"
    with pytest.raises(RuntimeError, match="hung up"):
        write(path, failing())
    assert not path.exists()
    write(path, rows)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="hung up"):
        write(path, failing())
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["rows"]


@WRITERS
@pytest.mark.parametrize(
    ("code", "says"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the file system is read-only")]
)
@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_or_read_only_disk_leaves_nothing(
    tmp_path: Path, rows: list[Example], write: Callable[..., None], code: int, says: str, fails: str, monkeypatch: Any
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, fails, refuse)
    with pytest.raises(UserError, match=rf"cannot write .*/rows: {says}"):
        write(tmp_path / "rows", rows)
    assert os.listdir(tmp_path) == []


@WRITERS
def test_a_device_that_is_full(
    tmp_path: Path, rows: list[Example], write: Callable[..., None], monkeypatch: Any
) -> None:
    """/dev/full takes the first bytes and refuses them only when they are flushed."""
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    monkeypatch.setattr(os, "getpid", lambda: 7)
    (tmp_path / ".rows.partial-7").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*/rows: the disk is full"):
        write(tmp_path / "rows", rows)
    assert os.listdir(tmp_path) == []


@WRITERS
def test_a_read_only_folder(tmp_path: Path, rows: list[Example], write: Callable[..., None]) -> None:
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:  # who may write anywhere
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match=r"cannot write .*/rows: permission denied"):
            write(tmp_path / "rows", rows)
    finally:
        os.seteuid(user)
    assert os.listdir(tmp_path) == []


@WRITERS
def test_a_file_in_the_place_of_the_folder(tmp_path: Path, rows: list[Example], write: Callable[..., None]) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*/out/rows: "):
        write(tmp_path / "out" / "rows", rows)
    assert (tmp_path / "out").read_text() == "a file"


def test_artifacts(tmp_path: Path, rows: list[Example]) -> None:
    artifact = LocalArtifact(str(tmp_path / "rows"))
    write_artifact(artifact, "examples", iter(rows))
    assert artifact.metadata == {"kind": "examples", "schema_version": VERSION, "rows": 2}
    assert read_optional(artifact, "examples", Example) == rows
    assert read_optional(None, "examples", Example) == []
    artifact.log_metric("accuracy", 0.5)
    assert artifact.metadata["accuracy"] == 0.5


def test_the_row_type_must_be_that_of_the_kind(tmp_path: Path, rows: list[Example]) -> None:
    write_rows(tmp_path / "rows", "examples", rows)
    with pytest.raises(AssertionError, match="examples rows are Example"):
        read_rows(tmp_path / "rows", "examples", Prediction)


# Ids


def test_the_content_id_never_changes() -> None:
    assert content_id("2+2?", [], None, "4") == "1f12d189d1418bdbffc8"
    assert content_id("Wähle", ["α", "b"], "weil\n", "B") == "46a4f80c821264ca7c4d"


contents = st.tuples(st.text(), st.lists(st.text(), max_size=3), st.none() | st.text(), st.text())


@given(contents, contents)
def test_ids_are_equal_just_where_contents_are(one: Any, other: Any) -> None:
    assert (content_id(*one) == content_id(*other)) == (one == other)
    assert len(content_id(*one)) == 20


@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_tell_fields_apart(one: str, other: str) -> None:
    ids = [
        content_id(one, [], None, other),
        content_id(one, [], other, ""),
        content_id(one, [other], None, ""),
        content_id(one, [], "", other),
        content_id(one + other, [], None, ""),
    ]
    assert len(set(ids)) == len(ids)


def test_a_generated_row_is_one_with_a_parent(rows: list[Example]) -> None:
    assert [row.generated for row in rows] == [False, True]
    with pytest.raises(dataclasses.FrozenInstanceError):
        rows[0].answer = "5"
