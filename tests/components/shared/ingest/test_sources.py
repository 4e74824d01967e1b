"""The rows that users bring: every format gives the same examples, every fault one clear message."""

import csv
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import content_id
from llm2llm.components.shared.ingest.columns import MAX_TEXT
from llm2llm.components.shared.ingest.sources import BUILTIN, builtin_path, is_file_source, read_examples
from llm2llm.components.shared.tasks import TASKS, Columns, Task

COLOURS = Task(name="colours", form="classification", labels=["red", "green"])
SUMS = Task(name="sums", form="numeric", rationale=True)
CHOICE = Task(name="own", form="multiple_choice", columns=Columns(choices="choices"))

Rows = list[dict[str, Any]]


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def write_csv(path: Path, rows: Rows) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)


def write_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    ".jsonl": write_jsonl,
    ".ndjson": write_jsonl,
    ".json": write_json,
    ".JSON": write_json,
    ".csv": write_csv,
    ".parquet": write_parquet,
}
FORMATS = pytest.mark.parametrize("suffix", WRITERS)


def put(folder: Path, suffix: str, rows: Rows) -> str:
    path = folder / f"rows{suffix}"
    WRITERS[suffix](path, rows)
    return str(path)


@FORMATS
def test_every_format_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    source = put(
        tmp_path, suffix, [{"question": ' "Die", ü\n☃ ', "answer": "red"}, {"question": "b", "answer": "green"}]
    )
    first, second = read_examples(source, COLOURS)
    assert (first.question, first.answer, first.choices, first.rationale) == ('"Die", ü\n☃', "red", [], None)
    assert first.id == content_id('"Die", ü\n☃', [], None, "red")
    assert second.answer == "green"
    first_row, second_row = {".csv": (3, 4)}.get(suffix, (1, 2))  # a row of CSV ends on a line of the file
    assert (first.source, second.source) == (f"rows{suffix}:{first_row}", f"rows{suffix}:{second_row}")
    assert not first.generated


@FORMATS
def test_numbers_as_answers_and_ids(tmp_path: Path, suffix: str) -> None:
    source = put(
        tmp_path, suffix, [{"q": "1+1", "a": 2, "n": 7, "why": "1 more"}, {"q": "1+2", "a": 3, "n": 8, "why": "2 more"}]
    )
    rows = read_examples(source, SUMS, Columns(question="q", answer="a", rationale="why", id="n"))
    assert [(row.question, row.answer, row.rationale, row.source_id) for row in rows] == [
        ("1+1", "2", "1 more", "7"),
        ("1+2", "3", "2 more", "8"),
    ]


@FORMATS
def test_choices_in_one_column_or_in_several(tmp_path: Path, suffix: str) -> None:
    source = put(tmp_path, suffix, [{"question": "Where?", "choices": ["x", "y"], "c1": "x", "c2": "y", "answer": "B"}])
    (one,) = read_examples(source, CHOICE)
    (other,) = read_examples(source, CHOICE, Columns(choices=["c1", "c2"]))
    assert one == other
    assert (one.choices, one.answer) == (["x", "y"], "B")


@FORMATS
def test_skills_are_read_from_their_column(tmp_path: Path, suffix: str) -> None:
    source = put(tmp_path, suffix, [{"question": "1+1", "answer": "red", "needs": ["adding", "colours"]}])
    (row,) = read_examples(source, COLOURS, Columns(skills="needs"))
    assert row.skills == ["adding", "colours"]
    assert row.id == content_id("1+1", [], None, "red"), "skills are no part of what a row is"
    source = put(tmp_path, ".jsonl", [{"question": "1+1", "answer": "red", "needs": "adding"}])
    with pytest.raises(UserError, match=r"column 'needs' must hold a list, got str"):
        read_examples(source, COLOURS, Columns(skills="needs"))


def test_gsm8k_rows_are_taken_apart(tmp_path: Path) -> None:
    source = put(tmp_path, ".jsonl", [{"question": "16-7?", "answer": "16-7=9\n#### 9"}])
    (row,) = read_examples(source, TASKS["gsm8k"])
    assert (row.answer, row.rationale) == ("9", "16-7=9")
    assert row.id == content_id("16-7?", [], "16-7=9", "9")


