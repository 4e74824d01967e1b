"""From a config to a pipeline file that Kubeflow takes."""

import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import yaml

from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config import Config, to_parameters
from llm2llm.pipelines.config.data_versions import data_versions
from llm2llm.pipelines.config.stage_settings import stage_settings
from llm2llm.pipelines.kubeflow.spec_checks import refuse_repeated_artifacts


def compile_config(config: Config, output: Path, for_cluster: bool = True) -> None:
    """Writes the compiled pipeline of a config, whole or not at all; its parameters default to the config's values.

    The same config gives the same bytes.

    Args:
        config: The config.
        output: The file to write.
        for_cluster: Rather than for a run on this machine. There equal components are one; KFP's local runner names the
            folders of outputs by component, so `train 1` would overwrite what `train 0` left. And there some stages
            are never answered from Kubeflow's cache, see `_ask_again`. A run on this machine has copies of the files,
            whose names change with them, and its settings compiled in.

    Raises:
        UserError: The output cannot be written, or has no YAML suffix; a task would get one artifact under two names.
    """
    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"{output}: a compiled pipeline is YAML; give a name that ends in .yaml")
    # Importing KFP and the stages' faces takes half a second; a bad config should not wait for it.
    from kfp import compiler

    from llm2llm.pipelines.kubeflow.pipeline import build_pipeline

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draft = Path(folder) / "pipeline.yaml"
        settings = None if for_cluster else stage_settings(config, data_versions(dict(config.data)))
        pipeline = build_pipeline(config, settings)
        compiler.Compiler().compile(pipeline, str(draft), pipeline_parameters=to_parameters(config))
        text = draft.read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # three times as fast, where there is one
    documents = compact(list(yaml.load_all(text, Loader=loader)))
    refuse_repeated_artifacts(documents[0])
    if for_cluster:
        merge_components(documents[0])
        _ask_again(documents[0])
    # Not the compiler's own comments, in which the order of keys changes from one time to the next.
    header = f"# PIPELINE DEFINITION\n# Name: {config.name}\n"
    style: dict[str, Any] = {"default_flow_style": None, "sort_keys": True, "width": 100_000, "allow_unicode": True}
    _put_in_lines(*documents)
    write_text(output, header + yaml.dump_all(documents, Dumper=_Dumper, **style))


