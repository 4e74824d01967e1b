"""From a config to a pipeline file that Kubeflow takes."""

import ast
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import yaml

from llm2llm.components.problems import UserError
from llm2llm.components.whole import write_text
from llm2llm.pipelines.config import Config, to_parameters


def compile_config(config: Config, output: Path) -> None:
    """Writes the compiled pipeline of a config, whole or not at all; its parameters default to the config's values.

    Raises:
        UserError: The output cannot be written, or has no YAML suffix.
    """
    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"{output}: a compiled pipeline is YAML; give a name that ends in .yaml")
    # Importing KFP and the stages' faces takes most of a second; a bad config should not wait for it.
    from kfp import compiler

    from llm2llm.pipelines.pipeline import build_pipeline

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draft = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(
            build_pipeline(config), str(draft), pipeline_parameters=to_parameters(config)
        )
        text = draft.read_text(encoding="utf-8")
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    documents = [compact(document) for document in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))]
    write_text(output, header + yaml.safe_dump_all(documents, sort_keys=True, width=120, allow_unicode=True))


def compact(spec: dict[str, Any]) -> dict[str, Any]:
    """A compiled pipeline without repetition: an unrolled loop says everything once for each iteration.

    Large workflows hit limits of Argo and etcd (kubeflow/pipelines#10968, #4170). Executors that are equal become one,
    docstrings leave the functions' source, and the components' inputs lose their descriptions, which stand in the
    stages' faces; those of the pipeline's own parameters, which the UI's form shows, stay.
    """
    executors = spec.get("deploymentSpec", {}).get("executors")
    if not executors:
        return spec
    for executor in executors.values():
        command = executor.get("container", {}).get("command", [])
        command[:] = [_without_docstrings(part) if "\ndef " in part else part for part in command]
    first_of: dict[str, str] = {}
    same_as = {label: first_of.setdefault(yaml.safe_dump(executor), label) for label, executor in executors.items()}
    for label, first in same_as.items():
        if label != first:
            del executors[label]
    for component in spec.get("components", {}).values():
        if "executorLabel" in component:
            component["executorLabel"] = same_as[component["executorLabel"]]
        for side in ("inputDefinitions", "outputDefinitions"):
            for group in component.get(side, {}).values():
                for definition in group.values():
                    definition.pop("description", None)
    return spec


def _without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    lines = source.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None and len(node.body) > 1:
            docstring = node.body[0]
            for number in range(docstring.lineno - 1, docstring.end_lineno or docstring.lineno):
                lines[number] = ""
    return re.sub(r"\n{3,}", "\n\n", "".join(lines))
