"""Retries: no window ends one that runs, and what a cluster makes of them is what Argo does."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config.placement import load_placement
from llm2llm.pipelines.config.placement_values import RETRY_WINDOW, seconds, total_seconds
from llm2llm.pipelines.kubeflow.retries import (
    RetryDefaults,
    is_bounded,
    retried,
    retry_defaults,
    retry_sentence,
)

SHIPPED = {
    "2.15": "",
    "2.16": "",
    "2.17": """
spec:
  ttlStrategy: {secondsAfterCompletion: 3600, secondsAfterSuccess: 3600, secondsAfterFailure: 3600}
  templateDefaults:
    retryStrategy: {limit: '2', retryPolicy: OnError}
""",
}
"""`workflowDefaults` of manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml."""
OURS = {"templateDefaults": {"retryStrategy": {"limit": "0", "retryPolicy": "Always"}}}
FAILS, VANISHES = "a stage that fails, is killed or evicted", "one whose pod vanishes or cannot be created"


def test_a_task_is_given_a_window_that_no_try_reaches() -> None:
    asked: dict[str, Any] = {}

    class Task:
        def set_retry(self, **values: Any) -> None:
            asked.update(values)

    retried(Task(), 3, 60)
    assert asked == {
        "num_retries": 3, "backoff_duration": "60s", "backoff_factor": 2.0, "backoff_max_duration": f"{RETRY_WINDOW}s"
    }  # fmt: skip


@given(st.integers(0, 20), st.integers(1, 10**7), st.integers(1, 10**5))
def test_no_retry_that_runs_is_ended_by_the_window(retries: int, timeout: int, backoff: int) -> None:
    """Argo: the deadline of each try is the first one's start and maxDuration; each ends at its time-out before."""
    end = 0
    for number in range(retries + 1):
        end += timeout + (backoff * 2**number if number < retries else 0)
    if end <= RETRY_WINDOW / 2:
        assert total_seconds(retries, timeout, backoff) == end
    else:
        with pytest.raises(ValueError, match="lower one of them"):
            total_seconds(retries, timeout, backoff)


@pytest.mark.parametrize("profile", ["aks", "eks", "gke", "kind", "onprem"])
def test_no_profile_comes_near_the_window(profile: str) -> None:
    for wanted in load_placement({"profile": profile}).stages.values():
        assert total_seconds(wanted.retries, seconds(wanted.timeout), seconds(wanted.backoff)) < RETRY_WINDOW / 10
    with pytest.raises(UserError, match="unknown key"):
        load_placement({"profile": profile, "stages": {"train": {"retry_window": "6h"}}})


@pytest.mark.parametrize(
    ("version", "patch", "expected"),
    [
        ("2.15", "", RetryDefaults("OnFailure", 0, is_explicit=False)),
        ("2.16", "{}", RetryDefaults("OnFailure", 0, is_explicit=False)),
        ("2.17", "{}", RetryDefaults("OnError", 2, is_explicit=False)),
        ("2.17", json.dumps(OURS), RetryDefaults("Always", 0)),
        ("2.16", json.dumps(OURS), RetryDefaults("Always", 0)),
        ("2.17", '{"templateDefaults": {"retryStrategy": {"limit": 1}}}', RetryDefaults("OnError", 1, False)),
        ("2.16", '{"templateDefaults": {"retryStrategy": {"retryPolicy": "Always"}}}',
         RetryDefaults("Always", None, False)),
        ("2.16", '{"templateDefaults": {"retryStrategy": {"expression": "true", "limit": 0}}}',
         RetryDefaults("Always", 0, False)),
        ("2.16", '{"ttlStrategy": {}, "templateDefaults": null}', RetryDefaults("OnFailure", 0, False)),
    ],
)  # fmt: skip
def test_the_api_servers_patch_lies_over_the_controllers_defaults(
    version: str, patch: str, expected: RetryDefaults
) -> None:
    assert retry_defaults(SHIPPED[version], patch) == expected


