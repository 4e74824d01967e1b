"""Deletes a pod of a run, with kubectl: as an eviction does it, and as a lost node does."""

import re
import shutil
import subprocess
from collections.abc import Mapping

from llm2llm.pipelines.kubeflow.workflow import Workflow, pod_name
from tests.e2e.place import FAIL, LOOK, OK, SKIP, Outcome, Place
from tests.e2e.table import stage_rows

STAGE = "train 0"
HOW = {"politely": (), "by force": ("--grace-period=0", "--force")}


def access(namespace: str) -> str:
    """Why no pod can be deleted from here; empty: it can."""
    if shutil.which("kubectl") is None:
        return "there is no kubectl here"
    asked = subprocess.run(
        ["kubectl", "--namespace", namespace, "auth", "can-i", "delete", "pods"], capture_output=True, text=True
    )
    if asked.stdout.strip() != "yes":
        return f"kubectl may not delete pods in namespace {namespace}: {(asked.stderr or asked.stdout).strip()[:200]}"
    return ""


def delete_pod(place: Place, how: str) -> Outcome:
    """Deletes the pod of a training and sees whether the run gets over it.

    Args:
        how: A key of `HOW`.
    """
    check = f"pod deleted {how}"
    namespace = place.cluster.namespace or "kubeflow"
    if why := access(namespace):
        return Outcome(check, SKIP, why)
    # Another seed each time, so that no cache answers in the pod's place.
    run = place.start(check, ("max_iterations=1", f"random_seed={len(place.started) + 1}"))
    if not place.until_running(run, STAGE):
        return Outcome(check, FAIL, f"{STAGE} never ran")
    workflow = place.workflow(run)
    pod = running_pod(workflow, run.compiled.stages) if workflow else ""
    if not pod or not workflow:
        return Outcome(check, SKIP, "the Workflow does not name the pod")
    command = ["kubectl", "--namespace", workflow.namespace or namespace, "delete", "pod", pod, "--wait=false"]
    done = subprocess.run([*command, *HOW[how]], capture_output=True, text=True)
    if done.returncode:
        return Outcome(check, FAIL, done.stderr.strip()[:300])
    place.wait(run)
    after = place.workflow(run)
    tries = next((row.tries for row in stage_rows(after, run.compiled.stages) if row.name == STAGE), 0) if after else 0
    if run.code == 0:
        return Outcome(check, OK, f"the run succeeded; {STAGE} was tried {tries} times")
    return Outcome(
        check, LOOK, f"the run failed; {STAGE} was tried {tries} times. Retries need the administrator's patch, see "
        "manifests/README.md"
    )  # fmt: skip


def running_pod(workflow: Workflow, stages: Mapping[str, str]) -> str:
    """The pod of the stage that is to be hit; empty where none runs."""
    keys = {key for key, name in stages.items() if name == STAGE}
    for node in workflow.nodes:
        parts = [re.sub(r"\(\d+\)$", "", part) for part in node.path.split(".")]
        if node.type == "Pod" and node.state == "RUNNING" and parts[-1] == "executor" and parts[-2] in keys:
            return pod_name(node, workflow)
    return ""
