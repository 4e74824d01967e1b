"""Training on several nodes: the stage makes a Kubeflow Trainer TrainJob, follows it, and takes the student.

    job in object storage -> TrainJob: a worker for each GPU of each node -> student in object storage -> output

The stage's own pod needs no GPU. What a node asks for was fixed when the pipeline was compiled, and comes in an
environment variable (`placement.train_job`). The TrainJob is called by what it trains on and by the run: a retry of
the stage, whose pod was lost, finds it running and goes on following it. Nothing is left behind: the stage deletes the
TrainJob when it ends, whether well, badly or on SIGTERM; should the stage be killed outright, the workers see that
nobody follows them any more and end (`worker`), and Kubernetes deletes it with the run's workflow, which owns it.

The Kubernetes client that comes with kfp speaks to the API directly. Kubeflow's own SDK (`kubeflow.trainer`, 0.5) can
set no owner, so that a killed stage would leak GPUs, and hides the status of an error, by which a name that is taken
is told from a role that is missing.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.kubernetes_api import Passing, Refusals, ask, connect
from llm2llm.components.shared.base.process import POD_VARIABLE, RUN_VARIABLE
from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.storage import delete_folder, is_remote, join
from llm2llm.components.shared.training.job_folder import (
    Failed,
    TrainingJob,
    raise_failure,
    read_result,
    say_followed,
    take_model,
    write_job,
)
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.torchrun import until_it_fits
from llm2llm.components.shared.training.training_log import TrainingLog

TEMPLATE_VARIABLE = "LLM2LLM_TRAIN_JOB"
"""Set by `placement.placed`: the TrainJob without name, owner and command, as JSON."""
HANDED_ON = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "LLM2LLM_S3_ADDRESSING",
             "LLM2LLM_S3_ANONYMOUS")  # fmt: skip
"""Where object storage is: environment variables that workers get as the stage has them. None is a secret."""

POLL_SECONDS = 5.0
FOLLOW_SECONDS = 60.0
"""How often the workers are told that they are followed."""
TRIES = 6
OUT_OF_TOUCH_SECONDS = 600.0
"""How long an API that does not answer is asked again while a TrainJob goes on."""
GONE_SECONDS = 120.0
"""How long the pods of an older TrainJob of the same name may take to end."""

_GROUP, _VERSION, _PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"


def train_on_nodes(job: TrainingJob, output: Path) -> TrainingLog:
    """Fine-tunes the student on `settings.nodes` nodes, into the empty folder `output`.

    A student in a local folder is sent along. A training that runs out of memory is begun again as on one node: with
    activation checkpointing, then with half as many rows at once.

    Raises:
        UserError: No place in object storage, a pipeline that was not compiled for it, no Kubeflow Trainer, a role that
            is missing, a TrainJob that the cluster refuses, or what `fine_tune` raises in a worker.
        RuntimeError: The TrainJob failed, or the cluster was out of reach for ten minutes; a retry goes on from the
            newest checkpoint.
    """
    template = _template(job.settings)
    devices = job.settings.nodes * (job.settings.gpus or template["spec"]["trainer"]["numProcPerNode"])
    return until_it_fits(job, devices, output, partial(_train, _connect(), template))


def _train(jobs: "_Jobs", template: Mapping[str, Any], job: TrainingJob, output: Path) -> TrainingLog:
    """Makes one TrainJob and follows it to its end, or the one that an earlier try made.

    Raises:
        MemoryError: No memory left on a device.
    """
    name = _name(job)
    uri = join(job.settings.checkpoint_uri, "jobs", name)
    running = _older(jobs, name)
    try:
        if running is None:
            write_job(uri, job)
            say_followed(uri)
            jobs.create(_complete(template, name, uri, job.settings, jobs.owners()))
            print(f"train: TrainJob {jobs.namespace}/{name}: {job.settings.nodes} nodes; the job is {uri}", flush=True)
        else:
            print(f"train: TrainJob {jobs.namespace}/{name} of an earlier try is there; it is followed", flush=True)
        _follow(jobs, name, uri)
        result = read_result(uri)
        if result is None:
            raise RuntimeError(f"TrainJob {name} is complete, and left no student at {uri}")
        if isinstance(result, Failed):
            raise_failure(result)
        take_model(uri, output)
    finally:
        # Whatever ends this stage, SIGTERM included: nobody would take what goes on.
        if jobs.delete(name):
            with suppress(UserError):  # what cannot be deleted is in nobody's way
                delete_folder(uri)
    return result


def _template(settings: FineTuneSettings) -> dict[str, Any]:
    if not settings.checkpoint_uri or not is_remote(settings.checkpoint_uri):
        raise UserError(
            f"train.checkpoint_uri: {settings.checkpoint_uri!r}, and training on {settings.nodes} nodes (train.nodes) "
            "hands rows and student on through object storage; set it to s3://bucket/folder"
        )
    text = os.environ.get(TEMPLATE_VARIABLE)
    if not text:
        raise UserError(
            f"train.nodes: {settings.nodes}, and only a pipeline that was compiled for a cluster trains on several "
            "nodes: set placement.profile and compile it again, or set train.nodes to 1"
        )
    template: dict[str, Any] = json.loads(text)
    compiled = template["spec"]["trainer"]["numNodes"]
    if compiled != settings.nodes:
        raise UserError(
            f"train.nodes: {settings.nodes}, and the pipeline was compiled with {compiled}; compile it again"
        )
    return template


def _name(job: TrainingJob) -> str:
    """The same for a retry, another for whatever else is trained, and for another run."""

    def said(value: Any) -> Any:
        if isinstance(value, list):
            return [example.id for example in value]
        return value.model_dump(mode="json") if isinstance(value, Settings) else value

    decides = {field.name: said(getattr(job, field.name)) for field in fields(job)}
    text = json.dumps([os.environ.get(RUN_VARIABLE, ""), decides], sort_keys=True)
    return f"llm2llm-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def _complete(
    template: Mapping[str, Any], name: str, uri: str, settings: FineTuneSettings, owners: list[dict[str, Any]]
) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(json.dumps(template))
    run = os.environ.get(RUN_VARIABLE, "")
    job["metadata"] |= {"name": name} | ({"ownerReferences": owners} if owners else {})
    if run:
        job["metadata"]["labels"]["llm2llm/run"] = run
    trainer = job["spec"]["trainer"]
    # Kubeflow Trainer's plugin for PyTorch tells torchrun by PET_* variables which node it is on and who is first.
    trainer["command"] = [
        "python",
        "-m",
        "torch.distributed.run",
        "-m",
        "llm2llm.components.shared.training.torchrun_worker",
        uri,
    ]
    if settings.gpus:
        trainer["numProcPerNode"] = settings.gpus
    given = {one["name"] for one in trainer["env"]}
    values = {key: os.environ[key] for key in HANDED_ON if key in os.environ} | ({RUN_VARIABLE: run} if run else {})
    trainer["env"] += [{"name": key, "value": value} for key, value in values.items() if key not in given]
    return job


def _older(jobs: "_Jobs", name: str) -> dict[str, Any] | None:
    """The TrainJob of an earlier try, if it goes on or ended well; what is left of a failed one is cleared away."""
    job = jobs.get(name, tries=TRIES)
    if job is None:
        return None
    deleted = bool(job["metadata"].get("deletionTimestamp"))
    if not deleted and _ended(job)[0] != "Failed":
        return job
    if not deleted:
        jobs.delete(name)
    since = time.monotonic()
    while jobs.get(name, tries=TRIES) is not None:
        if time.monotonic() - since > GONE_SECONDS:
            raise RuntimeError(f"TrainJob {name} of an earlier try is still being deleted after {GONE_SECONDS:.0f} s")
        time.sleep(min(POLL_SECONDS, 1.0))
    return None


def _follow(jobs: "_Jobs", name: str, uri: str) -> None:
    """Returns when the TrainJob is complete. Says what its nodes wait for, and repeats the first node's log."""
    said = _Said()
    heard, told = time.monotonic(), float("-inf")
    while True:
        if time.monotonic() - told >= FOLLOW_SECONDS:
            with suppress(UserError):  # the workers have patience
                say_followed(uri)
                told = time.monotonic()
        try:
            job = jobs.get(name)
            if job is None and read_result(uri) is None:
                raise RuntimeError(f"TrainJob {name} is gone: somebody else deleted it")
            said.state(job)
            said.pods(jobs.pods(name), jobs.log)
            heard = time.monotonic()
        except Passing as problem:
            if time.monotonic() - heard > OUT_OF_TOUCH_SECONDS:
                raise RuntimeError(f"TrainJob {name}: {problem}") from None
            time.sleep(POLL_SECONDS)
            continue
        how, why = _ended(job) if job is not None else ("Complete", "")
        if how == "Complete":
            return
        if how == "Failed":
            result = read_result(uri)
            if isinstance(result, Failed):
                raise_failure(result)
            raise RuntimeError(f"TrainJob {name} failed: {why or 'no reason is given'}")
        time.sleep(POLL_SECONDS)


