"""Merges equal components of a compiled pipeline: an unrolled loop repeats them in each iteration."""

import re
from typing import Any

import yaml

EXECUTE = ["python3", "-m", "llm2llm.pipelines.kubeflow.execute", "kfp.dsl.executor_main"]
"""In place of each function's source, which the image has: it would be in every pod's description, six times."""


MOST_LOOPS = 12
"""A pipeline of so many loops has each on its own: it costs 4 KB of the Workflow, a shared one costs a pod in a row."""


def compact(documents: list[dict[str, Any]], for_cluster: bool = True) -> list[dict[str, Any]]:
    """A compiled pipeline without repetition: an unrolled loop says everything once for each iteration.

    Large workflows hit limits of Argo and etcd (kubeflow/pipelines#10968, #4170). The pipeline does the same: executors
    that are equal, and run in the same place, become one; the functions' source stays in the image; components lose the
    descriptions and defaults of their inputs, which are all given here (those of the pipeline's own parameters, which
    the UI's form shows, stay); sub-graphs lose inputs that nothing in them uses, and most of the others' names.

    Args:
        documents: The pipeline and, when anything is said about where stages run, the platform's part of it.
        for_cluster: Whether inputs of sub-graphs lose the names of the tasks that make them too. KFP's local runner
            finds them by these, and takes a condition on one that it cannot find for false.
    """
    spec, *platforms = documents
    executors = spec["deploymentSpec"]["executors"]
    places: dict[str, Any] = {}
    for platform in platforms:
        places = platform["platforms"]["kubernetes"].get("deploymentSpec", {}).get("executors", {})
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
    _shorten(spec["root"], components, for_cluster)
    return documents


def drop_type_versions(spec: dict[str, Any]) -> None:
    """Removes the version 0.0.1 of every artifact's type, which no part of Kubeflow's backend reads; the artifacts that
    it adds itself, the stages' logs, have none either. It would be in each artifact's description, six times."""
    for component in [spec["root"], *spec["components"].values()]:
        for side in ("inputDefinitions", "outputDefinitions"):
            for definition in component.get(side, {}).get("artifacts", {}).values():
                definition["artifactType"].pop("schemaVersion", None)


def merge_components(spec: dict[str, Any]) -> None:
    """Makes every task refer to the first of equal components, and removes the others: stages, then loops of them where
    there are many.

    Kubeflow's compiler visits a component once, however many tasks refer to it (backend/src/v2/compiler/visitor.go).
    """
    _merge(spec, [name for name, value in spec["components"].items() if "dag" not in value])
    graphs = [spec["root"], *spec["components"].values()]
    tasks = [task for graph in graphs for task in graph.get("dag", {}).get("tasks", {}).values()]
    _merge(spec, [task["componentRef"]["name"] for task in tasks if is_end(task)])
    loops = [name for name in spec["components"] if name.startswith("comp-for-loop")]
    if len(loops) > MOST_LOOPS:
        _merge(spec, loops)
        _wrap_loops(spec)


def _wrap_loops(spec: dict[str, Any]) -> None:
    """Puts a loop that several tasks share into a sub-graph of its own, which they share in its place.

    Kubeflow's compiler makes a template for a loop's items where a task refers to the loop, called after the loop's
    component, and refuses the second of that name: `template already exists` (argocompiler/dag.go, iterationItemTask).
    A sub-graph it compiles once.
    """
    graphs = [spec["root"], *spec["components"].values()]
    uses: dict[str, list[dict[str, Any]]] = {}
    for graph in graphs:
        for task in graph.get("dag", {}).get("tasks", {}).values():
            if "parameterIterator" in task:
                uses.setdefault(task["componentRef"]["name"], []).append(task)
    for name, tasks in uses.items():
        if len(tasks) > 1:
            wrapper = name.replace("comp-for-loop", "comp-loop")
            spec["components"][wrapper] = _wrapper(tasks[0], spec["components"][name])
            for task in tasks:
                task["componentRef"] = {"name": wrapper}
                del task["parameterIterator"]


