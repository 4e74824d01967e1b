import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.policies import GIVEN, violations
from tests.manifests.render import COMPONENTS, MANIFESTS, OVERLAYS, Resource, overlay, with_components
from tests.manifests.schema_check import problems

# What a component is for cannot stand without: the teacher needs a key, nodes, and so on.
NEEDS = {
    "teacher": ("secrets-plain", "teacher"),
    "teacher-autoscaling": ("secrets-plain", "teacher", "teacher-autoscaling"),
    "fetch-models": ("secrets-plain", "fetch-models"),
}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_keeps_every_rule(name: str) -> None:
    assert violations(overlay(name)) == []


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name != "settings"])
def test_every_component_keeps_every_rule_on_its_own(name: str, tmp_path: Path) -> None:
    resources = with_components(tmp_path, NEEDS.get(name, (name,)))
    # Which nodes have GPUs is known to an overlay alone.
    assert [each for each in violations(resources) if not each.endswith("asks for a GPU and names no nodes")] == []


@pytest.mark.parametrize(
    "name",
    ["teacher", "fetch-models", "train-jobs", "serving", "identity-gke", "identity-eks", "public-https", "proxy"],
)
def test_in_kubeflows_own_namespace_ours_are_as_closed_and_kubeflows_are_left_open(name: str, tmp_path: Path) -> None:
    resources = with_components(tmp_path, [*NEEDS.get(name, (name,)), "kfp-standalone"])
    assert [each for each in violations(resources) if not each.endswith("asks for a GPU and names no nodes")] == []
    selectors = [each["spec"]["podSelector"] for each in resources if each["kind"] == "NetworkPolicy"]
    assert {} not in selectors


def test_object_storage_and_the_proxy_may_listen_on_any_port(tmp_path: Path) -> None:
    mine = {"object-storage-port": "9000", "object-storage-cidr": "10.0.0.7/32"}
    resources = with_components(tmp_path, ["train-jobs", "proxy"], mine)
    assert violations(resources) == []
    assert problems(resources) == []
    expected = {"to-object-storage": ("10.0.0.7/32", 9000), "to-proxy": ("10.0.9.9/32", 8080)}
    for where, (cidr, port) in expected.items():
        for who in ("runs", "train-job-workers"):
            (rule,) = policy(resources, f"{who}-{where}")["egress"]
            assert rule == {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"protocol": "TCP", "port": port}]}


def test_every_component_is_in_the_readme_and_every_given_object_too() -> None:
    text = (MANIFESTS / "README.md").read_text()
    assert [name for name in (*COMPONENTS, *OVERLAYS) if f"`{name}`" not in text] == []
    assert [name for _, name in GIVEN if f"`{name}`" not in text] == []


def test_no_file_under_manifests_says_latest() -> None:
    assert [path for path in MANIFESTS.rglob("*.yaml") if re.search("[:@]latest", path.read_text())] == []


def test_the_kind_overlay_asks_for_no_gpu_and_leaves_kubeflows_own_namespace_open() -> None:
    resources = overlay("kind")
    assert "nvidia.com/gpu" not in str(resources)
    assert {each["kind"] for each in resources}.isdisjoint({"Namespace", "ResourceQuota", "LimitRange"})
    selectors = [each["spec"]["podSelector"] for each in resources if each["kind"] == "NetworkPolicy"]
    assert {} not in selectors


def find(resources: list[Resource], kind: str, name: str = "") -> Resource:
    return next(each for each in resources if each["kind"] == kind and name in ("", each["metadata"]["name"]))