def _ended(job: Mapping[str, Any]) -> tuple[str, str]:
    """(`Complete`, `Failed` or empty, why)."""
    for one in (job.get("status") or {}).get("conditions") or []:
        if one["type"] in ("Complete", "Failed") and one["status"] == "True":
            return one["type"], f"{one.get('reason', '')}: {one.get('message', '')}".strip(": ")
    return "", ""


@dataclass
class _Said:
    """What has been said, so that only what is new is."""

    nodes: dict[str, str] = field(default_factory=dict)
    suspended: bool = False
    lines: dict[str, str] = field(default_factory=dict)
    """Pod -> time of the last line of its log that was repeated."""

    def state(self, job: Mapping[str, Any] | None) -> None:
        conditions = ((job or {}).get("status") or {}).get("conditions") or []
        suspended = any(one["type"] == "Suspended" and one["status"] == "True" for one in conditions)
        if suspended != self.suspended:
            print("train: waits for its queue to admit it" if suspended else "train: admitted", flush=True)
            self.suspended = suspended

    def pods(self, pods: list[Any], log: Callable[[str, float], str]) -> None:
        for pod in pods:
            node = (pod.metadata.labels or {}).get("batch.kubernetes.io/job-completion-index", "?")
            now = _pod_state(pod)
            if self.nodes.get(node) != now:
                self.nodes[node] = now
                print(f"train: node {node} ({pod.metadata.name}) {now}", flush=True)
            if node == "0" and pod.status.phase in ("Running", "Succeeded", "Failed"):
                self._repeat(pod.metadata.name, log)

    def _repeat(self, pod: str, log: Callable[[str, float], str]) -> None:
        last = self.lines.get(pod, "")
        since = time.time() - _moment(last) + 10 if last else 0.0
        for line in log(pod, since).splitlines():
            stamp, _, text = line.partition(" ")
            if _key(stamp) > _key(last):
                print(f"node 0 | {text}", flush=True)
                self.lines[pod] = last = stamp


