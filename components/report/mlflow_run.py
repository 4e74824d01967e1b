"""A finished run as one run of an MLflow tracking server: params, metrics of each iteration, report and model.

    POST api/2.0/mlflow/experiments/get-by-name, create      the experiment, made if it is not there
    POST api/2.0/mlflow/runs/search, create                  found by the tag `llm2llm.run`, so that a retry writes the
                                                             same run again; its metrics have the run's own start as
                                                             their time, and are then the same rows to the server
    POST api/2.0/mlflow/runs/log-batch                       params, metrics by iteration, tags
    PUT  api/2.0/mlflow-artifacts/artifacts/PATH             report, summary, weights, where the server stores artifacts
    POST api/2.0/mlflow/runs/update                          finished; last, so that a run that is not has been cut off

MLflow's public REST API (mlflow.org/docs, "REST API", version 2.0), spoken by the standard library: the package is not
needed. The server and its credentials are in the environment, where MLflow's own client looks: MLFLOW_TRACKING_URI, and
MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. A server that is away fails no run.
"""

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from llm2llm.components.report.inputs import metric_figures
from llm2llm.components.report.mlflow_address import SERVER, usable
from llm2llm.components.report.settings import ReportSettings
from llm2llm.components.report.verdict import verdict
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import run_id
from llm2llm.components.shared.registry.versions import registry_uri, version_uri
from llm2llm.components.shared.storage import download_folder

RUN_TAG, DONE_TAG = "llm2llm.run", "llm2llm.logged"
TRIES = 3
SECONDS = 60.0
MOST_PARAMS, MOST_METRICS, MOST_TAGS = 100, 1000, 100
"""Of one request, by the API."""
LONGEST_PARAM, LONGEST_TAG, LONGEST_KEY = 500, 5000, 250
"""Characters; newer servers take longer params."""


class NotLogged(Exception):
    """Why the server has not taken it; the message holds no secret."""


def log_run(
    experiment: str,
    run: str,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    figures: Mapping[str, float],
    files: Mapping[str, Path],
    model: Path | None = None,
) -> str:
    """Logs a run, or logs it again; returns a line for the log, which says so where the server has not taken it.

    Args:
        experiment: Its name.
        run: The run's id: the same one is the same run.
        config: The run's settings; each is a param.
        summary: As `summarise` makes it.
        figures: What is known of the run as a whole, as `metric_figures` gives it.
        files: What is uploaded, by its name there.
        model: The delivered student's folder, uploaded as `model/`; None: it is not.
    """
    try:
        server = Server(os.environ.get(SERVER, ""))
        found = server.run_of(server.experiment(experiment), run, str(config.get("name") or "llm2llm"))
        info, tags = found["info"], {one["key"]: one["value"] for one in found.get("data", {}).get("tags", [])}
        if tags.get(DONE_TAG) == "true" and info.get("status") == "FINISHED":
            return f"mlflow: run {info['run_id']} has been logged before"
        _log_values(server, info, config, summary, figures)
        uploads = {**files, **({f"model/{name}": path for name, path in _files(model)} if model else {})}
        stored = _upload(server, info, uploads)
        server.post("runs/log-batch", {"run_id": info["run_id"], "tags": [{"key": DONE_TAG, "value": "true"}]})
        server.post("runs/update", {"run_id": info["run_id"], "status": "FINISHED", "end_time": _now()})
    except NotLogged as problem:
        return f"mlflow: not logged: {problem}"
    what = f"{stored} files" if stored else "no files, as the server keeps no artifacts itself (--serve-artifacts)"
    return f"mlflow: logged as run {info['run_id']} of experiment {experiment}, with {what}"


