r"""The JSON object in what a model wrote: read strictly where that works, else repaired, and each repair is named.

    read_object('{"examples": [{"question": "a",}]}', ["examples"], schema)
    Found(value={"examples": [{"question": "a"}]}, repairs=("syntax",))

Repairs, in the order in which they are tried:

    backslashes   `\frac`, which JSON reads as a form feed and `rac`, has its backslash doubled, and so has `\alpha`
    line breaks   raw ones inside a text
    form          names in another case, JSON inside a text, a row where a list of rows should be
    list          the list, the rows themselves or one row, without the object around them; or under another key
    syntax        trailing commas, comments, single quotes, names without quotes: by the package json-repair

    rows          those that can be read of a list that cannot

Of several objects the last one counts: a model that corrects itself writes the better one below. What is repaired must
fit the schema. Beside that, `syntax` must neither lose nor make up a letter, and text that was cut off is never
completed.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared.base.latex import double_backslashes

_PYTHON = re.compile(r"[:,\[]\s*(?:None|True|False)\s*[,}\]]")
"""Words that are values of Python and not of JSON."""
MAX_TEXT = 1_000_000
"""Characters of a text that are looked at."""
MAX_VALUES = 200
"""Places at which a value may begin that are tried: each try may read to the end."""
MAX_REPAIRED = 200_000
"""Characters that are repaired."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object, and what had to be repaired for it."""

    value: dict[str, Any]
    repairs: tuple[str, ...] = ()


def read_object(
    text: str, keys: Sequence[str], schema: Mapping[str, Any] | None = None, complete: bool = True
) -> Found | None:
    """The last JSON object of a text that has all of the keys: the object itself, in a code fence, or between words.

    Args:
        text: What a model wrote, without its thoughts.
        keys: Which the object must have.
        schema: What a repaired object must fit; None: only what needs no schema is repaired.
        complete: Whether the model ended by itself. What was cut off is read strictly only.
    """
    text = text[:MAX_TEXT]
    doubled = double_backslashes(text)
    sources = [(doubled, ("backslashes",)), (text, ())] if doubled != text else [(text, ())]
    for strict, more in ((True, ()), (False, ("line breaks",))):
        for source, repairs in sources:
            value = _last_with(keys, source, strict)
            if value is None:
                continue
            if schema is not None and complete and not fits(value, schema, more_names=True):
                shaped = _shaped(value, schema)
                if fits(shaped, schema, more_names=True):
                    return Found(shaped, (*repairs, *more, "form"))
            return Found(value, (*repairs, *more))
    if schema is None or not complete:
        return None
    for strict, more in ((True, ()), (False, ("line breaks",))):
        for source, repairs in sources:
            values = _outer_values(source, strict)
            wrapped = _wrapped(values, keys, schema, more_names=True)
            if wrapped is not None:
                return Found(wrapped, (*repairs, *more, "list"))
            for value in reversed([*values, *_whole_text(source)]):
                shaped = _shaped(value, schema)
                if isinstance(shaped, dict) and fits(shaped, schema, more_names=True):
                    return Found(shaped, (*repairs, *more, "form"))
    for source, repairs in sources:
        value, exact = _repaired(source)
        if isinstance(value, dict) and all(key in value for key in keys) and fits(value, schema, exact):
            return Found(value, (*repairs, "syntax"))
        if value is not None and (wrapped := _wrapped([value], keys, schema, exact)) is not None:
            return Found(wrapped, (*repairs, "syntax", "list"))
    for source, repairs in sources:
        rows = [value for value, _ in _values(source, "{", strict=False)]
        if (wrapped := _wrapped(rows, keys, schema)) is not None:
            return Found(wrapped, (*repairs, "rows"))
    return None


def _last_with(keys: Sequence[str], source: str, strict: bool) -> dict[str, Any] | None:
    """The last object with all of the keys that is not inside another such."""
    decoder, last, at = json.JSONDecoder(strict=strict), None, 0
    for _ in range(MAX_VALUES):
        begin = source.find("{", at)
        if begin < 0:
            break
        at = begin + 1
        with suppress(ValueError, RecursionError):
            value, end = decoder.raw_decode(source, begin)
            if all(key in value for key in keys):
                last, at = value, end
    return last


def _whole_text(source: str) -> list[Any]:
    """The text that a source is as a whole, as one value of JSON."""
    with suppress(ValueError, RecursionError):
        return [json.loads(source)]
    return []


