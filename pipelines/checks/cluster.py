"""What a run needs of its cluster: Kubeflow, secrets, quota, volumes, nodes, queues, images. Nothing is changed.

Reading needs `get` on secrets, configmaps, persistentvolumeclaims and serviceaccounts and `list` on resourcequotas in
the namespace, `list` on nodes, and for `retry_settings` `get` on a ConfigMap and a Deployment of KFP's; what is not
permitted is a warning. Of a Secret only the names of its keys are looked at.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.checks.plan import planned_stages
from llm2llm.pipelines.checks.preflight import FAIL, OK, WARN, Finding, carefully
from llm2llm.pipelines.checks.retry_settings import KUBEFLOW, read_settings, retry_check
from llm2llm.pipelines.config import Config
from llm2llm.pipelines.config.placement_settings import StagePlacement
from llm2llm.pipelines.kubeflow.apply_placement import node_of, stage_placement
from llm2llm.pipelines.kubeflow.fit_placement import fit_placement

FIXED_NODES = ("onprem", "kind", "")
"""Profiles of clusters whose nodes are there or not; the others start nodes when pods wait for them."""
TIMEOUT = 10
SHORT_TIMEOUT = 3
"""Seconds that `submit` waits for what it can do without."""


def cluster_checks(
    config: Config,
    namespace: str,
    context: str = "",
    service_account: str = "",
    connect: Callable[[], Any] | None = None,
) -> Iterator[Finding]:
    """What can be asked of the cluster.

    Args:
        namespace: Where the pods run; empty: that of the kubeconfig's context, or of this pod.
        context: The kubeconfig's context; empty: the current one, or the cluster that this pod is in.
        service_account: The one of the pods; empty: not looked at.
        connect: Connects to Kubeflow; None: it is not asked.
    """
    if connect is not None:
        yield from carefully("kubeflow", _kubeflow, connect)
    try:
        kubernetes = _Kubernetes(namespace, context)
    except UserError as problem:
        yield Finding(FAIL, "kubernetes", str(problem))
        return
    stages = used_stages(config)
    yield from carefully("namespace", kubernetes.namespace_check)
    if not kubernetes.reached:
        return
    if service_account:
        yield from carefully("service account", kubernetes.service_account, service_account)
    yield from carefully("retries", kubernetes.retries, config)
    yield from carefully("secrets", kubernetes.secrets, config)
    yield from carefully("config maps", kubernetes.config_maps, config)
    if config.placement.model_cache:
        pvc = config.placement.model_cache.pvc
        yield from carefully("model cache", kubernetes.volume, pvc)
    yield from carefully("queues", kubernetes.queues, stages)
    if config.train.nodes > 1:
        yield from carefully("training on nodes", kubernetes.train_jobs, config)
    yield from carefully("quota", kubernetes.quotas, stages, config)
    yield from carefully("nodes", kubernetes.nodes, stages, config)
    images = sorted({one.image for one in planned_stages(config)})
    for image in images:
        yield from carefully("image", image_checks, image, config.placement.image_pull_secrets)


def retry_line(config: Config, namespace: str) -> str:
    """What the cluster makes of retries, in one line. It never fails: where nothing can be read, it says so.

    Args:
        config: The config.
        namespace: Where the pods run; empty: that of the kubeconfig's context, or of this pod.
    """
    try:
        (check,) = _Kubernetes(namespace, "", SHORT_TIMEOUT).retries(config)
    except UserError as problem:
        return f"not known from here: {problem}"
    return check.detail if check.status == OK else f"{check.detail}; {check.fix}"


def used_stages(config: Config) -> dict[str, StagePlacement]:
    """The placed stages that a config's pipeline has."""
    names = {one.stage for one in planned_stages(config)}
    # For a training on several nodes what each of them asks for, rather than the stage that follows them.
    placed = {name: stage_placement(config.placement, name, shards=config.evaluate.shards) for name in names}
    return {name: wanted for name in config.placement.stages if (wanted := placed.get(name)) is not None}