def log_finished(
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    files: Mapping[str, str],
    promotion: Mapping[str, Any] | None,
) -> None:
    """Logs the run that stage `report` is of, where its config asks for it; the student is the one in the registry.

    Args:
        config: The run's settings.
        summary: As `summarise` makes it, of the last iteration.
        files: Paths of what is uploaded, by the name there.
        promotion: What `promote` decided; None without a registry.
    """
    settings = ReportSettings.model_validate(config.get("report") or {})
    if not settings.mlflow_experiment:
        return
    with TemporaryDirectory(prefix="llm2llm-mlflow-") as folder:
        model = None
        registry = (config.get("promote") or {}).get("registry", "")
        try:
            run = run_id("report")
            if settings.mlflow_model and promotion and promotion["outcome"] == "promoted":
                model = Path(folder) / "model"
                download_folder(version_uri(registry_uri(registry), promotion["candidate"]["version"]), model)
        except UserError as problem:
            print(f"mlflow: not logged: {problem}", flush=True)
            return
        paths = {name: Path(path) for name, path in files.items()}
        said = log_run(settings.mlflow_experiment, run, config, summary, metric_figures(dict(summary)), paths, model)
        print(said, flush=True)


def check_server(experiment: str) -> None:
    """Refuses a run that could not be logged.

    Raises:
        UserError: The address of the server is not in the environment.
    """
    if experiment and not usable(os.environ.get(SERVER, "")):
        raise UserError(
            f"report.mlflow_experiment: {experiment!r} needs the address of a tracking server, http:// or https://, in "
            f"the environment variable {SERVER}; set it, or remove the key"
        )


class Server:
    """A tracking server.

    Raises:
        NotLogged: Its address is none.
    """

    def __init__(self, address: str) -> None:
        if not usable(address):
            raise NotLogged(f"the environment variable {SERVER} holds no address that starts with http:// or https://")
        self._address = address.strip().rstrip("/")
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._headers = {"user-agent": "llm2llm"}
        if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            self._headers["authorization"] = f"Bearer {token}"
        elif name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
            pair = f"{name}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
            self._headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode("ascii")

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made if it is not there."""
        path = "experiments/get-by-name?" + urlencode({"experiment_name": name})
        try:
            found = self._ask("GET", f"api/2.0/mlflow/{path}")["experiment"]
        except _Refused as refused:
            if refused.code != "RESOURCE_DOES_NOT_EXIST":
                raise
            try:
                return str(self.post("experiments/create", {"name": name})["experiment_id"])
            except _Refused as other:
                if other.code != "RESOURCE_ALREADY_EXISTS":  # another run was faster
                    raise
            found = self._ask("GET", f"api/2.0/mlflow/{path}")["experiment"]
        if found.get("lifecycle_stage") == "deleted":
            raise NotLogged(f"experiment {name} has been deleted there; restore it, or name another")
        return str(found["experiment_id"])

    def run_of(self, experiment: str, run: str, name: str) -> dict[str, Any]:
        """The run with this id of ours, which is made if it is not there."""
        quoted = run.replace("'", "")
        asked = {"experiment_ids": [experiment], "filter": f"tags.`{RUN_TAG}` = '{quoted}'", "max_results": 1}
        if found := self.post("runs/search", asked).get("runs"):
            return dict(found[0])
        tags = {RUN_TAG: quoted, "mlflow.runName": name, "mlflow.source.name": "llm2llm"}
        made = self.post(
            "runs/create",
            {"experiment_id": experiment, "start_time": _now(), "run_name": name,
             "tags": [{"key": key, "value": value} for key, value in tags.items()]},
        )  # fmt: skip
        return dict(made["run"])

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the server answers to a request of its REST API."""
        return self._ask("POST", f"api/2.0/mlflow/{path}", json.dumps(body).encode())

    def put_file(self, path: str, file: Path) -> None:
        """Stores a file through the server."""
        self._ask("PUT", f"api/2.0/mlflow-artifacts/artifacts/{quote(path)}", file)

    def _ask(self, method: str, path: str, body: bytes | Path | None = None) -> dict[str, Any]:
        problem = ""
        for number in range(TRIES):
            if number:
                time.sleep(float(number))
            with ExitStack() as opened:
                headers = dict(self._headers)
                data: Any = body
                if isinstance(body, Path):
                    headers |= {"content-type": "application/octet-stream", "content-length": str(body.stat().st_size)}
                    data = opened.enter_context(open(body, "rb"))
                elif body is not None:
                    headers["content-type"] = "application/json"
                request = urllib.request.Request(f"{self._address}/{path}", data, headers, method=method)  # noqa: S310
                try:
                    with self._opener.open(request, timeout=SECONDS) as answer:
                        return _json(answer.read())
                except urllib.error.HTTPError as error:
                    said = _json(error.read(20_000))
                    error.close()
                    problem = f"the server answered {error.code} to {method} {path.split('?')[0]}" + (
                        f": {' '.join(str(said['message']).split())[:300]}" if said.get("message") else ""
                    )
                    if error.code < 500 and error.code != 429:
                        raise _Refused(problem, str(said.get("error_code", ""))) from None
                except (OSError, http.client.HTTPException) as error:
                    reason = getattr(error, "reason", error)
                    problem = f"no answer from the server: {type(reason).__name__}"
        raise NotLogged(problem)


