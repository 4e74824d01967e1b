"""What a config's placement profile refers to is in the overlay of the same name."""

from typing import Any

import pytest
import yaml

from llm2llm.pipelines.config.placement import shipped_profiles
from tests.manifests.render import OVERLAYS, Resource, overlay

PROFILES = {name: yaml.safe_load(path.read_text()) for name, path in shipped_profiles().items()}


def keys_of_secrets(resources: list[Resource]) -> set[tuple[str, str]]:
    found = set()
    for each in resources:
        if each["kind"] == "Secret":
            names = each["metadata"]["annotations"]["llm2llm/keys"].split(",")
            found |= {(each["metadata"]["name"], name) for name in names}
        if each["kind"] == "ExternalSecret":
            found |= {(each["spec"]["target"]["name"], entry["secretKey"]) for entry in each["spec"]["data"]}
    return found


def tolerated(taint: dict[str, Any], tolerations: list[dict[str, Any]]) -> bool:
    return any(
        toleration["key"] == taint["key"]
        and toleration.get("effect", "NoSchedule") == taint["effect"]
        and (toleration.get("operator", "Exists") == "Exists" or toleration["value"] == taint["value"])
        for toleration in tolerations
    )


def test_there_is_an_overlay_for_every_profile() -> None:
    assert set(PROFILES) == set(OVERLAYS)


@pytest.mark.parametrize("name", OVERLAYS)
def test_secrets_and_volumes_of_a_profile_are_in_its_overlay(name: str) -> None:
    resources, profile = overlay(name), PROFILES[name]
    assert {(each["secret"], each["key"]) for each in profile.get("secrets", [])} <= keys_of_secrets(resources)
    claims = {each["metadata"]["name"] for each in resources if each["kind"] == "PersistentVolumeClaim"}
    if "model_cache" in profile:
        assert profile["model_cache"]["pvc"] in claims


@pytest.mark.parametrize("name", OVERLAYS)
def test_gpu_stages_of_a_profile_fit_the_nodes_and_flavors_of_its_overlay(name: str) -> None:
    resources, profile = overlay(name), PROFILES[name]
    spot = (profile.get("spot") or {}).get("tolerations", [])
    # (what has taints, the taints, whether it is spot)
    nodes = [(each, each["spec"].get("nodeTaints", []), "spot" in each["metadata"]["name"])
             for each in resources if each["kind"] == "ResourceFlavor"]  # fmt: skip
    nodes += [(each, each["spec"]["template"]["spec"]["taints"], False)
              for each in resources if each["kind"] == "NodePool"]  # fmt: skip
    for accelerator, about in profile.get("accelerators", {}).items():
        for node, taints, is_spot in nodes:
            tolerations = [*about.get("tolerations", []), *(spot if is_spot else [])]
            wrong = [taint for taint in taints if not tolerated(taint, tolerations)]
            assert not wrong, f"{accelerator} does not tolerate {wrong} of {node['metadata']['name']}"
            if is_spot:
                labels = node["spec"].get("nodeLabels", {})
                assert labels == profile["spot"]["node_selector"]