@pytest.mark.parametrize("wrapped", [{"data": [{"question": "a", "answer": "red"}], "version": 1}])
def test_json_that_an_exporter_wrapped(tmp_path: Path, wrapped: Any) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(wrapped))
    assert read_examples(str(tmp_path / "rows.json"), COLOURS)[0].answer == "red"


def test_what_editors_leave_in_csv(tmp_path: Path) -> None:
    long = "x" * 200_000  # more than Python's csv takes by itself
    (tmp_path / "rows.csv").write_bytes(f"\ufeffquestion,answer\r\n{long},red\r\n\r\nb,green\r\n".encode())
    first, second = read_examples(str(tmp_path / "rows.csv"), COLOURS)
    assert (first.question, second.question, second.source) == (long, "b", "rows.csv:4")


def test_category_columns_of_parquet(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"question": ["a"], "answer": pa.array(["red"]).dictionary_encode()}), tmp_path / "rows.parquet"
    )
    assert read_examples(str(tmp_path / "rows.parquet"), COLOURS)[0].answer == "red"


cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from("\t\n"), min_size=1).filter(
    lambda t: t.strip() != ""
)


@given(st.lists(st.tuples(cells, st.sampled_from(COLOURS.labels)), min_size=1, max_size=5))
def test_any_content_is_the_same_in_every_format(tmp_path_factory: Any, contents: list[tuple[str, str]]) -> None:
    rows = [{"question": question, "answer": answer} for question, answer in contents]
    folder = tmp_path_factory.getbasetemp()
    read = [[e.id for e in read_examples(put(folder, suffix, rows), COLOURS)] for suffix in WRITERS]
    assert read == [read[0]] * len(read)
    assert read[0] == [content_id(question.strip(), [], None, answer) for question, answer in contents]


# Shipped files


def test_shipped_files() -> None:
    task = Task(
        name="support",
        form="text",
        columns=Columns(question="ticket", answer="queue"),
    )
    rows = read_examples("builtin:support_tickets/seeds.jsonl", task)
    assert len(rows) >= 60
    assert rows[0].source == "seeds.jsonl:1"


@pytest.mark.parametrize(
    "name", ["none.jsonl", "", "support_tickets", "../problems.py", "support_tickets/../../problems.py"]
)
def test_shipped_files_that_are_not_there(name: str) -> None:
    with pytest.raises(UserError, match=r"no such shipped file; there are .*support_tickets/seeds\.jsonl"):
        builtin_path(BUILTIN + name)
    with pytest.raises(UserError, match="no such shipped file"):
        read_examples(BUILTIN + name, COLOURS)


# Bad input