def _wrapper(loop: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    """A sub-graph that holds nothing but a loop, takes what it takes and gives what it gives."""
    name = re.sub(r" \d+$", "", loop["taskInfo"]["name"])
    kept = {key: value for key, value in loop.items() if key != "dependentTasks"}
    task: dict[str, Any] = {**kept, "taskInfo": {"name": name}, "inputs": {}}
    wrapper: dict[str, Any] = {"dag": {"tasks": {name: task}}, "inputDefinitions": {}}
    for kind, reference in _KINDS:
        if given := loop["inputs"].get(kind, {}):
            task["inputs"][kind] = {key: {reference: key} for key in given}
            definitions = inner["inputDefinitions"][kind]
            wrapper["inputDefinitions"][kind] = {key: dict(definitions[key]) for key in given}
    outputs = inner["outputDefinitions"]["artifacts"]
    wrapper["dag"]["outputs"] = {
        "artifacts": {
            key: {"artifactSelectors": [{"outputArtifactKey": key, "producerSubtask": name}]} for key in outputs
        }
    }
    wrapper["outputDefinitions"] = {"artifacts": {key: dict(value) for key, value in outputs.items()}}
    return wrapper


def _merge(spec: dict[str, Any], names: list[str]) -> None:
    root, components = spec["root"], spec["components"]
    first_of: dict[str, str] = {}
    same_as = {name: first_of.setdefault(yaml.safe_dump(components[name]), name) for name in names}
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
            iterator["items"]["inputParameter"] for iterator in iterators(task) if "inputParameter" in iterator["items"]
        }
    return used


def iterators(task: dict[str, Any]) -> list[dict[str, Any]]:
    return [task[key] for key in ("parameterIterator", "artifactIterator") if key in task]


def _shorten(
    component: dict[str, Any], components: dict[str, Any], for_cluster: bool, prefix: str = "pipelinechannel--"
) -> None:
    """Calls sub-graphs' inputs, but for the items of loops, as their makers call them: `journal` in place of
    `pipelinechannel--filter-errors-3-journal`; where that would be two, or not for a cluster, with the task."""
    for task in component["dag"]["tasks"].values():
        inner = components[task["componentRef"]["name"]]
        if "dag" not in inner:
            continue
        items = {iterator["itemInput"] for iterator in iterators(task)}
        for kind, reference in _KINDS:
            names = inner.get("inputDefinitions", {}).get(kind, {})
            given = [name for name in names if name.startswith(prefix) and name not in items]
            outputs = [name.removeprefix(prefix).rpartition("-")[2] for name in given]
            new = {
                name: output if for_cluster and outputs.count(output) == 1 else name.removeprefix(prefix)
                for name, output in zip(given, outputs, strict=True)
            }
            for place in (names, task.get("inputs", {}).get(kind, {})):
                for name in [name for name in place if name in new]:
                    place[new[name]] = place.pop(name)
            for inner_task in inner["dag"]["tasks"].values():
                for value in inner_task.get("inputs", {}).get(kind, {}).values():
                    if value.get(reference) in new:
                        value[reference] = new[value[reference]]
            if "condition" in task.get("triggerPolicy", {}):
                for name, short in new.items():
                    policy = task["triggerPolicy"]
                    policy["condition"] = policy["condition"].replace(f"'{name}'", f"'{short}'")
        _shorten(inner, components, for_cluster, prefix)


