"""Serving by KServe: the manifest beside the versions, and what becomes of it on the Kubernetes API."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from llm2llm.components.promote.publish import check_publishers, publish
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.shared.base import kubernetes_api
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry import serving
from llm2llm.components.shared.registry.production import Generation, current, generations, move
from llm2llm.components.shared.registry.serving import (
    apply_manifest,
    follow_by_hand,
    follow_promotion,
    manifest_of,
    manifest_uri,
    roll_out,
    service_name,
    write_manifest,
)
from llm2llm.components.shared.registry.settings import ServeSettings
from llm2llm.components.shared.registry.versions import version_uri
from tests.pipelines.cli.test_registry import called
from tests.support.kubernetes_server import KubernetesServer, check_served
from tests.support.registry_makers import CONFIG, finish, keep, model_folder

SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/team/inferenceservices"
PVC = "pvc://models/registry/versions/{version}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    server = KubernetesServer()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
    yield server
    server.stop()


def serve(**values: Any) -> ServeSettings:
    return ServeSettings(**{"kind": "inference_service", "storage_uri": PVC, **values})


def promoted(folder: Path, run: str, least: int, adapter: int = 0, **config: Any) -> tuple[str, Generation]:
    """(registry, the generation) of a student that answers so many rows right, an adapter where a rank is given."""
    uri, model = str(folder / "registry"), folder / f"model-{run}"
    if adapter:
        model.mkdir()
        (model / "adapter_config.json").write_text(json.dumps({"r": adapter, "base_model_name_or_path": "x"}))
        (model / "adapter_model.safetensors").write_bytes(b"adapter")
    keep(uri, run, model, lambda i: i < least, config={**CONFIG, **config})
    _, made = finish(uri, run, config={**CONFIG, **config})
    assert made is not None
    return uri, made


def written(registry: str, version: str) -> Any:
    return yaml.safe_load(Path(manifest_uri(registry, version)).read_text())


def shares(server: KubernetesServer) -> tuple[str, int, str]:
    """(version, share, generation) that the cluster serves."""
    (there,) = server.served.values()
    notes, predictor = there["metadata"]["annotations"], there["spec"]["predictor"]
    assert predictor["model"]["storageUri"].endswith(notes["llm2llm/version"])
    return notes["llm2llm/version"], predictor["canaryTrafficPercent"], notes["llm2llm/generation"]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (PVC, "pvc://models/registry/versions/{version}"),
        ("model-registry://{name}/{version}", "model-registry://colours/{version}"),
        ("s3://bucket/registry/versions/{version}", "s3://bucket/registry/versions/{version}"),
    ],
)
def test_full_weights_are_served_from_each_place(place: str, expected: str, tmp_path: Path) -> None:
    uri, made = promoted(tmp_path, "run-1", 40)
    manifest = manifest_of(uri, made, serve(storage_uri=place, runtime="kserve-huggingfaceserver", memory="16Gi"))
    check_served(manifest)
    assert manifest["metadata"]["name"] == "colours"
    assert manifest["spec"]["predictor"] == {
        "minReplicas": 1,
        "canaryTrafficPercent": 100,
        "model": {
            "modelFormat": {"name": "huggingface"},
            "runtime": "kserve-huggingfaceserver",
            "storageUri": expected.replace("{version}", made.version),
            "resources": {kind: {"memory": "16Gi", "nvidia.com/gpu": "1"} for kind in ("requests", "limits")},
        },
    }


def test_a_registry_in_object_storage_is_where_versions_are_read(registry: str, tmp_path: Path) -> None:
    """In both homes of a registry: a folder, which no cluster reads, and s3://."""
    version = keep(registry, "run-1", tmp_path / "model", lambda i: i < 40)
    _, made = finish(registry, "run-1")
    assert made is not None
    if not registry.startswith("s3://"):
        with pytest.raises(UserError, match=r"promote\.serve\.storage_uri: .* cannot be read from a cluster"):
            manifest_of(registry, made, serve(storage_uri=""))
        return
    manifest = manifest_of(registry, made, serve(storage_uri=""))
    assert manifest["spec"]["predictor"]["model"]["storageUri"] == version_uri(registry, version)


