"""Retries: what a pipeline can ask for, and what a cluster makes of it.

KFP's compiler gives a stage's template a `retryStrategy` with the limit and backoff of `set_retry` and no policy; it
gives drivers and DAGs (the whole run, each iteration) none. Argo then lays `templateDefaults.retryStrategy` under every
template, key by key: that of the API server's COMPILED_PIPELINE_SPEC_PATCH, and below it that of the controller's
`workflowDefaults`. Without a policy from either, Argo's is OnFailure. So a pipeline decides how often a stage is tried,
and an administrator after what, and whether whole iterations are tried again too.

Sources: KFP 2.15 to 2.17, backend/src/v2/compiler/argocompiler/{container,spec_patch}.go and
manifests/kustomize/third-party/argo; Argo 4.0.5, workflow/controller/operator.go (`processNodeRetries`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from llm2llm.pipelines.config.placement_values import BACKOFF_FACTOR, RETRY_WINDOW

BESIDE_ITERATIONS = 3
"""Argo's nodes around a stage's pod in iteration 0: the stage's DAG, the run's and the entry point's. Iteration i has i
conditions more, and a loop over folds or shards three of its own."""


def retried(task: Any, retries: int, backoff: int) -> None:
    """Asks for retries of a KFP task.

    Args:
        task: A KFP PipelineTask.
        retries: Tries after the first.
        backoff: Seconds before the first retry; each further wait is twice as long.
    """
    task.set_retry(
        num_retries=retries,
        backoff_duration=f"{backoff}s",
        backoff_factor=float(BACKOFF_FACTOR),
        backoff_max_duration=f"{RETRY_WINDOW}s",
    )


@dataclass(frozen=True)
class RetryDefaults:
    """What a cluster adds to what a pipeline says about retries."""

    policy: str
    """OnFailure, OnError, Always or OnTransientError."""
    limit: int | None
    """How often a driver or a DAG is tried again; 0: never; None: without an end."""
    is_explicit: bool = True
    """Whether settings that lie below those that were read could change nothing."""

    @property
    def after_failures(self) -> bool:
        """Whether a stage is tried again that exits with an error, is killed or evicted."""
        return self.policy in ("OnFailure", "Always")

    @property
    def after_loss(self) -> bool:
        """Whether a stage is tried again whose pod vanishes or cannot be created."""
        return self.policy in ("OnError", "Always")


def retry_defaults(workflow_defaults: str, spec_patch: str) -> RetryDefaults:
    """What templates get that do not say it themselves.

    Args:
        workflow_defaults: The controller's `workflowDefaults`, YAML; may be empty.
        spec_patch: The API server's COMPILED_PIPELINE_SPEC_PATCH, JSON; may be empty.

    Raises:
        ValueError: One of them cannot be read.
    """
    try:
        below = yaml.safe_load(workflow_defaults) if workflow_defaults.strip() else {}
        above = json.loads(spec_patch) if spec_patch.strip() else {}
    except (yaml.YAMLError, json.JSONDecodeError):
        raise ValueError("workflowDefaults is no YAML, or COMPILED_PIPELINE_SPEC_PATCH no JSON") from None
    strategy = {**_strategy(_get(below, "spec")), **_strategy(above)}
    if not strategy:
        return RetryDefaults("OnFailure", 0, is_explicit=False)
    try:
        limit = None if strategy.get("limit") is None else int(strategy["limit"])
    except (TypeError, ValueError):
        raise ValueError(f"retryStrategy.limit {strategy['limit']!r} is no number") from None
    policy = strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure")
    return RetryDefaults(str(policy), limit, is_explicit={"limit", "retryPolicy"} <= _strategy(above).keys())


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _strategy(spec: Any) -> dict[str, Any]:
    found = _get(_get(spec, "templateDefaults"), "retryStrategy")
    return dict(found) if isinstance(found, Mapping) else {}


def retry_sentence(defaults: RetryDefaults, retries: int | None) -> str:
    """One line: what is tried again in this cluster, and how often.

    Args:
        defaults: As `retry_defaults` returns them.
        retries: The retries of the stage that asks for most; None: no stage asks, so that the cluster's limit counts.
    """
    times = _times(defaults.limit if retries is None else retries, defaults.limit)
    failing = times if defaults.after_failures else ""
    lost = times if defaults.after_loss else ""
    if defaults.policy == "OnTransientError":
        return f"a stage is tried {times or 'once'} where Argo takes what ended it for a transient error, else once"
    if failing and lost:
        return f"a stage that fails, is killed or evicted, or whose pod vanishes, is tried {times}"
    return (
        f"a stage that fails, is killed or evicted is {_tried(failing)}; one whose pod vanishes or cannot be created "
        f"is {_tried(lost)}"
    )


def _tried(times: str) -> str:
    return f"tried {times}" if times else "not tried again"


def _times(own: int | None, around: int | None) -> str:
    """How often a stage is tried with retries of its own and of each DAG around it; empty: once."""
    if own is None or around is None:
        return "again and again, without an end"
    if around == 0:
        return f"up to {1 + own} times" if own else ""
    power = f"{1 + around}^(i+{BESIDE_ITERATIONS})" if own != around else f"{1 + around}^(i+{BESIDE_ITERATIONS + 1})"
    most = power if own in (around, 0) else f"{1 + own} x {power}"
    first = (1 + own) * (1 + around) ** BESIDE_ITERATIONS
    return f"up to {most} times in iteration i, {first} in iteration 0, with all that the iteration holds"


def is_bounded(defaults: RetryDefaults) -> bool:
    """Whether stages are tried again after everything, and nothing else is."""
    return defaults.after_failures and defaults.after_loss and defaults.limit == 0
