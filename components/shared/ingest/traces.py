"""Questions out of the logs of an application that asks language models: rows without answers, to be labelled.

openai    a request body, or a line that holds one: {"messages": [...]}, {"input": ...}, {"body": {...}} (batches),
          {"request": {...}, "response": {...}} (gateways' logs)
mlflow    a trace as JSON, {"info": {...}, "data": {"spans": [...]}}, or a row of `search_traces`: request, spans
langfuse  traces or observations as its UI and API export them: id, input, output; of observations the generations

What the application answered is left out: it is not known to be right. Formats as of MLflow 3 and Langfuse 3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.jsonl import parse_json
from llm2llm.components.shared.data.schemas import Example, content_id
from llm2llm.components.shared.ingest.columns import is_empty, text_cell
from llm2llm.components.shared.ingest.files import Source, read_file
from llm2llm.components.shared.ingest.formats import Turn, rendered, turns_of
from llm2llm.components.shared.ingest.sources import file_name, shown_source, source_file, split_of
from llm2llm.components.shared.ingest.suffixes import check_suffix

Take = Literal["last", "all"]

_TEXTS = ("question", "query", "prompt", "input", "text", "message", "content", "user_input", "inputs")
"""Keys under which applications put a question that is one text."""
_NESTED = ("body", "request", "messages", "input", "inputs", "kwargs", "args", "params")
"""Keys under which a request's messages may lie."""
_DEPTH = 5


@dataclass(frozen=True)
class Traces:
    """What a log holds."""

    rows: list[Example]
    """Each question once, with an empty answer; `source_id` is the trace's own id."""
    repeated: int
    """Records whose question another one has."""
    without: int
    """Records without a question of a user: tool calls, embeddings, spans."""


def read_traces(source: str, take: Take = "last", encoding: str = "auto") -> Traces:
    """The questions in a log.

    Args:
        source: A file of records, as `ingest.files` reads it, here or elsewhere.
        take: `last`: what the user said last; `all`: the whole conversation up to there, without system prompts.
        encoding: Of text files.

    Raises:
        UserError: No such file, or no question in it.
    """
    if "://" in source and not source.startswith("file://"):
        check_suffix(file_name(source))
    place, split = split_of(source)
    rows: dict[str, Example] = {}
    records = without = 0
    with source_file(place) as path:
        if not path.exists():
            raise UserError(f"{shown_source(source)}: no such file")
        for where, record in read_file(Source(path, file_name(place) or path.name, encoding=encoding, split=split)):
            records += 1
            try:
                turns = _turns(_request_in(record))
                question = text_cell(_question(turns, take), "input") if turns else ""
            except ValueError:
                question = ""  # a picture, a tool's call: no text to ask about
            if not question:
                without += 1
                continue
            row_id = content_id(question, [], None, "")
            rows.setdefault(
                row_id,
                Example(id=row_id, question=question, answer="", source=where, source_id=_trace_id(record)),
            )
    if not rows:
        raise UserError(
            f"{shown_source(source)}: no question of a user in {records:,} records; traces hold `messages`, `input`, "
            "or MLflow's `data.spans`"
        )
    return Traces(list(rows.values()), records - without - len(rows), without)


def _request_in(record: Mapping[str, Any]) -> Any:
    """What was asked in a record, in whatever form the application sent it."""
    record = {key: _opened(value) for key, value in record.items()}
    if record.get("type") in ("SPAN", "EVENT", "TOOL", "RETRIEVER", "EMBEDDING", "GUARDRAIL", "EVALUATOR"):
        return None  # Langfuse: of observations only the generations
    data = record.get("data")
    spans = (data if isinstance(data, Mapping) else record).get("spans")
    if isinstance(spans, list):  # MLflow
        root = next((span for span in spans if isinstance(span, Mapping) and _is_root(span)), None)
        if root is not None:
            attributes = root.get("attributes") or {}
            return root.get("inputs", attributes.get("mlflow.spanInputs"))
    if isinstance(data, Mapping) and "request" in data:
        return data["request"]
    for key in ("messages", "body", "request", "input", "inputs", "prompt"):
        if not is_empty(record.get(key)):
            return record[key]
    return None


def _is_root(span: Mapping[str, Any]) -> bool:
    return is_empty(span.get("parent_id")) and is_empty(span.get("parent_span_id"))


def _trace_id(record: Mapping[str, Any]) -> str | None:
    info = _opened(record.get("info"))
    places = (record, info if isinstance(info, Mapping) else {})
    keys = ("trace_id", "request_id", "custom_id", "id")
    found = next((place[key] for place in places for key in keys if not is_empty(place.get(key))), None)
    return None if found is None else text_cell(found, "id")


def _opened(value: Any) -> Any:
    """A JSON object, list or string in a text, opened; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def _turns(value: Any, depth: int = 0) -> list[Turn]:
    """The turns of a request; none where it holds no text."""
    value = _opened(value)
    if isinstance(value, str):
        return [Turn("user", value)] if value.strip() else []
    if isinstance(value, list):
        messages = [one for one in value if isinstance(one, Mapping) and ("role" in one or "from" in one)]
        if messages:
            spoken = [one for one in messages if not is_empty(one.get("content", one.get("value")))]
            return turns_of([_plain(one) for one in spoken], "messages") if spoken else []
        return _turns(value[0], depth + 1) if len(value) == 1 and depth < _DEPTH else []
    if isinstance(value, Mapping) and depth < _DEPTH:
        for key in _NESTED:
            if isinstance(_opened(value.get(key)), (list, Mapping)) and (found := _turns(value[key], depth + 1)):
                return found
        for key in _TEXTS:
            if isinstance(value.get(key), str) and value[key].strip():
                return [Turn("user", value[key])]
        texts = [one for one in value.values() if isinstance(one, str) and one.strip()]
        return [Turn("user", texts[0])] if len(texts) == len(value) == 1 else []
    return []


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with the parts of OpenAI's Responses API as those of chat completions, and without tool calls."""
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        content = [{**part, "type": "text"} if isinstance(part, Mapping) and part.get("type") in
                   ("input_text", "output_text") else part for part in content]  # fmt: skip
    return {"role": message.get("role", message.get("from")), "content": content}


def _question(turns: Sequence[Turn], take: Take) -> str:
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        return ""
    return turns[last].text if take == "last" else rendered(list(_without_system(turns[: last + 1])))


def _without_system(turns: Sequence[Turn]) -> Iterator[Turn]:
    return (turn for turn in turns if turn.role != "system")
