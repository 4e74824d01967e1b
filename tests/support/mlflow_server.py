"""A loopback stand-in for an MLflow tracking server: the part of its REST API 2.0 that a run is logged by.

Each request's body is held against the fields, types and limits that the API documents; what does not fit is answered
400 with INVALID_PARAMETER_VALUE, as MLflow does. A param keeps its first value: another is refused. A metric with the
same key, value, time and step is one row, as in MLflow's SQL store. Artifacts go through the server, as with
`mlflow server --serve-artifacts`. Left out: everything else, and authentication but for a record of the headers.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from jsonschema import Draft202012Validator

from tests.support.loopback import LoopbackServer

_TEXT, _NUMBER, _WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}


def _object(required: list[str], **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _list(of: Mapping[str, Any], most: int) -> dict[str, Any]:
    return {"type": "array", "items": dict(of), "maxItems": most}


_KEY = {"type": "string", "pattern": r"^[\w\-. /]{1,250}$"}
_TAG = _object(["key", "value"], key=_KEY, value={"type": "string", "maxLength": 5000})
SCHEMAS = {
    "experiments/create": _object(["name"], name=_TEXT),
    "runs/search": _object(["experiment_ids"], experiment_ids=_list(_TEXT, 100), filter=_TEXT, max_results=_WHOLE),
    "runs/create": _object(
        ["experiment_id"], experiment_id=_TEXT, start_time=_WHOLE, run_name=_TEXT, tags=_list(_TAG, 100)
    ),
    "runs/log-batch": _object(
        ["run_id"],
        run_id=_TEXT,
        params=_list(_object(["key", "value"], key=_KEY, value={"type": "string", "maxLength": 500}), 100),
        metrics=_list(
            _object(["key", "value", "timestamp"], key=_KEY, value=_NUMBER, timestamp=_WHOLE, step=_WHOLE), 1000
        ),
        tags=_list(_TAG, 100),
    ),
    "runs/update": _object(
        ["run_id"], run_id=_TEXT, status={"enum": ["RUNNING", "FINISHED", "FAILED", "KILLED"]}, end_time=_WHOLE
    ),
}


class MlflowServer:
    """`runs` has each run by its id: info, params, metrics, tags, and files by path. `broken` are the numbers of
    requests that are answered 503; `headers` those of the last request."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.refused: list[str] = []
        self.broken: set[int] = set()
        self.headers: dict[str, str] = {}
        self.scheme = "mlflow-artifacts"
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET")

            def do_POST(self) -> None:
                self._answer("POST")

            def do_PUT(self) -> None:
                self._answer("PUT")

            def _answer(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                parts = urlsplit(self.path)
                server.requests.append(f"{method} {parts.path}")
                server.headers = {key.lower(): value for key, value in self.headers.items()}
                if len(server.requests) in server.broken:
                    status, said = 503, {"message": "busy"}
                else:
                    status, said = server.answer(method, unquote(parts.path), parse_qs(parts.query), body)
                data = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = LoopbackServer(Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON."""
        if method == "PUT":
            found = re.fullmatch(r"/api/2.0/mlflow-artifacts/artifacts/\d+/(\w+)/artifacts/(.+)", path)
            if not found or found[1] not in self.runs:
                return self._refuse(f"no such place: {path}")
            self.runs[found[1]]["files"][found[2]] = body
            return 200, {}
        name = path.removeprefix("/api/2.0/mlflow/")
        if name == "experiments/get-by-name" and method == "GET":
            known = self.experiments.get(query["experiment_name"][0])
            if known is None:
                return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
            return 200, {"experiment": {"experiment_id": known, "lifecycle_stage": "active"}}
        if name not in SCHEMAS or method != "POST":
            return self._refuse(f"no such endpoint: {method} {path}")
        values = json.loads(body)
        if problems := list(Draft202012Validator(SCHEMAS[name]).iter_errors(values)):
            return self._refuse(f"{name}: {problems[0].message[:200]}")
        answers = {
            "experiments/create": self._create_experiment,
            "runs/search": self._search,
            "runs/create": self._create_run,
            "runs/log-batch": self._log_batch,
            "runs/update": self._update,
        }
        return answers[name](values)

    def _refuse(self, message: str) -> tuple[int, dict[str, Any]]:
        self.refused.append(message)
        return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": message}

    def _create_experiment(self, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        number = str(len(self.experiments) + 1)
        self.experiments[values["name"]] = number
        return 200, {"experiment_id": number}

    def _search(self, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked = re.fullmatch(r"tags\.`([^`]+)` = '([^']*)'", values["filter"])
        if not asked:
            return self._refuse(f"filter: {values['filter']}")
        found = [
            run
            for run in self.runs.values()
            if run["info"]["experiment_id"] in values["experiment_ids"] and run["tags"].get(asked[1]) == asked[2]
        ]
        return 200, {"runs": [self._shown(run) for run in found]} if found else {}

    def _create_run(self, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = f"run{len(self.runs) + 1}"
        place = f"{self.scheme}:/{values['experiment_id']}/{run}/artifacts"
        info = {"run_id": run, "experiment_id": values["experiment_id"], "status": "RUNNING", "artifact_uri": place,
                "start_time": values["start_time"]}  # fmt: skip
        tags = {one["key"]: one["value"] for one in values["tags"]}
        self.runs[run] = {"info": info, "tags": tags, "params": {}, "metrics": set(), "files": {}}
        return 200, {"run": self._shown(self.runs[run])}

    def _log_batch(self, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs[values["run_id"]]
        for one in values.get("params", []):
            if run["params"].setdefault(one["key"], one["value"]) != one["value"]:
                return self._refuse(f"changing param values is not allowed: {one['key']}")
        run["metrics"] |= {
            (one["key"], one["value"], one["timestamp"], one["step"]) for one in values.get("metrics", [])
        }
        run["tags"] |= {one["key"]: one["value"] for one in values.get("tags", [])}
        return 200, {}

    def _update(self, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.runs[values["run_id"]]["info"] |= {"status": values["status"]}
        return 200, {}

    @staticmethod
    def _shown(run: Mapping[str, Any]) -> dict[str, Any]:
        tags = [{"key": key, "value": value} for key, value in run["tags"].items()]
        return {"info": dict(run["info"]), "data": {"tags": tags}}


@pytest.fixture
def tracking(monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    """A tracking server whose address is in the environment."""
    server = MlflowServer()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.stop()
    assert server.refused == [], "every request is as the API wants it"
