"""Placement: every profile's compiled pipeline says where each stage runs, and what cannot be placed is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import RUN_VARIABLE
from llm2llm.pipelines.config import Config, load_config
from llm2llm.pipelines.kubeflow.compile import compile_config
from llm2llm.pipelines.kubeflow.placement import (
    GRADING,
    STAGES,
    TRAIN_JOB,
    check_devices,
    judged,
    load_placement,
    node_of,
    seconds,
    shipped_profiles,
    stage_placement,
    train_job,
)

PROFILES = list(shipped_profiles())
GPU_STAGES = {"train", "evaluate", "answer", "promote", "out_of_fold"}


def compiled(tmp_path: Path, *overrides: str, config: str = "quickstart") -> tuple[dict[str, Any], dict[str, Any], str]:
    """(pipeline, executors' places, the file's text)."""
    path = tmp_path / "pipeline.yaml"
    compile_config(load_config(config, overrides), path)
    text = path.read_text()
    spec, platform = yaml.safe_load_all(text)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"], text


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
        assert {f"exec-{stage.replace('_', '-')}" for stage in STAGES} == places.keys()
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
        assert mounts["/tmp"]["sizeLimit"] == wanted.scratch
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
        assert json.loads(variable["value"]) == train_job(placement, "ghcr.io/llm2llm/train:0.1.0", nodes)
    for component in [spec["root"], *spec["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if "dag" not in spec["components"][task["componentRef"]["name"]]:
                retry = task["retryPolicy"]
                assert retry["maxRetryCount"] >= 1, name
                assert retry["backoffDuration"].endswith("s"), name
                assert int(retry["backoffMaxDuration"].removesuffix("s")) > 3_600, name


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


@pytest.mark.parametrize("profile", PROFILES)
def test_a_try_that_runs_into_its_time_out_is_followed_by_another(profile: str) -> None:
    for name, wanted in load_placement({"profile": profile}).stages.items():
        assert not wanted.retries or seconds(wanted.retry_window) > seconds(wanted.timeout), name


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
    assert {"name": "HF_HOME", "value": "/cache"} in container["env"]
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
        ("{profile: gke, stages: {dedupe: {timeout: 8h}}}", "retry_window 6h is shorter than timeout 8h"),
        ("{profile: gke, stages: {train: {memroy: 1Gi}}}", "unknown key.*memory"),
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
    assert tuple(placement.stages) == STAGES
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
    assert stage_placement(placement, "answer", shards=4) == placement.stages["answer"]
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
        ((0, 1, "", 2, 3), r"placement.stages.answer.gpus"),
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
