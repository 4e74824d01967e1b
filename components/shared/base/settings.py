"""Typed settings: unknown keys and contradictions are refused with the key, the value and the fix."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticKnownError, core_schema

from llm2llm.components.shared.base.errors import UserError, did_you_mean

_TAG = re.compile(r"function-\w+|\[key\]|(?:str|int|float|bool)|\w+\[.*\]")
"""What pydantic puts into a path that is no key: the member of a union, a validator, the key of a mapping itself."""


class Settings(BaseModel):
    """Base of every settings class; a subclass documents each key in the docstring under it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """`batch_size: true` would be 1."""
        field = cls.model_fields[info.field_name or ""].annotation
        kinds = {field, *get_args(field)}
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("expected a number, not a truth value")
        return value

    @classmethod
    def load(cls, values: Mapping[str, Any], where: str, **inputs: Any) -> Self:
        """Checks `values` against this class.

        Args:
            values: Keys and values as a user wrote them.
            where: What to call them in an error message, such as `train` or a file's name.
            inputs: Keys that come as inputs of their own; they may not stand in `values` as well.

        Raises:
            UserError: Names every wrong key with its value, and the nearest known key for an unknown one.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"{where}: expected keys and values, got {_shown(values)}")
        if twice := sorted(inputs.keys() & values.keys()):
            raise UserError(
                f"{key_at(where, twice[0])}: given twice, as an input ({inputs[twice[0]]!r}) and in the settings "
                f"({values[twice[0]]!r}); remove it from the settings"
            )
        values = {**values, **inputs}
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError("\n".join(_lines(cls, error, where))) from None


RandomSeed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What NumPy and PyTorch alike take for a seed."""


class StageSettings(Settings):
    """Base of what a stage is handed: the sections of the config that `STAGES` names for it, under their own keys."""

    def named_sources(self) -> dict[str, str]:
        """Files, folders and names outside the run that the stage reads, by the name that its record has for them."""
        return {}


@dataclass(frozen=True)
class _OneOf:
    """What `one_of` annotates a key with: a check, and the names for the key's JSON schema."""

    tables: tuple[Mapping[str, Any], ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._named, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": self._names()}

    def _names(self) -> list[str]:
        return [name for table in self.tables for name in table]

    def _named(self, value: Any) -> Any:
        if value not in self._names():
            *others, last = map(repr, self._names())
            raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
        return value


def one_of(*tables: Mapping[str, Any]) -> _OneOf:
    """For a key whose value names an entry of a table: `teacher: Annotated[str, one_of(BACKENDS)]`.

    The tables are looked into when a value is checked. Any other value is refused in the words that pydantic has for a
    `Literal` of all names.
    """
    return _OneOf(tables)


def in_words(table: Mapping[str, Any]) -> str:
    """The entries of a table for the help: each name with what the entry says in its field `about`."""
    return ", ".join(f"`{name}` ({entry.about})" for name, entry in table.items())


def key_at(where: str, key: str) -> str:
    """How messages call a key: `train.epochs` of a section, `tickets.yaml: train.epochs` of a file."""
    return (f"{where}: {key}" if where.endswith((".yaml", ".yml")) else f"{where}.{key}") if key else where


_NAMED = re.compile("'([^']*)'")


def _lines(cls: type[BaseModel], error: ValidationError, where: str) -> list[str]:
    lines: dict[str, str] = {}
    hints: dict[str, str] = {}
    for problem in error.errors():
        loc = problem["loc"]
        keys = {0, len(loc) - 1} if problem["type"] == "extra_forbidden" else {0}
        path = [part for place, part in enumerate(loc) if place in keys or not _TAG.fullmatch(str(part))]
        key = key_at(where, ".".join(map(str, path)))
        if problem["type"] == "extra_forbidden":
            hint = did_you_mean(str(path[-1]), _keys_at(cls, path[:-1]))
            lines[key] = f"{key}: unknown key{hint}"
        elif problem["type"] == "missing":
            lines[key] = f"{key}: missing; it has no default, so set it"
        elif problem["type"] == "model_type":
            lines[key] = f"{key}: expected keys and values, got {_shown(problem['input'])}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "string_pattern_mismatch" and (described := _description_at(cls, path)):
                message = f"not as it must be: {described.rstrip('.')}"
            if path and not isinstance(problem["input"], (dict, BaseModel)):
                message += f" (got {_shown(problem['input'])})"
            if problem["type"] == "literal_error":
                message += did_you_mean(str(problem["input"]), _NAMED.findall(problem["ctx"]["expected"]))
            # A key that may hold several types has a line for each type that its value is not of.
            hints[key] = _quote_it(problem["input"]) if problem["type"] == "string_type" and key not in lines else ""
            lines[key] = f"{lines[key]}, or: {message}" if key in lines else f"{key}: {message}"
    return [line + hints.get(key, "") for key, line in lines.items()]


def _quote_it(value: object) -> str:
    """What to do about a value that YAML takes for something else than the text that was meant."""
    if isinstance(value, bool):
        return "; YAML reads no, yes, on, off, true and false as truth values: put the word in quotes"
    if isinstance(value, (int, float)):
        clock = " (12:30 as 750)" if value >= 60 else ""
        return f'; YAML reads it as a number{clock}: put it in quotes, as "{value}"'
    if isinstance(value, date):
        return f'; YAML reads it as a date: put it in quotes, as "{value}"'
    if value is None:
        return "; YAML reads null, ~ and nothing as no value: put the word in quotes"
    return ""


def _description_at(cls: type[BaseModel], path: list[int | str]) -> str:
    """The docstring of the key at `path`, on one line; empty where there is none, or it is inside a list or mapping."""
    found: Any = cls
    described = ""
    for part in path:
        field = found.model_fields.get(str(part)) if isinstance(found, type) and issubclass(found, BaseModel) else None
        found = field.annotation if field else None
        described = (field.description or "") if field else ""
    return " ".join(described.split())


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _keys_at(cls: type[BaseModel], path: list[int | str]) -> list[str]:
    """The known keys of the class found by walking `path` from `cls`, through mappings and lists of classes."""
    found: Any = cls
    for part in path:
        if isinstance(found, type) and issubclass(found, BaseModel):
            field = found.model_fields.get(str(part))
            found = field.annotation if field else None
        else:
            found = (get_args(found) or (None,))[-1]
        if get_origin(found) in (Union, UnionType):
            found = next((one for one in get_args(found) if one is not type(None)), None)
    return list(found.model_fields) if isinstance(found, type) and issubclass(found, BaseModel) else []