def vllm(resources: list[Resource]) -> Any:
    return find(resources, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def pod(resources: list[Resource]) -> Any:
    return find(resources, "Deployment")["spec"]["template"]["spec"]


def fetching(resources: list[Resource]) -> Any:
    return find(resources, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def rules(resources: list[Resource]) -> Any:
    return find(resources, "Role", "llm2llm-runs")["rules"]


def policy(resources: list[Resource], name: str) -> Any:
    return find(resources, "NetworkPolicy", name)["spec"]


def remove(resources: list[Resource], kind: str, name: str) -> None:
    resources.remove(find(resources, kind, name))


BREAKS: list[tuple[str, Callable[[list[Resource]], Any]]] = [
    ("runAsNonRoot is not true", lambda r: pod(r)["securityContext"].pop("runAsNonRoot")),
    ("runAsNonRoot is not true", lambda r: vllm(r)["securityContext"].update(runAsNonRoot=False)),
    ("no runAsUser, or root", lambda r: vllm(r)["securityContext"].update(runAsUser=0)),
    ("allowPrivilegeEscalation", lambda r: vllm(r)["securityContext"].update(allowPrivilegeEscalation=True)),
    ("allowPrivilegeEscalation", lambda r: vllm(r).pop("securityContext")),
    ("privileged", lambda r: vllm(r)["securityContext"].update(privileged=True)),
    ("drop all capabilities", lambda r: vllm(r)["securityContext"]["capabilities"].update(add=["NET_ADMIN"])),
    ("seccompProfile", lambda r: pod(r)["securityContext"].update(seccompProfile={"type": "Unconfined"})),
    ("root file system", lambda r: vllm(r)["securityContext"].pop("readOnlyRootFilesystem")),
    ("hostPath", lambda r: pod(r)["volumes"].append({"name": "host", "hostPath": {"path": "/"}})),
    ("hostNetwork", lambda r: pod(r).update(hostNetwork=True)),
    ("without sizeLimit", lambda r: pod(r)["volumes"].append({"name": "more", "emptyDir": {}})),
    ("container first: runAs", lambda r: pod(r).update(initContainers=[{
        "name": "first", "image": "busybox:1.37", "securityContext": {"runAsNonRoot": False}}])),
    ("writes the model cache as the stages' user", lambda r: fetching(r)["securityContext"].update(runAsUser=65532)),
    ("writes the model cache as the stages' user", lambda r: fetching(r)["securityContext"].update(fsGroup=65532)),
    ("writes the model cache as the stages' user", lambda r: fetching(r)["securityContext"].pop("runAsGroup")),
    ("mounts the model cache to write", lambda r: vllm(r)["volumeMounts"][0].pop("readOnly")),
    ("mounts the model cache to write", lambda r: pod(r)["volumes"][0]["persistentVolumeClaim"].pop("readOnly")),
    ("has no version", lambda r: vllm(r).update(image="vllm/vllm-openai:latest")),
    ("has no version", lambda r: vllm(r).update(image="registry.example.org:5000/vllm-openai")),
    ("no limits.memory", lambda r: vllm(r)["resources"]["limits"].pop("memory")),
    ("no requests.ephemeral-storage", lambda r: vllm(r)["resources"]["requests"].pop("ephemeral-storage")),
    ("names no nodes", lambda r: pod(r).pop("nodeSelector")),
    ("names no nodes", lambda r: pod(r).pop("tolerations")),
    ("gets all of max: ['nvidia.com/gpu']", lambda r: find(r, "LimitRange")["spec"]["limits"][0]["max"]
        .update({"nvidia.com/gpu": "8"})),
    ("VLLM_API_KEY is a value", lambda r: vllm(r)["env"].append({"name": "VLLM_API_KEY", "value": "x"})),
    ("looks like a credential", lambda r: vllm(r)["env"].append({"name": "NOTE", "value": "hf_" + 20 * "a"})),
    ("credential among the arguments", lambda r: vllm(r)["args"].append("--api-key=x")),
    ("holds values", lambda r: r.append({"apiVersion": "v1", "kind": "Secret", "stringData": {"api-key": "x"},
                                         "metadata": {"name": "llm2llm-teacher", "namespace": "llm2llm"}})),
    ("mounts a token", lambda r: pod(r).pop("automountServiceAccountToken")),
    ("does not say who needs it", lambda r: find(r, "ServiceAccount", "default").pop("automountServiceAccountToken")),
    ("default service account", lambda r: pod(r).pop("serviceAccountName")),
    ("a wildcard", lambda r: rules(r)[0].update(verbs=["*"])),
    ("without their names", lambda r: rules(r)[1].pop("resourceNames")),
    ("changes pods", lambda r: rules(r)[2]["verbs"].append("create")),
    ("pods/exec", lambda r: rules(r)[2]["resources"].append("pods/exec")),
    ("nothing denies by default", lambda r: remove(r, "NetworkPolicy", "default-deny")),
    ("nothing denies by default", lambda r: policy(r, "default-deny").update(policyTypes=["Ingress"])),
    ("can ask no DNS", lambda r: policy(r, "dns").update(
        podSelector={"matchExpressions": [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]})),
    ("egress to anywhere", lambda r: policy(r, "runs-to-teacher")["egress"][0].pop("to")),
    ("on every port", lambda r: policy(r, "runs-to-kubernetes-api")["egress"][0].pop("ports")),
    ("takes in private addresses", lambda r: policy(r, "fetch-models-to-public-https")["egress"][0]["to"][0]["ipBlock"]
        .update({"except": ["10.0.0.0/8"]})),
    ("every namespace", lambda r: policy(r, "runs-to-kubeflow")["egress"][0]["to"][0].update(namespaceSelector={})),
    ("its podSelector matches no pod", lambda r: policy(r, "teacher-from-runs")["podSelector"]
        .update(matchLabels={"app.kubernetes.io/name": "techer"})),
    ("a peer's podSelector matches no pod", lambda r: policy(r, "runs-to-teacher")["egress"][0]["to"][0]
        .update(podSelector={"matchLabels": {"app": "techer"}})),
    ("is not among its policyTypes", lambda r: policy(r, "runs-to-teacher").update(policyTypes=["Ingress"])),
    ("serves without startupProbe", lambda r: vllm(r).pop("startupProbe")),
    ("asks port htpp", lambda r: vllm(r)["livenessProbe"]["httpGet"].update(port="htpp")),
    ("PodDisruptionBudget teacher: its selector", lambda r: find(r, "PodDisruptionBudget")["spec"]["selector"]
        .update(matchLabels={"app": "x"})),
    ("minAvailable", lambda r: find(r, "PodDisruptionBudget")["spec"].update(minAvailable=1)),
    ("Service teacher: its selector", lambda r: find(r, "Service")["spec"].update(selector={"app": "x"})),
    ("PodMonitor teacher: its selector", lambda r: find(r, "PodMonitor")["spec"].update(
        selector={"matchLabels": {"app": "x"}})),
    ("no Deployment techer", lambda r: find(r, "ScaledObject")["spec"]["scaleTargetRef"].update(name="techer")),
    ("sets replicas", lambda r: find(r, "Deployment")["spec"].update(replicas=1)),
    ("ServiceAccount llm2llm-teacher, which", lambda r: remove(r, "ServiceAccount", "llm2llm-teacher")),
    ("PersistentVolumeClaim llm2llm-model-cache, which",
        lambda r: remove(r, "PersistentVolumeClaim", "llm2llm-model-cache")),
    ("PriorityClass llm2llm-serving, which", lambda r: remove(r, "PriorityClass", "llm2llm-serving")),
    ("Secret llm2llm-teacher, which", lambda r: remove(r, "ExternalSecret", "llm2llm-teacher")),
    ("ConfigMap other, which", lambda r: vllm(r).update(envFrom=[{"configMapRef": {"name": "other"}}])),
    ("Role llm2llm-submit, which", lambda r: remove(r, "Role", "llm2llm-submit")),
    ("ResourceFlavor llm2llm-gpu, which", lambda r: remove(r, "ResourceFlavor", "llm2llm-gpu")),
    ("ClusterQueue llm2llm, which", lambda r: remove(r, "ClusterQueue", "llm2llm")),
    ("more than one", lambda r: find(r, "Service")["metadata"].update(namespace="kubeflow")),
    ("a namespace where there is none", lambda r: find(r, "ClusterQueue")["metadata"].update(namespace="llm2llm")),
    ("enforces no Pod Security", lambda r: find(r, "Namespace")["metadata"]["labels"]
        .pop("pod-security.kubernetes.io/enforce")),
    ("was not replaced by a setting", lambda r: policy(r, "runs-to-object-storage")["egress"][0]["to"][0]["ipBlock"]
        .update(cidr="192.0.2.1/32")),
]  # fmt: skip


@pytest.mark.parametrize(("says", "break_it"), BREAKS)
def test_a_broken_rule_is_caught(says: str, break_it: Callable[[list[Resource]], Any]) -> None:
    resources = overlay("gke")
    break_it(resources)
    assert any(says in sentence for sentence in violations(resources)), violations(resources)


def test_every_rule_is_broken_by_some_test() -> None:
    from tests.manifests import policies

    caught = set()
    for _, break_it in BREAKS:
        resources = overlay("gke")
        break_it(resources)
        caught |= {rule.__name__ for rule in policies.RULES if list(rule(resources))}
    assert caught == {rule.__name__ for rule in policies.RULES}
