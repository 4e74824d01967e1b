"""How a cluster's settings treat retries, in one line, for `preflight --cluster` and `submit`.

Read are the workflow controller's ConfigMap (`workflowDefaults`) and the API server's Deployment
(COMPILED_PIPELINE_SPEC_PATCH), by the names of KFP's own manifests: `get` on both, in KFP's namespace.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from llm2llm.pipelines.checks.preflight import OK, WARN, Finding
from llm2llm.pipelines.kubeflow.retries import is_bounded, retry_defaults, retry_sentence

CONTROLLER, API_SERVER = "workflow-controller-configmap", "ml-pipeline"
SPEC_PATCH = "COMPILED_PIPELINE_SPEC_PATCH"
KUBEFLOW = "kubeflow"
"""The namespace that KFP is in, unless it is that of the runs."""
FIX = "apply manifests/administrator/retries-api-server, see manifests/README.md"
AS_SHIPPED = (
    "as shipped, KFP up to 2.16 tries stages again that fail, are killed or evicted, and not those whose pods vanish; "
    "2.17 the other way round, and then up to 3^(i+4) times in iteration i"
)

Read = Callable[[Callable[..., Any], str, str], Any]
"""Reads an object by name and namespace: the object, None where there is none, a Finding where it may not be read."""


@dataclass(frozen=True)
class RetrySettings:
    """What could be read; None: it could not."""

    workflow_defaults: str | None
    spec_patch: str | None


def read_settings(read: Read, core: Any, apps: Any, namespaces: Iterable[str]) -> RetrySettings:
    """The cluster's settings of retries, from the first namespace that has them.

    Args:
        read: See `Read`.
        core: A CoreV1Api.
        apps: An AppsV1Api.
        namespaces: Where KFP may be.
    """
    places = list(dict.fromkeys(namespaces))

    def first(method: Callable[..., Any], name: str) -> Any:
        for namespace in places:
            found = read(method, name, namespace)
            if found is not None and not isinstance(found, Finding):
                return found
        return None

    controller = first(core.read_namespaced_config_map, CONTROLLER)
    server = first(apps.read_namespaced_deployment, API_SERVER)
    return RetrySettings(
        None if controller is None else _workflow_defaults(controller.data or {}),
        None if server is None else _spec_patch(server),
    )


def _workflow_defaults(data: Mapping[str, str]) -> str:
    """A controller's settings are keys of the ConfigMap, or all of them YAML under the one key `config`."""
    if "workflowDefaults" in data or "config" not in data:
        return data.get("workflowDefaults", "")
    try:
        return yaml.safe_dump((yaml.safe_load(data["config"]) or {}).get("workflowDefaults") or {})
    except (yaml.YAMLError, AttributeError):
        return ""


def _spec_patch(deployment: Any) -> str | None:
    for container in deployment.spec.template.spec.containers:
        for variable in container.env or []:
            if variable.name == SPEC_PATCH:
                return None if variable.value_from else variable.value or ""
    return ""


def retry_check(settings: RetrySettings, retries: int | None) -> Finding:
    """What is tried again, in one line.

    Args:
        settings: What could be read of the cluster's.
        retries: The retries of the stage that asks for most; None: no stage asks.
    """
    unread = [
        text
        for text, value in (
            (f"ConfigMap {CONTROLLER}", settings.workflow_defaults),
            (f"{SPEC_PATCH} of Deployment {API_SERVER}", settings.spec_patch),
        )
        if value is None
    ]
    if len(unread) == 2:
        return Finding(WARN, "retries", f"not known: {' and '.join(unread)} cannot be read; {AS_SHIPPED}", FIX)
    try:
        defaults = retry_defaults(settings.workflow_defaults or "", settings.spec_patch or "")
    except ValueError as problem:
        return Finding(WARN, "retries", f"not known: {problem}", FIX)
    if unread and not (settings.workflow_defaults is None and defaults.is_explicit):
        detail = f"{retry_sentence(defaults, retries)}, unless {unread[0]}, which cannot be read, says otherwise"
        return Finding(WARN, "retries", detail, FIX)
    bounded = is_bounded(defaults)
    return Finding(OK if bounded else WARN, "retries", retry_sentence(defaults, retries), "" if bounded else FIX)
