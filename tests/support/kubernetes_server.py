"""A loopback Kubernetes API with TrainJobs and KServe's objects, for the real client, and its faults.

Every TrainJob that is made is held strictly against `kubeflow_trainer_api`'s models and the rules of the resource's
definition. A script, `play`, says what becomes of one: it is called at each look at the TrainJob. With `run_workers`
its nodes are processes on this machine, started as Kubeflow Trainer's plugin for PyTorch would start pods.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubeflow_trainer_api import models

from tests.manifests.schema_check import own_schemas
from tests.support.loopback import LoopbackServer

JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs"
SERVED = re.compile("/apis/serving.kserve.io/v1[a-z0-9]*/namespaces/[a-z]+/(llm)?inferenceservices")
PODS = "/api/v1/namespaces/team/pods"
WORKFLOW = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-7", "uid": "u-7", "controller": True}


class KubernetesServer:
    """A cluster with the namespace `team`, and a stage's pod `stage-pod` that the workflow `run-7` owns."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self.made: list[dict[str, Any]] = []
        self.pods: list[dict[str, Any]] = [pod("stage-pod", owners=[WORKFLOW])]
        self.logs: dict[str, str] = {}
        self.play: Callable[[dict[str, Any]], None] = lambda job: None
        self.on_create: Callable[[dict[str, Any]], None] = lambda job: None
        self.lingers = 0
        """For how many looks a deleted TrainJob is still there."""
        self.served: dict[str, dict[str, Any]] = {}
        """KServe's objects, by path."""
        self.before_change: Callable[[str], None] = lambda path: None
        """Called with the path of one of KServe's objects that is about to be made or changed."""
        self.faults: list[tuple[str, str, int, int]] = []
        """(method, pattern of the path, status, times); status 0 carries the request out and drops the answer."""
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                url = urlsplit(self.path)
                server.requests.append(f"{self.command} {url.path}")
                fault = server._fault(self.command, url.path)
                if fault:
                    status, value = fault, {"kind": "Status", "message": f"broken on purpose: {fault}", "code": fault}
                else:
                    status, value = server._answer(self.command, url.path, parse_qs(url.query), body)
                    if fault == 0:
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "text/plain" if isinstance(value, str) else "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = _any

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = LoopbackServer(Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig that leads here."""
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "stage", "user": {"token": "t"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "stage", "namespace": "team"}}],
        }))  # fmt: skip
        return path

    def _fault(self, method: str, path: str) -> int | None:
        for index, (which, pattern, status, times) in enumerate(self.faults):
            if which == method and re.search(pattern, path) and times:
                self.faults[index] = (which, pattern, status, times - 1)
                return status
        return None

    def _answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        name = path.rpartition("/")[2]
        if path == JOBS and method == "POST":
            job = json.loads(body)
            check_train_job(job)
            if job["metadata"]["name"] in self.jobs:
                return 409, {"kind": "Status", "message": "already exists"}
            job["metadata"] |= {"namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z"}
            self.jobs[job["metadata"]["name"]] = job
            self.made.append(json.loads(json.dumps(job)))
            self.on_create(job)
            return 201, job
        if path.startswith(JOBS + "/"):
            job = self.jobs.get(name)
            if job is None:
                return 404, {"kind": "Status", "message": "not found"}
            if method == "DELETE":
                assert query["propagationPolicy"] == ["Foreground"]
                self.deleted.append(name)
                job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
                if not self.lingers:
                    del self.jobs[name]
                return 200, {"kind": "Status", "status": "Success"}
            if "deletionTimestamp" in job["metadata"]:
                self.lingers -= 1
                if self.lingers <= 0:
                    del self.jobs[name]
            else:
                self.play(job)
            return 200, job
        if SERVED.match(path):
            return self._serve(method, path, body)
        if path == PODS:
            wanted = query.get("labelSelector", [""])[0].partition("jobset-name=")[2].partition(",")[0]
            label = "jobset.sigs.k8s.io/jobset-name"
            found = [one for one in self.pods if one["metadata"].get("labels", {}).get(label) == wanted]
            return 200, {"kind": "PodList", "apiVersion": "v1", "items": found}
        if path.endswith("/log"):
            log = self.logs.get(path.split("/")[-2])
            return (200, log) if log is not None else (400, {"message": "container is creating"})
        found = [one for one in self.pods if one["metadata"]["name"] == name]
        return (200, found[0]) if found and path.startswith(PODS) else (404, {"message": "not found"})

    def _serve(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """One of KServe's objects. A change with an old resourceVersion is a conflict."""
        if method == "GET":
            found = self.served.get(path)
            return (200, found) if found else (404, {"kind": "Status", "message": "not found"})
        given = json.loads(body)
        status = given.pop("status", None)
        check_served(given)
        place = path if method == "PUT" else f"{path}/{given['metadata']['name']}"
        self.before_change(place)
        there = self.served.get(place)
        if method == "POST" and there:
            return 409, {"kind": "Status", "message": "already exists"}
        if method == "PUT" and (there or {})["metadata"]["resourceVersion"] != given["metadata"]["resourceVersion"]:
            return 409, {"kind": "Status", "message": "the object has been modified"}
        number = int(there["metadata"]["resourceVersion"]) + 1 if there else 1
        self.served[place] = {**given, "metadata": {**given["metadata"], "resourceVersion": str(number)}}
        self.served[place] |= {"status": status} if status else {}
        return 201 if method == "POST" else 200, self.served[place]


def check_served(given: dict[str, Any]) -> None:
    """Refuses what KServe's definitions would."""
    own_schemas()[f"{given['apiVersion']}/{given['kind']}"].validate(given)


def pod(name: str, node: int | None = None, job: str = "", owners: list[Any] | None = None, **status: Any) -> Any:
    """A pod; with `node` that of a TrainJob's worker."""
    labels = {} if node is None else {
        "jobset.sigs.k8s.io/jobset-name": job, "jobset.sigs.k8s.io/replicatedjob-name": "node",
        "batch.kubernetes.io/job-completion-index": str(node),
    }  # fmt: skip
    metadata = {"name": name, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {
        "metadata": metadata | ({"ownerReferences": owners} if owners else {}),
        "spec": {"containers": []},
        "status": {"phase": "Running", **status},
    }


def ends(how: str, reason: str = "", message: str = "") -> Callable[[dict[str, Any]], None]:
    """A script: the TrainJob has ended so at the first look."""

    def play(job: dict[str, Any]) -> None:
        job["status"] = {"conditions": [{"type": how, "status": "True", "reason": reason, "message": message,
                                         "lastTransitionTime": "2026-01-01T00:00:00Z"}]}  # fmt: skip

    return play


def check_train_job(job: dict[str, Any]) -> None:
    """Refuses what Kubeflow Trainer's own definition would (pkg/apis/trainer/v1alpha1/trainjob_types.go)."""
    parsed = models.TrainerV1alpha1TrainJob.from_dict(job)
    assert parsed is not None
    # What the models do not know would be dropped on the way there and back.
    assert without_nulls(parsed.to_dict()) == without_nulls(job)
    assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", job["metadata"]["name"])
    for key, value in job["metadata"]["labels"].items():
        assert re.fullmatch(r"([a-z0-9.-]+/)?[A-Za-z0-9._-]{1,63}", key), key
        assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", value), value
    names = [one["name"] for one in job["spec"]["trainer"]["env"]]
    assert len(names) == len(set(names)), "env is a map by name"
    assert not [name for name in names if name.startswith("PET_")], "reserved by the torch plugin"
    patch = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    node = patch["template"]["spec"]["template"]["spec"]["containers"][0]
    assert "env" not in node, "the webhook takes the trainer's environment from spec.trainer only"
    volumes = {one["name"] for one in patch["template"]["spec"]["template"]["spec"]["volumes"]}
    assert {one["name"] for one in node["volumeMounts"]} <= volumes


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def run_workers(
    server: KubernetesServer, folder: Path, lose: Callable[[], bool] = lambda: False
) -> Callable[[dict[str, Any]], None]:
    """Starts a TrainJob's command once for each node, with the variables that the plugin for PyTorch gives it.

    The nodes share neither their temporary folders nor anything else of the disk. To be set as `server.on_create`; the
    TrainJob has ended when all of them have. At the first look at which `lose` says so the last node is lost.
    """

    def on_create(job: dict[str, Any]) -> None:
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = []
        for node in range(trainer["numNodes"]):
            own = folder / f"{name}-{node}"
            own.mkdir(parents=True)
            environment = {
                **os.environ, **{one["name"]: one["value"] for one in trainer["env"] if "value" in one},
                "PET_NNODES": str(trainer["numNodes"]), "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(node), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port),
                "TMPDIR": str(own), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": "",
            }  # fmt: skip
            command = [sys.executable if part == "python" else part for part in trainer["command"]]
            log = open(own / "log", "w")  # noqa: SIM115  # the process writes to it
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
            server.pods.append(pod(f"{name}-node-0-{node}", node, name))

        def play(job: dict[str, Any]) -> None:
            text = (folder / f"{name}-0" / "log").read_text(errors="replace")
            lines = enumerate(text.splitlines())
            server.logs[f"{name}-node-0-0"] = "".join(f"2026-01-01T00:00:00.{i:09}Z {line}\n" for i, line in lines)
            if lose():
                _end(processes[-1])
            codes = [one.poll() for one in processes]
            if any(codes):
                ends("Failed", "JobsFailed", f"exit codes {codes}")(job)
                for one in processes:
                    _end(one)
            elif codes == [0] * len(codes):
                ends("Complete")(job)
            else:
                time.sleep(0.1)

        server.play = play

    return on_create


def _end(node: subprocess.Popen[bytes]) -> None:
    """Kills torchrun with its workers, each in a session of its own, as a container ends."""
    if node.poll() is None:
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(node.pid)], capture_output=True, text=True).stdout
        for pid in [node.pid, *map(int, children.split())]:
            os.kill(pid, signal.SIGKILL)
        node.wait()
