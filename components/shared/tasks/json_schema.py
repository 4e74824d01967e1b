"""JSON values by a schema: the part of JSON Schema that an answer may be described with, fit, canonical form, fields.

    schema = expanded({"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True, "items": ...}}})
    key({"tags": ["b", "a"]}, schema) == key({"tags": ["a", "b"]}, schema)

Two values are the same when their keys are: the order of an object's names, how a number is written (1, 1.0, 1e0) and
the Unicode form of a text do not count, nor does the order of a list whose schema says so:

    uniqueItems: true     a set: neither order nor repetitions count
    x-unordered: true     a multiset: order does not count, repetitions do

A property that is not required and null is the same as none. `x-unordered` is ours; models are not shown it.
"""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from llm2llm.components.shared.base.errors import did_you_mean
from llm2llm.components.shared.data.jsonl import is_text

Schema = Mapping[str, Any]

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
ORDER = "propertyOrdering"
"""The names of `properties` in the order in which an answer has them, where that is not the alphabet's: a config's
mappings lose theirs on the way to a stage."""
_SHOWN = ("title", "description", "default", "examples", "format")
_IGNORED = ("$schema", "$id", "$comment", "discriminator", "deprecated", "readOnly", "writeOnly")
_CHECKED = ("type", "enum", "const", "nullable", "properties", ORDER, "required", "additionalProperties",
            "minProperties", "maxProperties", "items", "minItems", "maxItems", "uniqueItems", "x-unordered",
            "minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
            "multipleOf", "anyOf", "oneOf", "allOf")  # fmt: skip
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_FOR_MODELS = ("type", "enum", "minItems", "maxItems", "description")
"""Keywords that structured output knows wherever it is offered, beside those that hold schemas."""
MAX_DEPTH = 32
MAX_DIGITS = 308
"""Digits before a number's point."""


def expanded(schema: Any) -> dict[str, Any]:
    """A schema with its `$ref`s put in place, of known keywords only, with closed objects: one that names `properties`
    and says nothing of others has no others. What a choice of schemas has in common as its type is its type.

    Raises:
        ValueError: A keyword that is not known, a value that it cannot have, a `$ref` that is missing or goes in a
            circle; it names the place.
    """
    if not isinstance(schema, Mapping):
        raise ValueError(f"a JSON schema is an object, got {type(schema).__name__}")
    return _expanded(schema, schema, "", ())


def _expanded(schema: Any, root: Schema, where: str, open_refs: tuple[str, ...]) -> dict[str, Any]:
    at = where or "the schema"
    schema = {} if schema is True else schema
    if not isinstance(schema, Mapping):
        raise ValueError(f"{at}: a schema is an object, got {schema!r}")
    if len(open_refs) > MAX_DEPTH or where.count(".") > MAX_DEPTH:
        raise ValueError(f"{at}: nested more than {MAX_DEPTH} levels deep")
    if "$ref" in schema:
        reference = schema["$ref"]
        if reference in open_refs:
            raise ValueError(f"{at}: $ref {reference!r} goes in a circle; an answer has a fixed depth")
        beside = {name: value for name, value in schema.items() if name in _SHOWN}
        return {**_expanded(_referred(reference, root, at), root, where, (*open_refs, reference)), **beside}
    found = {
        name: value for name, value in schema.items() if name not in _IGNORED and name not in ("$defs", "definitions")
    }
    for name in [*found]:
        near = did_you_mean(str(name), _CHECKED)
        if str(name).startswith("x-") and name not in _CHECKED and not near:
            del found[name]  # other programs' own
        elif name not in _CHECKED and name not in _SHOWN:
            raise ValueError(f"{at}: keyword {name!r} is not supported{near}; there are {', '.join(_CHECKED)}")
    _check_keywords(found, at)
    if "allOf" in found:  # around a single $ref, beside which older dialects allow nothing else
        beside, (only,) = found, found.pop("allOf")
        found = {**_expanded(only, root, where, open_refs), **beside}
    if found.pop("nullable", False):
        found = _nullable(found)
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if "enum" in found and "type" not in found:
        kinds = [next(kind for kind in TYPES[::-1] if _is(plain(one), kind)) for one in found["enum"]]
        found["type"] = kinds[0] if len(set(kinds)) == 1 else sorted(set(kinds))

    def inner(one: Any, place: str) -> dict[str, Any]:
        return _expanded(one, root, place.lstrip("."), open_refs)

    if "properties" in found:
        found.setdefault("type", "object")
        found["properties"] = _in_order(
            {str(name): inner(one, f"{where}.{name}") for name, one in found["properties"].items()},
            found.pop(ORDER, []),
            at,
        )
        if (order := [*found["properties"]]) != sorted(order):
            found[ORDER] = order
        found.setdefault("additionalProperties", False)
        if unknown := [name for name in found.get("required", []) if name not in found["properties"]]:
            raise ValueError(f"{at}: required names {unknown[0]!r}, which properties does not have"
                             f"{did_you_mean(str(unknown[0]), found['properties'])}")  # fmt: skip
    if isinstance(found.get("additionalProperties"), Mapping):
        found["additionalProperties"] = inner(found["additionalProperties"], f"{where}.*")
    if "items" in found:
        found.setdefault("type", "array")
        found["items"] = inner(found["items"], f"{where}[]")
    for name in ("anyOf", "oneOf"):
        if name in found:
            found[name] = [inner(one, where) for one in found[name]]
            common = {json.dumps(one.get("type")) for one in found[name]}
            if not where and len(common) == 1 and "type" in found[name][0]:
                found.setdefault("type", found[name][0]["type"])
    return found