def _ask_again(spec: dict[str, Any]) -> None:
    """Switches off the cache for the stages whose answer depends on more than their inputs."""
    never = "|".join(name.replace("_", "-") for name, stage in STAGES.items() if not stage.cached)
    for component in [spec["root"], *spec["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if re.fullmatch(rf"({never})(-\d+)?", name):
                task["cachingOptions"] = {}


EXECUTE = ["python3", "-m", "llm2llm.pipelines.kubeflow.execute", "kfp.dsl.executor_main"]
"""In place of each function's source, which the image has: it would be in every pod's description, six times."""


class _Line(dict[str, Any]):
    """A mapping that is written in one line: a fifth of the file was indentation."""


class _Dumper(yaml.SafeDumper):
    """Writes `_Line` as `{...}`."""


_Dumper.add_representer(
    _Line, lambda dumper, line: dumper.represent_mapping("tag:yaml.org,2002:map", line, flow_style=True)
)


def _put_in_lines(spec: dict[str, Any], *platforms: dict[str, Any]) -> None:
    """Each task, what a component takes and gives, and where an executor runs, in a line."""
    for platform in platforms:
        places = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        places |= {name: _Line(place) for name, place in places.items()}
    for component in [spec["root"], *spec["components"].values()]:
        tasks = component.get("dag", {}).get("tasks", {})
        tasks |= {name: _Line(task) for name, task in tasks.items()}
        if component is not spec["root"]:  # the form's parameters have descriptions
            component |= {side: _Line(component[side]) for side in component if side.endswith("Definitions")}


def compact(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A compiled pipeline without repetition: an unrolled loop says everything once for each iteration.

    Large workflows hit limits of Argo and etcd (kubeflow/pipelines#10968, #4170). The pipeline does the same: executors
    that are equal, and run in the same place, become one; the functions' source stays in the image; components lose the
    descriptions and defaults of their inputs, which are all given here (those of the pipeline's own parameters, which
    the UI's form shows, stay); sub-graphs lose inputs that nothing in them uses, and the compiler's prefix of the
    others' names.

    Args:
        documents: The pipeline and, when anything is said about where stages run, the platform's part of it.
    """
    spec, *platforms = documents
    executors = spec["deploymentSpec"]["executors"]
    places: dict[str, Any] = {}
    for platform in platforms:
        places = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    components = spec["components"]
    for executor in executors.values():
        executor["container"]["command"] = EXECUTE
    first_of: dict[str, str] = {}
    same_as = {
        label: first_of.setdefault(yaml.safe_dump([executor, places.get(label)]), label)
        for label, executor in executors.items()
    }
    for label, first in same_as.items():
        if label != first:
            del executors[label]
            places.pop(label, None)
    for component in components.values():
        if "executorLabel" in component:
            component["executorLabel"] = same_as[component["executorLabel"]]
        for side in ("inputDefinitions", "outputDefinitions"):
            for group in component.get(side, {}).values():
                for definition in group.values():
                    definition.pop("description", None)
    _prune(spec["root"], components)
    _shorten(spec["root"], components)
    return documents


def merge_components(spec: dict[str, Any]) -> None:
    """Makes every task refer to the first of equal components, and removes the others.

    Kubeflow's compiler visits a component once, however many tasks refer to it (backend/src/v2/compiler/visitor.go).
    """
    root, components = spec["root"], spec["components"]
    leaves = {name: yaml.safe_dump(value) for name, value in components.items() if "dag" not in value}
    first_of: dict[str, str] = {}
    same_as = {name: first_of.setdefault(text, name) for name, text in leaves.items()}
    for component in [root, *components.values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            reference = task["componentRef"]
            reference["name"] = same_as.get(reference["name"], reference["name"])
    for name, first in same_as.items():
        if name != first:
            del components[name]


_KINDS = (("parameters", "componentInputParameter"), ("artifacts", "componentInputArtifact"))


def _prune(component: dict[str, Any], components: dict[str, Any]) -> None:
    """Removes what tasks pass to sub-graphs that do not use it, defaults of inputs that are given, and inputs that are
    not."""
    for task in component["dag"]["tasks"].values():
        inner = components[task["componentRef"]["name"]]
        given = task.get("inputs", {})
        if "dag" in inner:
            _prune(inner, components)
            used = _used(inner)
            condition = task.get("triggerPolicy", {}).get("condition", "")
            for kind, _ in _KINDS:
                definitions = inner.get("inputDefinitions", {}).get(kind, {})
                for name in [name for name in definitions if name not in used and f"'{name}'" not in condition]:
                    del definitions[name]
                    given.get(kind, {}).pop(name, None)
        else:
            for kind, _ in _KINDS:
                definitions = inner.get("inputDefinitions", {}).get(kind, {})
                for name in list(definitions):
                    if name in given.get(kind, {}):
                        definitions[name].pop("defaultValue", None)
                        definitions[name].pop("isOptional", None)
                    elif definitions[name].get("isOptional"):  # the function's own default will do
                        del definitions[name]


def _used(component: dict[str, Any]) -> set[str]:
    """The names of a sub-graph's inputs that its tasks refer to."""
    used = set()
    for task in component["dag"]["tasks"].values():
        for kind, reference in _KINDS:
            used |= {value[reference] for value in task.get("inputs", {}).get(kind, {}).values() if reference in value}
        used |= {
            iterator["items"]["inputParameter"]
            for iterator in _iterators(task)
            if "inputParameter" in iterator["items"]
        }
    return used


def _iterators(task: dict[str, Any]) -> list[dict[str, Any]]:
    return [task[key] for key in ("parameterIterator", "artifactIterator") if key in task]


def _shorten(component: dict[str, Any], components: dict[str, Any], prefix: str = "pipelinechannel--") -> None:
    """Drops the compiler's prefix from names of sub-graphs' inputs, but for those that conditions and loops use."""
    for task in component["dag"]["tasks"].values():
        inner = components[task["componentRef"]["name"]]
        if "dag" not in inner:
            continue
        fixed = task.get("triggerPolicy", {}).get("condition", "") + "".join(
            f"'{iterator['itemInput']}'" for iterator in _iterators(task)
        )
        for kind, reference in _KINDS:
            names = inner.get("inputDefinitions", {}).get(kind, {})
            new = {n: n.removeprefix(prefix) for n in names if n.startswith(prefix) and f"'{n}'" not in fixed}
            for place in (names, task.get("inputs", {}).get(kind, {})):
                for name in [name for name in place if name in new]:
                    place[new[name]] = place.pop(name)
            for inner_task in inner["dag"]["tasks"].values():
                for value in inner_task.get("inputs", {}).get(kind, {}).values():
                    if value.get(reference) in new:
                        value[reference] = new[value[reference]]
        _shorten(inner, components, prefix)
