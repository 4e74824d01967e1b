"""A config as a run in a cluster: compiled, uploaded once, started, followed.

    compiled = compile_upload(config)
    version = upload(cluster, compiled)
    run_id = start(cluster, compiled, version, ...)
    code = follow.follow(cluster, compiled, run_id, ...)

A version is called `<pipeline>-<first 12 digits of the SHA-256 of what is uploaded>`: the same config, code of the
stages' faces and images give the same bytes, which are uploaded once. What runs inside an image is named by the image's
tag or digest, which is part of those bytes.
"""

import hashlib
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.pipelines.config import Config, check_compiled, compiled_settings, from_parameters, to_parameters
from llm2llm.pipelines.config.form import check_texts
from llm2llm.pipelines.kubeflow.client import Cluster, ClusterProblem, equals
from llm2llm.pipelines.kubeflow.compact import END
from llm2llm.pipelines.kubeflow.compile import compile_checked
from llm2llm.pipelines.kubeflow.local_data import refuse_local_data


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
    """All of the run's parameters. Those that are the version's defaults are sent too: Kubeflow's UI compares and shows
    only what a run was given."""
    stages: Mapping[str, str]
    """Key of a task -> what a person calls it, such as `train 3`; in the order in which they first run."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """The same for conditions and loops, such as `iteration 2`."""
    size: str = ""
    """What its largest run comes to, in words."""


def compile_upload(config: Config, parameters: Iterable[str] = ()) -> Compiled:
    """Compiles a config for a cluster.

    Args:
        config: The config.
        parameters: `name=value` each, the value as YAML: run-time parameters that differ from the config.

    Raises:
        UserError: No such parameter, a value that the config would not take, a file of this machine, or what
            `compile_checked` finds.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        checked = compile_checked(config, path)
        text = path.read_text(encoding="utf-8")
    spec = next(yaml.load_all(text, Loader=_LOADER))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Compiled(
        pipeline=config.name,
        version=f"{config.name}-{sha256[:12]}",
        sha256=sha256,
        text=text,
        parameters=_checked_parameters(config, parameters),
        stages=_tasks(spec, groups=False),
        groups=_tasks(spec, groups=True),
        size="; ".join(checked.notes),
    )


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _checked_parameters(config: Config, given: Iterable[str]) -> dict[str, Any]:
    defaults = to_parameters(config)
    values: dict[str, Any] = {}
    for one in given:
        name, equals_sign, text = one.partition("=")
        if not equals_sign:
            raise UserError(f"--parameter {one}: expected name=value, such as student_epochs=2")
        if name not in defaults:
            raise UserError(
                f"--parameter {name}: no such parameter{did_you_mean(name, defaults)}; there are "
                f"{', '.join(defaults)}. What is no parameter is compiled in: change it with --set"
            )
        try:
            values[name] = text if isinstance(defaults[name], str) else yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--parameter {one}: the value is not YAML") from None
    check_texts({**defaults, **values})
    changed = from_parameters(config.name, {**defaults, **values}, config.images)
    refuse_local_data(changed.model_copy(update={"placement": config.placement}))
    try:
        check_compiled(changed, compiled_settings(config))
    except UserError as problem:
        raise UserError(f"--parameter {problem} by changing it with --set") from None
    return {**defaults, **values}


def _tasks(spec: Mapping[str, Any], groups: bool) -> dict[str, str]:
    """The tasks that do something, or the groups around them, in the order in which they can first run."""
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
            if groups == ("dag" in component):
                if key.endswith(END):  # all iterations share it, and the last counts
                    found.pop(key, None)
                found[key] = tasks[key]["taskInfo"]["name"]
            if "dag" in component:
                walk(component)

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


def dry_run(compiled: Compiled, cluster_flags: Mapping[str, str]) -> str:
    """What would be uploaded and started, in words."""
    parameters = [f"  {name}: {value!r}" for name, value in compiled.parameters.items()]
    given = [f"{name:<11}{value}" for name, value in cluster_flags.items() if value]
    return "\n".join(
        [
            f"pipeline   {compiled.pipeline}",
            f"version    {compiled.version}",
            f"sha256     {compiled.sha256}",
            f"size       {len(compiled.text.encode()) / 1000:.0f} KB, {len(compiled.stages)} stages; {compiled.size}",
            *given,
            "parameters",
            *parameters,
            "nothing was sent",
        ]
    )