def _key(stamp: str) -> tuple[str, str]:
    """Sorts the times of log lines: their fractions have no fixed length."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return whole, fraction.ljust(9, "0")


def _moment(stamp: str) -> float:
    try:
        return datetime.strptime(_key(stamp)[0], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def _pod_state(pod: Any) -> str:
    """In words: what a pod does, or what it waits for."""
    for container in pod.status.container_statuses or []:
        waiting, ended = container.state.waiting, container.state.terminated
        if waiting and waiting.reason not in ("ContainerCreating", "PodInitializing"):
            return f"waits: {waiting.reason}{f': {waiting.message}' if waiting.message else ''}"
        if ended and ended.exit_code:
            return f"ended with exit code {ended.exit_code} ({ended.reason or 'no reason'})"
    for one in pod.status.conditions or []:
        if one.type == "PodScheduled" and one.status == "False" and one.message:
            return f"waits: {one.message}"
    phase = str(pod.status.phase)
    return {"Pending": "starts", "Running": "runs", "Succeeded": "is done"}.get(phase, phase)


@dataclass(frozen=True)
class _Jobs:
    """The TrainJobs of a namespace."""

    core: Any
    custom: Any
    namespace: str

    def get(self, name: str, tries: int = 1) -> dict[str, Any] | None:
        method = self.custom.get_namespaced_custom_object
        found: dict[str, Any] | None = self._ask("see TrainJobs", method, *self._of(name), missing=None, tries=tries)
        return found

    def create(self, job: Mapping[str, Any]) -> None:
        """Makes it; that it is there already is no error: the answer to an earlier request may have been lost."""
        self._ask(
            "make TrainJobs", self.custom.create_namespaced_custom_object, *self._of(), job, taken=None, tries=TRIES
        )

    def delete(self, name: str) -> bool:
        """Deletes it with its pods, and returns whether it is gone or going; says so where it is not."""
        method = self.custom.delete_namespaced_custom_object
        try:
            self._ask(
                "delete TrainJobs", method, *self._of(name), missing=None, tries=3, propagation_policy="Foreground"
            )
        except (UserError, Passing) as problem:
            print(f"train: TrainJob {name} is not deleted, and goes with its run: {problem}", flush=True)
            return False
        return True

    def pods(self, name: str) -> list[Any]:
        """Its workers' pods, of each node the newest."""
        selector = f"jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name=node"
        found = self._ask("see pods", self.core.list_namespaced_pod, self.namespace, label_selector=selector)
        newest: dict[str, Any] = {}
        for pod in sorted(found.items, key=lambda one: one.metadata.creation_timestamp):
            newest[(pod.metadata.labels or {}).get("batch.kubernetes.io/job-completion-index", "?")] = pod
        return [newest[node] for node in sorted(newest)]

    def log(self, pod: str, since_seconds: float) -> str:
        """A pod's log, each line after its time; empty where there is none, or none to be had."""
        since = {"since_seconds": max(int(since_seconds), 1)} if since_seconds else {}
        try:
            found = self._ask(
                "read logs", self.core.read_namespaced_pod_log, pod, self.namespace, container="node", timestamps=True,
                _preload_content=False, **since,
            )  # fmt: skip
            return str(found.data.decode("utf-8", "replace"))
        except (UserError, Passing):
            return ""  # a log is for people: the training goes on without

    def owners(self) -> list[dict[str, Any]]:
        """The owners of this stage's pod: the workflow of its run."""
        pod = os.environ.get(POD_VARIABLE) or os.environ.get("HOSTNAME", "")
        try:
            found = self._ask("see pods", self.core.read_namespaced_pod, pod, self.namespace, missing=None)
        except (UserError, Passing):
            found = None
        owners = (found.metadata.owner_references if found is not None else None) or []
        if not owners:
            print("train: this stage's pod has no owner that can be seen; the TrainJob ends by itself only", flush=True)
        return [{"apiVersion": one.api_version, "kind": one.kind, "name": one.name, "uid": one.uid} for one in owners]

    def _of(self, *name: str) -> tuple[str, ...]:
        return (_GROUP, _VERSION, self.namespace, _PLURAL, *name)

    def _ask(self, what: str, method: Callable[..., Any], *arguments: Any, tries: int = 1, **keywords: Any) -> Any:
        """See `kubernetes_api.ask`."""
        return ask(
            replace(_REFUSALS, namespace=self.namespace), what, method, *arguments, tries=tries, pause=POLL_SECONDS,
            **keywords,
        )  # fmt: skip


_REFUSALS = Refusals(
    key="train.nodes",
    who="this stage",
    role="apply manifests/components/train-jobs, and run as llm2llm-runs",
    missing="the cluster knows no TrainJobs ({said}); install Kubeflow Trainer 2.2 or newer",
)


def _connect() -> _Jobs:
    found = connect()
    if found is None:
        raise UserError(
            "train.nodes: training on several nodes works in a pod of a cluster only, with a service account's token; "
            "set train.nodes to 1, or submit the config"
        )
    return _Jobs(*found)