def faulty(
    tmp_path: Path, name: str, content: str | bytes, task: Task = COLOURS, columns: Columns | None = None
) -> str:
    """The message for a file with this content."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_examples(str(path), task, columns)
    return str(caught.value).replace(f"{tmp_path}/", "")


GOOD = {"question": "a", "answer": "red"}


@FORMATS
@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"qestion": "a", "answer": "red"},
         "no column 'question'; did you mean 'qestion'?; columns here: 'qestion', 'answer'. Set task.columns"),
        ({"question": "a", "label": "red"}, "no column 'answer'; columns here: 'question', 'label'."),
        ({"question": " ", "answer": "red"}, "column 'question' is empty"),
        ({"question": "", "answer": "red"}, "column 'question' is empty"),
        ({"question": None, "answer": "red"}, "column 'question' is empty"),
        ({"question": "a", "answer": ""}, "column 'answer' is empty"),
        ({"question": "a", "answer": "rde"},
         "the answer 'rde' is not in the label set ['red', 'green']; did you mean 'red'? (column 'answer')"),
        ({"question": "a", "answer": 3}, "the answer '3' is not in ['red', 'green'], nor a place in it"),
        ({"question": "x" * (MAX_TEXT + 1), "answer": "red"}, "column 'question' holds 1,000,001 characters"),
    ],
    ids=["near", "far", "blank", "empty", "null", "no answer", "label", "index", "long"],
)  # fmt: skip
def test_a_bad_row_is_named(tmp_path: Path, suffix: str, row: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_examples(put(tmp_path, suffix, [row]), COLOURS)
    assert str(caught.value).startswith(f"rows{suffix}:{2 if suffix == '.csv' else 1}: {says}")


@FORMATS
def test_an_id_that_stands_twice(tmp_path: Path, suffix: str) -> None:
    rows = [{**GOOD, "key": "k1"}, {**GOOD, "key": "k2"}, {**GOOD, "key": "k1"}]
    first, third = (2, 4) if suffix == ".csv" else (1, 3)
    with pytest.raises(UserError) as caught:
        read_examples(put(tmp_path, suffix, rows), COLOURS, Columns(id="key"))
    assert str(caught.value) == (
        f"rows{suffix}:{third}: id 'k1' (column 'key') stands in rows{suffix}:{first} already; ids must be unique"
    )


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.jsonl", "", "rows.jsonl: no rows"),
        ("rows.jsonl", "\n \n", "rows.jsonl: no rows"),
        ("rows.json", "", "rows.json: not JSON: Expecting value"),
        ("rows.json", "[]", "rows.json: no rows"),
        ("rows.csv", "", "rows.csv: no rows"),
        ("rows.csv", "question,answer\n", "rows.csv: no rows"),
        ("rows.parquet", "", "rows.parquet: not a whole Parquet file"),
        ("rows.parquet", "PAR1 and then nothing", "rows.parquet: not a whole Parquet file"),
        ("rows.json", '"text"', "rows.json: expected a JSON list of objects, got str"),
        ("rows.json", '[{"question": "a", "answer": "red"}, 1]', "rows.json:2: expected a JSON object, got int"),
        ("rows.json", "[" * 100_000, "rows.json: not JSON: nested too deeply"),
        ("rows.json", '[{"answer": ' + "9" * 5000 + "}]", "rows.json: not JSON: "),
        ("rows.jsonl", '{"question": "a", "answer": "red"}\n[1]\n', "rows.jsonl:2: expected a JSON object, got list"),
        ("rows.jsonl", '{"question": "a", "answer": "red"}\n{"question\n', "rows.jsonl:2: not JSON"),
        ("rows.jsonl", '{"question": {"text": "a"}, "answer": "red"}', "rows.jsonl:1: column 'question' holds a dict"),
        ("rows.jsonl", '{"question": "\\ud800", "answer": "red"}', "rows.jsonl:1: column 'question' holds half a"),
        ("rows.jsonl", '{"question": "a", "question": "b"}', "rows.jsonl:1: not JSON: 'question' stands twice in one"),
        ("rows.json", '[{"answer": "red", "answer": "blue"}]', "rows.json: not JSON: 'answer' stands twice"),
        ("rows.jsonl", '{"question": "a", "answer": NaN}', "rows.jsonl:1: column 'answer' is empty"),
        ("rows.csv", "question,answer\na,red\nb,green,x\n", "rows.csv:3: the row has 3 cells, the header 2"),
        ("rows.csv", "question,answer\na\n", "rows.csv:2: the row has 1 cells, the header 2"),
        ("rows.csv", 'question,answer\n"a,red\n', "rows.csv:2: not CSV: unexpected end of data"),
        ("rows.csv", "question,question,answer\na,b,red\n", "rows.csv:1: two columns are called 'question'"),
        ("rows.jsonl", b'{"question": "a", "answer": "red"}\n{"question": "\xe4"}', "rows.jsonl:2: not UTF-8 text"),
        ("rows.json", b'[\n{"question": "\xe4"}]', "rows.json:2: not UTF-8 text; save the file as UTF-8"),
        ("rows.csv", b"question,answer\na,red\n\xcf\xf0\xe8\xe2\xe5\xf2,red\n", "rows.csv:3: not UTF-8 text; save"),
        ("rows.txt", "question\tanswer\n", "rows.txt: unknown kind of file '.txt'; rows come as .jsonl, .ndjson"),
        ("rows.xlsx", "PK", "rows.xlsx: a workbook; save the sheet as CSV UTF-8"),
        ("rows.zip", "PK", "rows.zip: an archive; unpack it"),
        ("rows", "", "rows: unknown kind of file ''"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    assert says in faulty(tmp_path, name, content)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"choices": ["x"], "answer": "A"}, "expected 2 to 26 choices, got 1"),
        ({"choices": ["x", "x"], "answer": "A"}, "two of the choices are the same"),
        ({"choices": ["x", ""], "answer": "A"}, "column 'choices[1]' is empty"),
        ({"choices": ["x", None], "answer": "A"}, "column 'choices[1]' is empty"),
        ({"choices": {"text": ["x", "y"]}, "answer": "A"}, "column 'choices' must hold a list, got dict"),
        ({"choices": "x, y", "answer": "A"}, "column 'choices' must hold a list, got str"),
        ({"choices": '["x", ', "answer": "A"}, "column 'choices' is no JSON list"),
        ({"choices": ["x", "y"], "answer": "C"}, "the answer 'C' is none of the choices"),
        ({"answer": "A"}, "no column 'choices'"),
    ],
)
def test_bad_choices(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    assert faulty(tmp_path, "rows.jsonl", json.dumps({"question": "a", **row}), CHOICE).startswith(
        f"rows.jsonl:1: {says}"
    )


def test_multiple_choice_without_a_column_of_choices(tmp_path: Path) -> None:
    task = Task(name="own", form="multiple_choice")
    assert faulty(tmp_path, "rows.jsonl", json.dumps(GOOD), task).startswith("task.columns.choices: missing")


def test_bytes_are_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": [b"a"], "answer": ["red"]}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet:1: column 'question' holds a bytes, expected text or a number"):
        read_examples(str(tmp_path / "rows.parquet"), COLOURS)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (
            pa.array([3_000_000], pa.date32()),
            "rows.parquet: holds a value that cannot be read, after row 0 (date value",
        ),
        (
            pa.Array.from_buffers(
                pa.string(), 1, [None, pa.py_buffer(bytes(4) + b"\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
            ),
            "rows.parquet: holds a value that cannot be read, after row 0 ('utf-8' codec",
        ),
    ],
)
def test_parquet_that_python_has_no_value_for(tmp_path: Path, column: Any, says: str) -> None:
    pq.write_table(pa.table({"question": ["a"], "answer": ["red"], "more": column}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=re.escape(says)):
        read_examples(str(tmp_path / "rows.parquet"), COLOURS)


def test_two_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    columns = [pa.array([text]) for text in ("a", "red", "blue")]
    pq.write_table(pa.Table.from_arrays(columns, ["question", "answer", "answer"]), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet: two columns are called 'answer'"):
        read_examples(str(tmp_path / "rows.parquet"), COLOURS)


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9.jsonl")
    Path(path).write_text(json.dumps(GOOD))
    with pytest.raises(UserError, match=r"d\\udce9\.jsonl': the file's name is not UTF-8 text; rename the file"):
        read_examples(path, COLOURS)


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, [GOOD] * 100)
    content = path.read_bytes()
    path.write_bytes(content[:30] + bytes(40) + content[70:])
    with pytest.raises(UserError, match=r"rows\.parquet"):
        read_examples(str(path), COLOURS)
    path.write_bytes(content[:-20])
    with pytest.raises(UserError, match=r"rows\.parquet: not a whole Parquet file"):
        read_examples(str(path), COLOURS)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/none\.csv: no such file"):
        read_examples(str(tmp_path / "none.csv"), COLOURS)
    with pytest.raises(UserError, match=r": is a folder; give a file"):
        read_examples(str(tmp_path), COLOURS)
    with pytest.raises(UserError, match=r"~nobody-of-that-name/rows\.csv: no such file"):
        read_examples("~nobody-of-that-name/rows.csv", COLOURS)


# Datasets on the hub


@pytest.mark.parametrize(
    ("source", "is_file"),
    [
        ("rows.csv", True),
        ("data/rows.PARQUET", True),
        ("./rows", True),
        ("/rows", True),
        ("~/rows", True),
        ("builtin:rows", True),
        ("openai/gsm8k", False),
        ("openai/gsm8k:main@v1#train", False),
        ("sst2", False),
    ],
)
def test_is_file_source(source: str, is_file: bool) -> None:
    assert is_file_source(source) == is_file


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class Value:
    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class Hub(list[dict[str, Any]]):
    """Stands in for the package `datasets` and for the dataset that it loads."""

    def __init__(self, rows: Rows, **features: ClassLabel) -> None:
        super().__init__(rows)
        self.features = {"question": Value("string"), **features}
        self.calls: list[Any] = []
        self.ClassLabel = ClassLabel
        self.Value = Value

    def load_dataset(self, *args: Any, **kwargs: Any) -> "Hub":
        self.calls.append((args, kwargs))
        return self


@pytest.mark.parametrize(
    ("source", "name", "config", "split", "revision"),
    [
        ("openai/gsm8k", "openai/gsm8k", None, "train", None),
        ("openai/gsm8k:main", "openai/gsm8k", "main", "train", None),
        ("openai/gsm8k#test", "openai/gsm8k", None, "test", None),
        ("openai/gsm8k@v1", "openai/gsm8k", None, "train", "v1"),
        ("openai/gsm8k:main@refs/pr/1#train[:100]", "openai/gsm8k", "main", "train[:100]", "refs/pr/1"),
    ],
)
def test_the_parts_of_a_hub_name(
    source: str, name: str, config: str | None, split: str, revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub([GOOD, {"question": "b", "answer": "green"}])
    monkeypatch.setitem(sys.modules, "datasets", hub)
    rows = read_examples(source, COLOURS)
    assert hub.calls == [((name, config), {"split": split, "revision": revision})]
    assert [(row.answer, row.source) for row in rows] == [("red", f"{name}:1"), ("green", f"{name}:2")]


@pytest.mark.parametrize(
    ("names", "numbers", "answers"),
    [
        (["red", "green"], "auto", ["red", "green"]),
        (["green", "red"], "auto", ["green", "red"]),  # the data set's order, not the task's
        (["green", "red"], "from_zero", ["green", "red"]),
        (["R", "G"], "from_zero", ["red", "green"]),  # other names: places in the task's labels, as is said
        (["R", "G"], "auto", None),
        (["Green", "Red"], "auto", None),
        (["red", "green", "none"], "auto", ["red", "green"]),
    ],
)
def test_class_indices_of_the_hub(
    names: list[str], numbers: Any, answers: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub([{"question": "a", "answer": 0}, {"question": "b", "answer": 1}], answer=ClassLabel(names))
    monkeypatch.setitem(sys.modules, "datasets", hub)
    columns = Columns(answer_numbers=numbers)
    if answers is None:
        with pytest.raises(UserError, match=f"the answer '{names[0]}' is not in the label set"):
            read_examples("some/colours", COLOURS, columns)
    else:
        assert [row.answer for row in read_examples("some/colours", COLOURS, columns)] == answers


@pytest.mark.parametrize(("index", "says"), [(-1, "'-1' is not in "), (None, "column 'answer' is empty")])
def test_rows_of_the_hub_without_a_class(index: int | None, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub([{"question": "a", "answer": index}], answer=ClassLabel(["red", "green"]))
    monkeypatch.setitem(sys.modules, "datasets", hub)
    with pytest.raises(UserError, match=f"some/colours:1: .*{says}"):
        read_examples("some/colours", COLOURS)


def test_a_dataset_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to the hub\nlong trace")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=fail))
    with pytest.raises(UserError) as caught:
        read_examples("some/colours", COLOURS)
    assert str(caught.value) == (
        "some/colours: no such file, and not readable as a Hugging Face dataset name[:config][@revision][#split]: "
        "ConnectionError: no route to the hub"
    )


def test_without_the_package_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"some/colours: no such file, and .* needs the package datasets \(pip install"):
        read_examples("some/colours", COLOURS)


@pytest.mark.parametrize(
    ("answers", "more"),
    [
        ("rbr", ""),
        ("rbxrx", "; one more row is wrong: rows.jsonl:5"),
        ("xxrxxx", "; 4 more rows are wrong: rows.jsonl:2, rows.jsonl:4, rows.jsonl:5, ..."),
        ("xxx", "; so it is in every row"),
    ],
)
def test_all_wrong_rows_are_counted_and_the_first_is_explained(tmp_path: Path, answers: str, more: str) -> None:
    labels = {"r": "red", "b": "blue", "x": "purple"}
    source = put(tmp_path, ".jsonl", [{"question": f"q{n}", "answer": labels[one]} for n, one in enumerate(answers)])
    task = Task(name="t", form="classification", labels=["red", "blue"])
    if "x" not in answers:
        assert len(read_examples(source, task)) == len(answers)
        return
    with pytest.raises(UserError, match=rf"rows\.jsonl:{answers.index('x') + 1}: .*'purple'") as told:
        read_examples(source, task)
    assert str(told.value).endswith(more)