def test_an_adapter_is_served_beside_its_base_by_either_kind(tmp_path: Path) -> None:
    uri, made = promoted(tmp_path, "run-1", 40, adapter=12, student="Qwen/Qwen3-0.6B")
    place = f"pvc://models/registry/versions/{made.version}"
    manifest = manifest_of(uri, made, serve(args=["--max-model-len=512"]))
    check_served(manifest)
    assert manifest["spec"]["predictor"]["model"]["storageUri"] == place
    assert manifest["spec"]["predictor"]["model"]["args"] == [
        "--model_id=Qwen/Qwen3-0.6B", "--enable-lora", "--lora-modules=student=/mnt/models", "--max-lora-rank=16",
        "--max-model-len=512",
    ]  # fmt: skip
    manifest = manifest_of(uri, made, serve(kind="llm_inference_service", service_account="reader"))
    check_served(manifest)
    lora = {"maxRank": 16, "adapters": [{"name": "student", "uri": place}]}
    assert manifest["spec"]["model"] == {"uri": "hf://Qwen/Qwen3-0.6B", "name": "colours", "lora": lora}
    assert manifest["spec"]["template"]["serviceAccountName"] == "reader"


def test_an_adapter_of_what_no_server_can_fetch_needs_a_base(tmp_path: Path) -> None:
    uri, made = promoted(tmp_path, "run-1", 40, adapter=8, student="/models/own")
    with pytest.raises(UserError, match=r"promote\.serve\.base_model: the student is an adapter of '/models/own'"):
        manifest_of(uri, made, serve())
    assert (
        "--model_id=me/own" in manifest_of(uri, made, serve(base_model="me/own"))["spec"]["predictor"]["model"]["args"]
    )


def test_a_rollout_follows_promotion_shares_and_rollback(server: KubernetesServer, tmp_path: Path) -> None:
    settings = serve(apply=True, canary=10)
    uri, first = promoted(tmp_path, "run-1", 40)
    follow_promotion(uri, first, settings)
    assert shares(server) == (first.version, 100, "1"), "there is nothing to share with"
    uri, second = promoted(tmp_path, "run-2", 80)
    follow_promotion(uri, second, settings)
    assert shares(server) == (second.version, 10, "2")
    called("serve", "--registry", uri, "--share", "50")
    assert shares(server) == (second.version, 50, "2")
    roll_out(uri, second, 100)
    assert shares(server) == (second.version, 100, "2")
    called("rollback", "--registry", uri, "--yes")
    assert shares(server) == (first.version, 100, "3")
    assert written(uri, first.version)["metadata"]["annotations"]["llm2llm/generation"] == "3"
    third = keep(uri, "run-3", tmp_path / "model", lambda i: i < 50)
    called("promote", "run-3", "--registry", uri, "--yes")
    assert shares(server) == (third, 10, "4")
    assert [one for one in server.requests if one.startswith("DELETE")] == []


def test_json_of_a_rollback_stays_json(server: KubernetesServer, tmp_path: Path) -> None:
    for run, least in (("run-1", 40), ("run-2", 80)):
        uri, made = promoted(tmp_path, run, least)
        follow_promotion(uri, made, serve(apply=True))
    assert json.loads(called("rollback", "--registry", uri, "--yes", "--json").stdout)["number"] == 3


def test_without_apply_the_manifest_is_only_written(server: KubernetesServer, tmp_path: Path) -> None:
    uri, made = promoted(tmp_path, "run-1", 40)
    publish(uri, made, PromoteSettings(registry=uri, serve=serve()))
    assert written(uri, made.version)["metadata"]["annotations"]["llm2llm/version"] == made.version
    assert server.requests == []