def _kubeflow(connect: Callable[[], Any]) -> Iterator[Finding]:
    cluster = connect()
    yield Finding(
        OK, "kubeflow", f"{cluster.host} answers" + (f", namespace {cluster.namespace}" if cluster.namespace else "")
    )


class _Kubernetes:
    """A cluster's API, as far as it is looked at."""

    def __init__(self, namespace: str, context: str, timeout: int = TIMEOUT) -> None:
        import logging

        from kubernetes import client, config

        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        configuration = client.Configuration()
        found = ""
        try:
            config.load_kube_config(context=context or None, client_configuration=configuration)
            contexts, current = config.list_kube_config_contexts()
            chosen = next((one for one in contexts if one["name"] == context), current)
            found = chosen["context"].get("namespace", "default")
        except Exception:  # a broken kubeconfig fails in many ways, of which the client's own error is one
            if context:
                raise UserError(f"no context {context!r} in the kubeconfig; see kubectl config get-contexts") from None
            try:
                config.load_incluster_config(client_configuration=configuration)
                with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="utf-8") as file:
                    found = file.read().strip()
            except (OSError, config.ConfigException):
                raise UserError("no kubeconfig, and not in a pod: set KUBECONFIG, or log in to the cluster") from None
        configuration.retries = 1
        self.namespace = namespace or found
        self.host = configuration.host
        self.reached = False
        api = client.ApiClient(configuration)
        self._core, self._custom, self._apps = (
            client.CoreV1Api(api),
            client.CustomObjectsApi(api),
            client.AppsV1Api(api),
        )
        self._timeout = timeout

    def _ask(self, what: str, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """What the server answers; a Finding where it does not permit it, None where there is no such thing."""
        import urllib3
        from kubernetes.client import ApiException

        try:
            return method(*arguments, _request_timeout=self._timeout, **keywords)
        except ApiException as problem:
            if problem.status == 404:
                return None
            if problem.status == 403:
                return Finding(WARN, what, "not permitted to look", "ask whoever administers the cluster")
            if problem.status == 401:
                raise UserError(
                    f"{self.host} does not know who we are; the kubeconfig's login has expired: log in again"
                ) from None
            raise UserError(f"{self.host} answers {problem.status} {problem.reason}") from None
        except urllib3.exceptions.HTTPError:
            raise UserError(f"{self.host} cannot be reached; check the kubeconfig's context, and the network") from None

    def namespace_check(self) -> Iterator[Finding]:
        found = self._ask("namespace", self._core.read_namespace, self.namespace)
        self.reached = True
        if found is None:
            yield Finding(FAIL, "namespace", f"{self.namespace} is not there", "create it, or give --namespace")
            self.reached = False
        else:
            yield found if isinstance(found, Finding) else Finding(OK, "namespace", f"{self.namespace} at {self.host}")

    def service_account(self, name: str) -> Iterator[Finding]:
        found = self._ask("service account", self._core.read_namespaced_service_account, name, self.namespace)
        if found is None:
            yield Finding(
                FAIL, "service account", f"{name} is not there", "apply manifests/, or correct --service-account"
            )
        else:
            yield found if isinstance(found, Finding) else Finding(OK, "service account", name)

    def retries(self, config: Config) -> Iterator[Finding]:
        def read(method: Callable[..., Any], name: str, namespace: str) -> Any:
            return self._ask("retries", method, name, namespace)

        settings = read_settings(read, self._core, self._apps, (self.namespace, KUBEFLOW))
        yield retry_check(settings, max((one.retries for one in used_stages(config).values()), default=None))

    def secrets(self, config: Config) -> Iterator[Finding]:
        placement = fit_placement(config)
        wanted: dict[str, dict[str, bool]] = {}
        for one in placement.secrets:
            if one.stages:
                keys = wanted.setdefault(one.secret, {})
                keys[one.key] = keys.get(one.key, True) and one.optional
        for name in placement.image_pull_secrets:
            wanted.setdefault(name, {})
        if (bundle := placement.ca_bundle) and bundle.secret:
            wanted.setdefault(bundle.secret, {})[bundle.key] = False
        yield from self._have_keys("secret", self._core.read_namespaced_secret, wanted)

    def config_maps(self, config: Config) -> Iterator[Finding]:
        placement = config.placement
        wanted: dict[str, dict[str, bool]] = {}
        for one in placement.config_maps:
            keys = wanted.setdefault(one.config_map, {})
            keys[one.key] = keys.get(one.key, True) and one.optional
        if (bundle := placement.ca_bundle) and bundle.config_map:
            wanted.setdefault(bundle.config_map, {})[bundle.key] = False
        yield from self._have_keys("configmap", self._core.read_namespaced_config_map, wanted)

    def _have_keys(
        self, kind: str, method: Callable[..., Any], wanted: Mapping[str, Mapping[str, bool]]
    ) -> Iterator[Finding]:
        """Whether Secrets or ConfigMaps have their keys: name -> key -> whether pods start without it."""
        for name, keys in wanted.items():
            what, optional = f"{kind} {name}", bool(keys) and all(keys.values())
            found = self._ask(what, method, name, self.namespace)
            if isinstance(found, Finding):
                yield found
                continue
            missing = sorted(key for key in keys if found is None or key not in (found.data or {}))
            if found is None:
                detail = f"is not there{', and the pods start without it' if optional else ''}"
                flags = "".join(f" --from-file={key}=FILE" for key in keys)
                create = "secret generic" if kind == "secret" else kind
                fix = f"kubectl create {create} {name} --namespace {self.namespace}{flags}"
                yield Finding(WARN if optional else FAIL, what, detail, fix)
            elif missing:
                yield Finding(
                    WARN if all(keys[key] for key in missing) else FAIL,
                    what,
                    f"has no key {', '.join(missing)}",
                    "add it",
                )
            else:
                yield Finding(OK, what, f"has {', '.join(keys) or 'been found'}")

    def volume(self, name: str) -> Iterator[Finding]:
        what = f"volume {name}"
        found = self._ask(what, self._core.read_namespaced_persistent_volume_claim, name, self.namespace)
        if found is None:
            yield Finding(
                FAIL,
                what,
                "is not there, and no pod that mounts it would start",
                "apply manifests/, or set placement.model_cache",
            )
        elif isinstance(found, Finding):
            yield found
        elif found.status.phase != "Bound":
            yield Finding(
                WARN,
                what,
                f"is {found.status.phase}: bound when its first pod starts, unless its storage class is wrong",
            )
        elif not {"ReadWriteMany", "ReadOnlyMany"} & set(found.spec.access_modes or []):
            yield Finding(
                WARN,
                what,
                "is for one node at a time, and stages that run side by side may wait for it",
                "use ReadWriteMany",
            )
        else:
            yield Finding(OK, what, "is bound")

    def queues(self, stages: Mapping[str, StagePlacement]) -> Iterator[Finding]:
        def kueue(what: str, method: Callable[..., Any], *where: str) -> Any:
            # As manifests/ have it; Kueue before 0.15 knows the older one only.
            versions = (self._ask(what, method, "kueue.x-k8s.io", one, *where) for one in ("v1beta2", "v1beta1"))
            return next((found for found in versions if found is not None), None)

        for name in sorted({one.queue for one in stages.values()} - {""}):
            found = kueue("queue", self._custom.get_namespaced_custom_object, self.namespace, "localqueues", name)
            yield _there(f"queue {name}", found, "no pod of it would be admitted", "create the LocalQueue")
        for name in sorted({one.priority for one in stages.values()} - {""}):
            found = kueue("priority", self._custom.get_cluster_custom_object, "workloadpriorityclasses", name)
            yield _there(f"priority {name}", found, "Kueue does not know it", "create the WorkloadPriorityClass")

    def train_jobs(self, config: Config) -> Iterator[Finding]:
        """Whether Kubeflow Trainer has the runtime that a training on several nodes starts from."""
        wanted = config.placement.train_jobs
        group = ("trainer.kubeflow.org", "v1alpha1")
        what = f"training runtime {wanted.runtime}"
        if wanted.runtime_kind == "ClusterTrainingRuntime":
            found = self._ask(
                what, self._custom.get_cluster_custom_object, *group, "clustertrainingruntimes", wanted.runtime
            )
        else:
            place = (*group, self.namespace, "trainingruntimes", wanted.runtime)
            found = self._ask(what, self._custom.get_namespaced_custom_object, *place)
        yield _there(
            what, found, "no node would train", "install Kubeflow Trainer, or correct placement.train_jobs.runtime"
        )
        yield from self.service_account(wanted.service_account)

    def quotas(self, stages: Mapping[str, StagePlacement], config: Config) -> Iterator[Finding]:
        found = self._ask("quota", self._core.list_namespaced_resource_quota, self.namespace)
        if isinstance(found, Finding):
            yield found
            return
        problems = 0
        for quota in found.items if found else []:
            hard, used = quota.status.hard or quota.spec.hard or {}, quota.status.used or {}
            for resource, limit in sorted(hard.items()):
                needs = {name: asked(wanted, config).get(resource, 0.0) for name, wanted in stages.items()}
                if "train" in needs:
                    needs["train"] *= config.train.nodes
                stage, need = max(needs.items(), key=lambda pair: pair[1], default=("", 0.0))
                left = quantity(limit) - quantity(used.get(resource, "0"))
                if need > left:
                    problems += 1
                    never = need > quantity(limit)
                    yield Finding(
                        FAIL if never else WARN, f"quota {quota.metadata.name}",
                        f"{stage} asks {_amount(need)} {resource}, of {limit}, {_amount(max(left, 0))} are left",
                        "raise the quota, or ask for less" if never else "it waits until others have ended",
                    )  # fmt: skip
        if not problems:
            yield Finding(OK, "quota", "each stage fits" if found and found.items else "there is none")

    def nodes(self, stages: Mapping[str, StagePlacement], config: Config) -> Iterator[Finding]:
        found = self._ask("nodes", self._core.list_node)
        if found is None or isinstance(found, Finding):
            yield found or Finding(WARN, "nodes", "cannot be listed")
            return
        fixed = config.placement.profile in FIXED_NODES
        said: dict[tuple[Any, ...], list[str]] = {}
        for name, wanted in stages.items():
            selector, tolerated = node_of(wanted, config.placement)
            needs = asked(wanted, config)
            labelled = [node for node in found.items if selector.items() <= (node.metadata.labels or {}).items()]
            open_to_it = [node for node in labelled if not _taints(node, tolerated)]
            large_enough = [node for node in open_to_it if _holds(node, needs)]
            shown = " ".join(f"{key}={value}" for key, value in sorted(selector.items())) or "any node"
            if large_enough:
                result: tuple[Any, ...] = (OK, f"nodes that are large enough: {len(large_enough)} ({shown})", "")
            elif open_to_it:
                why = f"no node is large enough ({shown})"
                result = (
                    FAIL if fixed else WARN,
                    why,
                    "ask for less" if fixed else "see that the autoscaler knows a larger one",
                )
            elif labelled:
                taint = _taints(labelled[0], tolerated)[0]
                result = (
                    FAIL,
                    f"all nodes ({shown}) have a taint that is not tolerated: {taint}",
                    "set placement tolerations",
                )
            else:
                fix = "see kubectl get nodes --show-labels" if fixed else "see that an autoscaler may start one"
                result = (FAIL if fixed else WARN, f"no node has {shown}{'' if fixed else ' now'}", fix)
            said.setdefault(result, []).append(name)
        for (status, detail, fix), names in said.items():
            yield Finding(status, "nodes", f"{', '.join(names)}: {detail}", fix)


def _there(what: str, found: Any, otherwise: str, fix: str) -> Finding:
    if found is None:
        return Finding(FAIL, what, f"is not there: {otherwise}", fix)
    return found if isinstance(found, Finding) else Finding(OK, what, "is there")


def asked(wanted: StagePlacement, config: Config) -> dict[str, float]:
    """What a stage's pod asks for, by the names that quotas and nodes use."""
    cpu, memory = quantity(wanted.cpu), quantity(wanted.memory)
    resources = {
        "pods": 1.0,
        "cpu": cpu,
        "requests.cpu": cpu,
        "memory": memory,
        "requests.memory": memory,
        "limits.memory": memory,
    }
    if wanted.cpu_limit:
        resources["limits.cpu"] = quantity(wanted.cpu_limit)
    if wanted.gpus:
        resource = config.placement.accelerators[wanted.accelerator].resource
        resources |= {resource: float(wanted.gpus), f"requests.{resource}": float(wanted.gpus)}
    return resources


def quantity(text: str) -> float:
    """The number of a Kubernetes quantity such as 500m, 4Gi or 2."""
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(text))


