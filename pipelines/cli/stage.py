"""`llm2llm stage NAME`: a command made from a stage's component, so that its flags are the component's inputs."""

import inspect
import json
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import docstring_parser
import yaml
from kfp.dsl import Artifact
from kfp.dsl.types.type_annotations import InputAnnotation, OutputAnnotation

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.base.yaml_text import load_yaml
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.kubeflow.components import component

FOLDERS = ("splits", "journal", "model")
"""Outputs that are folders."""
SUFFIX = {
    "Dataset": ".parquet",
    "HTML": ".html",
    "Markdown": ".md",
    "Metrics": ".json",
    "ClassificationMetrics": ".json",
    "Artifact": ".json",
    "Model": "",
}


def stage_command(name: str) -> click.Command:
    """The command of one stage.

    Every input becomes a flag; artifact inputs take a path, settings YAML text or a YAML file, such as a whole config.
    Outputs are written to `--output`, metrics and the returned value are printed.
    """
    function = component(name).python_func
    documentation = docstring_parser.parse(function.__doc__ or "")
    described = {parameter.arg_name: parameter.description or "" for parameter in documentation.params}
    inputs, written_to = inputs_and_outputs(function)
    kinds = {key: artifact_of(parameter.annotation) for key, parameter in written_to.items()}
    outputs = {key: key + ("" if key in FOLDERS else SUFFIX[kind[1].__name__]) for key, kind in kinds.items() if kind}

    options: list[click.Parameter] = [_option(parameter, described[parameter.name]) for parameter in inputs.values()]
    options.append(
        click.Option(
            ["--output"],
            type=click.Path(path_type=Path),
            required=True,
            help="Folder for what the stage writes: " + ", ".join(outputs.values()),
        )
    )

    def callback(output: Path, **values: Any) -> None:
        arguments = {key: _argument(name, inputs[key], value) for key, value in values.items()}
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise UserError(f"--output {output}: {problem.strerror}") from None
        written = {}
        for key, file in outputs.items():
            kind = kinds[key]
            assert kind is not None
            written[key] = kind[1](name=key, uri=str((output / file).absolute()), metadata={})
        result = function(**arguments, **written)
        for key in outputs:
            click.echo(f"{key:<20} {written[key].path}")
        if result is not None:
            click.echo(f"{'returned':<20} {json.dumps(result)}")

    summary = documentation.short_description or ""
    return click.Command(name, params=options, callback=callback, help=summary, short_help=summary)


def inputs_and_outputs(function: Any) -> tuple[dict[str, inspect.Parameter], dict[str, inspect.Parameter]]:
    """The parameters of a stage's function by name: what it is given, and the artifacts that it writes."""
    parameters = inspect.signature(function).parameters
    outputs = {key: one for key, one in parameters.items() if (artifact_of(one.annotation) or ("",))[0] == "output"}
    return {key: one for key, one in parameters.items() if key not in outputs}, outputs


def artifact_of(annotation: Any) -> tuple[str, type[Artifact], bool] | None:
    """("input" or "output", artifact class, whether a list) of KFP's `Input[...]`, `Optional[Input[...]]` and
    `Output[...]`; None for a plain parameter."""
    if get_origin(annotation) is not None and type(None) in get_args(annotation):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    for mark in getattr(annotation, "__metadata__", ()):
        if mark in (InputAnnotation, OutputAnnotation) or isinstance(mark, (InputAnnotation, OutputAnnotation)):
            kind = annotation.__origin__
            many = get_origin(kind) is list
            side = "output" if mark is OutputAnnotation or isinstance(mark, OutputAnnotation) else "input"
            return side, get_args(kind)[0] if many else kind, many
    return None


def _option(parameter: inspect.Parameter, description: str) -> click.Option:
    flag = "--" + parameter.name.replace("_", "-")
    required = parameter.default is inspect.Parameter.empty
    artifact = artifact_of(parameter.annotation)
    if artifact is not None:
        return click.Option(
            [flag], type=click.Path(path_type=Path), required=required, multiple=artifact[2], help=description
        )
    if parameter.name == "settings":
        return click.Option(
            [flag],
            required=required,
            metavar="YAML",
            help=f"{description} YAML text or a YAML file; a whole config will do.",
        )
    return click.Option(
        [flag], type=parameter.annotation, required=required, default=None if required else parameter.default,
        show_default=not required and parameter.default != "", help=description,
    )  # fmt: skip


def _argument(stage: str, parameter: inspect.Parameter, value: Any) -> Any:
    if artifact_of(parameter.annotation) is not None:
        if isinstance(value, tuple):
            return [_input(parameter, path) for path in value] or None
        return None if value is None else _input(parameter, value)
    return settings_text(_settings(stage, value)) if parameter.name == "settings" else value


def _input(parameter: inspect.Parameter, path: Path) -> Artifact:
    found = artifact_of(parameter.annotation)
    assert found is not None
    if not path.exists():
        raise UserError(f"--{parameter.name.replace('_', '-')} {path}: no such file or folder")
    return found[1](name=parameter.name, uri=str(path.absolute()), metadata={})


def _settings(stage: str, text: str) -> dict[str, Any]:
    """The stage's settings from YAML: its own sections, or those that it needs of a whole config."""
    is_file = text.endswith((".yaml", ".yml"))
    try:
        value = load_yaml(Path(text).read_text(encoding="utf-8") if is_file else text)
    except OSError as problem:
        raise UserError(f"--settings {text}: {problem.strerror}") from None
    except yaml.YAMLError as problem:
        raise UserError(f"--settings: not YAML: {problem}") from None
    if not isinstance(value, dict):
        raise UserError(f"--settings: expected a mapping such as '{{task: snips}}', got {text!r}")
    if {"name", "data"} <= value.keys():
        from llm2llm.pipelines.config import load_config
        from llm2llm.pipelines.config.stage_settings import stage_values

        return stage_values(load_config(text, resolve=True), stage)
    sections = STAGES[stage].sections
    if unknown := sorted(value.keys() - set(sections)):
        raise UserError(f"--settings: {stage} reads {', '.join(sections)}, and not {unknown[0]}")
    return value
