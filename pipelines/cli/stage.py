"""`llm2llm stage NAME`: a command made from a stage's component, so that its flags are the component's inputs."""

import importlib
import inspect
import json
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import docstring_parser
import yaml
from kfp.dsl import Artifact, Model

from llm2llm.components.shared.base.errors import UserError

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

    Every input becomes a flag; artifact inputs take a path, settings and task YAML text or a YAML file. Outputs are
    written to `--output`, metrics and the returned value are printed.
    """
    component = getattr(importlib.import_module(f"llm2llm.components.{name}.component"), name)
    function = component.python_func
    documentation = docstring_parser.parse(function.__doc__ or "")
    described = {parameter.arg_name: parameter.description or "" for parameter in documentation.params}
    inputs, outputs = {}, {}
    for parameter in inspect.signature(function).parameters.values():
        artifact = _artifact(parameter.annotation)
        if artifact is not None and artifact[0] == "output":
            outputs[parameter.name] = artifact[1]
        else:
            inputs[parameter.name] = parameter

    options: list[click.Parameter] = [_option(parameter, described[parameter.name]) for parameter in inputs.values()]
    options.append(
        click.Option(
            ["--output"],
            type=click.Path(path_type=Path),
            required=True,
            help="Folder for what the stage writes: "
            + ", ".join(key + SUFFIX[kind.__name__] for key, kind in outputs.items()),
        )
    )

    def callback(output: Path, **values: Any) -> None:
        arguments = {key: _argument(inputs[key], value) for key, value in values.items()}
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise UserError(f"--output {output}: {problem.strerror}") from None
        written = {
            key: kind(name=key, uri=str((output / (key + SUFFIX[kind.__name__])).absolute()), metadata={})
            for key, kind in outputs.items()
        }
        result = function(**arguments, **written)
        for key in outputs:
            click.echo(f"{key:<20} {written[key].path}")
        if result is not None:
            click.echo(f"{'returned':<20} {json.dumps(result)}")

    summary = documentation.short_description or ""
    return click.Command(name, params=options, callback=callback, help=summary, short_help=summary)


def _artifact(annotation: Any) -> tuple[str, type[Artifact]] | None:
    """("input" or "output", artifact class) of KFP's `Input[...]` and `Output[...]`; None for a plain parameter."""
    metadata = getattr(annotation, "__metadata__", ())
    for mark in metadata:
        if "InputAnnotation" in str(mark) or "OutputAnnotation" in str(mark):
            kind = annotation.__origin__
            if get_origin(kind) is list:
                (kind,) = get_args(kind)
            return ("input" if "InputAnnotation" in str(mark) else "output"), kind
    return None


def _option(parameter: inspect.Parameter, description: str) -> click.Option:
    flag = "--" + parameter.name.replace("_", "-")
    required = parameter.default is inspect.Parameter.empty
    artifact = _artifact(parameter.annotation)
    if artifact is not None:
        many = get_origin(parameter.annotation.__origin__) is list
        return click.Option([flag], type=click.Path(path_type=Path), required=required, multiple=many, help=description)
    if parameter.annotation is dict:
        return click.Option(
            [flag], required=required, default=None if required else "{}", metavar="YAML", help=description
        )
    return click.Option(
        [flag], type=parameter.annotation, required=required, default=None if required else parameter.default,
        show_default=not required and parameter.default != "", help=description,
    )  # fmt: skip


def _argument(parameter: inspect.Parameter, value: Any) -> Any:
    artifact = _artifact(parameter.annotation)
    if artifact is not None:
        if isinstance(value, tuple):
            return [_input(path, artifact[1], parameter.name) for path in value] or None
        return None if value is None else _input(value, artifact[1], parameter.name)
    if parameter.annotation is dict:
        return _mapping(parameter.name, value)
    return value


def _input(path: Path, kind: type[Artifact], name: str) -> Artifact:
    if not path.exists():
        raise UserError(f"--{name.replace('_', '-')} {path}: no such {'folder' if kind is Model else 'file'}")
    return kind(name=name, uri=str(path.absolute()), metadata={})


def _mapping(name: str, text: str) -> dict[str, Any]:
    """A mapping given as YAML text, as a YAML file, or, for a task, as a shipped task's name."""
    flag = f"--{name.replace('_', '-')}"
    try:
        value = yaml.safe_load(Path(text).read_text(encoding="utf-8") if text.endswith((".yaml", ".yml")) else text)
    except OSError as problem:
        raise UserError(f"{flag} {text}: {problem.strerror}") from None
    except yaml.YAMLError as problem:
        raise UserError(f"{flag}: not YAML: {problem}") from None
    if name == "task" and isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict):
        raise UserError(f"{flag}: expected a mapping such as '{{key: value}}', got {text!r}")
    return value
