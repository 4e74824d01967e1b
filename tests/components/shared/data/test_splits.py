"""`splits`: seeds, validation and test rows as one folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.parquet import write_rows
from llm2llm.components.shared.data.schemas import SPLITS, VERSION
from llm2llm.components.shared.data.splits import read_splits, write_splits
from tests.support.builders import example, prediction, splits_artifact

questions = st.lists(st.text(min_size=1, max_size=10), max_size=3)


@given(seeds=questions, validation=questions, test=questions)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, seeds, validation, test) -> None:
    given_rows = {
        split: [example(text) for text in some]
        for split, some in zip(SPLITS, (seeds, validation, test), strict=True)
    }  # fmt: skip
    artifact = LocalArtifact(str(tmp_path_factory.mktemp("run") / "splits"))
    write_splits(artifact, given_rows)
    assert read_splits(artifact.path) == given_rows
    rows = sum(map(len, given_rows.values()))
    assert artifact.metadata == {"kind": "splits", "schema_version": VERSION, "rows": rows}


def test_every_split_has_a_file_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    path = Path(splits_artifact(tmp_path, seeds=[example("the sky")]).path)
    assert sorted(file.name for file in path.iterdir()) == ["seeds.parquet", "test.parquet", "validation.parquet"]
    (path / "test.parquet").unlink()
    assert read_splits(path) == {"seeds": [example("the sky")], "validation": [], "test": []}


def test_json_lines_are_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text('{"question": "the sky", "answer": "A"}\n')
    assert read_splits(tmp_path)["seeds"] == [example("the sky")]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    artifact = splits_artifact(tmp_path, seeds=[example("the sky")])
    with pytest.raises(AttributeError):
        write_splits(artifact, {"seeds": [example("the sea")], "test": [None]})  # type: ignore[list-item]
    assert [row.question for row in read_splits(artifact.path)["seeds"]] == ["the sky"]


def test_no_folder_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; splits are a folder with seeds\.parquet"):
        read_splits(tmp_path / "nowhere")
    (tmp_path / "file").write_text("rows")
    with pytest.raises(UserError, match="file: no such folder"):
        read_splits(tmp_path / "file")
    with pytest.raises(UserError, match=r"has none of seeds\.parquet, validation\.parquet, test\.parquet"):
        read_splits(tmp_path)
    write_rows(tmp_path / "seeds.parquet", "predictions", [prediction(example("the sky"), "A")])
    with pytest.raises(UserError, match=r"seeds\.parquet.*predictions"):
        read_splits(tmp_path)
