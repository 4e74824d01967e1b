"""The kind of a file, by its suffix."""

from pathlib import Path

from llm2llm.components.shared.base.errors import UserError

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".ipc")


def is_data_file(name: str) -> bool:
    """Whether a name ends as a file of rows does."""
    return suffixes_of(name)[0] in SUFFIXES


def suffixes_of(name: str) -> tuple[str, str]:
    """(the suffix that says what kind of file it is, that of the compression or an empty one), in lower case."""
    path = Path(name.lower())
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    return (Path(path.stem).suffix if compression else path.suffix), compression


def check_suffix(name: str) -> None:
    """Refuses a file whose name says that it is of another kind, before anything is fetched.

    Raises:
        UserError: It says what to do.
    """
    suffix, _ = suffixes_of(name)
    if suffix in (".xlsx", ".xls", ".ods"):
        raise UserError(f"{name}: a workbook; save the sheet as CSV UTF-8")
    if suffix in (".zip", ".tar", ".tgz", ".7z", ".rar"):
        raise UserError(f"{name}: an archive; unpack it, and give one of its files")
    if suffix not in SUFFIXES:
        known = f"rows come as {', '.join(SUFFIXES)}, also with {', '.join(COMPRESSIONS)}"
        raise UserError(f"{name}: unknown kind of file {suffix!r}; {known}")