def test_what_is_not_served_is_left_alone(server: KubernetesServer, tmp_path: Path) -> None:
    for run, least in (("run-1", 40), ("run-2", 80)):
        uri, made = promoted(tmp_path, run, least)
        publish(uri, made, PromoteSettings(registry=uri))
    called("rollback", "--registry", uri, "--yes")
    assert not (Path(uri) / "serving").exists()
    assert server.requests == []
    with pytest.raises(UserError, match=r"is not served; set promote\.serve\.kind"):
        called("serve", "--registry", uri)


def test_two_that_move_the_pointer_at_once_end_with_the_newer(server: KubernetesServer, tmp_path: Path) -> None:
    settings = serve(apply=True)
    uri, first = promoted(tmp_path, "run-1", 40)
    follow_promotion(uri, first, settings)
    uri, second = promoted(tmp_path, "run-2", 80)
    older = manifest_of(uri, second, settings)
    newer = move(uri, to=first.version, kind="rollback", after=second)
    assert newer is not None

    def the_other_comes_between(place: str) -> None:
        server.before_change = lambda path: None
        follow_by_hand(uri, newer)

    write_manifest(uri, older)
    server.before_change = the_other_comes_between
    said = apply_manifest(older, settings)
    assert "left alone: it serves generation 3" in said
    assert shares(server) == (first.version, 100, "3")


def test_what_others_put_on_the_object_stays(server: KubernetesServer, tmp_path: Path) -> None:
    uri, first = promoted(tmp_path, "run-1", 40)
    follow_promotion(uri, first, serve(apply=True))
    (there,) = server.served.values()
    there["metadata"]["annotations"]["team/owner"] = "us"
    there["status"] = {"url": "http://colours"}
    roll_out(uri, first, 100)
    (there,) = server.served.values()
    assert there["metadata"]["annotations"]["team/owner"] == "us"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_lost_answer_and_a_busy_api_are_no_harm(
    method: str, server: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api.time, "sleep", lambda seconds: None)
    uri, first = promoted(tmp_path, "run-1", 40)
    server.faults = [(method, "inferenceservices", 0, 1), ("GET", "inferenceservices", 503, 2)]
    follow_promotion(uri, first, serve(apply=True))
    roll_out(uri, first, 100)
    assert shares(server) == (first.version, 100, "1")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("GET", "", 403, 9), r"may not see inferenceservices in namespace team .*manifests/components/serving"),
        (("POST", "", 404, 9), r"the cluster knows no InferenceServices .*install KServe"),
        (("POST", "", 422, 9), r"the cluster refuses to make inferenceservices \(422"),
        (("GET", "", 503, 99), r"the Kubernetes API answers 503"),
    ],
)
def test_what_the_cluster_refuses_is_a_message(
    fault: Any, message: str, server: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api.time, "sleep", lambda seconds: None)
    uri, first = promoted(tmp_path, "run-1", 40)
    server.faults = [fault]
    with pytest.raises(UserError, match=rf"{first.version} is in production, but is not served: .*{message}"):
        follow_promotion(uri, first, serve(apply=True))
    assert current(uri) == first
    server.faults = []
    follow_promotion(uri, first, serve(apply=True))
    assert shares(server)[0] == first.version


def test_without_a_cluster_the_manifest_is_there_and_the_message_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    uri, first = promoted(tmp_path, "run-1", 40)
    with pytest.raises(UserError, match=r"there is no cluster here: run in one, or set KUBECONFIG"):
        follow_promotion(uri, first, serve(apply=True))
    assert written(uri, first.version)["kind"] == "InferenceService"
    with pytest.raises(UserError, match="without apply the manifest is only written"):
        check_publishers(PromoteSettings(registry=uri, serve=serve(apply=True)))
    check_publishers(PromoteSettings(registry=uri, serve=serve()))
    assert len(generations(uri)) == 1


