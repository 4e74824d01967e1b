"""Reading a config: a YAML file or a shipped one, with `--set` laid over it."""

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.settings import key_at
from llm2llm.components.shared.base.text import decode_text
from llm2llm.components.shared.base.yaml_text import MOST_BYTES, load_yaml
from llm2llm.components.shared.tasks import load_task
from llm2llm.pipelines.config.config import Config
from llm2llm.pipelines.config.merging import merged
from llm2llm.pipelines.config.paths import inline_prompts, resolve_paths
from llm2llm.pipelines.config.placement import load_placement


def check_config(values: Mapping[str, Any], where: str) -> Config:
    """A typed config from plain values.

    Raises:
        UserError: Names every wrong key, its value and the fix.
    """
    values = dict(values)
    if isinstance(values.get("task"), str | Mapping):
        values["task"] = load_task(values["task"])
    elif "task" in values:
        raise UserError(f"{key_at(where, 'task')}: a shipped task's name or a mapping, got {values['task']!r}")
    if isinstance(values.get("placement"), Mapping):
        values["placement"] = load_placement(values["placement"], key_at(where, "placement"))
    return Config.load(values, where)


def shipped_configs() -> dict[str, Path]:
    """The configs that come with llm2llm, by name."""
    folder = Path(str(resources.files("llm2llm.pipelines"))) / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_config(source: str, overrides: Iterable[str] = (), resolve: bool = False) -> Config:
    """Reads a config.

    Args:
        source: A YAML file, or the name of a shipped config.
        overrides: `section.key=value` each, the value as YAML.
        resolve: Whether to make relative paths in the config absolute, as seen from the config's folder. Off when
            compiling: a path of this machine means nothing in a cluster.

    Raises:
        UserError: No such file, not YAML, or anything that `check_config` finds.
    """
    path = Path(source)
    shipped = shipped_configs()
    if source in shipped and not path.is_file():  # an output folder is often called like its config
        path = shipped[source]
    elif not path.exists():
        raise UserError(
            f"{source}: no such file, and no shipped config ({', '.join(shipped)}){did_you_mean(source, shipped)}"
        )
    values = _with_base(path, source)
    for override in overrides:
        _override(values, override)
    inline_prompts(values, path.resolve().parent)
    if resolve:
        resolve_paths(values, path.resolve().parent)
    try:
        return check_config(values, path.name)
    except UserError as problem:
        raise UserError(_blamed(str(problem), path.name, overrides)) from None


def _blamed(message: str, file: str, overrides: Iterable[str]) -> str:
    """The message, with `--set KEY` in place of `FILE: KEY` where it was set there."""
    for override in overrides:
        key = override.partition("=")[0]
        message = re.sub(rf"^{re.escape(key_at(file, key))}(?=[:.])", f"--set {key}", message, flags=re.MULTILINE)
    return message


def _with_base(path: Path, source: str) -> dict[str, Any]:
    """The values of a config; with `base: NAME`, a shipped config, those that it does not set itself are the base's.

    Sections are merged key by key; lists and other values stand as a whole. A base has no base of its own.
    """
    values = read_mapping(path, source, "a config")
    if (base := values.pop("base", None)) is None:
        return values
    shipped = shipped_configs()
    if not isinstance(base, str) or base not in shipped:
        raise UserError(
            f"{source}: base {base!r} is no shipped config{did_you_mean(str(base), shipped)}; there are "
            f"{', '.join(shipped)}"
        )
    below = read_mapping(shipped[base], base, "a config")
    if "base" in below:
        raise UserError(
            f"{source}: base {base!r} has a base itself, {below['base']!r}; name that, or copy what it sets"
        )
    if "name" not in values:
        raise UserError(f"{source}: name: missing; a config with a base has a name of its own")
    return merged(below, values)


def read_mapping(path: Path, source: str, what: str) -> dict[str, Any]:
    """The keys and values of a YAML file in which no key stands twice.

    Args:
        path: The file.
        source: What the user calls it.
        what: What it holds, for the message, such as `a config`.

    Raises:
        UserError: It cannot be read, is not YAML, or holds something else.
    """
    try:
        values = load_yaml(_unicode(path, source), keys_once=True)
    except OSError as problem:
        raise UserError(f"cannot read {source}: {problem.strerror}") from None
    except yaml.YAMLError as problem:
        raise UserError(f"{source}: not YAML: {_in_a_line(problem)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{source}: {what} is a mapping of keys to values")
    return values


def _unicode(path: Path, source: str) -> str:
    """The text of a config in UTF-8, or in UTF-16, as some editors of Windows write it."""
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(
            f"{source}: more than {MOST_BYTES:,} bytes, and a config is a few thousand; put rows, grammar and prompts "
            "into files of their own"
        )
    try:
        text, codec = decode_text(content)
    except UnicodeDecodeError:
        text, codec = "", ""
    if not codec.startswith("utf"):
        raise UserError(f"{source}: not UTF-8 text; save the file as UTF-8")
    return text


def _in_a_line(problem: yaml.YAMLError) -> str:
    said = " ".join(str(problem).split()).replace('in "<unicode string>", line', "in line")
    return f"{said}; indent with blanks, not with tabs" if "'\\t'" in said else said


def read_override(override: str) -> tuple[str, Any]:
    """Key and value of a `section.key=value`, the value as YAML.

    Raises:
        UserError: It is not of that form, or the value is not YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected section.key=value, such as train.epochs=2")
    try:
        return key, load_yaml(text) if text else ""
    except yaml.YAMLError as problem:
        raise UserError(f"--set {override[:200]}: the value is not YAML: {_in_a_line(problem)}") from None


def _override(values: dict[str, Any], override: str) -> None:
    key, value = read_override(override)
    *sections, last = key.split(".")
    place = values
    for section in sections:
        if section == "task" and isinstance(place.get("task"), str):
            place["task"] = {"name": place["task"]}
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise UserError(f"--set {override}: {section!r} is no section, it is {place!r}")
    place[last] = value