def _amount(number: float) -> str:
    return f"{number / 2**30:.0f}Gi" if number >= 2**30 else f"{number:g}"


def _taints(node: Any, tolerated: Iterable[Any]) -> list[str]:
    """The node's taints that keep a pod away."""

    def matches(taint: Any, one: Any) -> bool:
        same = one.key == taint.key and one.effect in (taint.effect, "")
        return bool(same and (one.operator == "Exists" or one.value == (taint.value or "")))

    tolerated = list(tolerated)
    return [
        f"{taint.key}={taint.value or ''}:{taint.effect}"
        for taint in node.spec.taints or []
        if taint.effect != "PreferNoSchedule" and not any(matches(taint, one) for one in tolerated)
    ]


def _holds(node: Any, needs: Mapping[str, float]) -> bool:
    has = {name: quantity(value) for name, value in (node.status.allocatable or {}).items()}
    return all(
        has.get(name, 0.0) >= need for name, need in needs.items() if not name.startswith(("requests.", "limits."))
    )


_IMAGE = re.compile(r"(?P<name>[^@]+?)(?::(?P<tag>[\w][\w.-]*))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?")
_ACCEPT = ", ".join(
    f"application/vnd.{kind}"
    for kind in ("oci.image.index.v1+json", "oci.image.manifest.v1+json", "docker.distribution.manifest.list.v2+json",
                 "docker.distribution.manifest.v2+json")
)  # fmt: skip


