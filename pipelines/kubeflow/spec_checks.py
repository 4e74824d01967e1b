"""Checks of a compiled pipeline that Kubeflow's own compiler does not make.

The metadata store has a unique key over artifact, execution and event type, and the driver writes one INPUT event for
each input name. A task that gets one artifact under two names therefore never starts; the message that a user sees is
`no execution found for type="system.ContainerExecution", name=""`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from llm2llm.components.shared.base.errors import UserError

Producer = tuple[str, ...]
"""The path of tasks from the root to the one that makes an artifact, and what the artifact is called there."""


def refuse_repeated_artifacts(spec: Mapping[str, Any]) -> None:
    """Holds each task of a compiled pipeline, at any depth, to one name for one artifact.

    Args:
        spec: The pipeline, the first document of a compiled file.

    Raises:
        UserError: A task gets the same output of the same task under two names. Names all three.
    """
    for path, inputs in artifact_inputs(spec):
        names: dict[Producer, list[str]] = defaultdict(list)
        for name, producers in inputs.items():
            for producer in producers:
                names[producer].append(name)
        for producer, same in sorted(names.items()):
            if len(same) > 1:
                *maker, output = producer
                raise UserError(
                    f"{' / '.join(path)}: the inputs {', '.join(sorted(same))} are all output {output!r} of "
                    f"{' / '.join(maker)}; Kubeflow's metadata store takes an artifact under one name only, so no run "
                    "of this pipeline could start the task"
                )


def artifact_inputs(spec: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, list[Producer]]]]:
    """Every task with what makes its input artifacts, sub-graphs before the tasks in them.

    Args:
        spec: The pipeline.

    Yields:
        (path of the task, its producers by input name); an input has several producers where it is a list, or where
        conditions decide which of them there is.
    """
    yield from _inputs_of_dag(spec, spec["root"], (), {})


def _inputs_of_dag(
    spec: Mapping[str, Any], component: Mapping[str, Any], path: tuple[str, ...], given: Mapping[str, list[Producer]]
) -> Iterator[tuple[tuple[str, ...], dict[str, list[Producer]]]]:
    tasks = component["dag"]["tasks"]
    for name, task in tasks.items():
        inputs = {
            key: _producers(spec, tasks, path, given, value)
            for key, value in task.get("inputs", {}).get("artifacts", {}).items()
        }
        yield (*path, name), inputs
        inner = spec["components"][task["componentRef"]["name"]]
        if "dag" in inner:
            yield from _inputs_of_dag(spec, inner, (*path, name), inputs)


def _producers(
    spec: Mapping[str, Any],
    tasks: Mapping[str, Any],
    path: tuple[str, ...],
    given: Mapping[str, list[Producer]],
    value: Mapping[str, Any],
) -> list[Producer]:
    if "componentInputArtifact" in value:
        # The pipeline's own inputs have no producer among its tasks.
        return given.get(value["componentInputArtifact"], [(*path, value["componentInputArtifact"])])
    output = value["taskOutputArtifact"]
    return _outputs(spec, tasks, path, output["producerTask"], output["outputArtifactKey"])


def _outputs(
    spec: Mapping[str, Any], tasks: Mapping[str, Any], path: tuple[str, ...], task: str, key: str
) -> list[Producer]:
    """An output of a task; of a sub-graph, what its own tasks have made of it."""
    component = spec["components"][tasks[task]["componentRef"]["name"]]
    if "dag" not in component:
        return [(*path, task, key)]
    selectors = component["dag"]["outputs"]["artifacts"][key]["artifactSelectors"]
    return [
        producer
        for selector in selectors
        for producer in _outputs(
            spec,
            component["dag"]["tasks"],
            (*path, task),
            selector["producerSubtask"],
            selector["outputArtifactKey"],
        )
    ]
