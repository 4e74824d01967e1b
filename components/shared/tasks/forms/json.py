r"""Form `json`: the answer is an object or a list by a JSON schema: extraction, several labels, spans, tool calls.

target   {"name":"Ann","year":1999}
read     the JSON value that a completion is, alone, in a code fence, or between words where there is no other
grade    the same value by the schema, see `json_schema`: {"year": 1.999e3, "name": "Ann"} is right as well
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.base.errors import did_you_mean
from llm2llm.components.shared.base.text import repair_control_characters
from llm2llm.components.shared.data.jsonl import is_text
from llm2llm.components.shared.tasks import json_schema
from llm2llm.components.shared.tasks.forms.base import FieldCount, Form
from llm2llm.components.shared.tasks.forms.metrics import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm2llm.components.shared.tasks.task import Task

_FENCE = re.compile(r"```[ \t]*[\w-]*\s*")
_OPENER = re.compile(r"[{\[]")
MAX_TEXT = 200_000
"""Characters of a completion that are looked at."""
MAX_VALUES = 200
"""Places at which a value may begin that are tried."""


CALLS: json_schema.Schema = {
    "type": "array",
    "x-unordered": True,
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    },
}
"""The schema of tool calls: some at once, in any order."""


def check_schema(task: "Task") -> None:
    """Refuses a task without a schema, or with one of neither objects nor lists.

    Raises:
        ValueError: Names the key and the fix.
    """
    if task.answer_schema is None:
        if task.columns.tools is not None:
            return
        raise ValueError(
            "answer_schema: missing; form 'json' needs the JSON schema of an answer, or a file that has it; for tool "
            "calls columns.tools, the column with each row's tools"
        )
    kind = task.answer_schema.get("type")
    if kind not in ("object", "array"):
        raise ValueError(
            f"answer_schema: an answer is an object or a list, and the schema's type is {kind!r}; set type: object and "
            "put the value under a name"
        )


def schema_of(task: "Task") -> json_schema.Schema:
    """The schema of a task's answers."""
    return CALLS if task.answer_schema is None else task.answer_schema


def target(task: "Task", answer: str, rationale: str | None) -> str:
    """The completion that the student is trained on."""
    return answer


def parse(task: "Task", completion: str) -> str | None:
    """The text of the JSON value that a completion gives, in the form of a right answer; it need not fit the schema.

    A completion that begins with a value has answered, whatever follows. Else the only value counts that begins a code
    fence, else the only one between words; None where there is none, or several.
    """
    text = completion.strip()[:MAX_TEXT]
    text = text[fence.end() :] if (fence := _FENCE.match(text)) else text
    if task.answer_schema is None:
        text = text.removeprefix("[TOOL_CALLS]").lstrip()  # Mistral's mark, which begins as a list does
        calls = _calls([value] if isinstance(value := _first_value(text, 0), list) else _values(text))
        return None if calls is None else json_schema.written(json_schema.tidied(calls, CALLS))
    wanted = dict if schema_of(task)["type"] == "object" else list
    if isinstance(value := _first_value(text, 0), wanted):
        values: list[Any] = [value]
    else:
        # Of a value that is cut off, what is inside is no answer.
        fences = [] if _OPENER.match(text) else [_first_value(text, one.end()) for one in _FENCE.finditer(text)]
        values = [one for one in fences if isinstance(one, wanted)]
        values = values or [one for one in _values(text) if isinstance(one, wanted)]
    return json_schema.written(json_schema.tidied(values[0], schema_of(task))) if len(values) == 1 else None


def _first_value(text: str, at: int) -> Any:
    """The object or list that begins at a place; None where none does, or it is cut off."""
    if not _OPENER.match(text, at):
        return None
    try:
        return json_schema.read(text[at : json.JSONDecoder().raw_decode(text, at)[1]])
    except (ValueError, RecursionError):
        return None


def _calls(values: list[Any]) -> list[Any] | None:
    """Tool calls in whatever form chat templates have them: a list of calls, or one after another between marks; with
    `arguments` or `parameters`, as an object or as its JSON text. None where there is none, or anything else."""
    found = []
    for value in [one for outer in values for one in (outer if isinstance(outer, list) else [outer])]:
        call = value.get("function", value) if isinstance(value, dict) else None
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return None
        arguments = call.get("arguments", call.get("parameters"))
        try:
            arguments = json_schema.read(arguments) if isinstance(arguments, str) else arguments
        except ValueError:
            return None
        if not isinstance(arguments, dict | None):
            return None
        # Null is the same as none: nested columns of Parquet fill in the names of other rows' arguments.
        given = {name: inner for name, inner in (arguments or {}).items() if inner is not None}
        found.append({"name": call["name"], "arguments": given})
    return found if values else None


def check_tools(task: "Task", answer: str, tools: Sequence[str]) -> None:
    """Refuses a call of a tool that the row does not offer, or with arguments that it does not take.

    Raises:
        ValueError: Names the call and what is wrong.
    """
    if task.answer_schema is not None:
        return
    offered = {one["name"]: one for one in (json.loads(tool)["function"] for tool in tools)}
    for call in json_schema.read(answer):
        name = call["name"]
        if name not in offered:
            raise ValueError(
                f"the answer calls {name!r}, and the row offers {', '.join(offered) or 'no tool'}"
                f"{did_you_mean(name, offered)}"
            )
        try:
            schema = json_schema.expanded(offered[name].get("parameters") or {"type": "object"})
        except ValueError as problem:
            raise ValueError(f"the parameters of tool {name!r}: {problem}") from None
        if wrong := json_schema.misfit(call["arguments"], schema):
            raise ValueError(f"the arguments of the call of {name!r} do not fit its parameters: {wrong}")


