"""A stage's settings as one JSON text that Argo, KFP and the kubelet leave unchanged.

Argo, Kubeflow's launcher and the kubelet replace parts of what they hand on: `{{workflow.name}}`, `{{=1+1}}` (which is
evaluated), `{{$.inputs.parameters['x']}}`, `$(VARIABLE)`, `$$`. Each needs a `$`, or two braces together. So settings
travel as JSON in which braces and dollar signs inside strings are written as escapes; JSON itself never has two opening
braces together, as a key follows each. Prompts, labels and LaTeX then arrive as they were written.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from llm2llm.components.shared.base.errors import UserError

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_ESCAPES = {"{": "\\u007b", "}": "\\u007d", "$": "\\u0024"}


def settings_text(values: Mapping[str, Any]) -> str:
    """Plain values as JSON that no template engine on the way finds anything in; equal values give equal text."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return _STRING.sub(lambda found: re.sub(r"[{}$]", lambda one: _ESCAPES[one[0]], found[0]), text)


def read_settings_text(text: str, where: str) -> dict[str, Any]:
    """The values of a `settings_text`, or of any other JSON object; an empty text has none.

    Args:
        text: As it arrived.
        where: What to call it in an error message.

    Raises:
        UserError: No JSON object, or a key that stands twice in one.
    """
    if not text.strip():
        return {}
    try:
        values = json.loads(text, object_pairs_hook=_once)
    except ValueError as problem:
        raise UserError(f"{where}: not JSON: {problem}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deep to be read") from None
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a JSON object of keys and values, got {text[:200]}")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return values
