"""Where a student is loaded from, and where to."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.models import load
from tests.support.rgw import S3Server


@pytest.mark.s3
@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_a_student_in_object_storage(
    scheme: str, tiny_student: Path, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`minio://` is what Kubeflow writes for `s3://`."""
    from llm2llm.components.shared.storage import upload_folder

    s3_server.use(monkeypatch)
    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path))
    bucket = s3_server.bucket()
    upload_folder(tiny_student, f"s3://{bucket}/student")
    student = f"{scheme}://{bucket}/student"
    model, local = load.load_model(student), load.load_model(tiny_student)
    assert all(torch.equal(one, local.get_parameter(name)) for name, one in model.named_parameters())
    assert load.load_tokenizer(student).get_vocab() == load.load_tokenizer(tiny_student).get_vocab()


def test_a_scheme_that_is_not_known_is_named() -> None:
    with pytest.raises(UserError, match="gs://bucket/student: gs:// is not known here"):
        load.load_model("gs://bucket/student")


def test_each_process_puts_its_4_bit_base_onto_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate refuses one that is on `cuda` when it trains on `cuda:1`."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    given: dict[str, object] = {}
    nothing: dict[str, list[str]] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}

    def from_pretrained(name: str, **options: object) -> tuple[None, dict[str, list[str]]]:
        given.update(options)
        return None, nothing

    monkeypatch.setitem(load.AUTO, "language_model", SimpleNamespace(from_pretrained=from_pretrained))
    load.load_model("org/name", four_bit=True)
    assert given["device_map"] == {"": 1}


def test_without_weights_only_what_they_look_like_is_there(tiny_student: Path) -> None:
    """As the processes have it that get their shares of a student from the first one."""
    whole, empty = (load.load_model(tiny_student, place=place, dtype=torch.float32) for place in ("cpu", "empty"))
    addresses = [one.data_ptr() for one in empty.parameters()]
    assert len(set(addresses)) == len(addresses), "by which accelerate finds them again"
    assert {name: one.shape for name, one in empty.named_parameters()} == {
        name: one.shape for name, one in whole.named_parameters()
    }
    theirs = dict(whole.named_buffers())
    assert {name for name, _ in empty.named_buffers()} == set(theirs)
    assert all(torch.equal(one, theirs[name]) for name, one in empty.named_buffers()), "nobody sends them"