def _values(text: str) -> list[Any]:
    """The objects and lists of a text that are within no other."""
    values: list[Any] = []
    decoder = json.JSONDecoder()
    at = 0
    for _ in range(MAX_VALUES):
        if (place := _OPENER.search(text, at)) is None:
            break
        try:
            _, end = decoder.raw_decode(text, place.start())
            values.append(json_schema.read(text[place.start() : end]))
            at = end
        except (ValueError, RecursionError):
            return []  # so might be what is inside
    return values


def matches(task: "Task", parsed: str, answer: str) -> bool:
    """Whether a parsed value is the right one, by the schema."""
    return _key(task, parsed) == _key(task, answer)


def _key(task: "Task", text: str) -> str:
    return json_schema.key(json_schema.read(text), schema_of(task))


def normalise(task: "Task", answer: Any, choices: list[str], rationale: str | None) -> tuple[str, str | None]:
    """(JSON text, None) of a row, whose answer is JSON text or the value itself.

    Raises:
        ValueError: It is no JSON, or does not fit the schema; it names the place.
    """
    try:
        value = json_schema.read(answer) if isinstance(answer, str) else json_schema.plain(answer)
    except ValueError as problem:
        raise ValueError(f"the answer is not JSON: {problem}") from None
    if task.answer_schema is None:
        value = _calls(value if isinstance(value, list) else [value]) if value != [] else []
        if value is None:
            raise ValueError("the answer is no list of tool calls, [{name, arguments}]")
    tidy = json_schema.tidied(_repaired(value), schema_of(task))
    if wrong := json_schema.misfit(tidy, schema_of(task)):
        raise ValueError(f"the answer does not fit task.answer_schema: {wrong}")
    return json_schema.written(tidy), None


def _repaired(value: Any) -> Any:
    """The value with its texts as those of any row: control characters repaired."""
    if isinstance(value, dict):
        return {name: _repaired(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_repaired(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if not is_text(value):
        raise ValueError("a text of the answer holds half a surrogate pair, which is no valid text")
    try:
        return repair_control_characters(value)
    except ValueError as problem:
        raise ValueError(f"a text of the answer {problem}") from None


def teacher_properties(task: "Task") -> dict[str, Any]:
    """JSON schema of what the teacher returns beside the question: the answer itself, or its JSON text where structured
    output cannot be told such a schema."""
    schema = json_schema.for_models(schema_of(task))
    return {"answer": schema or {"type": "string", "description": "the right answer, as JSON text by the schema"}}


def in_words(task: "Task") -> str:
    """What the teacher is told of the answer beside the task's description."""
    shown = json.dumps(json_schema.in_words(schema_of(task)), ensure_ascii=False)
    return f"Every answer is JSON that fits this schema: {shown}"


def constraint(task: "Task") -> dict[str, Any] | None:
    """What decoding is held to; nothing for tool calls, whose form is that of the student's chat template."""
    return None if task.answer_schema is None else json_schema.for_decoding(schema_of(task))


def fits(task: "Task", parsed: str) -> bool:
    """Whether a parsed value fits the schema."""
    return not json_schema.misfit(json_schema.read(parsed), schema_of(task))


def field_counts(task: "Task", parsed: str | None, answer: str) -> dict[tuple[str, str], FieldCount]:
    """By (field, kind) of `json_schema.fields`: how many parts are right, wrongly there, and missing."""
    schema = schema_of(task)
    given = Counter() if parsed is None else json_schema.fields(json_schema.read(parsed), schema)
    right = json_schema.fields(json_schema.read(answer), schema)
    both = given & right
    names = sorted({part[:2] for part in (*given, *right)})

    def count(parts: Counter[tuple[str, str, str]], name: tuple[str, str]) -> int:
        return sum(n for part, n in parts.items() if part[:2] == name)

    return {name: FieldCount(count(both, name), count(given - both, name), count(right - both, name)) for name in names}


def _parts(task: "Task", answer: str, parsed: str | None, right: bool) -> list[float]:
    """Twice the right parts, and all parts of both sides: their quotient is the F1 of all fields together."""
    counts = field_counts(task, parsed, answer).values()
    both = sum(one.right for one in counts)
    return [2.0 * both, 2.0 * both + sum(one.wrong + one.missing for one in counts)]


def _f1(sums: "NDArray[Any]") -> "NDArray[Any]":
    """1 where there is nothing to find and nothing was found."""
    import numpy as np

    found: NDArray[Any] = np.where(sums[..., 1] > 0, sums[..., 0] / np.maximum(sums[..., 1], 1.0), 1.0)
    return found


FORM = Form(
    about="a JSON object or list by a schema",
    target=target,
    parse=parse,
    matches=matches,
    normalise=normalise,
    teacher_properties=teacher_properties,
    in_words=in_words,
    takes={"answer_schema": check_schema},
    holds_json=True,
    check_tools=check_tools,
    fits=fits,
    field_counts=field_counts,
    constraint=constraint,
    metrics={"field_f1": Metric(about="F1 of all fields together", measure=_parts, value=_f1)},
    leak_rouge_l=0.8,
)