def _in_order(properties: dict[str, Any], order: list[str], at: str) -> dict[str, Any]:
    if unknown := [name for name in order if name not in properties]:
        raise ValueError(f"{at}: {ORDER} names {unknown[0]!r}, which properties does not have"
                         f"{did_you_mean(unknown[0], properties)}")  # fmt: skip
    return {name: properties[name] for name in dict.fromkeys([*order, *properties])}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI 3.0 writes as `nullable: true`, as JSON Schema has it."""
    if "enum" in schema or "const" in schema or "anyOf" in schema or "oneOf" in schema or "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    kinds = _kinds(schema)
    return {**schema, "type": [*kinds, *([] if "null" in kinds else ["null"])]}


def _referred(reference: Any, root: Schema, at: str) -> Any:
    value: Any = root
    for part in str(reference).removeprefix("#").split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"{at}: $ref {reference!r} leads to nothing in the schema")
        value = value[part]
    if not str(reference).startswith("#"):
        raise ValueError(f"{at}: $ref {reference!r} leads out of the schema; put what it names under $defs")
    return value


def _check_keywords(found: Schema, at: str) -> None:
    def refuse(name: str, wanted: str) -> None:
        raise ValueError(f"{at}: {name} must be {wanted}, got {found[name]!r}")

    kinds = found.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in TYPES:
            raise ValueError(f"{at}: type {kind!r} is none of {', '.join(TYPES)}{did_you_mean(str(kind), TYPES)}")
    for name in ("properties",):
        if name in found and not isinstance(found[name], Mapping):
            refuse(name, "an object of schemas")
    for name in ("enum", "anyOf", "oneOf"):
        if name in found and not (isinstance(found[name], list) and found[name]):
            refuse(name, "a list that is not empty")
    for name in ("required", ORDER):
        if name in found and not (isinstance(found[name], list) and all(isinstance(one, str) for one in found[name])):
            refuse(name, "a list of names")
    for name in ("uniqueItems", "x-unordered"):
        if name in found and not isinstance(found[name], bool):
            refuse(name, "true or false")
    for name in _COUNTS:
        if name in found and (not isinstance(found[name], int) or isinstance(found[name], bool) or found[name] < 0):
            refuse(name, "a whole number from 0")
    for name in _NUMBERS:
        if name in found and (not isinstance(found[name], int | float) or isinstance(found[name], bool)):
            refuse(name, "a number")
    if found.get("multipleOf", 1) <= 0:
        refuse("multipleOf", "above 0")
    if "allOf" in found and not (isinstance(found["allOf"], list) and len(found["allOf"]) == 1):
        refuse("allOf", "a list of one schema; put several together by hand")
    if "nullable" in found and not isinstance(found["nullable"], bool):
        refuse("nullable", "true or false")
    if "additionalProperties" in found and not isinstance(found["additionalProperties"], bool | Mapping):
        refuse("additionalProperties", "true, false or a schema")
    if "pattern" in found:
        try:
            re.compile(found["pattern"])
        except (re.error, TypeError) as problem:
            raise ValueError(f"{at}: pattern {found['pattern']!r} is no regular expression: {problem}") from None


def read(text: str) -> Any:
    """The value of a JSON text, with numbers as `plain` makes them.

    Raises:
        ValueError: It is no JSON, has a name twice, or a number that is none or too large.
    """
    try:
        return plain(json.loads(text, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_once))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {twice!r} stands twice in an object")
    return found


def plain(value: Any) -> Any:
    """A value with each number in one form: whole ones as int (1.0 and 1e0 are 1), others as float.

    Raises:
        ValueError: Something that JSON does not have, such as a date, not a number, a number that is too large, or half
            a surrogate pair, which JSON can escape and no file can hold.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not is_text(value):
            raise ValueError("a text holds half a surrogate pair, which is no valid text")
        return value
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, int | float | Decimal):
        exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if not exact.is_finite():
            raise ValueError(f"{value} is no number")
        if exact and exact.adjusted() > MAX_DIGITS:
            raise ValueError(f"a number has more than {MAX_DIGITS} digits")
        return int(exact) if exact == exact.to_integral_value() else float(exact)
    raise ValueError(f"it holds a {type(value).__name__}, which JSON does not have")


