"""Which places URIs name."""

from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.storage import is_remote, join, read_bytes
from llm2llm.components.shared.storage.uris import S3Name, parse


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://bucket/a/b.txt", S3Name("bucket", "a/b.txt")),
        ("minio://mlpipeline/v2/artifacts", S3Name("mlpipeline", "v2/artifacts")),
        ("S3://bucket", S3Name("bucket", "")),
        ("s3://bucket/run/", S3Name("bucket", "run")),
        ("s3://bucket/odd name/ü?#%20", S3Name("bucket", "odd name/ü?#%20")),
        ("runs/7", Path("runs/7")),
        ("/runs/7", Path("/runs/7")),
        (Path("runs") / "7", Path("runs/7")),
    ],
)
def test_a_uri_names_one_place(uri: str, place: object) -> None:
    assert parse(uri) == place
    assert is_remote(uri) == isinstance(place, S3Name)


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("", "no place for a file"),
        ("gs://bucket/a", "gs:// is not known"),
        ("https://host/bucket/a", "https:// is not known"),
        ("s3://", "no name for a bucket"),
        ("s3:///key", "no name for a bucket"),
        ("s3://user:secret@bucket/key", "no name for a bucket"),
        ("s3://bucket/a//b", "not allowed in a key"),
        ("s3://bucket/../b", "not allowed in a key"),
        ("s3://bucket/a/./b", "not allowed in a key"),
    ],
)
def test_a_uri_that_names_no_place_is_refused_with_the_form_to_write(uri: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        parse(uri)


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "s3://bucket/folder/"])
def test_a_bucket_or_folder_is_no_object(uri: str) -> None:
    with pytest.raises(UserError, match="not one object"):
        read_bytes(uri)


def test_names_are_joined_with_one_slash() -> None:
    assert join("s3://bucket/run/", "students", "1") == "s3://bucket/run/students/1"
    assert join("/", "a") == "/a"
    assert join(Path("runs"), "7") == "runs/7"
