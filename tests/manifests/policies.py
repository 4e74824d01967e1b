"""What every rendered object has to be like, one function for each rule.

A rule takes the objects of one kustomization and yields a sentence for each that breaks it, beginning with the object.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.manifests.render import Resource

# Objects that are referred to and made by others, as manifests/README.md says.
GIVEN = {
    ("Secret", "mlpipeline-minio-artifact"),  # KFP, in every namespace that runs pipelines
    ("ConfigMap", "kfp-launcher"),
}
# Labels of pods that others make: Argo's of a run's, JobSet's of a TrainJob's workers, KFP's of its artifact proxy.
GIVEN_PODS: tuple[dict[str, str], ...] = (
    {"workflows.argoproj.io/workflow": "any", "app.kubernetes.io/part-of": "llm2llm"},
    {"jobset.sigs.k8s.io/jobset-name": "any", "app.kubernetes.io/part-of": "llm2llm"},
    {"app": "ml-pipeline-ui-artifact"},
)
CLUSTER_SCOPED = {
    "Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding",
    "ClusterQueue", "ResourceFlavor", "WorkloadPriorityClass",
    "NodePool", "EC2NodeClass", "ComputeClass", "Profile",
}  # fmt: skip
MODEL_CACHE, FILLS_IT = "llm2llm-model-cache", "CronJob fetch-models"
STAGES_USER = 65532
"""The uid and gid of stages, whose pods KFP makes: images/Dockerfile, `placement.user`."""
VOLUME_TYPES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI"}
PRIVATE = [ipaddress.ip_network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")]


def violations(resources: Sequence[Resource]) -> list[str]:
    """Everything that breaks a rule."""
    return [sentence for rule in RULES for sentence in rule(resources)]


def title(resource: Resource) -> str:
    return f"{resource['kind']} {resource['metadata']['name']}"


def pods(resources: Sequence[Resource]) -> Iterator[tuple[str, Resource, dict[str, str]]]:
    """The title, pod spec and pod labels of every workload."""
    for resource in resources:
        template: Any = None
        if resource["kind"] in ("Deployment", "Job", "StatefulSet", "DaemonSet"):
            template = resource["spec"]["template"]
        elif resource["kind"] == "CronJob":
            template = resource["spec"]["jobTemplate"]["spec"]["template"]
        if template:
            yield title(resource), template["spec"], template["metadata"].get("labels", {})


def containers(resources: Sequence[Resource]) -> Iterator[tuple[str, Resource, Resource]]:
    """The title, container and pod spec of every container, init containers included."""
    for name, pod, _ in pods(resources):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{name}: container {container['name']}", container, pod


def names(resources: Sequence[Resource], kind: str) -> set[str]:
    return {resource["metadata"]["name"] for resource in resources if resource["kind"] == kind}


def restricted(resources: Sequence[Resource]) -> Iterator[str]:
    """The Pod Security Standard `restricted`, and a read-only root besides."""
    for name, pod, _ in pods(resources):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(field):
                yield f"{name}: {field}"
        for volume in pod.get("volumes", []):
            kinds = set(volume) - {"name"}
            if not kinds <= VOLUME_TYPES:
                yield f"{name}: volume {volume['name']} is {kinds}, not one of {sorted(VOLUME_TYPES)}"
            if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
                yield f"{name}: volume {volume['name']} is an emptyDir without sizeLimit"
    for name, container, pod in containers(resources):
        own, shared = container.get("securityContext", {}), pod.get("securityContext", {})
        both = {**shared, **own}
        if both.get("runAsNonRoot") is not True:
            yield f"{name}: runAsNonRoot is not true"
        if not both.get("runAsUser"):
            yield f"{name}: no runAsUser, or root"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation is not false"
        if own.get("privileged"):
            yield f"{name}: privileged"
        capabilities = own.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
            yield f"{name}: does not drop all capabilities"
        if both.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: seccompProfile is not RuntimeDefault"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: the root file system is not read-only"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{name}: hostPort"


def cache_is_read(resources: Sequence[Resource]) -> Iterator[str]:
    """One workload writes the model cache, as another user than the stages', which therefore cannot."""
    for name, pod, _ in pods(resources):
        volumes = [
            volume
            for volume in pod.get("volumes", [])
            if volume.get("persistentVolumeClaim", {}).get("claimName") == MODEL_CACHE
        ]
        if not volumes:
            continue
        users = pod.get("securityContext", {})
        ids = {users.get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")}
        if name == FILLS_IT:
            if STAGES_USER in ids or None in ids:
                yield f"{name}: writes the model cache as the stages' user or group, so that stages can change it"
        else:
            mounts = [
                mount
                for container in [*pod.get("initContainers", []), *pod["containers"]]
                for mount in container.get("volumeMounts", [])
                if mount["name"] in {volume["name"] for volume in volumes}
            ]
            claims = [volume["persistentVolumeClaim"] for volume in volumes]
            if not all(one.get("readOnly") for one in (*mounts, *claims)):
                yield f"{name}: mounts the model cache to write"


def pinned_images(resources: Sequence[Resource]) -> Iterator[str]:
    for name, container, _ in containers(resources):
        image = container["image"]
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and (not tag or tag == "latest"):
            yield f"{name}: image {image} has no version"


def resources_stated(resources: Sequence[Resource]) -> Iterator[str]:
    for name, container, pod in containers(resources):
        stated = container.get("resources", {})
        for side in ("requests", "limits"):
            for what in ("cpu", "memory", "ephemeral-storage"):
                if what not in stated.get(side, {}):
                    yield f"{name}: no {side}.{what}"
        if "nvidia.com/gpu" in stated.get("limits", {}) and not (pod.get("nodeSelector") and pod.get("tolerations")):
            yield f"{name}: asks for a GPU and names no nodes"


def no_hidden_defaults(resources: Sequence[Resource]) -> Iterator[str]:
    """Kubernetes makes a LimitRange's `max` of a resource the default limit and request of every container, if it has
    no `default` (pkg/apis/core/v1/defaults.go): with GPUs among them no stage without one would ever start."""
    for resource in resources:
        for limit in resource["spec"]["limits"] if resource["kind"] == "LimitRange" else []:
            if limit["type"] == "Container" and (
                hidden := limit.get("max", {}).keys() - limit.get("default", {}).keys()
            ):
                yield f"{title(resource)}: every container that does not say gets all of max: {sorted(hidden)}"


def no_secret_values(resources: Sequence[Resource]) -> Iterator[str]:
    for resource in resources:
        if resource["kind"] == "Secret" and (resource.get("data") or resource.get("stringData")):
            yield f"{title(resource)}: holds values"
        for text in _texts(resource):
            if re.search(r"\b(sk-|hf_|AKIA|ghp_|xox[bp]-)[A-Za-z0-9]{8,}|-----BEGIN|eyJ[A-Za-z0-9_-]{20,}\.", text):
                yield f"{title(resource)}: looks like a credential: {text[:6]}..."
    for name, container, _ in containers(resources):
        for variable in container.get("env", []):
            if re.search(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", variable["name"]) and "value" in variable:
                yield f"{name}: {variable['name']} is a value, not a reference to a Secret"
        for argument in [*container.get("command", []), *container.get("args", [])]:
            if re.match(r"--?(api-?key|token|password|secret)\b", argument):
                yield f"{name}: a credential among the arguments, where every process sees it"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def no_idle_tokens(resources: Sequence[Resource]) -> Iterator[str]:
    """Only what says who needs it gets a token of the Kubernetes API."""
    for resource in resources:
        if resource["kind"] != "ServiceAccount" or resource.get("automountServiceAccountToken") is False:
            continue
        if "llm2llm/token-needed-by" not in resource["metadata"].get("annotations", {}):
            yield f"{title(resource)}: mounts a token and does not say who needs it"
    for name, pod, _ in pods(resources):
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name}: mounts a token"
        if pod.get("serviceAccountName", "default") == "default":
            yield f"{name}: runs as the default service account"


def narrow_roles(resources: Sequence[Resource]) -> Iterator[str]:
    for resource in resources:
        if resource["kind"] not in ("Role", "ClusterRole"):
            continue
        for rule in resource.get("rules", []):
            groups, kinds, verbs = rule["apiGroups"], rule["resources"], rule["verbs"]
            if "*" in [*groups, *kinds, *verbs]:
                yield f"{title(resource)}: a wildcard"
            if {"secrets", "configmaps"} & set(kinds) and not rule.get("resourceNames"):
                yield f"{title(resource)}: {kinds} without their names"
            if {"pods/exec", "pods/attach", "pods/ephemeralcontainers", "serviceaccounts/token"} & set(kinds):
                yield f"{title(resource)}: {kinds}"
            if {"escalate", "bind", "impersonate"} & set(verbs):
                yield f"{title(resource)}: {verbs}"
            if groups == [""] and "pods" in kinds and set(verbs) - {"get", "list", "watch"}:
                yield f"{title(resource)}: changes pods"
            if resource["kind"] == "ClusterRole" and set(verbs) - {"get", "list", "watch"}:
                yield f"{title(resource)}: changes objects of every namespace"


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for expression in selector.get("matchExpressions", []):
        key, operator = expression["key"], expression["operator"]
        if operator == "Exists" and key not in labels:
            return False
        if operator == "In" and labels.get(key) not in expression["values"]:
            return False
        if operator not in ("Exists", "In"):
            raise ValueError(f"the test knows no operator {operator}")
    return True


def closed_network(resources: Sequence[Resource]) -> Iterator[str]:
    policies = [resource for resource in resources if resource["kind"] == "NetworkPolicy"]
    known = [*GIVEN_PODS, *(labels for _, _, labels in pods(resources))]
    denied = [
        policy["spec"]["podSelector"]
        for policy in policies
        if set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not policy["spec"].get("ingress")
        and not policy["spec"].get("egress")
    ]
    for labels in [GIVEN_PODS[0], *(labels for _, _, labels in pods(resources))]:
        if not any(_selects(selector, labels) for selector in denied):
            yield f"NetworkPolicy: nothing denies by default what pods with {labels} may reach"
    for labels in known:
        of_it = [one["spec"] for one in policies if _selects(one["spec"]["podSelector"], labels)]
        ways_out = [spec.get("egress", []) for spec in of_it if "Egress" in spec["policyTypes"]]
        if ways_out and not any(port["port"] == 53 for way in ways_out for to in way for port in to.get("ports", [])):
            yield f"NetworkPolicy: pods with {labels} can ask no DNS"
    for policy in policies:
        spec = policy["spec"]
        if not any(_selects(spec["podSelector"], labels) for labels in known):
            yield f"{title(policy)}: its podSelector matches no pod"
        for direction, peers_key in (("ingress", "from"), ("egress", "to")):
            if direction in spec and direction.capitalize() not in spec["policyTypes"]:
                yield f"{title(policy)}: {direction} is not among its policyTypes"
            for rule in spec.get(direction, []):
                peers = rule.get(peers_key)
                if not peers:
                    yield f"{title(policy)}: {direction} {peers_key} anywhere"
                    continue
                within = all("podSelector" in peer and "namespaceSelector" not in peer for peer in peers)
                if not rule.get("ports") and not within:
                    yield f"{title(policy)}: {direction} on every port"
                for peer in peers:
                    yield from _peer(title(policy), peer, known)


def _peer(name: str, peer: Mapping[str, Any], known: Sequence[Mapping[str, str]]) -> Iterator[str]:
    if "ipBlock" in peer:
        network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        spared = [ipaddress.ip_network(each) for each in peer["ipBlock"].get("except", [])]
        if network.prefixlen < 8 and (gaps := [private for private in PRIVATE if private not in spared]):
            yield f"{name}: {network} takes in private addresses {gaps[0]}"
    elif "namespaceSelector" in peer:
        if not peer["namespaceSelector"] or not peer.get("podSelector"):
            yield f"{name}: a whole namespace, or every namespace"
    elif not any(_selects(peer["podSelector"], labels) for labels in known):
        yield f"{name}: a peer's podSelector matches no pod"


def servers_are_probed(resources: Sequence[Resource]) -> Iterator[str]:
    for name, container, _ in containers(resources):
        if not container.get("ports"):
            continue
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"{name}: serves without {probe}"
        ports = {port.get("name") for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if isinstance(port, str) and port not in ports:
                yield f"{name}: {probe} asks port {port}, which is none of {sorted(ports)}"


def selectors_match(resources: Sequence[Resource]) -> Iterator[str]:
    """Services, budgets, monitors and autoscalers find their pods."""
    known = [labels for _, _, labels in pods(resources)]
    for resource in resources:
        spec = resource.get("spec", {})
        if resource["kind"] == "Service":
            selector = {"matchLabels": spec["selector"]}
        elif resource["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            selector = spec["selector"]
        else:
            if resource["kind"] == "ScaledObject":
                target = spec["scaleTargetRef"]["name"]
                if target not in names(resources, "Deployment"):
                    yield f"{title(resource)}: no Deployment {target}"
                elif any(
                    "replicas" in each["spec"] for each in resources if title(each) == f"Deployment {target}"
                ):  # fmt: skip
                    yield f"{title(resource)}: Deployment {target} sets replicas, which would be put back at each apply"
            continue
        if not any(_selects(selector, labels) for labels in known):
            yield f"{title(resource)}: its selector matches no pod"
        if resource["kind"] == "PodDisruptionBudget" and spec.get("minAvailable") is not None:
            yield f"{title(resource)}: minAvailable keeps a node of a single replica from being drained"


def references_exist(resources: Sequence[Resource]) -> Iterator[str]:
    made = {(resource["kind"], resource["metadata"]["name"]) for resource in resources} | GIVEN
    made |= {
        ("Secret", resource["spec"]["target"]["name"]) for resource in resources if resource["kind"] == "ExternalSecret"
    }
    for name, kind, wanted in _references(resources):
        if (kind, wanted) not in made:
            yield f"{name}: refers to {kind} {wanted}, which is neither here nor documented as given"


_KINDS = {"secrets": "Secret", "configmaps": "ConfigMap", "serviceaccounts": "ServiceAccount"}


def _references(resources: Sequence[Resource]) -> Iterator[tuple[str, str, str]]:
    for name, pod, _ in pods(resources):
        yield name, "ServiceAccount", pod.get("serviceAccountName", "default")
        if "priorityClassName" in pod:
            yield name, "PriorityClass", pod["priorityClassName"]
        for volume in pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                yield name, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
            if "secret" in volume:
                yield name, "Secret", volume["secret"]["secretName"]
            if "configMap" in volume:
                yield name, "ConfigMap", volume["configMap"]["name"]
    for name, container, _ in containers(resources):
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if "secretKeyRef" in source:
                yield name, "Secret", source["secretKeyRef"]["name"]
            if "configMapKeyRef" in source:
                yield name, "ConfigMap", source["configMapKeyRef"]["name"]
        for source in container.get("envFrom", []):
            if "secretRef" in source:
                yield name, "Secret", source["secretRef"]["name"]
            if "configMapRef" in source:
                yield name, "ConfigMap", source["configMapRef"]["name"]
    for resource in resources:
        kind, spec = resource["kind"], resource.get("spec", {})
        if kind in ("RoleBinding", "ClusterRoleBinding"):
            yield title(resource), resource["roleRef"]["kind"], resource["roleRef"]["name"]
            for subject in resource["subjects"]:
                yield title(resource), subject["kind"], subject["name"]
        if kind in ("Role", "ClusterRole"):
            for rule in resource.get("rules", []):
                for plural in _KINDS.keys() & set(rule["resources"]):
                    for wanted in rule.get("resourceNames", []):
                        yield title(resource), _KINDS[plural], wanted
        if kind == "LocalQueue":
            yield title(resource), "ClusterQueue", spec["clusterQueue"]
        if kind == "ClusterQueue":
            for group in spec["resourceGroups"]:
                for flavor in group["flavors"]:
                    yield title(resource), "ResourceFlavor", flavor["name"]
        if kind == "NodePool":
            reference = spec["template"]["spec"]["nodeClassRef"]
            yield title(resource), reference["kind"], reference["name"]
        if kind == "PipelineVersion":
            yield title(resource), "Pipeline", spec["pipelineName"]


def settled(resources: Sequence[Resource]) -> Iterator[str]:
    """Everything that an overlay's settings should have put in place is there, in the one namespace."""
    namespaces = {resource["metadata"].get("namespace") for resource in resources} - {None}
    if len(namespaces) > 1:
        yield f"Namespace: more than one: {sorted(namespaces)}"
    for resource in resources:
        if (resource["kind"] in CLUSTER_SCOPED) == ("namespace" in resource["metadata"]):
            yield f"{title(resource)}: a namespace where there is none, or none where there is one"
        if resource["kind"] == "Namespace":
            level = resource["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
            if level not in ("restricted", "baseline"):
                yield f"{title(resource)}: enforces no Pod Security Standard"
        for text in _texts(resource):
            if text == "from-settings" or text.startswith("192.0.2."):
                yield f"{title(resource)}: {text!r} was not replaced by a setting"


RULES = (
    restricted,
    cache_is_read,
    pinned_images,
    resources_stated,
    no_hidden_defaults,
    no_secret_values,
    no_idle_tokens,
    narrow_roles,
    closed_network,
    servers_are_probed,
    selectors_match,
    references_exist,
    settled,
)