def misfit(value: Any, schema: Schema, where: str = "") -> str:
    """What keeps a value, as `plain` gives it, from fitting an expanded schema: the first place and what is wrong
    there; empty where it fits."""
    at = f"{where}: " if where else ""
    for name in ("anyOf", "oneOf"):
        if name in schema:
            said = [misfit(value, one, where) for one in schema[name]]
            if all(said):
                # The nearest is the one that goes wrong farthest inside.
                return max(said, key=lambda one: len(one.partition(": ")[0]))
            if name == "oneOf" and said.count("") > 1:
                return f"{at}fits {said.count('')} of oneOf, and must fit one"
    if "enum" in schema and not any(_equal(value, one) for one in schema["enum"]):
        known = [_short(one) for one in schema["enum"]]
        near = did_you_mean(str(value), list(map(str, schema["enum"])))
        return f"{at}{_short(value)} is none of {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}{near}"
    kinds = schema.get("type", TYPES)
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(_is(value, kind) for kind in kinds):
        return f"{at}must be {' or '.join(kinds)}, got {_short(value)}"
    if isinstance(value, dict):
        return _misfit_object(value, schema, where)
    if isinstance(value, list):
        return _misfit_list(value, schema, where)
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
            return f"{at}has {len(value)} characters; minLength and maxLength say otherwise"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"{at}{_short(value)} does not match the pattern {schema['pattern']}"
    return f"{at}{_short(value)} {wrong}" if _is(value, "number") and (wrong := _misfit_number(value, schema)) else ""


def _misfit_number(value: float, schema: Schema) -> str:
    if not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
        return "is not within minimum and maximum"
    if not schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf):
        return "is not within exclusiveMinimum and exclusiveMaximum"
    step = schema.get("multipleOf")
    if step is not None and Fraction(str(value)) % Fraction(str(step)):
        return f"is no multiple of {step}"
    return ""


