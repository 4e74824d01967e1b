"""A config as a run in a cluster: compiled, uploaded once, started, followed.

    compiled = compile_upload(config)
    version = upload(cluster, compiled)
    run_id = start(cluster, compiled, version, ...)
    code = follow(cluster, compiled, run_id, ...)

A version is called `<pipeline>-<first 12 digits of the SHA-256 of what is uploaded>`: the same config, code of the
stages' faces and images give the same bytes, which are uploaded once. What runs inside an image is named by the image's
tag or digest, which is part of those bytes.
"""

import hashlib
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import yaml

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.pipelines.config import Config, check_compiled, compiled_settings, from_parameters, to_parameters
from llm2llm.pipelines.inspect.tables import summary_table
from llm2llm.pipelines.kubeflow.client import Cluster, ClusterProblem, equals
from llm2llm.pipelines.kubeflow.compile import compile_config

EXIT_SUCCEEDED, EXIT_FAILED, EXIT_TERMINATED, EXIT_TIMEOUT, EXIT_INTERRUPTED = 0, 1, 3, 124, 130

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
POLL_SECONDS = 5.0
OUT_OF_TOUCH_SECONDS = 600.0
"""How long a server that no longer answers is asked again while a run is followed."""


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline, as it is uploaded."""

    pipeline: str
    """Its name."""
    version: str
    """Its version's name."""
    sha256: str
    text: str
    """YAML."""
    parameters: Mapping[str, Any]
    """The parameters that this run is given; all others have the config's values, which are the defaults."""
    stages: Mapping[str, str]
    """Key of a task -> what a person calls it, such as `train 3`; in the order in which they first run."""


