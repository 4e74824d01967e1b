"""A loopback server that speaks the endpoints of Kubeflow Pipelines' v2beta1 API that we use, for the real kfp.Client.

Every body is checked strictly against `kfp_server_api`'s models (no unknown key, the right types, known enum values),
every uploaded pipeline against the pipeline spec's own protocol buffers, and every answer is made from a model. It has:

- faults: `server.fault("POST", "/runs$", status=503)`, or `drop="before"`, `drop="after"` (the request is carried out
  and its answer lost), or `slow=seconds`; each strikes `times` times;
- runs that play a script, one step whenever somebody looks, with the nodes of a real Workflow (`kfp_workflow`);
  after `frozen_after` steps the states of tasks stand still, as when Argo stores the nodes compressed; the older API
  answers with the Workflow and with pods' logs while `tells_workflow`;
- runs that are terminated as there: CANCELING at once, then, by the script, FAILED with CANCELING in the history;
- schedules with the semantics of Kubeflow's controller: it acts on a tick `lag` seconds late, counts from a schedule's
  last run or its creation, runs only the latest missed tick, and deleting a schedule ends its runs. `server.broken`
  says whenever two schedules of a name were enabled.
"""

import base64
import gzip
import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.support.kfp_workflow import nodes_of, workflow_of
from tests.support.loopback import LoopbackServer

API = "/apis/v2beta1"
Step = tuple[str, Mapping[str, str]]
"""The run's state, and the state of each task."""


class Text(str):
    """An answer that is no JSON."""


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Fault:
    method: str
    path: re.Pattern[str]
    status: int = 0
    drop: str = ""
    slow: float = 0.0
    times: int = 1
    skip: int = 0
    """How many requests it lets pass first."""