def test_the_controllers_defaults_alone_make_retries_bounded_too() -> None:
    assert is_bounded(retry_defaults(yaml.safe_dump({"spec": OURS}), "{}"))
    assert not any(is_bounded(retry_defaults(text, "{}")) for text in SHIPPED.values())


@pytest.mark.parametrize(("defaults", "patch"), [("{", ""), ("", "{"), ("", '{"templateDefaults": {"retryStrategy": '
                                                                           '{"limit": "{{x}}"}}}')])  # fmt: skip
def test_settings_that_cannot_be_read_are_said(defaults: str, patch: str) -> None:
    with pytest.raises(ValueError, match=r"no YAML|is no number"):
        retry_defaults(defaults, patch)


@pytest.mark.parametrize(
    ("defaults", "retries", "says"),
    [
        (RetryDefaults("Always", 0), 2, f"{FAILS}, or whose pod vanishes, is tried up to 3 times"),
        (RetryDefaults("OnFailure", 0), 2, f"{FAILS} is tried up to 3 times; {VANISHES} is not tried again"),
        (RetryDefaults("OnFailure", 0), None, f"{FAILS} is not tried again; {VANISHES} is not tried again"),
        (RetryDefaults("OnError", 2), 2, f"{FAILS} is not tried again; {VANISHES} is tried up to 3^(i+4) times in "
         "iteration i, 81 in iteration 0, with all that the iteration holds"),
        (RetryDefaults("OnError", 2), None, "3^(i+4) times in iteration i, 81 in iteration 0"),
        (RetryDefaults("OnError", 2), 0, "tried up to 3^(i+3) times in iteration i, 27 in iteration 0"),
        (RetryDefaults("OnError", 2), 5, "tried up to 6 x 3^(i+3) times in iteration i, 162 in iteration 0"),
        (RetryDefaults("Always", None), 2, "is tried again and again, without an end"),
        (RetryDefaults("OnTransientError", 0), 1,
         "is tried up to 2 times where Argo takes what ended it for a transient error, else once"),
    ],
)  # fmt: skip
def test_what_is_tried_again_is_one_plain_line(defaults: RetryDefaults, retries: int | None, says: str) -> None:
    sentence = retry_sentence(defaults, retries)
    assert says in sentence
    assert "\n" not in sentence


def tries(ends: Callable[[], str], own: int | None, defaults: RetryDefaults, conditions: int) -> int:
    """How often a stage is started whose every try ends alike: Argo's processNodeRetries, at each of its nodes.

    Args:
        ends: Error (a pod that is gone) or Failed.
        own: The stage's own retries.
        conditions: DAGs around it beside its own, the run's and the entry point's.
    """
    started = 0

    def attempt(level: int) -> str:
        nonlocal started
        if level == 0:
            started += 1
            return ends()
        return node(level - 1)

    def node(level: int) -> str:
        limit = own if level == 0 and own is not None else defaults.limit
        assert limit is not None
        state = attempt(level)
        for _ in range(limit):
            if not (defaults.after_loss if state == "Error" else defaults.after_failures):
                break
            state = attempt(level)
        return state

    node(3 + conditions)
    return started


@given(st.sampled_from(("OnFailure", "OnError", "Always")), st.integers(0, 2), st.none() | st.integers(0, 3),
       st.integers(0, 2))  # fmt: skip
def test_the_line_says_how_often_argo_starts_a_pod(policy: str, limit: int, own: int | None, iteration: int) -> None:
    defaults = RetryDefaults(policy, limit)
    sentence = retry_sentence(defaults, own)
    each = 1 + (limit if own is None else own)
    for ends, is_retried in (("Failed", defaults.after_failures), ("Error", defaults.after_loss)):
        started = tries(lambda ends=ends: ends, own, defaults, iteration)  # type: ignore[misc]
        assert started == (each * (1 + limit) ** (3 + iteration) if is_retried else 1)
    most = max(tries(lambda ends=ends: ends, own, defaults, 0) for ends in ("Failed", "Error"))  # type: ignore[misc]
    assert (f"{most} times" in sentence or f"{most} in iteration 0" in sentence) == (most > 1)
    assert ("not tried again" in sentence) == (most == 1 or policy != "Always")
