"""Placement: every profile's compiled pipeline says where each stage runs, and what cannot be placed is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config import Config, load_config
from llm2llm.pipelines.config.placement import check_devices, judged, load_placement, shipped_profiles
from llm2llm.pipelines.config.placement_parts import GRADING
from llm2llm.pipelines.config.placement_values import RETRY_WINDOW, TRAIN_JOB, seconds
from llm2llm.pipelines.kubeflow.apply_placement import DOWNLOADS, environment, node_of, stage_placement
from llm2llm.pipelines.kubeflow.compile import compile_config
from llm2llm.pipelines.kubeflow.fit_placement import fit_placement
from llm2llm.pipelines.kubeflow.trainjob_template import train_job

PROFILES = list(shipped_profiles())
GPU_STAGES = {"train", "tune", "evaluate", "predict", "promote", "out_of_fold", "controls"}


def compiled(tmp_path: Path, *overrides: str, config: str = "quickstart") -> tuple[dict[str, Any], dict[str, Any], str]:
    """(pipeline, executors' places, the file's text)."""
    path = tmp_path / "pipeline.yaml"
    compile_config(load_config(config, overrides), path)
    text = path.read_text()
    spec, platform = yaml.safe_load_all(text)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"], text


def test_several_nodes_that_nothing_places_are_refused(tmp_path: Path) -> None:
    nodes = ("train.nodes=2", "train.checkpoint_uri=s3://b/c")
    with pytest.raises(UserError, match=r"train\.nodes 2: what each node is given is not said; set placement\.profile"):
        compiled(tmp_path, *nodes)


def test_the_profiles_are_those_that_are_documented() -> None:
    assert PROFILES == ["aks", "eks", "gke", "kind", "onprem"]


EVERYTHING = (
    "max_iterations=10",
    "promote={registry: s3://bucket/registry, mode: promote, only_if_new: true}", "evaluate.shards=4", "train.nodes=2",
    "train.gpus=1", "train.checkpoint_uri=s3://bucket/checkpoints",
)  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("config", "more", "nodes", "shards"),
    [
        ("gsm8k", ("max_iterations=1",), 1, 1),
        ("quickstart", ("max_iterations=1",), 1, 1),
        pytest.param("quickstart", EVERYTHING, 2, 4, marks=pytest.mark.slow),
    ],
    ids=["plain", "with folds", "with folds, shards, several nodes and a registry"],
)
def test_every_stage_has_limits_time_outs_and_retries(
    profile: str, config: str, more: tuple[str, ...], nodes: int, shards: int, tmp_path: Path
) -> None:
    spec, places, text = compiled(tmp_path, f"placement.profile={profile}", *more, config=config)
    assert len(text.encode()) < 250_000
    if more == EVERYTHING:
        # On several nodes there is no control.
        assert {
            f"exec-{stage.replace('_', '-')}" for stage in STAGES if stage not in ("controls", "notify", "tune")
        } == places.keys()
    assert ":latest" not in text
    executors = spec["deploymentSpec"]["executors"]
    assert executors.keys() == places.keys()
    placement = load_placement({"profile": profile})
    for label, executor in executors.items():
        stage = label.removeprefix("exec-").replace("-", "_")
        assert stage in STAGES
        place, asked = places[label], executor["container"]["resources"]
        wanted = stage_placement(placement, stage, nodes, shards)
        assert wanted
        assert asked["resourceMemoryLimit"] == asked["resourceMemoryRequest"] == wanted.memory
        assert asked["resourceCpuRequest"] == wanted.cpu
        assert place["activeDeadlineSeconds"] == str(seconds(wanted.timeout))
        assert place["securityContext"]["runAsNonRoot"] is True
        assert {"name": RUN_VARIABLE, "fieldPath": "metadata.labels['pipeline/runid']"} in place["fieldPathAsEnv"]
        mounts = {mount["mountPath"]: mount for mount in place["emptyDirMounts"]}
        assert {"/tmp", *DOWNLOADS.values()} <= mounts.keys()
        assert all(mount["sizeLimit"] for mount in mounts.values()), "an emptyDir without a limit fills its node"
        leaves_its_gpus = {"train"} if nodes > 1 else set()
        leaves_its_gpus |= {"evaluate"} if shards > 1 else set()
        if stage in GPU_STAGES - leaves_its_gpus and profile != "kind":
            assert asked["accelerator"]["resourceCount"] == "1"
            assert asked["accelerator"]["resourceType"] == "nvidia.com/gpu"
            assert place["nodeSelector"]["labels"] == placement.accelerators[wanted.accelerator].node_selector
            assert place["tolerations"]
            assert mounts["/dev/shm"] | {"sizeLimit": ""} == {
                "mountPath": "/dev/shm", "medium": "Memory", "volumeName": "shm", "sizeLimit": "",
            }  # fmt: skip
        else:
            assert "accelerator" not in asked
    if nodes > 1:
        (variable,) = (one for one in executors["exec-train"]["container"]["env"] if one["name"] == TRAIN_JOB)
        fitted = fit_placement(load_config(config, (f"placement.profile={profile}", *more)))
        assert json.loads(variable["value"]) == train_job(fitted, "ghcr.io/llm2llm/train:0.1.0", nodes)
    for component in [spec["root"], *spec["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if "dag" not in spec["components"][task["componentRef"]["name"]]:
                retry = task["retryPolicy"]
                assert retry["maxRetryCount"] >= 1, name
                assert retry["backoffDuration"].endswith("s"), name
                assert int(retry["backoffMaxDuration"].removesuffix("s")) == RETRY_WINDOW, name


@pytest.mark.parametrize("profile", PROFILES)
def test_secrets_are_named_and_never_held(profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    _, places, text = compiled(tmp_path, f"placement.profile={profile}")
    assert "sk-canary" not in text
    (secret,) = [s for s in places["exec-teacher-augment"]["secretAsEnv"] if s["secretName"] == "llm2llm-teacher"]
    assert secret["keyToEnv"] == [{"envVar": "OPENAI_API_KEY", "secretKey": "api-key"}]
    assert "llm2llm-teacher" not in str(places["exec-train"])


def test_on_eks_where_spot_nodes_have_no_taint_only_a_stage_that_says_spot_lands_on_one() -> None:
    key = "karpenter.sh/capacity-type"
    for spot, kind in ((False, "on-demand"), (True, "spot")):
        placement = load_placement({"profile": "eks", "stages": {"train": {"spot": spot}}})
        assert node_of(placement.stages["train"], placement)[0][key] == kind


def test_a_config_lays_its_own_keys_over_the_profile(tmp_path: Path) -> None:
    overrides = (
        "placement.profile=gke",
        "placement.stages.train={accelerator: nvidia-h100-80gb, gpus: 2, spot: true, queue: gpus, priority: night, "
        "image: example.org/train@sha256:abc, annotations: {team: ml}, retries: 5}",
        "placement.defaults.memory=6Gi",
        "placement.model_cache={pvc: weights, path: /cache}",
    )
    spec, places, _ = compiled(tmp_path, *overrides)
    train, container = places["exec-train"], spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["image"] == "example.org/train@sha256:abc"
    assert container["resources"]["accelerator"]["resourceCount"] == "2"
    assert container["resources"]["resourceMemoryLimit"] == "24Gi", "the profile's, as the config says nothing of it"
    assert train["nodeSelector"]["labels"] == {
        "cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-spot": "true",
    }  # fmt: skip
    assert {t["key"] for t in train["tolerations"]} == {"nvidia.com/gpu", "cloud.google.com/gke-spot"}
    labels = train["podMetadata"]["labels"]
    assert (labels["kueue.x-k8s.io/queue-name"], labels["kueue.x-k8s.io/priority-class"]) == ("gpus", "night")
    assert train["podMetadata"]["annotations"] == {"team": "ml"}
    assert train["pvcMount"][0]["mountPath"] == "/cache"
    assert {"name": "HF_HUB_CACHE", "value": "/cache/hub"} in container["env"]
    report = spec["deploymentSpec"]["executors"]["exec-report"]["container"]
    assert report["resources"]["resourceMemoryLimit"] == "6Gi"
    assert places["exec-evaluate"] != train, "executors that run elsewhere stay apart"


def test_without_a_profile_nothing_is_said_about_places(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    compile_config(load_config("quickstart"), path)
    assert len(list(yaml.safe_load_all(path.read_text()))) == 1


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (
            "{profile: gcp}",
            r"placement.profile: no profile 'gcp'; did you mean 'gke'|no profile 'gcp'.*there are aks, eks",
        ),
        ("{profile: gke, stages: {trian: {gpus: 1}}}", "no stage 'trian'.*'train'"),
        ("{profile: gke, stages: {train: {accelerator: nvidia-l5}}}", "no accelerator 'nvidia-l5'.*nvidia-l4"),
        ("{profile: gke, stages: {train: {gpus: 16}}}", "gpus: 16, and no node with nvidia-l4 has more than 8"),
        ("{profile: kind, stages: {train: {accelerator: nvidia-l4, gpus: 1}}}", "this profile has no GPU nodes"),
        ("{profile: onprem, stages: {train: {spot: true}}}", "names no spot nodes"),
        ("{profile: gke, stages: {train: {gpus: 0}}}", "belong together"),
        ("{profile: gke, stages: {train: {memory: 16GB}}}", "such as 16Gi"),
        ("{profile: gke, stages: {train: {timeout: 2 days}}}", "such as 30m"),
        ("{profile: gke, stages: {train: {image: 'example.org/train:latest'}}}", "latest"),
        ("{profile: gke, stages: {train: {priority: high}}}", "needs queue"),
        ("{profile: gke, stages: {train: {image: 'example.org:5000/train'}}}", "give a version or a digest"),
        (
            "{profile: gke, stages: {dedupe: {timeout: 8000h}}}",
            "take 1000 days in all, and no more than 182 are allowed",
        ),
        ("{profile: gke, stages: {dedupe: {retries: 20}}}", "retries 20 with timeout 3600s and a backoff from 60s"),
        (
            "{accelerators: {l4: {memory_gib: 24, node_selector: {a: b}}}}",
            "accelerators: no stage uses it, and there is",
        ),
        ("{spot: {node_selector: {a: b}}}", "spot: no stage uses it, and there is no profile"),
        ("{train_jobs: {runtime: mine}}", "train_jobs: no stage uses it, and there is no profile"),
        ("{defaults: {gpus: 1}}", "accelerator '' and gpus 1 belong together"),
        ("{stages: {train: {spot: true}}}", "names no spot nodes"),
        (
            "{config_maps: [{env: A, config_map: c, key: k, stages: [trian]}]}",
            "config_maps.A: no stage 'trian'.*'train'",
        ),
        ("{model_stages: [trian]}", "model_stages: no stage 'trian'"),
        ("{ca_bundle: {key: ca.crt}}", "set either config_map or secret"),
        ("{ca_bundle: {config_map: a, secret: b}}", "set either config_map or secret"),
        ("{ca_bundle: {config_map: a}, env: {SSL_CERT_FILE: /x}}", "SSL_CERT_FILE is set by ca_bundle or model_cache"),
        ("{env: {A: b}, config_maps: [{env: A, config_map: c, key: k}]}", "env: A is set by config_maps as well"),
        ("{env: {HOME: /x}}", "env.HOME: every stage is given this variable"),
        ("{env: {A-B: x}}", "'A-B' is no name"),
        ("{profile: gke, stages: {train: {memroy: 1Gi}}}", "unknown key.*memory"),
        ("{profile: gke, stages: {train: 5}}", "stages.train: expected keys and values, got 5"),
    ],
)
def test_what_cannot_be_placed_is_refused(placement: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config("quickstart", [f"placement={placement}"])


def test_placement_is_no_parameter_of_the_run() -> None:
    config = load_config("quickstart", ["placement.profile=gke"])
    assert isinstance(config, Config)
    assert config.placement.profile == "gke"
    assert config.placement.stages["train"].gpus == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_places_every_stage_and_names_the_account_of_the_manifests(profile: str) -> None:
    placement = load_placement({"profile": profile})
    assert tuple(placement.stages) == tuple(STAGES)
    assert placement.service_account == "llm2llm-runs"
    asked = {name for name, wanted in placement.stages.items() if wanted.gpus}
    assert asked == (set() if profile == "kind" else GPU_STAGES)


def test_a_stage_that_leaves_its_gpus_to_others_asks_for_none() -> None:
    placement = load_placement({"profile": "gke", "stages": {"train": {"spot": True, "queue": "q", "priority": "p"}}})
    for stage, values in (("train", {"nodes": 2}), ("evaluate", {"shards": 4})):
        alone, among = stage_placement(placement, stage), stage_placement(placement, stage, **values)
        assert alone is not None
        assert among is not None
        assert (alone.gpus, alone.accelerator) == (1, "nvidia-l4")
        assert (among.gpus, among.accelerator, among.shm, among.spot, among.queue) == (0, "", "", False, "")
        assert (among.timeout, among.retries, among.scratch) == (alone.timeout, alone.retries, alone.scratch)
    assert stage_placement(placement, "predict", shards=4) == placement.stages["predict"]
    assert stage_placement(load_placement({}), "train", nodes=2) is None


def test_the_judges_key_goes_to_the_stages_that_grade_and_to_no_other() -> None:
    before = load_placement({"profile": "gke"})
    after = judged(before, "OPENAI_API_KEY")
    had, has = ({one.env: set(one.stages) for one in placement.secrets} for placement in (before, after))
    assert has["OPENAI_API_KEY"] == had["OPENAI_API_KEY"] | set(GRADING)
    assert has["HF_TOKEN"] == had["HF_TOKEN"]
    assert judged(before, "OTHER_KEY") == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((2, 1, "", 0, 1), r"train.gpus 2 and placement.stages.train.gpus 1 contradict"),
        ((0, 2, "/tmp/x", 0, 1), r"train.checkpoint_uri to s3://bucket/folder \(it is '/tmp/x'\)"),
        ((0, 1, "", 2, 1), r"evaluate.gpus 2 needs as many in placement.stages.evaluate.gpus, and it is 1"),
        ((0, 1, "", 2, 3), r"placement.stages.predict.gpus"),
    ],
)
def test_sections_that_ask_for_other_devices_than_the_placement_gives_are_refused(
    values: tuple[int, int, str, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_devices(load_placement({"profile": "gke"}), *values)
    check_devices(load_placement({"profile": "gke"}), 1, 2, "s3://bucket/x", 1, 3)
    check_devices(load_placement({}), 2, 1, "", 2, 1)
    with pytest.raises(ValueError, match=r"train.nodes 2 without GPUs"):
        check_devices(load_placement({"profile": "kind"}), 0, 2, "s3://bucket/x", 0, 1)


@pytest.mark.parametrize(
    "env",
    [
        {"WANDB_API_KEY": "CANARY"}, {"HF_TOKEN": "CANARY"}, {"DB_PASSWORD": "CANARY"}, {"aws_secret": "CANARY"},
        {"NOTE": "hf_CANARYCANARYCANARY"}, {"HTTPS_PROXY": "http://me:CANARY@proxy:3128"},
        {"TEXT": "CANARY {{workflow.name}}"}, {"TEXT": "CANARY $(HOME)"}, {"TEXT": "CANARY $$"},
    ],
)  # fmt: skip
def test_a_secret_or_a_template_in_the_environment_is_refused_and_not_shown(env: dict[str, str]) -> None:
    for placement in ({"env": env}, {"profile": "gke", "stages": {"train": {"env": env}}}):
        with pytest.raises(UserError, match=rf"env\.{next(iter(env))}: .*placement\.(secrets|config_maps)") as refused:
            load_placement(placement)
        assert "CANARY" not in str(refused.value)


def test_names_that_only_look_like_a_secrets_are_taken() -> None:
    env = {"TOKENIZERS_PARALLELISM": "false", "AWS_SHARED_CREDENTIALS_FILE": "/etc/aws", "NCCL_DEBUG": "INFO",
           "HTTPS_PROXY": "http://proxy.example.org:3128", "MONKEYS": "2"}  # fmt: skip
    assert load_placement({"env": env}).env == env


BESIDE_STAGES = (
    "placement.env={HTTPS_PROXY: 'http://proxy:3128'}",
    "placement.secrets=[{env: A_KEY, secret: s, key: k, stages: [report]}]",
    "placement.config_maps=[{env: NO_PROXY, config_map: proxy, key: none, optional: true},"
    " {env: FTP_PROXY, config_map: proxy, key: ftp, stages: [report]}]",
    "placement.ca_bundle={config_map: trust, key: all.pem}",
    "placement.model_cache={pvc: weights}",
    "placement.image_pull_secrets=[pull]",
    "placement.user=1234",
)


@pytest.mark.parametrize("more", [(), ("placement.profile=onprem",)], ids=["without a profile", "with one"])
def test_what_needs_no_profile_takes_effect_without_one(more: tuple[str, ...], tmp_path: Path) -> None:
    spec, places, _ = compiled(tmp_path, *BESIDE_STAGES, "max_iterations=1", *more)
    executors = spec["deploymentSpec"]["executors"]
    assert places.keys() == executors.keys()
    for label, place in places.items():
        env = {one["name"]: one["value"] for one in executors[label]["container"]["env"]}
        assert env["HTTPS_PROXY"] == "http://proxy:3128"
        assert env["SSL_CERT_FILE"] == env["AWS_CA_BUNDLE"] == env["REQUESTS_CA_BUNDLE"] == "/etc/llm2llm/ca/all.pem"
        (bundle,) = place["configMapAsVolume"]
        assert (bundle["configMapName"], bundle["mountPath"]) == ("trust", "/etc/llm2llm/ca")
        given = {one["envVar"]: each["configMapName"] for each in place["configMapAsEnv"] for one in each["keyToEnv"]}
        assert given == {"NO_PROXY": "proxy"} | ({"FTP_PROXY": "proxy"} if label == "exec-report" else {})
        assert ("A_KEY" in str(place.get("secretAsEnv"))) == (label == "exec-report")
        assert place["imagePullSecret"][0]["secretName"] == "pull"
        assert place["securityContext"]["runAsUser"] == "1234"
        assert ("activeDeadlineSeconds" in place) == bool(more), "nothing else is said about a stage without a profile"


def test_defaults_without_a_profile_count_for_every_stage(tmp_path: Path) -> None:
    overrides = ("placement={defaults: {memory: 6Gi, env: {NCCL_DEBUG: INFO}}, stages: {train: {memory: 9Gi}}}",)
    spec, _, _ = compiled(tmp_path, *overrides, "max_iterations=1")
    for label, executor in spec["deploymentSpec"]["executors"].items():
        wanted = "9Gi" if label == "exec-train" else "6Gi"
        assert executor["container"]["resources"]["resourceMemoryLimit"] == wanted
        assert {"name": "NCCL_DEBUG", "value": "INFO"} in executor["container"]["env"]


def test_a_cache_that_stages_only_read_is_mounted_where_models_are_loaded_and_nowhere_else(tmp_path: Path) -> None:
    cache = "placement.model_cache={pvc: weights, offline: true}"
    spec, places, _ = compiled(tmp_path, "placement.profile=gke", cache, "max_iterations=1")
    mounting = {label for label, place in places.items() if "pvcMount" in place}
    always = {f"exec-{one}" for one in ("train", "evaluate", "out-of-fold", "controls")}
    assert always <= mounting <= always | {"exec-teacher-augment", "exec-dedupe"}
    for label, executor in spec["deploymentSpec"]["executors"].items():
        env = {one["name"]: one["value"] for one in executor["container"]["env"]}
        asked = {"HF_HUB_CACHE": "/models/hub", "HF_HOME": "/tmp/huggingface", "LLM2LLM_CACHE": "/tmp/llm2llm",
                 "HF_HUB_OFFLINE": "1"}  # fmt: skip
        assert (asked.items() <= env.items()) == (label in mounting)
        assert (asked.keys() & env.keys() == set()) == (label not in mounting)
    filled = load_placement({"profile": "gke", "model_cache": {"pvc": "w", "fill": True}})
    assert environment(filled, "train", filled.stages["train"])["HF_HOME"] == "/models"


def test_the_workers_of_a_training_on_several_nodes_get_what_the_stage_would() -> None:
    placement = load_placement({
        "profile": "gke", "env": {"HTTPS_PROXY": "http://proxy:3128"}, "ca_bundle": {"secret": "trust"},
        "config_maps": [{"env": "NO_PROXY", "config_map": "proxy", "key": "no"}],
        "stages": {"train": {"env": {"NCCL_DEBUG": "INFO"}}},
    })  # fmt: skip
    spec = train_job(placement, "example.org/train:1", nodes=2)["spec"]
    env = {one["name"]: one.get("value") or one["valueFrom"] for one in spec["trainer"]["env"]}
    assert env["HTTPS_PROXY"] == "http://proxy:3128"
    assert env["NCCL_DEBUG"] == "INFO"
    assert env["NO_PROXY"] == {"configMapKeyRef": {"name": "proxy", "key": "no", "optional": False}}
    assert env["SSL_CERT_FILE"] == "/etc/llm2llm/ca/ca.crt"
    (replicated,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "llm2llm-model-cache", "readOnly": True}
    assert volumes["ca"]["secret"] == {"secretName": "trust"}
    mounts = {one["name"]: one for one in pod["containers"][0]["volumeMounts"]}
    assert mounts["models"]["readOnly"] is True
    assert mounts["ca"] == {"name": "ca", "mountPath": "/etc/llm2llm/ca", "readOnly": True}


@pytest.mark.parametrize("image", ["example.org/cpu", "example.org:5000/cpu", "example.org/cpu:latest", "cpu"])
def test_an_image_without_a_version_is_refused(image: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"image '{image}': give a version or a digest"):
        compile_config(load_config("quickstart", [f"images.cpu={image}"]), tmp_path / "p.yaml")