class _Refused(NotLogged):
    """An answer that says no, with the API's error code."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would hand the credentials to somebody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _now() -> int:
    return int(time.time() * 1000)


def _log_values(
    server: Server,
    info: Mapping[str, Any],
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    figures: Mapping[str, float],
) -> None:
    params = [{"key": key, "value": value} for key, value in params_of(config).items()]
    if summary.get("tuning"):
        chosen = summary["tuning"]["chosen"]
        params += [{"key": f"tuned.{key}", "value": str(value)} for key, value in sorted(chosen.items())]
    metrics = [
        {"key": key, "value": value, "timestamp": int(info["start_time"]), "step": step}
        for key, value, step in metrics_of(summary, figures)
    ]
    told = verdict(summary)
    note = " ".join([f"{told.headline}.", *told.sentences])[:LONGEST_TAG]
    tags = [{"key": "mlflow.note.content", "value": note}]
    if summary.get("promotion"):
        tags.append({"key": "llm2llm.promotion", "value": str(summary["promotion"]["outcome"])})
    for kind, rows, most in (("params", params, MOST_PARAMS), ("metrics", metrics, MOST_METRICS),
                             ("tags", tags, MOST_TAGS)):  # fmt: skip
        for start in range(0, len(rows), most):
            server.post("runs/log-batch", {"run_id": info["run_id"], kind: rows[start : start + most]})


def params_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The leaves of a config by their dotted keys, such as `train.learning_rate`, as texts; long ones are cut."""
    found: dict[str, str] = {}

    def walk(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in sorted(value.items()):
                walk(f"{key}.{name}" if key else str(name), inner)
            return
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        name = "".join(one if one.isalnum() or one in "_-. /" else "_" for one in key)[:LONGEST_KEY]
        found[name] = text if len(text) <= LONGEST_PARAM else text[: LONGEST_PARAM - 1] + "…"

    walk("", {key: value for key, value in config.items() if key not in ("lineage", "images")})
    return found


def metrics_of(summary: Mapping[str, Any], figures: Mapping[str, float]) -> Iterator[tuple[str, float, int]]:
    """(name, value, iteration): scores with their intervals, rows and errors of each; then those of the whole run."""
    for one in summary["iterations"]:
        step = int(one["iteration"])
        yield "training_rows", float(one["training_rows"]), step
        if one["errors"] is not None:
            yield "errors", float(one["errors"]), step
        for split, score in one["accuracy"].items():
            for name, key in (("accuracy", "value"), ("accuracy_low", "low"), ("accuracy_high", "high"),
                              ("macro_f1", "macro_f1"), ("balanced_accuracy", "balanced_accuracy"),
                              ("calibration_error", "calibration_error")):  # fmt: skip
                if score.get(key) is not None:
                    yield f"{split}_{name}", float(score[key]), step
            decides = score.get("decides")
            if decides and decides["name"] not in ("macro_f1", "balanced_accuracy"):
                yield f"{split}_{decides['name']}", float(decides["value"]), step
    last = int(summary["iterations"][-1]["iteration"])
    for name, value in figures.items():
        # Names of an iteration's own figures stay theirs.
        yield f"run_{name}" if name in ("training_rows", "errors") else name, float(value), last


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def _upload(server: Server, info: Mapping[str, Any], files: Mapping[str, Path]) -> int:
    """Stores files with the run; 0 where the server hands clients on to a storage of its own."""
    place = urlsplit(str(info.get("artifact_uri", "")))
    if place.scheme != "mlflow-artifacts":
        return 0
    for name, path in files.items():
        server.put_file(f"{place.path.strip('/')}/{name}", path)
    return len(files)
