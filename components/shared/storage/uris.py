"""Where something is: a path on this machine, or a bucket and a key."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from llm2llm.components.shared.base.errors import UserError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class S3Name(NamedTuple):
    """An object's place on a server. For a folder, `key` has no slash at its end; for a whole bucket it is empty."""

    bucket: str
    key: str

    def within(self, name: str) -> "S3Name":
        """The object of this name in this folder."""
        return S3Name(self.bucket, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}".rstrip("/")


Place = Path | S3Name


def parse(uri: str | os.PathLike[str]) -> Place:
    """The place that a URI names.

    Raises:
        UserError: Empty, a scheme other than s3 and minio, no bucket, or a key that a file system could not mirror
            (empty parts, `.` or `..`).
    """
    text = os.fspath(uri)
    if not text or "\0" in text:
        raise UserError(f"{text!r} is no place for a file: use a path, or s3://bucket/key")
    found = _SCHEME.fullmatch(text)
    if not found:
        return Path(text)
    scheme, rest = found[1].lower(), found[2]
    if scheme not in ("s3", "minio"):
        raise UserError(f"{text}: {found[1]}:// is not known here: use a local path, or s3://bucket/key")
    bucket, _, key = rest.removesuffix("/").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UserError(f"{text}: {bucket!r} is no name for a bucket: write s3://bucket/key")
    if key and any(part in ("", ".", "..") for part in key.split("/")):
        raise UserError(f"{text}: empty parts, '.' and '..' are not allowed in a key: write s3://bucket/key")
    return S3Name(bucket, key)


def parse_object(uri: str | os.PathLike[str]) -> Place:
    """Like `parse`, for what can only be one object: a bucket alone, or a key that ends in a slash, is refused."""
    place = parse(uri)
    if isinstance(place, S3Name) and (not place.key or os.fspath(uri).endswith("/")):
        raise UserError(f"{os.fspath(uri)}: this names a bucket or folder, not one object: write s3://bucket/key")
    return place


def is_remote(uri: str | os.PathLike[str]) -> bool:
    """Whether a URI names a place on a server, rather than on this machine."""
    return isinstance(parse(uri), S3Name)


def join(uri: str | os.PathLike[str], *names: str) -> str:
    """The URI of something in a folder: `join("s3://bucket/run", "students", "1")`."""
    return "/".join([os.fspath(uri).rstrip("/"), *names])