def share_bodies(spec: dict[str, Any]) -> None:
    """Makes the loops, and the ends, of all iterations equal, so that `merge_components` keeps one of each.

    The names of what is in them, and of what goes in and out, say which iteration it is of; that becomes a parameter
    `iteration`, and inputs and outputs are called as their tasks call them. The tasks of an end are called `report-end`
    and the like.
    """
    for component in [spec["root"], *spec["components"].values()]:
        tasks = component.get("dag", {}).get("tasks", {})
        for name, caller in tasks.items():
            inner = spec["components"][caller["componentRef"]["name"]]
            if "parameterIterator" in caller:
                outputs = _as_its_tasks_call_it(caller, inner)
                for other in tasks.values():
                    for value in other.get("inputs", {}).get("artifacts", {}).values():
                        made = value.get("taskOutputArtifact", {})
                        if made.get("producerTask") == name:
                            made["outputArtifactKey"] = outputs[made["outputArtifactKey"]]
            elif is_end(caller):
                _as_its_tasks_call_it(caller, inner, END)
    # Those at ends have been counted, too; a number says which iteration it is.
    for component in [spec["root"], *spec["components"].values()]:
        tasks = component.get("dag", {}).get("tasks", {})
        for name in [name for name in tasks if re.fullmatch(r"report(-\d+)?", name)]:
            number = int(tasks[name]["inputs"]["parameters"]["iteration"]["runtimeValue"]["constant"])
            tasks[f"report-{number + 1}" if number else "report"] = tasks.pop(name)


END = "-end"
"""What follows a stage's name in the key of a task that runs once the loop has ended."""


def is_end(task: dict[str, Any]) -> bool:
    """Whether a sub-graph is what follows where the loop does not go on."""
    return str(task.get("triggerPolicy", {}).get("condition", "")).endswith(" == false")


def _as_its_tasks_call_it(caller: dict[str, Any], inner: dict[str, Any], suffix: str = "") -> dict[str, str]:
    """Renames what a sub-graph takes, holds and gives; returns the new names of its outputs."""
    stages = {name: re.sub(r"-\d+$", "", name) for name in inner["dag"]["tasks"]}
    keys = {name: stage + suffix for name, stage in stages.items()}
    for kind, reference in _KINDS:
        definitions = inner["inputDefinitions"].setdefault(kind, {})
        new: dict[str, str] = {}
        for task in inner["dag"]["tasks"].values():
            for called, value in task.get("inputs", {}).get(kind, {}).items():
                if called == "iteration" and "runtimeValue" in value:
                    caller["inputs"].setdefault(kind, {})[called] = dict(value)
                    definitions[called] = {"parameterType": "NUMBER_INTEGER"}
                    value.clear()
                    value[reference] = called
                if reference in value and called not in new.values():
                    new.setdefault(value[reference], called)
        for task in inner["dag"]["tasks"].values():
            for value in task.get("inputs", {}).get(kind, {}).values():
                if reference in value:
                    value[reference] = new[value[reference]]
        for place in (definitions, caller["inputs"].get(kind, {})):
            renamed = {new.get(key, key): value for key, value in place.items()}
            place.clear()
            place.update(renamed)
        for iterator in iterators(caller) if kind == "parameters" else ():
            iterator["itemInput"] = new[iterator["itemInput"]]
    for name, task in inner["dag"]["tasks"].items():
        task["taskInfo"]["name"] = stages[name].replace("-", "_")
        if "dependentTasks" in task:
            task["dependentTasks"] = [keys[one] for one in task["dependentTasks"]]
        for value in task["inputs"].get("artifacts", {}).values():
            made = value.get("taskOutputArtifact", {})
            if "producerTask" in made:
                made["producerTask"] = keys[made["producerTask"]]
    inner["dag"]["tasks"] = {keys[name]: task for name, task in inner["dag"]["tasks"].items()}
    outputs: dict[str, str] = {}
    selected = inner["dag"].get("outputs", {}).get("artifacts", {})
    for key, selectors in list(selected.items()):
        (selector,) = selectors.pop("artifactSelectors")
        outputs[key] = selector["outputArtifactKey"]
        made = {**selector, "producerSubtask": keys[selector["producerSubtask"]]}
        selected[outputs[key]] = {"artifactSelectors": [made]}
        inner["outputDefinitions"]["artifacts"][outputs[key]] = inner["outputDefinitions"]["artifacts"].pop(key)
        del selected[key]
    return outputs