def compile_upload(config: Config, parameters: Iterable[str] = ()) -> Compiled:
    """Compiles a config for a cluster.

    Args:
        config: The config.
        parameters: `name=value` each, the value as YAML: run-time parameters that differ from the config.

    Raises:
        UserError: No such parameter, a value that the config would not take, or what `compile_config` finds.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_config(config, path)
        text = path.read_text(encoding="utf-8")
    spec = next(yaml.load_all(text, Loader=_LOADER))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Compiled(
        pipeline=config.name,
        version=f"{config.name}-{sha256[:12]}",
        sha256=sha256,
        text=text,
        parameters=_checked_parameters(config, parameters),
        stages=_stages(spec),
    )


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _checked_parameters(config: Config, given: Iterable[str]) -> dict[str, Any]:
    defaults = to_parameters(config)
    values: dict[str, Any] = {}
    for one in given:
        name, equals_sign, text = one.partition("=")
        if not equals_sign:
            raise UserError(f"--parameter {one}: expected name=value, such as epochs=2")
        if name not in defaults:
            raise UserError(
                f"--parameter {name}: no such parameter{did_you_mean(name, defaults)}; there are "
                f"{', '.join(defaults)}. What is no parameter is compiled in: change it with --set"
            )
        try:
            values[name] = text if isinstance(defaults[name], str) else yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--parameter {one}: the value is not YAML") from None
    changed = from_parameters(config.name, {**defaults, **values}, config.images)
    try:
        check_compiled(changed, compiled_settings(config))
    except UserError as problem:
        raise UserError(f"--parameter {problem} by changing it with --set") from None
    return values


def _stages(spec: Mapping[str, Any]) -> dict[str, str]:
    """The tasks that do something, in the order in which they can first run."""
    found: dict[str, str] = {}

    def walk(graph: Mapping[str, Any]) -> None:
        tasks = graph["dag"]["tasks"]
        waits_for = {key: set(task.get("dependentTasks", [])) for key, task in tasks.items()}
        while waits_for:
            # Of those that may run at once, stages come before loops.
            _, key = min(
                ("dag" in spec["components"][tasks[key]["componentRef"]["name"]], key)
                for key, others in waits_for.items()
                if not others & waits_for.keys()
            )
            del waits_for[key]
            component = spec["components"][tasks[key]["componentRef"]["name"]]
            if "dag" in component:
                walk(component)
            else:
                found[key] = tasks[key]["taskInfo"]["name"]

    walk(spec["root"])
    return found


def upload(cluster: Cluster, compiled: Compiled) -> tuple[str, str, bool]:
    """Makes sure that the pipeline and its version are there.

    Returns:
        The pipeline's id, the version's id, and whether the version was there already.
    """
    import kfp_server_api

    service = cluster.client.pipelines

    def find_pipeline() -> Any:
        found = cluster.call(
            service.pipeline_service_list_pipelines, filter=equals("display_name", compiled.pipeline), **cluster.scope()
        )
        return next(iter(found.pipelines or []), None)

    body = kfp_server_api.V2beta1Pipeline(
        name=compiled.pipeline, display_name=compiled.pipeline, description="Made by llm2llm.", **cluster.scope()
    )
    pipeline = find_pipeline() or cluster.create(
        lambda: cluster.call(service.pipeline_service_create_pipeline, body, tries=1), find_pipeline
    )

    def find_version() -> Any:
        found = cluster.call(
            service.pipeline_service_list_pipeline_versions,
            pipeline.pipeline_id,
            filter=equals("display_name", compiled.version),
        )
        return next(iter(found.pipeline_versions or []), None)

    version = find_version()
    was_there = version is not None
    if not was_there:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{compiled.version}.yaml"
            file.write_text(compiled.text, encoding="utf-8")
            version = cluster.create(
                lambda: cluster.call(
                    cluster.client.pipeline_uploads.upload_pipeline_version,
                    str(file),
                    name=compiled.version,
                    pipelineid=pipeline.pipeline_id,
                    description=f"sha256 {compiled.sha256}",
                    tries=1,
                ),
                find_version,
            )
    return str(pipeline.pipeline_id), str(version.pipeline_version_id), was_there


def start(
    cluster: Cluster,
    compiled: Compiled,
    uploaded: tuple[str, str, bool],
    experiment_id: str,
    name: str = "",
    service_account: str = "",
    pipeline_root: str = "",
) -> str:
    """Starts one run, even where the answer to the request is lost.

    Args:
        uploaded: What `upload` returned.
        experiment_id: Where the run is listed.
        name: What it is called; empty: by version and time.
        service_account: The Kubernetes service account of its pods; empty: the server's default.
        pipeline_root: Where its artifacts go; empty: the server's default.

    Returns:
        The run's id.

    Raises:
        ClusterProblem: The server refused, or is gone; in the latter case it names the run that may have been started.
    """
    import kfp_server_api

    service = cluster.client.runs
    name = name or f"{compiled.version} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    mark = f"llm2llm submit {uuid.uuid4()}"

    def find() -> Any:
        found = cluster.call(
            service.run_service_list_runs,
            experiment_id=experiment_id,
            filter=equals("display_name", name),
            page_size=100,
            sort_by="created_at desc",
            **cluster.scope(),
        )
        return next((run for run in found.runs or [] if run.description == mark), None)

    body = kfp_server_api.V2beta1Run(
        experiment_id=experiment_id,
        display_name=name,
        description=mark,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=uploaded[0], pipeline_version_id=uploaded[1]
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(
            parameters=dict(compiled.parameters), pipeline_root=pipeline_root or None
        ),
        service_account=service_account or None,
    )
    try:
        run = cluster.create(lambda: cluster.call(service.run_service_create_run, body, tries=1), find)
    except ClusterProblem as problem:
        if not problem.passing:
            raise
        raise ClusterProblem(
            f"{problem}; whether the run {name!r} was started is not known: look for it at {cluster.ui} before you "
            "submit it again, which would start another",
            problem.status,
        ) from None
    return str(run.run_id)


def follow(
    cluster: Cluster,
    compiled: Compiled,
    run_id: str,
    timeout: float = 0,
    pipeline_root: str = "",
    stream: TextIO | None = None,
) -> int:
    """Shows a run's stages until it ends.

    Args:
        timeout: Seconds after which it is no longer followed; 0: never. The run goes on.
        pipeline_root: Where its artifacts go, if that can be read from here: the table is printed from there.
        stream: Where to write; default: standard output.

    Returns:
        The exit code: 0 it succeeded; 1 it failed; 3 it was terminated; 124 `timeout` has passed; 130 interrupted.

    Raises:
        ClusterProblem: The server has not answered for ten minutes, or no longer knows who we are. The run goes on.
    """
    shown = Shown(compiled, stream or sys.stdout)
    link = cluster.run_link(run_id)
    started = heard = time.monotonic()
    try:
        while True:
            try:
                run = cluster.call(cluster.client.runs.run_service_get_run, run_id)
                heard = time.monotonic()
            except ClusterProblem as problem:
                # 500 is what Kubeflow answers while its database restarts; a look at the run may be asked for again.
                passing = problem.passing or problem.status == 500
                if not passing or time.monotonic() - heard > OUT_OF_TOUCH_SECONDS:
                    raise ClusterProblem(f"{problem}; the run goes on: {link}", problem.status) from None
                run = None
            if run is not None:
                shown.update(run)
                if run.state in ENDED:
                    return _ended(run, compiled, shown, link, pipeline_root)
            if timeout and time.monotonic() - started > timeout:
                shown.line(f"not followed any longer, after {timeout:.0f} s; the run goes on: {link}")
                return EXIT_TIMEOUT
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        shown.line(f"not followed any longer; the run goes on: {link}")
        return EXIT_INTERRUPTED


class Shown:
    """What has been said about a run: a line for each stage that starts or ends, and on a terminal one that changes."""

    def __init__(self, compiled: Compiled, stream: TextIO) -> None:
        self._names = {**{name: name for name in compiled.stages.values()}, **compiled.stages}
        self._width = max(map(len, self._names.values()))
        self._states: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._started = time.monotonic()
        self._stream = stream
        self._terminal = stream.isatty()
        self.run_state = ""

    def line(self, text: str) -> None:
        self._stream.write(("\r\x1b[K" if self._terminal else "") + text + "\n")
        self._stream.flush()

    def update(self, run: Any) -> None:
        """Says what is new in what the server tells of a run."""
        if run.state != self.run_state:
            self.run_state = run.state or ""
            if run.state == "CANCELING":
                self._say("the run", "is being terminated")
        now = stage_states(run, self._names)
        for name in (name for name in dict.fromkeys(self._names.values()) if name in now):
            state, before = now[name], self._states.get(name, "")
            if state == before:
                continue
            self._states[name] = state
            if state == "RUNNING":
                self._since[name] = time.monotonic()
                self._say(name, "runs again" if before == "FAILED" else "runs")
            elif state in ("SUCCEEDED", "FAILED", "CANCELED") or (state == "SKIPPED" and before):
                took = f" after {_duration(time.monotonic() - self._since[name])}" if name in self._since else ""
                self._say(
                    name,
                    {"SUCCEEDED": "done", "SKIPPED": "skipped", "CANCELED": "terminated"}.get(state, "failed") + took,
                )
        if self._terminal and run.state not in ENDED:
            running = [name for name, state in self._states.items() if state == "RUNNING"] or [
                "waiting for a stage to start"
            ]
            self._stream.write(f"\r\x1b[K{_duration(time.monotonic() - self._started)}  {', '.join(running)}")
            self._stream.flush()

    @property
    def failed(self) -> list[str]:
        return [name for name, state in self._states.items() if state == "FAILED"]

    def _say(self, name: str, what: str) -> None:
        self.line(f"{datetime.now():%H:%M:%S}  {name:<{self._width}}  {what}")


def stage_states(run: Any, names: Mapping[str, str]) -> dict[str, str]:
    """The state of each stage that a run has come to.

    The server lists every node of the workflow: drivers, loops, the pods inside a stage. A stage's own node is called
    by its task's key, by newer servers by its name. The items of a loop share a name; they are failed, running or done
    together.

    Args:
        run: A V2beta1Run.
        names: Task key or name -> name.
    """
    together: dict[str, set[str]] = {}
    for task in (run.run_details.task_details if run.run_details else None) or []:
        if task.display_name in names and task.state:
            together.setdefault(names[task.display_name], set()).add(task.state)
    order = ("RUNNING", "FAILED", "CANCELED", "PENDING", "PAUSED", "SUCCEEDED", "SKIPPED")
    return {
        name: min(states, key=lambda one: order.index(one) if one in order else len(order))
        for name, states in together.items()
    }


def _ended(run: Any, compiled: Compiled, shown: Shown, link: str, pipeline_root: str) -> int:
    terminated = run.state == "CANCELED" or any(one.state == "CANCELING" for one in run.state_history or [])
    if run.state == "FAILED" and not terminated:
        said = " ".join(str(run.error.message).split()) if run.error and run.error.message else ""
        stages = ", ".join(shown.failed)
        what = f"failed in {stages}" if stages else "failed"
        shown.line(f"the run {what}{f': {said[:500]}' if said else ''}; the logs are at {link}")
        return EXIT_FAILED
    if run.state != "SUCCEEDED" and terminated:
        shown.line(f"the run was terminated: {link}")
        return EXIT_TERMINATED
    root = pipeline_root or (run.runtime_config.pipeline_root if run.runtime_config else "") or ""
    table = _table(root, compiled.pipeline, run.run_id) if root else None
    shown.line("")
    if table:
        shown.line(table)
    else:
        # Kubeflow's API tells neither artifacts' addresses nor their content (kubeflow/pipelines#9858).
        why = f"no report can be read under {root}" if root else "give --pipeline-root to have it printed here"
        shown.line(f"the table is in the last report of the run ({why})")
    shown.line(f"the run succeeded: {link}")
    return EXIT_SUCCEEDED


def _table(pipeline_root: str, pipeline: str, run_id: str) -> str | None:
    """The table of a run's latest report; None where none can be read.

    Kubeflow writes an output to `<root>/<pipeline>/<run id>/<task>/<execution>/<output>`.
    """
    from llm2llm.components.shared.storage import join, list_uris, read_bytes

    best: dict[str, Any] | None = None
    try:
        for uri in list_uris(join(pipeline_root, pipeline, run_id)):
            task, _, output = uri.split("/")[-3:]
            if output == "summary" and task.startswith("report"):
                summary = json.loads(read_bytes(uri))
                if best is None or len(summary["iterations"]) > len(best["iterations"]):
                    best = summary
        return summary_table(best) if best else None
    except (UserError, ModuleNotFoundError, ValueError, KeyError, TypeError):
        return None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def dry_run(compiled: Compiled, cluster_flags: Mapping[str, str]) -> str:
    """What would be uploaded and started, in words."""
    parameters = [f"  {name}: {value!r}" for name, value in compiled.parameters.items()] or ["  those of the config"]
    given = [f"{name:<11}{value}" for name, value in cluster_flags.items() if value]
    return "\n".join(
        [
            f"pipeline   {compiled.pipeline}",
            f"version    {compiled.version}",
            f"sha256     {compiled.sha256}",
            f"size       {len(compiled.text.encode()) / 1000:.0f} KB, {len(compiled.stages)} stages",
            *given,
            "parameters",
            *parameters,
            "nothing was sent",
        ]
    )