def test_a_manifest_that_is_not_ours_is_named(tmp_path: Path) -> None:
    uri, first = promoted(tmp_path, "run-1", 40)
    path = Path(manifest_uri(uri, first.version))
    path.parent.mkdir()
    path.write_text("kind: [")
    with pytest.raises(UserError, match="no manifest that llm2llm wrote"):
        roll_out(uri, first, 50)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "none", "apply": True}, "apply: there is no manifest to apply"),
        ({"storage_uri": "pvc://claim/student"}, r"put \{version\} where it belongs"),
        ({"storage_uri": "pvc://claim/{version}/{x}"}, "remove other braces"),
        ({"storage_uri": "gs://bucket/{version}"}, "reads s3://, pvc://, model-registry:// only"),
        ({"kind": "llm_inference_service", "storage_uri": "model-registry://a/{version}"}, "reads s3://, pvc:// only"),
        ({"kind": "llm_inference_service", "canary": 10}, "has no canary share"),
        ({"kind": "llm_inference_service", "runtime": "x"}, "runtime: an LLMInferenceService has none"),
        ({"canary": 0}, "greater than or equal to 1"),
        ({"name": "My_Service"}, "should match pattern"),
    ],
)
def test_settings_that_contradict_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        serve(**values)


def test_serving_needs_a_registry_that_a_cluster_reads() -> None:
    with pytest.raises(ValidationError, match=r"serve\.kind needs promote\.registry"):
        PromoteSettings(serve=serve())
    with pytest.raises(ValidationError, match=r"serve\.storage_uri: the registry '/data' is a folder"):
        PromoteSettings(registry="/data", serve=ServeSettings(kind="inference_service"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("colours", "colours"), ("SST 2_x", "sst-2-x"), ("42", "m-42"), ("-" * 9, "m"), ("a" * 80, "a" * 40)],
)
def test_a_service_is_called_by_the_config(name: str, expected: str) -> None:
    assert service_name(name) == expected


def test_the_annotations_tell_what_is_served(tmp_path: Path) -> None:
    uri, first = promoted(tmp_path, "run-1", 40)
    notes = manifest_of(uri, first, serve(canary=10))["metadata"]["annotations"]
    assert json.loads(notes[serving.SETTINGS]) == {"kind": "inference_service", "storage_uri": PVC, "canary": 10}


def classifier(folder: Path, **tokenizer: Any) -> tuple[str, Generation]:
    registry, model = str(folder / "registry"), model_folder(folder / "model")
    (model / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"]}))
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    keep(registry, "run-1", model, lambda i: i < 80, as_it_is=True)
    _, made = finish(registry, "run-1")
    assert made is not None
    return registry, made


@pytest.mark.parametrize(
    ("tokenizer", "lower"), [({}, ["--disable_lower_case"]), ({"do_lower_case": True}, [])], ids=["cased", "uncased"]
)
def test_a_classifier_is_served_as_one_and_reads_texts_as_in_training(
    tmp_path: Path, tokenizer: dict[str, Any], lower: list[str]
) -> None:
    """The server's own default is lower case, and a label's number for an answer."""
    registry, made = classifier(tmp_path, model_max_length=128, **tokenizer)
    manifest = manifest_of(registry, made, serve(gpus=0, args=["--dtype=float32"]))
    check_served(manifest)
    assert manifest["spec"]["predictor"]["model"]["args"] == [
        *("--task=sequence_classification", "--backend=huggingface", "--return_probabilities", "--max_model_len=128"),
        *lower,
        "--dtype=float32",
    ]
    with pytest.raises(UserError, match="is a classifier, and a LLMInferenceService serves language models"):
        manifest_of(registry, made, serve(kind="llm_inference_service"))


def test_a_classifier_that_says_no_length_is_refused(tmp_path: Path) -> None:
    registry, made = classifier(tmp_path)
    with pytest.raises(UserError, match=r"tokenizer_config\.json says no length"):
        manifest_of(registry, made, serve())
