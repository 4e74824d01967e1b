"""The Kubernetes API for a stage: requests that are tried again, and refusals that name the fix.

    core, custom, namespace = connect()
    ask(REFUSALS, "see TrainJobs", custom.get_namespaced_custom_object, ..., missing=None, tries=6)

The client is the one that comes with kfp.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError

REQUEST_SECONDS = 15.0
NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class Passing(RuntimeError):
    """The API is busy or out of reach; asked again it may answer."""


@dataclass(frozen=True, kw_only=True)
class Refusals:
    """The words for what an API refuses."""

    key: str
    """The settings key that asks for it."""
    who: str
    """Who asks: `this stage`."""
    role: str
    """What to do where a role is missing."""
    missing: str
    """What 404 means, with `{said}` for the API's own words."""
    namespace: str = ""


def connect() -> tuple[Any, Any, str] | None:
    """(CoreV1Api, CustomObjectsApi, namespace) of the cluster that this pod is in, or of the kubeconfig that KUBECONFIG
    names; None where there is neither."""
    import logging

    from kubernetes import client, config

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of each try; `ask` says what came
    configuration = client.Configuration()
    try:
        if "KUBECONFIG" in os.environ:
            file = os.environ["KUBECONFIG"]
            config.load_kube_config(file, client_configuration=configuration)
            namespace = config.list_kube_config_contexts(file)[1]["context"].get("namespace", "default")
        else:
            config.load_incluster_config(client_configuration=configuration)
            namespace = own_namespace()
    except (OSError, config.ConfigException):
        return None
    configuration.retries = 1
    api = client.ApiClient(configuration)
    return client.CoreV1Api(api), client.CustomObjectsApi(api), namespace


def own_namespace() -> str:
    """The namespace of the pod that this is.

    Raises:
        OSError: It is no pod, or one without a service account's token.
    """
    return Path(NAMESPACE_FILE).read_text(encoding="utf-8").strip()


def ask(
    refusals: Refusals,
    what: str,
    method: Callable[..., Any],
    *arguments: Any,
    tries: int = 1,
    pause: float = 5.0,
    **keywords: Any,
) -> Any:
    """What the API answers; `missing` and `taken`, where given, stand for 404 and 409.

    Args:
        refusals: The words for an error.
        what: What is asked for, after "may not": `see pods`.
        method: Of a client.
        arguments, keywords: Of the method.
        tries: How often an API that does not answer is asked.
        pause: The most seconds between two tries.

    Raises:
        UserError: It refuses.
        Passing: It did not answer, in none of the tries.
    """
    import urllib3
    from kubernetes.client import ApiException

    instead = {status: keywords.pop(key) for status, key in ((404, "missing"), (409, "taken")) if key in keywords}
    for number in range(tries):
        if number:
            time.sleep(min(pause, 2.0 ** (number - 1)))
        try:
            return method(*arguments, _request_timeout=REQUEST_SECONDS, **keywords)
        except ApiException as problem:
            status = int(problem.status or 0)
            if status in instead:
                return instead[status]
            said = _message(problem)
            if status in (401, 403):
                raise UserError(
                    f"{refusals.key}: {refusals.who} may not {what} in namespace {refusals.namespace} "
                    f"({status}: {said}); {refusals.role}"
                ) from None
            if status == 404:
                raise UserError(f"{refusals.key}: {refusals.missing.format(said=said)}") from None
            if 0 < status < 500 and status != 429:
                raise UserError(f"{refusals.key}: the cluster refuses to {what} ({status}: {said})") from None
            passing = f"the Kubernetes API answers {status} {said}"
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            passing = f"the Kubernetes API cannot be reached ({type(problem).__name__})"
    raise Passing(passing)


def _message(problem: Any) -> str:
    try:
        text = str(json.loads(problem.body)["message"])
    except (TypeError, ValueError, KeyError):
        text = str(problem.reason or "")
    return " ".join(text.split())[:500]
