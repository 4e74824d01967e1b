"""What an administrator puts on Kubeflow Pipelines itself: rendered on the objects that its releases install."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.pipelines.checks.retry_settings import API_SERVER, CONTROLLER, SPEC_PATCH
from llm2llm.pipelines.kubeflow.retries import is_bounded, retry_defaults
from tests.manifests.policies import narrow_roles
from tests.manifests.render import MANIFESTS, Resource, patched, render
from tests.manifests.schema_check import problems

ADMINISTRATOR = MANIFESTS / "administrator"
FOLDERS = sorted(path.name for path in ADMINISTRATOR.iterdir())
TTL = {"secondsAfterCompletion": 3600, "secondsAfterSuccess": 3600, "secondsAfterFailure": 3600}
SHIPPED: dict[str, dict[str, str]] = {
    "2.14": {},
    "2.16": {},
    "2.17": {
        "workflowDefaults": yaml.safe_dump({"spec": {
            "ttlStrategy": TTL, "templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": "OnError"}},
        }})
    },
}  # fmt: skip
"""Of manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml, by release of KFP."""


def kfp(version: str) -> list[Resource]:
    """The two objects, as far as they matter here; the API server has the patch's variable from 2.15 on."""
    env = [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]
    if version != "2.14":
        env.append({"name": SPEC_PATCH, "value": "{}"})
    metadata = {"labels": {"app": API_SERVER}}
    containers = [
        {"name": "ml-pipeline-api-server", "image": f"ghcr.io/kubeflow/kfp-api-server:{version}.0", "env": env}
    ]
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONTROLLER, "namespace": "kubeflow"},
         "data": {"executor": "imagePullPolicy: IfNotPresent\n", **SHIPPED[version]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": API_SERVER, "namespace": "kubeflow"},
         "spec": {"selector": {"matchLabels": {"app": API_SERVER}},
                  "template": {"metadata": metadata, "spec": {"containers": containers}}}},
    ]  # fmt: skip


def settings(resources: list[Resource]) -> tuple[str, str, Any]:
    """(workflowDefaults, the API server's patch, its other variables)."""
    by_kind = {each["kind"]: each for each in resources}
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    patch = next((one["value"] for one in container["env"] if one["name"] == SPEC_PATCH), "")
    others = [one for one in container["env"] if one["name"] != SPEC_PATCH]
    return by_kind["ConfigMap"]["data"].get("workflowDefaults", ""), patch, others


@pytest.mark.parametrize("version", list(SHIPPED))
@pytest.mark.parametrize("name", ["retries-api-server", "retries-workflow-controller"])
def test_either_patch_bounds_retries_and_changes_nothing_else(name: str, version: str, tmp_path: Path) -> None:
    before = kfp(version)
    after = patched(tmp_path, before, ADMINISTRATOR / name)
    assert problems(after) == []
    assert [each["metadata"] for each in after] == [each["metadata"] for each in before]
    defaults, patch, others = settings(after)
    shipped_defaults, shipped_patch, shipped_others = settings(before)
    assert not is_bounded(retry_defaults(shipped_defaults, shipped_patch))
    assert is_bounded(retry_defaults(defaults, patch))
    assert others == shipped_others
    config_map = next(each for each in after if each["kind"] == "ConfigMap")["data"]
    assert config_map["executor"] == "imagePullPolicy: IfNotPresent\n"
    if name == "retries-api-server":
        assert defaults == shipped_defaults
    else:
        assert patch == shipped_patch
        assert yaml.safe_load(defaults)["spec"]["ttlStrategy"] == TTL


def test_reading_the_settings_takes_two_objects_by_name() -> None:
    resources = render(ADMINISTRATOR / "read-settings")
    assert problems(resources) == []
    assert list(narrow_roles(resources)) == []
    (role,) = (each for each in resources if each["kind"] == "Role")
    assert {(*rule["resources"], *rule["resourceNames"], *rule["verbs"]) for rule in role["rules"]} == {
        ("configmaps", CONTROLLER, "get"), ("deployments", API_SERVER, "get"),
    }  # fmt: skip
    (binding,) = (each for each in resources if each["kind"] == "RoleBinding")
    assert binding["metadata"]["namespace"] == role["metadata"]["namespace"] == "kubeflow"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "llm2llm-submit", "namespace": "llm2llm"}]


def test_the_readme_names_each_and_the_patch_that_it_shows_is_the_one() -> None:
    text = (MANIFESTS / "README.md").read_text()
    assert [name for name in FOLDERS if f"`administrator/{name}`" not in text] == []
    _, patch, _ = settings_of_patch()
    assert f"{SPEC_PATCH}='{patch}'" in text


def settings_of_patch() -> tuple[str, str, Any]:
    deployment = yaml.safe_load((ADMINISTRATOR / "retries-api-server" / "api-server.yaml").read_text())
    return settings([deployment, {"kind": "ConfigMap", "data": {}}])