def _shaped(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value nearer to a schema: names in its case, JSON inside a text unpacked, one row as a list of one."""
    kind = schema.get("type")
    if kind in ("object", "array") and isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if kind == "array":
        if isinstance(value, dict):
            inner = list(value.values())
            value = inner if inner and all(isinstance(one, dict) for one in inner) else [value]
        return [_shaped(item, schema.get("items", {})) for item in value] if isinstance(value, list) else value
    if kind == "object" and isinstance(value, dict):
        properties = schema.get("properties", {})
        given = {name if name in properties else name.strip().lower(): inner for name, inner in value.items()}
        if len(given) < len(value):  # two names became one
            return value
        return {name: _shaped(inner, properties.get(name, {})) for name, inner in given.items()}
    return value


def only_object(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON object that is all of a text, but for a code fence around it; None where it is none or does not fit.

    Backslashes and raw line breaks are repaired and nothing else: an object between words may be a quotation.
    """
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    for source in dict.fromkeys((double_backslashes(text), text)):
        with suppress(ValueError, RecursionError):
            value = json.loads(source, strict=False)
            return value if isinstance(value, dict) and fits(value, schema) else None
    return None


def holds_json(text: str) -> bool:
    """Whether a text holds a JSON object, also one that must be repaired."""
    text = double_backslashes(text[:MAX_TEXT])
    if any(isinstance(value, dict) for value, _ in _values(text, "{", strict=False)):
        return True
    return isinstance(_repaired(text)[0], dict)


def _values(source: str, openers: str, strict: bool) -> Iterator[tuple[Any, int]]:
    """(value, where it ends) at every place where one can be read, from the outside to the inside."""
    decoder = json.JSONDecoder(strict=strict)
    begin = re.compile(f"[{re.escape(openers)}]")
    place = begin.search(source)
    for _ in range(MAX_VALUES):
        if place is None:
            return
        with suppress(ValueError, RecursionError):
            yield decoder.raw_decode(source, place.start())
        place = begin.search(source, place.start() + 1)


def _outer_values(source: str, strict: bool) -> list[Any]:
    """The values of a text that are in no other; none where one of them cannot be read."""
    decoder = json.JSONDecoder(strict=strict)
    values, at = [], 0
    while (place := re.compile(r"[{\[]").search(source, at)) is not None:
        try:
            value, at = decoder.raw_decode(source, place.start())
        except (ValueError, RecursionError):
            return []
        values.append(value)
    return values


def _wrapped(
    values: Sequence[Any], keys: Sequence[str], schema: Mapping[str, Any], more_names: bool = False
) -> dict[str, Any] | None:
    """Values as the list that a schema wants under its only key, where they fit it."""
    properties = schema.get("properties", {})
    if len(keys) != 1 or list(properties) != list(keys) or properties[keys[0]].get("type") != "array":
        return None
    item = properties[keys[0]]["items"]
    for value in values:
        lists = [value] if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
        for rows in lists:
            if isinstance(rows, list) and rows and len(lists) == 1 and all(fits(row, item, more_names) for row in rows):
                return {keys[0]: rows}
    rows = [value for value in values if isinstance(value, dict) and fits(value, item, more_names)]
    return {keys[0]: rows} if rows else None


def _repaired(source: str) -> tuple[Any, bool]:
    """(the value of a text that is nearly JSON, whether it is exact, as Python reads it); None where that would lose,
    make up or complete something."""
    body = _without_comments(source[:MAX_REPAIRED])
    if body is None:
        return None, False
    if body.lstrip("{[ \n\r\t").startswith("'") or _PYTHON.search(body):
        try:
            value = ast.literal_eval(body)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = None
        if isinstance(value, dict | list):
            return value, True
    from json_repair import repair_json

    try:
        value = repair_json(body, return_objects=True, skip_json_loads=True)
        same = _letters(json.dumps(value, ensure_ascii=False)) == _letters(body)
    except (ValueError, TypeError, RecursionError):
        return None, False
    return (value if same and isinstance(value, dict | list) else None), False


def _letters(source: str) -> list[str]:
    """The letters and digits of JSON, sorted, but for those of escapes."""
    plain = re.sub(r"\\(?:u[0-9a-fA-F]{4}|.)", "", source, flags=re.DOTALL)
    return sorted(character for character in plain if character.isalnum())


def _without_comments(source: str) -> str | None:
    """From the first bracket to the one that closes it, without comments; None where none does."""
    begin = re.compile(r"[{\[]").search(source)
    if begin is None:
        return None
    kept: list[str] = []
    depth, quote, at = 0, "", begin.start()
    while at < len(source):
        character = source[at]
        if quote:
            if character == "\\":
                kept.append(source[at : at + 2])
                at += 2
                continue
            if character == quote and _closes(source, at):
                quote = ""
        elif character == '"' or (character == "'" and _opens(kept)):
            quote = character
        elif source.startswith("//", at) or (character == "#" and _opens(kept)):
            at = source.find("\n", at)
            if at < 0:
                return None
            continue
        elif source.startswith("/*", at):
            at = source.find("*/", at) + 2
            if at < 2:
                return None
            continue
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
        kept.append(character)
        at += 1
        if depth == 0:
            return "".join(kept)
    return None


def _closes(source: str, at: int) -> bool:
    """Whether a quotation mark ends its text: punctuation of JSON or a line's end follows. One inside a text, which
    should have a backslash, does not."""
    after = source[at + 1 : at + 50].lstrip(" \t")
    return not after or after[0] in ",:}]\n\r/#"


def _opens(kept: Sequence[str]) -> bool:
    """Whether a text or a comment may begin here: after a bracket, a comma, a colon or a line break."""
    last = next((part for part in reversed(kept) if part not in " \t"), "\n")
    return last in ",:{[\n\r"


def fits(value: Any, schema: Mapping[str, Any], more_names: bool = False) -> bool:
    """Whether a value fits a schema as far as llm2llm's schemas go, but for the number of items; `more_names`: also
    where objects have names that the schema has not."""
    if "anyOf" in schema:
        return any(fits(value, one, more_names) for one in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    kind = schema.get("type")
    if isinstance(kind, list):
        return any(fits(value, {**schema, "type": one}, more_names) for one in kind)
    if kind == "object":
        properties = schema.get("properties", {})
        return (
            isinstance(value, dict)
            and all(name in value for name in schema.get("required", []))
            and (more_names or value.keys() <= properties.keys())
            and all(fits(value[name], properties[name], more_names) for name in value.keys() & properties.keys())
        )
    if kind == "array":
        return isinstance(value, list) and all(fits(item, schema.get("items", {}), more_names) for item in value)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "null":
        return value is None
    if kind in ("integer", "number"):
        whole = isinstance(value, int) or (kind == "number" and isinstance(value, float))
        return whole and not isinstance(value, bool)
    return isinstance(value, str) if kind == "string" else True
