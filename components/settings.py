"""Typed settings: unknown keys and contradictions are refused with the key, the value and the fix."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from llm2llm.components.problems import UserError, nearest


class Settings(BaseModel):
    """Base of every settings class; a subclass documents each key in the docstring under it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)

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
        if twice := sorted(inputs.keys() & values.keys()):
            raise UserError(
                f"{where}.{twice[0]}: given twice, as an input ({inputs[twice[0]]!r}) and in the settings "
                f"({values[twice[0]]!r}); remove it from the settings"
            )
        values = {**values, **inputs}
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError("\n".join(_lines(cls, error, where))) from None


def _lines(cls: type[BaseModel], error: ValidationError, where: str) -> list[str]:
    lines = []
    for problem in error.errors():
        path = [part for part in problem["loc"] if part != "function-after"]
        key = ".".join([where, *map(str, path)])
        if problem["type"] == "extra_forbidden":
            hint = nearest(str(path[-1]), _keys_at(cls, path[:-1]))
            lines.append(f"{key}: unknown key{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{key}: missing; it has no default, so set it")
        elif path and not isinstance(problem["input"], (dict, BaseModel)):
            lines.append(f"{key}: {_message(problem['msg'])} (got {problem['input']!r})")
        else:
            lines.append(f"{key}: {_message(problem['msg'])}")
    return lines


def _message(text: str) -> str:
    return text.removeprefix("Value error, ")


def _keys_at(cls: type[BaseModel], path: list[int | str]) -> list[str]:
    """The known keys of the settings class found by walking `path` from `cls`."""
    for part in path:
        field = cls.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        cls = inner
    return list(cls.model_fields)