def image_checks(image: str, pull_secrets: list[str]) -> Iterator[Finding]:
    """Whether an image is in its registry, asked from here, without a password."""
    import requests

    found = _IMAGE.fullmatch(image)
    if not found:
        yield Finding(FAIL, "image", f"{image!r} is no image's name", "correct it")
        return
    registry, _, path = found["name"].partition("/")
    if not path or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, path = "registry-1.docker.io", found["name"] if path else f"library/{found['name']}"
    scheme = "http" if registry.split(":")[0] in ("localhost", "127.0.0.1") else "https"
    url = f"{scheme}://{registry}/v2/{path}/manifests/{found['digest'] or found['tag'] or 'latest'}"
    headers = {"Accept": _ACCEPT}
    try:
        answer = requests.head(url, headers=headers, timeout=TIMEOUT, allow_redirects=True)
        challenge = answer.headers.get("www-authenticate", "")
        if answer.status_code == 401 and challenge.lower().startswith("bearer "):
            fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
            asked_for = {key: fields[key] for key in ("service", "scope") if key in fields}
            given = requests.get(fields.get("realm", ""), params=asked_for, timeout=TIMEOUT).json()
            token = given.get("token") or given.get("access_token") or ""
            answer = requests.head(url, headers={**headers, "Authorization": f"Bearer {token}"}, timeout=TIMEOUT)
    except (requests.RequestException, ValueError, AttributeError):
        yield Finding(
            WARN, "image", f"{image}: its registry is not reached from here; nodes may", "only a pod can tell"
        )
        return
    if answer.ok:
        yield Finding(OK, "image", f"{image} is there")
    elif answer.status_code == 404:
        yield Finding(
            FAIL, "image", f"{image} does not exist", "push it, or correct images.* and placement.stages.*.image"
        )
    elif answer.status_code in (401, 403):
        fix = (
            f"nodes pull it with {', '.join(pull_secrets)}"
            if pull_secrets
            else "set placement.image_pull_secrets, or give nodes access"
        )
        yield Finding(WARN, "image", f"{image} is private, or does not exist", fix)
    else:
        yield Finding(WARN, "image", f"{image}: its registry answers {answer.status_code}", "try again later")
