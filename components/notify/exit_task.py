"""The ending of a run in a cluster, from what Kubeflow hands an exit task and what the registry says."""

import os
import re
from collections.abc import Iterable
from typing import Any

from llm2llm.components.notify.notify import message, told
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.kubernetes_api import Passing, Refusals, ask, connect
from llm2llm.components.shared.base.process import POD_VARIABLE, RUN_VARIABLE
from llm2llm.components.shared.base.settings_text import read_settings_text
from llm2llm.components.shared.registry.nothing_new import take_nothing_new
from llm2llm.components.shared.registry.notify_settings import NotifySettings, RunEnding
from llm2llm.components.shared.registry.production import generations
from llm2llm.components.shared.registry.versions import registry_uri

_STATES: dict[str, RunEnding] = {"SUCCEEDED": "succeeded", "COMPLETE": "succeeded", "CACHED": "succeeded",
                               "FAILED": "failed"}  # fmt: skip
"""KFP's driver hands on the state that the sub-graph has in the metadata store (2.17, driver/resolve.go). It stays
RUNNING after a run that was terminated, passed its deadline or lost a pod; and after one that ended well, where the
last stage came from the cache, as only launchers bring it up to date (metadata/client.go). Its pods then tell."""


def tell(name: str, ending: str, state: str, workflow: str) -> str:
    """Tells how the run ended; returns a line for the log.

    Args:
        name: The pipeline's.
        ending: `notify` of the config, and `registry`, as JSON.
        state: That of the sub-graph with all other stages.
        workflow: The Workflow's name, which stands for the run where the placement gives no id.

    Raises:
        UserError: `ending` is damaged.
    """
    values = read_settings_text(ending, "ending")
    settings = NotifySettings.load(values.get("notify") or {}, "notify")
    run = os.environ.get(RUN_VARIABLE) or workflow
    outcome = _STATES.get(state) or _by_pods(run)
    reason = ""
    figures: dict[str, Any] = {}
    if values.get("registry"):
        outcome, reason, figures = _known(str(values["registry"]), run, outcome)
    if outcome in ("failed", "terminated"):
        reason = "see the run in Kubeflow"
    body = message(settings.kind, outcome, name, run, reason, figures)
    return told(settings, os.environ.get(settings.url_env, ""), outcome, body)


def _by_pods(run: str) -> RunEnding:
    """How a run ended, as its pods tell; terminated where they cannot be asked."""
    try:
        reached = connect()
        if reached is None:
            return "terminated"
        core, _, namespace = reached
        pods = ask(_REFUSALS, "see pods", core.list_namespaced_pod, namespace, label_selector=f"pipeline/runid={run}",
                   tries=3).items  # fmt: skip
    except (UserError, Passing, OSError) as problem:
        print(f"notify: whether the run was terminated is not known: {problem}", flush=True)
        return "terminated"
    own = os.environ.get(POD_VARIABLE, "")
    found = [
        ((pod.metadata.annotations or {}).get(_NODE, pod.metadata.name), str(pod.status.start_time), pod.status.phase)
        for pod in pods
        if pod.metadata.name != own
    ]
    return ending_of(found)


_NODE = "workflows.argoproj.io/node-name"
_REFUSALS = Refusals(key="notify", who="this stage", role="see manifests/base/roles.yaml", missing="{said}")


def ending_of(pods: Iterable[tuple[str, str, str]]) -> RunEnding:
    """How a run whose stages have not failed ended: well, if the last try of each of its pods did.

    Args:
        pods: (name of Argo's node, such as `run.root.train(1)`, start, phase) of each, without that of the exit task.
    """
    last: dict[str, tuple[str, str]] = {}
    for node, start, phase in pods:
        if ".onExit" not in node:
            key = re.sub(r"\(\d+\)$", "", node)
            last[key] = max(last.get(key, ("", "")), (start, phase))
    return "succeeded" if last and all(phase == "Succeeded" for _, phase in last.values()) else "terminated"


def _known(registry: str, run: str, outcome: RunEnding) -> tuple[RunEnding, str, dict[str, Any]]:
    """What the registry knows of a run that has not failed; one that cannot be read keeps nobody from being told."""
    if outcome == "failed":
        return outcome, "", {}
    try:
        uri = registry_uri(registry)
        if why := take_nothing_new(uri, run):
            return "nothing_new", why, {}
        made = next((one for one in generations(uri) if one.run == run and one.kind == "promote"), None)
    except UserError as problem:
        print(f"notify: the registry does not say more: {problem}", flush=True)
        return outcome, "", {}
    if outcome != "succeeded" or made is None:
        return outcome, "", {}
    return outcome, f"{made.version} is in production", {"version": made.version}
