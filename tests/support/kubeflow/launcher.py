"""KFP's launcher: what a stage's container is given, its run as a process or in pretence, and what it leaves.

Source: KFP 2.17.0, `backend/src/v2/component/launcher_v2.go`. A process runs on this machine with folders in place of
object storage: give the run a `pipeline_root` that is a folder. Left out: images, volumes, modelcars, limits.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm2llm.pipelines.kubeflow.predicted_run import guessed_output
from llm2llm.pipelines.kubeflow.workflow_size import MAX_ARGUMENT
from tests.support.kubeflow.texts import kubelet, launcher

Json = dict[str, Any]


@dataclass(frozen=True)
class StageOutput:
    """What a stage that is only pretended leaves."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Output parameters; what is missing is guessed by its type, a condition's boolean as true."""
    metadata: Mapping[str, Json] = field(default_factory=dict)
    """Metadata of output artifacts by name."""
    failed: str = ""
    """A message, for a stage that exits 1."""


Pretend = Callable[["StageInput"], StageOutput]


@dataclass(frozen=True)
class StageInput:
    """What a stage's container receives, after Argo, kubelet and launcher have rewritten its texts."""

    task: str
    """The task's key in its sub-graph."""
    component: Json
    executor_input: Json
    arguments: list[str]
    """Command and arguments of the stage."""
    execution: int

    @property
    def parameters(self) -> Json:
        """The parameters that it receives, from the `--executor_input` that its process is handed."""
        if "--executor_input" in self.arguments:
            text = self.arguments[self.arguments.index("--executor_input") + 1]
            return dict(json.loads(text).get("inputs", {}).get("parameterValues", {}))
        return dict(self.executor_input.get("inputs", {}).get("parameterValues", {}))


class LaunchError(RuntimeError):
    """The pod of a stage fails before the stage begins."""


def launched(patch: str, task: str, env: Mapping[str, str]) -> StageInput:
    """What the launcher makes of a pod's patch.

    Raises:
        LaunchError: An argument is too long for a process, or a rewritten text broke the JSON it was in.
    """
    container = json.loads(patch)["containers"][0]
    command = [kubelet(one, env) for one in container["command"]]
    arguments = [kubelet(one, env) for one in container["args"]]
    _check_lengths([*command, *arguments])
    options = dict(zip(command[1::2], command[2::2], strict=False))
    try:
        executor_input = json.loads(options["--executor_input"])
        component = json.loads(options["--component_spec"])
        values = executor_input.setdefault("inputs", {}).setdefault("parameterValues", {})
        for name, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
            if "defaultValue" in spec:
                values.setdefault(name, spec["defaultValue"])
        filled = launcher(arguments, executor_input)
        _check_lengths(filled)
        found = StageInput(task, component, executor_input, filled, int(options["--execution_id"]))
        _ = found.parameters
    except json.JSONDecodeError as error:
        raise LaunchError(f"{task}: failed to unmarshal executor input: {error}") from error
    return found


def _check_lengths(arguments: list[str]) -> None:
    longest = max(len(one.encode()) + 1 for one in arguments)
    if longest > MAX_ARGUMENT:
        raise LaunchError(f"exec: argument list too long: an argument has {longest} bytes, of {MAX_ARGUMENT}")


def pretended(stage: StageInput, output: StageOutput, last: Collection[str]) -> tuple[Json, dict[str, Json]]:
    """The parameters and the metadata of artifacts that a pretended stage leaves; `last`: see `last_tasks`."""
    definitions = stage.component.get("outputDefinitions", {}).get("parameters", {})
    parameters = {
        name: output.parameters.get(name, guessed_output(spec.get("parameterType", ""), stage.task in last))
        for name, spec in definitions.items()
    }
    metadata = {name: dict(output.metadata.get(name, {})) for name in stage.executor_input["outputs"]["artifacts"]}
    return parameters, metadata


def run_process(stage: StageInput, env: Mapping[str, str], timeout: float) -> tuple[Json, dict[str, Json], Json]:
    """Runs a stage's command, and reads what it left.

    Returns:
        Its output parameters, the metadata of its artifacts by name, and their URIs by name.

    Raises:
        LaunchError: It exited with another code than 0; the message is the end of what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = json.loads(json.dumps(stage.executor_input))
        outputs = given["outputs"]
        for name, one in outputs.get("parameters", {}).items():
            one["outputFile"] = f"{folder}/parameters/{name}"
        Path(folder, "parameters").mkdir()
        for many in outputs["artifacts"].values():
            Path(many["artifacts"][0]["uri"]).parent.mkdir(parents=True, exist_ok=True)
        arguments = list(stage.arguments)
        if "--executor_input" in arguments:
            # The file names of output parameters are the same for every container, and here all share one machine.
            arguments[arguments.index("--executor_input") + 1] = json.dumps(given)
        done = subprocess.run(
            arguments,
            cwd=folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise LaunchError(f"{stage.task}: exit code {done.returncode}: {done.stdout[-2000:]}")
        said: Json = {}
        if Path(outputs["outputFile"]).is_file():
            said = json.loads(Path(outputs["outputFile"]).read_text(encoding="utf-8"))
        parameters = dict(said.get("parameterValues", {}))
        for name, one in outputs.get("parameters", {}).items():
            if name not in parameters and Path(one["outputFile"]).is_file():
                parameters[name] = Path(one["outputFile"]).read_text(encoding="utf-8")
        metadata, uris = {}, {}
        for name, many in outputs["artifacts"].items():
            written = said.get("artifacts", {}).get(name, {}).get("artifacts", [{}])[0]
            metadata[name] = written.get("metadata", {})
            uris[name] = written.get("uri") or many["artifacts"][0]["uri"]
        return parameters, metadata, uris