@dataclass
class KfpServer:
    """State and settings; see the module."""

    token: str = ""
    multi_user: bool = False
    clock: Callable[[], float] = time.time
    after_request: Callable[[], None] = lambda: None
    tick_seconds: float = 0.0
    """A tick whenever the clock is a multiple of this; 0: never."""
    lag: float = 10.0
    script: list[Step] = field(default_factory=list)
    error: str = ""
    """What a failed run says; in all cases that were seen on a real server: nothing."""
    frozen_after: int = 10**9
    """How many steps of the script the states of tasks follow."""
    tells_workflow: bool = True
    messages: dict[str, str] = field(default_factory=dict)
    """What the nodes of the Workflow say, by task."""
    logs: dict[str, str] = field(default_factory=dict)
    """The logs of pods that fail, by task."""
    cached: tuple[str, ...] = ()
    """The tasks that the cache answers in a version's second run."""
    artifacts: str = ""
    """The server's own pipeline root."""
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """`METHOD path` of all, in order."""
    bodies: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    fired: list[tuple[float, str]] = field(default_factory=list)
    """(tick, id of the schedule) of each run that a schedule started."""
    last_tick: dict[str, float] = field(default_factory=dict)
    url: str = ""

    def fault(self, method: str, path: str, **what: Any) -> None:
        self.faults.append(Fault(method, re.compile(path), **what))

    def start(self) -> "KfpServer":
        state = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer takes 40 ms

            def _any(self) -> None:
                state._handle(self)

            do_GET = do_POST = do_DELETE = do_HEAD = _any

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._lock = threading.RLock()
        self._http = LoopbackServer(Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speaks TLS from here on."""
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = self.url.replace("http://", "https://")

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def enabled(self, name: str = "") -> list[str]:
        return [
            key for key, one in self.recurring.items()
            if one["mode"] == "ENABLE" and name in ("", one["display_name"])
        ]  # fmt: skip

    # What a request meets on its way.

    def _handle(self, http: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(http.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = http.rfile.read(int(http.headers.get("content-length") or 0))
        with self._lock:
            self.requests.append(f"{http.command} {parts.path.removeprefix(API)}")
            self.bodies.append(body.decode("utf-8", "replace"))
            fault = self._strikes(http.command, parts.path)
        if fault and fault.slow:
            time.sleep(fault.slow)
        if fault and fault.drop == "before":
            http.close_connection = True
            return
        kind = "application/json"
        try:
            if self.token and http.headers.get("authorization") != f"Bearer {self.token}":
                sent = http.headers.get("authorization", "")
                raise Refused(401, f"Unauthenticated: the request's identity {sent} cannot be verified")
            if fault and fault.status:
                raise Refused(fault.status, f"a fault: {fault.status}")
            with self._lock:
                self._controller()
                answer = self._route(http.command, parts.path.removeprefix(API), query, body, http.headers)
                self._controller()
                self.after_request()
                self._check_schedules(f"{http.command} {parts.path}")
            status, content = 200, json.dumps(answer).encode()
            if isinstance(answer, Text):
                kind, content = "text/plain", answer.encode()
            if answer is LOGIN_PAGE:
                kind, content = "text/html; charset=utf-8", b"<html>log in</html>"
        except Refused as problem:
            status = problem.status
            content = json.dumps({"error": str(problem), "code": 16, "message": str(problem), "details": []}).encode()
        if fault and fault.drop == "after":
            http.close_connection = True
            return
        http.send_response(status)
        http.send_header("content-type", kind)
        http.send_header("content-length", str(len(content)))
        http.end_headers()
        http.wfile.write(content)

    def _strikes(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.method in (method, "*") and fault.path.search(path) and fault.times > 0:
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _route(self, method: str, path: str, query: dict[str, str], body: bytes, headers: Any) -> Any:
        if (method, path) == ("GET", "/healthz"):
            return shown("V2beta1GetHealthzResponse", {"multi_user": self.multi_user})
        if path.startswith("/apis/v1"):
            return self._older(method, path)
        if method == "POST" and path == "/pipelines/upload_version":
            return self._upload_version(query, body, headers)
        found = re.fullmatch(r"/(experiments|pipelines|runs|recurringruns)(?:/([^/:]+))?(/versions)?(?::(\w+))?", path)
        if not found:
            raise Refused(404, f"no such endpoint {path}")
        kind, key, versions, verb = found.groups()
        if versions:
            assert method == "GET"
            items = [one for one in self.versions.values() if one["pipeline_id"] == key]
            return self._page("V2beta1ListPipelineVersionsResponse", "pipeline_versions", items, query)
        store: dict[str, dict[str, Any]] = getattr(self, "recurring" if kind == "recurringruns" else kind)
        if key is None and method == "GET":
            self._check_namespace(query.get("namespace", ""))
            if "experiment_id" in query:
                items = [one for one in store.values() if one.get("experiment_id") == query["experiment_id"]]
            else:
                items = list(store.values())
            list_of = {
                "experiments": "Experiments",
                "pipelines": "Pipelines",
                "runs": "Runs",
                "recurringruns": "RecurringRuns",
            }
            plural = {"recurringruns": "recurringRuns"}.get(kind, kind)
            return self._page(f"V2beta1List{list_of[kind]}Response", plural, items, query)
        if key is None and method == "POST":
            return self._create(kind, strict_json(_MODELS[kind], body))
        if key not in store:
            raise Refused(404, f"{kind} {key} not found")
        if verb in ("enable", "disable") and kind == "recurringruns" and method == "POST":
            store[key]["mode"] = verb.upper()
            store[key]["status"] = f"{verb.upper()}D"
            return {}
        if verb == "terminate" and kind == "runs" and method == "POST":
            if store[key]["state"] not in ("PENDING", "RUNNING", "PAUSED"):
                raise Refused(400, f"Failed to terminate a run {key}. Row not found")
            store[key]["state"] = "CANCELING"  # the history gets it with the next report of the Workflow
            store[key]["terminated"] = True
            return {}
        if method == "DELETE" and kind == "recurringruns":
            del store[key]
            for run in self.runs.values():
                if run.get("recurring_run_id") == key and run["state"] in ("PENDING", "RUNNING"):
                    run["state"] = "CANCELED"
            return {}
        if method == "GET" and verb is None:
            if kind == "runs":
                self._play(store[key])
            return shown(_MODELS[kind], store[key])
        raise Refused(405, f"{method} {path}")

    def _create(self, kind: str, fields: dict[str, Any]) -> Any:
        now = datetime.fromtimestamp(self.clock(), UTC).isoformat()
        key = str(uuid.uuid4())
        same = [one for one in getattr(self, "recurring" if kind == "recurringruns" else kind).values()
                if one["display_name"] == fields.get("display_name")]  # fmt: skip
        if kind in ("experiments", "pipelines"):
            self._check_namespace(fields.get("namespace", ""))
            if same:
                raise Refused(409, f"Already exist error: {kind} {fields['display_name']}")
            made = {**fields, f"{kind[:-1]}_id": key, "created_at": now}
        else:
            if fields.get("experiment_id") not in self.experiments:
                raise Refused(404, f"experiment {fields.get('experiment_id')} not found")
            reference = fields.get("pipeline_version_reference") or {}
            if reference.get("pipeline_version_id") not in self.versions:
                raise Refused(404, "pipeline version not found")
            spec = self.versions[reference["pipeline_version_id"]]["pipeline_spec"]
            known = spec["root"]["inputDefinitions"]["parameters"]
            for name in (fields.get("runtime_config") or {}).get("parameters") or {}:
                if name not in known:
                    raise Refused(400, f"unknown parameter {name}")
            made = {**fields, "created_at": now}
            if kind == "runs":
                made |= {"run_id": key, "state": "PENDING", "step": 0}
            else:
                cron = fields["trigger"]["cron_schedule"]["cron"].split()
                if len(cron) != 6:
                    raise Refused(400, f"cron expression {cron} has {len(cron)} fields")
                made |= {"recurring_run_id": key, "status": f"{fields['mode']}D"}
                self.last_tick[key] = self.clock()
        getattr(self, "recurring" if kind == "recurringruns" else kind)[key] = made
        return shown(_MODELS[kind], made)

    def _upload_version(self, query: dict[str, str], body: bytes, headers: Any) -> Any:
        assert set(query) <= {"name", "pipelineid", "description", "display_name", "tags"}, query
        if query["pipelineid"] not in self.pipelines:
            raise Refused(404, "pipeline not found")
        if any(one["display_name"] == query["name"] for one in self.versions.values()):
            raise Refused(409, f"Already exist error: version {query['name']}")
        message = BytesParser().parsebytes(b"content-type: " + headers["content-type"].encode() + b"\r\n\r\n" + body)
        payload = message.get_payload()
        assert isinstance(payload, list)
        file = payload[0].get_payload(decode=True)
        assert isinstance(file, bytes)
        documents = list(yaml.safe_load_all(file))
        json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        for platform in documents[1:]:
            json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        key = str(uuid.uuid4())
        made = {
            "pipeline_id": query["pipelineid"], "pipeline_version_id": key, "display_name": query["name"],
            "description": query.get("description"), "pipeline_spec": documents[0], "file": file.decode(),
        }  # fmt: skip
        self.versions[key] = made
        return shown("V2beta1PipelineVersion", made)

    def _page(self, model: str, plural: str, items: list[dict[str, Any]], query: dict[str, str]) -> Any:
        if "filter" in query:
            wanted = json.loads(query["filter"])
            assert set(wanted) == {"predicates"}, wanted
            for predicate in wanted["predicates"]:
                assert predicate["operation"] in kfp_server_api.V2beta1PredicateOperation.allowable_values
                assert set(predicate) == {"operation", "key", "stringValue"}, predicate
                items = [one for one in items if one.get(predicate["key"]) == predicate["stringValue"]]
        size, at = int(query.get("page_size", 20)), int(query.get("page_token") or 0)
        answer: dict[str, Any] = {plural: items[at : at + size], "total_size": len(items)}
        if at + size < len(items):
            answer["next_page_token"] = str(at + size)
        return shown(model, answer)

    def _check_namespace(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise Refused(400, "Namespace should not be empty")

    # What happens by itself.

    def _play(self, run: dict[str, Any]) -> None:
        if not self.script:
            return
        state, tasks = self._step(run)
        run["step"] += 1
        self._report(run, state)
        if run["step"] <= self.frozen_after:
            nodes = [(name, one) for _, name, _, one in nodes_of(tasks, state, self._cached(run))]
            run["run_details"] = {"task_details": [{"display_name": name, "state": one} for name, one in nodes]}
        if state == "FAILED" and self.error:
            run["error"] = {"code": 2, "message": self.error}

    def _step(self, run: dict[str, Any]) -> Step:
        state, tasks = self.script[min(run["step"], len(self.script) - 1)]
        if run.get("terminated"):
            run["stopped"] = run.get("stopped", 0) + 1
            state = "CANCELING" if run["stopped"] == 1 else "FAILED"
            tasks = {name: "FAILED" if one == "RUNNING" else one for name, one in tasks.items()}
        return state, tasks

    def _cached(self, run: dict[str, Any]) -> tuple[str, ...]:
        version = run["pipeline_version_reference"]
        first = next(one for one in self.runs.values() if one["pipeline_version_reference"] == version)
        return () if first is run else self.cached

    def _report(self, run: dict[str, Any], state: str) -> None:
        """What Kubeflow's persistence agent does: a state is added to the history when it is another."""
        run["state"] = state
        history = run.setdefault("state_history", [])
        if not history or history[-1]["state"] != state:
            history.append({"state": state})

    def _workflow(self, run: dict[str, Any]) -> dict[str, Any]:
        state, tasks = self.script[min(max(run["step"] - 1, 0), len(self.script) - 1)] if self.script else ("", {})
        root = (run.get("runtime_config") or {}).get("pipeline_root") or self.artifacts
        name = self.pipelines[run["pipeline_version_reference"]["pipeline_id"]]["display_name"]
        folder = f"{root}/{name}/{run['run_id']}" if root else ""
        compressed = run["step"] > self.frozen_after
        return workflow_of(run["run_id"], tasks, state, folder, self.messages, compressed, self._cached(run))

    def _older(self, method: str, path: str) -> Any:
        """The API of before, as far as it tells what today's does not: a run's Workflow, and the logs of pods."""
        found = re.fullmatch(r"/apis/v1(?:beta1|alpha1)/runs/([^/]+)(?:/nodes/([^/]+)/log)?", path)
        if method != "GET" or not found or not self.tells_workflow or found[1] not in self.runs:
            raise Refused(404, f"no such endpoint {path}")
        run = self.runs[found[1]]
        workflow = self._workflow(run)
        if not found[2]:
            manifest = json.dumps(workflow)
            return {"run": {"id": run["run_id"]}, "pipeline_runtime": {"workflow_manifest": manifest}}
        status = workflow["status"]
        nodes = status.get("nodes") or json.loads(gzip.decompress(base64.b64decode(status["compressedNodes"])))
        for node in nodes.values():
            pod = f"{workflow['metadata']['name']}-{node['templateName']}-{node['id'].rpartition('-')[2]}"
            task = node["name"].split(".")[-2 if node["displayName"].startswith("executor") else -1].partition("(")[0]
            if pod == found[2] and node["type"] == "Pod" and task in self.logs:
                return Text(self.logs[task])
        raise Refused(500, f"Failed to read logs from pod {found[2]}")

    def _controller(self) -> None:
        """Kubeflow's controller: util/cron_schedule.go, util/scheduled_workflow.go."""
        if not self.tick_seconds:
            return
        now = self.clock() - self.lag
        for key, one in self.recurring.items():
            latest = now // self.tick_seconds * self.tick_seconds
            if one["mode"] == "ENABLE" and latest > self.last_tick[key]:
                self.last_tick[key] = latest
                self.fired.append((latest, key))
                run = str(uuid.uuid4())
                self.runs[run] = {
                    "run_id": run, "display_name": run, "experiment_id": one.get("experiment_id"), "step": 0,
                    "state": "SUCCEEDED", "recurring_run_id": key,
                    "created_at": datetime.fromtimestamp(self.clock(), UTC).isoformat(),
                }  # fmt: skip

    def _check_schedules(self, request: str) -> None:
        for name in {one["display_name"] for one in self.recurring.values()}:
            if len(self.enabled(name)) > 1:
                self.broken.append(f"after {request}: {len(self.enabled(name))} of {name} are enabled")


_MODELS = {
    "experiments": "V2beta1Experiment",
    "pipelines": "V2beta1Pipeline",
    "runs": "V2beta1Run",
    "recurringruns": "V2beta1RecurringRun",
}
_ELEMENTS = {
    "experiments": "V2beta1Experiment",
    "pipelines": "V2beta1Pipeline",
    "runs": "V2beta1Run",
    "recurringRuns": "V2beta1RecurringRun",
    "pipeline_versions": "V2beta1PipelineVersion",
}
LOGIN_PAGE: dict[str, Any] = {"login": True}


def strict_json(model: str, body: bytes) -> dict[str, Any]:
    """A request's body, of which every key and value fits the model."""
    fields = json.loads(body)
    check(model, fields, model)
    assert isinstance(fields, dict)
    return fields


def check(kind: str, value: Any, where: str) -> None:
    """Refuses, as a real server with strict decoding would, what is not of a type of `kfp_server_api`."""
    simple = {"str": str, "bool": bool, "int": int, "float": (int, float), "datetime": str}
    if kind == "object":
        return
    if kind in simple:
        if not isinstance(value, simple[kind]):  # types of two kinds
            raise Refused(400, f"{where}: {value!r} is no {kind}")
        return
    if kind.startswith(("list[", "dict(")):
        inner = kind[5:-1].split(", ")[-1]
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            check(inner, one, f"{where}.{key}")
        return
    model = getattr(kfp_server_api, kind)
    if hasattr(model, "allowable_values"):
        if value not in model.allowable_values:
            raise Refused(400, f"{where}: {value!r} is none of {model.allowable_values}")
        return
    if not isinstance(value, dict):
        raise Refused(400, f"{where}: {value!r} is no {kind}")
    types = {json_name: model.openapi_types[name] for name, json_name in model.attribute_map.items()}
    for key, one in value.items():
        if key not in types:
            raise Refused(400, f"{where}: unknown key {key}")
        check(types[key], one, f"{where}.{key}")


def shown(model: str, fields: Mapping[str, Any]) -> Any:
    """An answer: only what the model has."""
    names = set(getattr(kfp_server_api, model).attribute_map.values())
    kept: dict[str, Any] = {}
    for key, value in fields.items():
        if key in names and value is not None:
            element = _ELEMENTS.get(key)
            kept[key] = [shown(element, one) for one in value] if element and isinstance(value, list) else value
    check(model, kept, model)
    return kept