def _misfit_object(value: dict[str, Any], schema: Schema, where: str) -> str:
    at = f"{where}: " if where else ""
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", []):
        if name not in value:
            return f"{at}lacks {name!r}"
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", math.inf):
        return f"{at}has {len(value)} names; minProperties and maxProperties say otherwise"
    for name, inner in value.items():
        if name not in properties and others is False:
            return f"{at}has {name!r}, which the schema does not{did_you_mean(name, properties)}"
        below = properties.get(name, others if isinstance(others, Mapping) else {})
        if wrong := misfit(inner, below, f"{where}.{name}".lstrip(".")):
            return wrong
    return ""


def _misfit_list(value: list[Any], schema: Schema, where: str) -> str:
    at = f"{where}: " if where else ""
    items = schema.get("items", {})
    for place, inner in enumerate(value):
        if wrong := misfit(inner, items, f"{where}[{place}]"):
            return wrong
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
        return f"{at}has {len(value)} items; minItems and maxItems say otherwise"
    if schema.get("uniqueItems") and len({key(inner, items) for inner in value}) < len(value):
        return f"{at}has the same item twice, and uniqueItems says that each stands once"
    return ""


def _is(value: Any, kind: str) -> bool:
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "null":
        return value is None
    return isinstance(value, {"object": dict, "array": list, "string": str, "boolean": bool}[kind])


def _equal(value: Any, other: Any) -> bool:
    return key(value, {}) == key(plain(other), {})


def _of(value: Any, schema: Schema) -> Schema:
    """The schema that a value is read by: of several the first that it fits, else the first of its type."""
    for name in ("anyOf", "oneOf"):
        if name in schema:
            options = schema[name]
            fitting = [one for one in options if not misfit(tidied(value, one), one)]
            like = [one for one in options if any(_is(value, kind) for kind in _kinds(one))]
            return _of(value, next(iter([*fitting, *like]), {}))
    return schema


def _kinds(schema: Schema) -> Sequence[str]:
    kinds: str | list[str] = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def tidied(value: Any, schema: Schema) -> Any:
    """A value, as `plain` gives it, in the form in which a student is taught it: names in the schema's order, no null
    for a property that is not required, a set of an enum's values in the enum's order. Also one that does not fit."""
    schema = _of(value, schema)
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        others = others if isinstance(others, Mapping) else {}
        required = schema.get("required", [])
        names = [name for name in properties if name in value] + sorted(value.keys() - properties.keys())
        return {
            name: tidied(value[name], properties.get(name, others))
            for name in names
            if value[name] is not None or name in required or name not in properties
        }
    if isinstance(value, list):
        items = schema.get("items", {})
        inner = [tidied(one, items) for one in value]
        if schema.get("uniqueItems") and "enum" in items:
            order = [key(plain(one), {}) for one in items["enum"]]
            inner.sort(key=lambda one: order.index(key(one, {})) if key(one, {}) in order else len(order))
        return inner
    return value


