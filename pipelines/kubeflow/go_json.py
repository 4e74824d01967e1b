"""JSON as Go's encoder writes it: sorted keys, no spaces, `<`, `>` and `&` escaped, whole numbers without a point."""

import json
from typing import Any


def go_json(value: Any) -> str:
    """The JSON text of a value, byte for byte as KFP's API server and Argo store it.

    Source: `stablyMarshalJSON` in KFP's argocompiler/proto.go, which ends in Go's encoding/json.
    """
    text = json.dumps(_whole(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _escaped(text)


def proto_json(value: Any) -> str:
    """As `go_json`, without the escapes: protojson, which writes `executor_input` and the component spec."""
    return json.dumps(_whole(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def go_struct_json(value: Any) -> str:
    """As `go_json`, with keys in the order given: a Go struct's fields are not sorted."""
    return _escaped(json.dumps(_whole(value), separators=(",", ":"), ensure_ascii=False))


def _escaped(text: str) -> str:
    for character, escape in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(character, escape)
    return text


def _whole(value: Any) -> Any:
    """Floats without a fraction become integers, as protobuf numbers do in Go's JSON."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return value
