"""A model folder from object storage as a folder on this machine, where libraries that know paths only can read it.

    fetched("s3://models/students/7")      ~/.cache/llm2llm/folders/3f9a0c.../7

Each content has a folder of its own, so one that is replaced on the server is fetched anew, and whoever still reads the
old one is not disturbed. The cache is LLM2LLM_CACHE; without it `llm2llm` in HF_HOME, where a cluster mounts its cache
of models; without that ~/.cache/llm2llm. Nothing is ever removed from it; all of it may be removed at any time.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm2llm.components.shared.base.errors import cannot_write
from llm2llm.components.shared.storage import s3
from llm2llm.components.shared.storage.errors import NotThere, not_there
from llm2llm.components.shared.storage.folders import MANIFEST, download_folder
from llm2llm.components.shared.storage.objects import Uri, read_bytes
from llm2llm.components.shared.storage.uris import S3Name, parse

CACHE_VARIABLE = "LLM2LLM_CACHE"
"""Names the folder of the cache."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".joblib")
"""Weights in forms that can run code when they are loaded, or that nothing here reads."""


def fetched(uri: Uri) -> Path:
    """A whole copy, on this machine, of a folder in object storage; one that is on this machine is itself.

    A folder that llm2llm stored is checked against its manifest; of another tool's only the sizes are. Any number of
    threads and processes may ask for one folder at once: one fetches it, the others wait. Pickled weights are left out.

    Args:
        uri: The folder: `s3://bucket/model`.

    Raises:
        NotThere: There is no such folder.
        UserError: It cannot be read, a file in it is damaged, or the cache cannot be written.
    """
    place = parse(uri)
    if isinstance(place, Path):
        return place.expanduser()
    content, has_manifest = _content(place)
    folder = _cache() / "folders" / content / (place.key or place.bucket).rpartition("/")[2]
    if not folder.is_dir():
        with _alone(folder.parent):
            if not folder.is_dir():
                download_folder(uri, folder, manifest=has_manifest, wanted=_wanted)
    return folder


def content_of(uri: Uri) -> str:
    """What tells this content of a folder in object storage from any other: 32 hexadecimal digits. Nothing is fetched.

    Raises:
        NotThere: There is no such folder.
        UserError: It cannot be read.
    """
    place = parse(uri)
    assert not isinstance(place, Path), f"on this machine: {place}"
    return _content(place)[0]


def _wanted(name: str) -> bool:
    return not name.lower().endswith(PICKLES)


def _content(folder: S3Name) -> tuple[str, bool]:
    """What `content_of` returns, and whether the folder has a manifest."""
    try:
        return hashlib.sha256(read_bytes(str(folder.within(MANIFEST)))).hexdigest()[:32], True
    except NotThere:
        found = sorted((name, about.size, about.etag) for name, about in s3.listed(folder))
        if not found:
            raise not_there(folder) from None
        return hashlib.sha256(repr((folder, found)).encode()).hexdigest()[:32], False


def _cache() -> Path:
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    if hub := os.environ.get("HF_HOME"):
        return Path(hub).expanduser() / "llm2llm"
    return Path("~/.cache/llm2llm").expanduser()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a folder of the cache; it is made. The kernel lets go of it when a process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as problem:
        raise cannot_write(folder, problem) from problem
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
