"""Copies of model folders from a real server: whole, kept by their content, fetched once, without pickles."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.backends.in_process import find_model, fingerprint
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.shared.storage import NotThere, content_of, delete, fetched, upload_folder, write_bytes
from tests.support.rgw import S3Server

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer/merges.txt": b"a b",
    "training_args.bin": b"a pickle",
    "optimizer.pt": b"a pickle",
}
WANTED = {"config.json", "model.safetensors", "tokenizer/merges.txt"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name, data in FILES.items():
        write_bytes(folder / name, data)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    s3_server.use(monkeypatch)
    return s3_server.bucket()


def names(folder: Path) -> set[str]:
    """Of all files in it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_on_this_machine_is_itself(model: Path, cache: Path) -> None:
    assert fetched(model) == model
    assert not cache.exists()


@pytest.mark.s3
def test_a_copy_is_whole_and_holds_no_pickle(model: Path, cache: Path, bucket: str) -> None:
    upload_folder(model, f"s3://{bucket}/students/7")
    copy = fetched(f"s3://{bucket}/students/7")
    assert names(copy) == WANTED
    assert (copy / "model.safetensors").read_bytes() == b"weights"
    assert copy.name == "7"
    assert cache in copy.parents
    assert fetched(f"minio://{bucket}/students/7/") == copy


@pytest.mark.s3
def test_a_copy_is_fetched_once_and_again_when_the_folder_has_changed(model: Path, cache: Path, bucket: str) -> None:
    uri = f"s3://{bucket}/student"
    upload_folder(model, uri)
    first, content = fetched(uri), content_of(uri)
    (first / "config.json").write_bytes(b"marked")
    assert (fetched(uri) / "config.json").read_bytes() == b"marked", "it was fetched twice"
    (model / "config.json").write_bytes(b'{"layers": 2}')
    upload_folder(model, uri)
    assert content_of(uri) != content
    assert (fetched(uri) / "config.json").read_bytes() == b'{"layers": 2}'
    assert (first / "config.json").read_bytes() == b"marked", "who reads the old one is not disturbed"


@pytest.mark.s3
def test_a_folder_of_another_tool_is_known_by_its_objects(cache: Path, bucket: str) -> None:
    uri = f"s3://{bucket}/student"
    write_bytes(f"{uri}/config.json", b"{}")
    first = fetched(uri)
    assert names(first) == {"config.json"}
    write_bytes(f"{uri}/config.json", b"[]")  # of the same size
    assert (fetched(uri) / "config.json").read_bytes() == b"[]"


@pytest.mark.s3
def test_what_is_not_there_or_damaged_leaves_nothing_in_the_cache(model: Path, cache: Path, bucket: str) -> None:
    with pytest.raises(NotThere, match=f"s3://{bucket}/student is not there"):
        fetched(f"s3://{bucket}/student")
    upload_folder(model, f"s3://{bucket}/student")
    write_bytes(f"s3://{bucket}/student/model.safetensors", b"wei")
    with pytest.raises(UserError, match=r"model\.safetensors was truncated: 3 bytes instead of 7"):
        fetched(f"s3://{bucket}/student")
    delete(f"s3://{bucket}/student/model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        fetched(f"s3://{bucket}/student")
    assert names(cache) == {path for path in names(cache) if path.endswith(".lock")}


@pytest.mark.s3
def test_many_who_ask_at_once_get_one_whole_copy(model: Path, cache: Path, bucket: str) -> None:
    uri = f"s3://{bucket}/student"
    for number in range(60):
        write_bytes(model / f"{number}.json", b"%d" % number * 1000)
    upload_folder(model, uri)
    code = (
        f"from llm2llm.components.shared.storage import fetched; f = fetched({uri!r}); "
        "print(f, len([p for p in f.rglob('*') if p.is_file()]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    with ThreadPoolExecutor(8) as threads:
        copies = set(threads.map(fetched, [uri] * 8))
    said = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(copies) == 1
    assert said == {f"{copies.pop()} {len(WANTED) + 60}"}


@pytest.mark.s3
def test_a_teacher_may_lie_in_a_bucket_and_the_ledger_knows_it_by_its_content(
    model: Path, cache: Path, bucket: str
) -> None:
    teacher = ModelSettings(model=f"s3://{bucket}/teacher")
    with pytest.raises(NotThere, match=r"s3://.*/teacher is not there"):
        fingerprint(teacher)
    upload_folder(model, teacher.model)
    before = fingerprint(teacher).revision
    assert before == content_of(teacher.model)[:16]
    assert not cache.exists(), "to look for its answers in the ledger, the weights are not needed"
    assert find_model(teacher) == str(fetched(teacher.model))
    (model / "model.safetensors").write_bytes(b"trained on")
    upload_folder(model, teacher.model)
    assert fingerprint(teacher).revision != before