def key(value: Any, schema: Schema) -> str:
    """A text that is equal for two values exactly where they are the same by the schema; see the module's docstring."""
    return json.dumps(_keyed(value, schema), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _keyed(value: Any, schema: Schema) -> Any:
    schema = _of(value, schema)
    if isinstance(value, dict):
        value = tidied(value, schema)
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        others = others if isinstance(others, Mapping) else {}
        return {
            unicodedata.normalize("NFC", name): _keyed(inner, properties.get(name, others))
            for name, inner in value.items()
        }
    if isinstance(value, list):
        items = [_keyed(one, schema.get("items", {})) for one in value]
        if schema.get("uniqueItems") or schema.get("x-unordered"):
            texts = {json.dumps(one, ensure_ascii=False, sort_keys=True): one for one in items}
            if schema.get("uniqueItems"):
                return [texts[text] for text in sorted(texts)]
            return sorted(items, key=lambda one: json.dumps(one, ensure_ascii=False, sort_keys=True))
        return items
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def written(value: Any) -> str:
    """The text of a value, with every letter as itself and no blank between its parts, as vLLM's decoder has it when it
    may write no blanks at will."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def fields(value: Any, schema: Schema) -> Counter[tuple[str, str, str]]:
    """What a value holds, to be counted against another one: (field, kind, key) of each part.

    A property that is no object is one part; an object within an object is looked into, and its fields have a dot in
    their names: `address.city`. Each item of a list is one part, whatever its place: `tags`; null is none. The kind of
    an item tells the items of a list apart: an enum's value itself, or those that an object has for properties with an
    enum; empty where there are none. The parts of a list that is the whole value are of the field `items`.
    """
    return Counter(_fields(value, schema, ""))


def _fields(value: Any, schema: Schema, where: str) -> list[tuple[str, str, str]]:
    schema = _of(value, schema)
    if value is None:
        return []
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        others = others if isinstance(others, Mapping) else {}
        return [
            part
            for name, inner in value.items()
            for part in _fields(inner, properties.get(name, others), f"{where}.{name}".lstrip("."))
        ]
    if isinstance(value, list):
        items = schema.get("items", {})
        parts = [(where or "items", _kind(one, items), key(one, items)) for one in value]
        return list(dict.fromkeys(parts)) if schema.get("uniqueItems") else parts
    return [(where, "", key(value, schema))]


def _kind(item: Any, schema: Schema) -> str:
    schema = _of(item, schema)
    if "enum" in schema:
        return str(item)
    if not isinstance(item, dict):
        return ""
    properties = schema.get("properties", {})
    named = [item.get(name) for name, one in properties.items() if "enum" in one]
    return " ".join(str(one) for one in named if one is not None)


def for_decoding(schema: Schema) -> dict[str, Any]:
    """The schema as a decoder is held to it: what is right can be written as `written` writes it, with no null in the
    place of what is not there."""
    found = {name: schema[name] for name in (*_FOR_MODELS, "required") if name in schema and name != "description"}
    for name in ("anyOf", "oneOf"):
        if name in schema:
            found["anyOf"] = [for_decoding(one) for one in schema[name]]
    if "properties" in schema:
        found["properties"] = {name: for_decoding(one) for name, one in schema["properties"].items()}
    if "additionalProperties" in schema:
        others = schema["additionalProperties"]
        found["additionalProperties"] = for_decoding(others) if isinstance(others, Mapping) else others
    if "items" in schema:
        found["items"] = for_decoding(schema["items"])
    return found


def for_models(schema: Schema) -> dict[str, Any] | None:
    """The schema as structured output takes it: closed objects, every property required, those that need not be there
    null; without the keywords that not every backend knows. None for a schema that cannot be put so, as it has objects
    of any names or values of any type."""
    if "anyOf" in schema or "oneOf" in schema:
        options = [for_models(one) for one in schema.get("anyOf", schema.get("oneOf", []))]
        return None if None in options else {"anyOf": options, **_described(schema)}
    found = {name: schema[name] for name in _FOR_MODELS if name in schema}
    kinds = _kinds(schema)
    if not kinds:
        return None
    if "object" in kinds:
        if schema.get("additionalProperties", True) is not False:
            return None
        inner = {name: for_models(one) for name, one in schema.get("properties", {}).items()}
        if None in inner.values():
            return None
        required = schema.get("required", [])
        found["properties"] = {
            name: one if name in required or one is None or not misfit(None, schema["properties"][name])
            else {"anyOf": [one, {"type": "null"}]}
            for name, one in inner.items()
        }  # fmt: skip
        found |= {"required": list(inner), "additionalProperties": False}
    if "array" in kinds:
        items = for_models(schema.get("items", {}))
        if items is None:
            return None
        found["items"] = items
    return found


def _described(schema: Schema) -> dict[str, Any]:
    return {"description": schema["description"]} if "description" in schema else {}


def in_words(schema: Schema) -> Any:
    """The schema without what is of no use to a reader."""
    found = {name: value for name, value in schema.items() if name not in ("title", "x-unordered", ORDER)}
    if "properties" in found:
        found["properties"] = {name: in_words(one) for name, one in found["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(found.get(name), Mapping):
            found[name] = in_words(found[name])
    for name in ("anyOf", "oneOf"):
        if name in found:
            found[name] = [in_words(one) for one in found[name]]
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
