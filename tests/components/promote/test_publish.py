"""Publishing against servers on loopback that speak as much of the Hub and of the Model Registry as is used."""

from pathlib import Path

import pytest

from llm2llm.components.promote.publish import check_publishers, publish
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.shared.base import kubernetes_api
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry.production import Generation
from tests.support.hub_server import TOKEN, Server
from tests.support.registry_makers import finish, keep


@pytest.fixture
def promoted(tmp_path: Path) -> tuple[str, Generation]:
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    _, made = finish(registry, "run-1")
    assert made is not None
    return registry, made


def test_a_promoted_student_is_pushed_with_its_promotion(hub: Server, promoted: tuple[str, Generation]) -> None:
    registry, made = promoted
    settings = PromoteSettings(registry=registry, hub_repo="me/student")
    check_publishers(settings)
    publish(registry, made, settings)
    assert hub.files["model.safetensors"] == b"run-1"
    assert hub.files.keys() >= {"config.json", "chat/template.jinja", "llm2llm.json", "README.md"}
    assert "MANIFEST.json" not in hub.files
    card = hub.files["README.md"].decode()
    assert made.version in card.split("## Promotion")[1]
    posted = dict(hub.posted)
    assert posted["/api/repos/create"]["visibility"] == "private"
    assert posted["/api/models/me/student/tag/abc"]["tag"] == made.version


def test_a_push_that_fails_says_that_the_promotion_stands(hub: Server, promoted: tuple[str, Generation]) -> None:
    registry, made = promoted
    hub.broken = True
    with pytest.raises(UserError, match=rf"{made.version} is in production, but was not pushed to me/student") as found:
        publish(registry, made, PromoteSettings(registry=registry, hub_repo="me/student"))
    assert TOKEN not in str(found.value)


def test_a_token_is_never_quoted(
    hub: Server, promoted: tuple[str, Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that was made from a file ends in a line break; a client quotes a header that it cannot send."""
    registry, made = promoted
    settings = PromoteSettings(registry=registry, hub_repo="me/student")
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")
    check_publishers(settings)
    publish(registry, made, settings)
    assert hub.files["model.safetensors"] == b"run-1"
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n{TOKEN}")
    with pytest.raises(UserError, match=r"promote\.hub_repo: HF_TOKEN holds what no token can") as found:
        check_publishers(settings)
    assert TOKEN not in str(found.value)


def test_a_promoted_student_is_entered_once_in_the_model_registry(
    server: Server, promoted: tuple[str, Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("model_registry")
    registry, made = promoted
    settings = PromoteSettings(registry=registry, model_registry_url=server.url)
    check_publishers(settings)
    for _ in range(2):
        publish(registry, made, settings)
    models = [value for path, value in server.posted if path.endswith("/registered_models")]
    versions = [value for path, value in server.posted if path.endswith("versions")]
    artifacts = [value for path, value in server.posted if path.endswith("/artifacts")]
    assert [one["name"] for one in models] == ["colours"]
    assert [one["name"] for one in versions] == [made.version]
    assert [one["uri"] for one in artifacts] == [f"{registry}/versions/{made.version}"]
    assert versions[0]["customProperties"]["validation_accuracy"]["double_value"] == 0.6
    assert not artifacts[0].get("modelSourceKind"), "no run of Kubeflow made it"


@pytest.mark.parametrize("fault_at", [0, 3], ids=["at once", "by the next try"])
def test_a_model_registry_is_told_which_run_of_kubeflow_it_was(
    fault_at: int,
    server: Server,
    promoted: tuple[str, Generation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("model_registry")
    registry, made = promoted
    (tmp_path / "namespace").write_text("team\n")
    monkeypatch.setattr(kubernetes_api, "NAMESPACE_FILE", str(tmp_path / "namespace"))
    monkeypatch.setenv("KFP_POD_NAME", "stage-pod")
    settings = PromoteSettings(registry=registry, model_registry_url=server.url)
    server.fault_at = fault_at
    if fault_at:
        with pytest.raises(UserError, match="was not entered in the model registry"):
            publish(registry, made, settings)
    publish(registry, made, settings)
    (artifact,) = [value for path, value in server.posted if path.endswith("/artifacts")]
    found = {name: artifact[f"modelSource{name}"] for name in ("Kind", "Class", "Group", "Id", "Name")}
    assert found == {"Kind": "kfp", "Class": "pipelinerun", "Group": "team", "Id": made.run, "Name": "colours"}


def test_a_hub_that_cannot_be_reached_says_that_the_promotion_stands(
    hub: Server, promoted: tuple[str, Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    registry, made = promoted
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=rf"{made.version} is in production, but was not pushed to me/student") as found:
        publish(registry, made, PromoteSettings(registry=registry, hub_repo="me/student"))
    assert TOKEN not in str(found.value)


@pytest.mark.parametrize("fault", ["refused", "lost"])
@pytest.mark.parametrize("call", [1, 2, 3], ids=["model", "version", "artifact"])
def test_a_model_registry_that_fails_at_one_call_is_completed_by_the_next_try(
    server: Server, promoted: tuple[str, Generation], call: int, fault: str
) -> None:
    pytest.importorskip("model_registry")
    registry, made = promoted
    server.fault_at, server.fault = call, fault
    settings = PromoteSettings(registry=registry, model_registry_url=server.url)
    with pytest.raises(UserError, match="was not entered in the model registry"):
        publish(registry, made, settings)
    for _ in range(2):
        publish(registry, made, settings)
    ends = [path.rsplit("/", 1)[-1] for path, _ in server.posted]
    assert ends == ["registered_models", "model_versions", "artifacts"]
    assert server.posted[-1][1]["uri"] == f"{registry}/versions/{made.version}"
    assert server.posted[-1][1]["modelFormatName"] == "safetensors"


def test_a_model_registry_that_is_down_says_that_the_promotion_stands(promoted: tuple[str, Generation]) -> None:
    pytest.importorskip("model_registry")
    registry, made = promoted
    with pytest.raises(UserError, match=rf"{made.version} is in production, but was not entered in the model registry"):
        publish(registry, made, PromoteSettings(registry=registry, model_registry_url="http://127.0.0.1:9"))
