"""Splits: seeds, validation and test of a run; a folder with one Parquet file of examples for each.

splits/seeds.parquet         what the student is first trained on, and what errors are looked for on
splits/validation.parquet    what the run decides by
splits/test.parquet          what it reports on; never used to decide
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import Artifact
from llm2llm.components.shared.data.parquet import read_rows, write_rows
from llm2llm.components.shared.data.schemas import SPLITS, VERSION, Example, Split


def write_splits(artifact: Artifact, splits: Mapping[Split, Sequence[Example]]) -> None:
    """Writes every split, an empty one too, and kind, version and number of rows to the artifact's metadata."""
    with atomic_folder(artifact.path) as partial:
        for split in SPLITS:
            write_rows(Path(partial) / f"{split}.parquet", "examples", splits.get(split, []))
    rows = sum(len(splits.get(split, [])) for split in SPLITS)
    artifact.metadata.update({"kind": "splits", "schema_version": VERSION, "rows": rows})


def read_asked(path: str | os.PathLike[str], training_set: str | os.PathLike[str] | None) -> dict[Split, list[Example]]:
    """What a student is asked: the splits, and as `generated` the generated rows of its training set, where that is
    given.

    Raises:
        UserError: See `read_splits`; or the training set is no file of examples.
    """
    asked = read_splits(path)
    if training_set is not None:
        asked["generated"] = [row for row in read_rows(training_set, "examples", Example) if row.generated]
    return asked


def read_splits(path: str | os.PathLike[str]) -> dict[Split, list[Example]]:
    """The rows of each split; none for one whose file, `.parquet` or `.jsonl`, is not there.

    Raises:
        UserError: No folder, a folder with neither seeds nor validation nor test, or a file of another kind.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; splits are a folder with seeds.parquet, validation.parquet and so on"
        )
    found: dict[Split, list[Example]] = {}
    for split in SPLITS:
        file = next((file for end in ("parquet", "jsonl") if (file := folder / f"{split}.{end}").is_file()), None)
        found[split] = [] if file is None else read_rows(file, "examples", Example)
    if not any((folder / f"{split}.{end}").is_file() for split in SPLITS for end in ("parquet", "jsonl")):
        raise UserError(f"{folder}: has none of {', '.join(f'{split}.parquet' for split in SPLITS)}")
    return found
