"""Servers and models as they are: for each dialect the rows kept, the requests sent and the tokens paid for."""

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.backends import openai_attempts
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.teacher_augment.augment import Augmented, TooManyFailures, teacher_augment
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.until_usable import OpenTeacher
from tests.support.loopback_endpoint import MODEL, Endpoint, HTTPResponse, completion

ROWS = 4
TOKENS = 18
"""Of one answer, as `completion` counts them."""
UNTOLD = 2048
"""At least so many are booked for an answer without usage: the longest answer."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(openai_attempts, "FIRST_WAIT", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    server = Endpoint()
    yield server
    server.close()


@dataclass
class Outcome:
    """What came of one iteration."""

    got: Augmented
    requests: int
    paid_calls: int
    paid_tokens: int
    questions: list[str] = field(default_factory=list)


@pytest.fixture
def go(endpoint: Endpoint, colours: Any, seeds: Any, mistake: Any) -> Callable[..., Outcome]:
    """Writes a row for each of `ROWS` errors, one request after the other."""

    def run(answer: Callable[[dict[str, Any], int], HTTPResponse], **settings: Any) -> Outcome:
        endpoint.answer = answer
        values = {"model": MODEL, "url": endpoint.url, "concurrency": 1, "max_failed_fraction": 1, **settings}
        checked = TeacherAugmentSettings.load(values, "teacher_augment")
        own = ModelSettings(**{name: getattr(checked, name) for name in ModelSettings.model_fields})
        tracker = SpendTracker(run="r", budget=checked.budget)
        with open_teacher(own, "openai", tracker) as ask:
            teacher = OpenTeacher("openai", MODEL, own, ask)
            errors = [mistake(seed) for seed in seeds[:ROWS]]
            got = teacher_augment(errors, seeds, [], set(), colours, checked, 1, 0, [teacher])
        paid = tracker.paid
        return Outcome(
            got, len(endpoint.requests), paid.calls, paid.tokens, sorted(row.question for row in got.candidates)
        )

    return run


def row(number: int, question: str = "a new blue cup, number {}") -> dict[str, str]:
    return {"question": question.format(number), "answer": "blue"}


def rows(number: int) -> str:
    return json.dumps({"examples": [row(number)]})


DRAFT = json.dumps({"examples": [{"question": "a draft of a cup", "answer": "red"}]})


def message(number: int, **fields: Any) -> HTTPResponse:
    return completion(fields.pop("content", rows(number)), **fields)


def with_content(content: Any, **fields: Any) -> HTTPResponse:
    came = completion("", **fields)
    came.body["choices"][0]["message"]["content"] = content
    return came


def stream(number: int, usage: bool = True) -> HTTPResponse:
    text = rows(number)
    events = [{"choices": [{"delta": {"content": text[i : i + 7]}}]} for i in range(0, len(text), 7)]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    if usage:
        events.append({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return HTTPResponse(body=b": keep-alive\n\n" + body.encode(), headers={"Content-Type": "text/event-stream"})


def called(number: int, name: str = "tool_calls") -> HTTPResponse:
    function = {"name": "answer", "arguments": rows(number)}
    return with_content(None, **({name: [{"function": function}]} if name == "tool_calls" else {name: function}))


def events(pieces: list[dict[str, Any]], begin: str = "", each: str = "") -> HTTPResponse:
    """A stream of choices."""
    values = [*pieces, {"delta": {}, "finish_reason": "stop"}]
    told = [*({"choices": [value]} for value in values), {"choices": [], "usage": completion("").body["usage"]}]
    body = begin + "".join(f"{each}data: {json.dumps(event)}\n\n" for event in told) + "data: [DONE]\n\n"
    return HTTPResponse(body=body.encode(), headers={"Content-Type": "text/event-stream"})


def in_pieces(text: str, wrap: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"delta": wrap(text[at : at + 7])} for at in range(0, len(text), 7)]


def plain_pieces(number: int) -> list[dict[str, Any]]:
    return in_pieces(rows(number), lambda text: {"content": text})


def tool_pieces(number: int) -> list[dict[str, Any]]:
    def wrap(text: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}

    return [*in_pieces(rows(number), wrap), {"delta": {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}}]


def second_first(number: int) -> HTTPResponse:
    came = message(number)
    came.body["choices"].insert(0, {"index": 1, "message": {"role": "assistant", "content": ""}})
    return came


def encoded(number: int, how: str, said: str = "") -> HTTPResponse:
    body = {**message(number).body, "note": "caf\u00e9"}
    content = json.dumps(body, ensure_ascii=False).encode(how)
    return HTTPResponse(body=content, headers={"Content-Type": f"application/json{said}"})


def compressed(number: int) -> HTTPResponse:
    content = gzip.compress(json.dumps(message(number).body).encode())
    return HTTPResponse(body=content, headers={"Content-Encoding": "gzip"})


def with_usage(number: int, **usage: Any) -> HTTPResponse:
    came = message(number)
    came.body["usage"] = usage
    return came


USED = {
    "plain": lambda n: message(n),
    "thoughts before it": lambda n: message(n, content=f"<think>First {DRAFT}</think>\n{rows(n)}"),
    "thoughts that began in the prompt": lambda n: message(n, content=f"First {DRAFT}\n</think>\n\n{rows(n)}"),
    "nested thoughts": lambda n: message(n, content=f"<think>a <think>{DRAFT}</think> b</think>{rows(n)}"),
    "thinking": lambda n: message(n, content=f"<thinking>{DRAFT}</thinking> {rows(n)}"),
    "Magistral": lambda n: message(n, content=f"[THINK]{DRAFT}[/THINK]{rows(n)}"),
    "channels": lambda n: message(
        n, content=f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{rows(n)}"
    ),
    "channels, marks skipped": lambda n: message(n, content=f"analysisWe need {DRAFT}assistantfinal{rows(n)}"),
    "a field for thoughts": lambda n: message(n, reasoning_content=DRAFT),
    "another field for thoughts": lambda n: message(n, reasoning=DRAFT),
    "all of it in the field for thoughts": lambda n: with_content(None, reasoning_content=rows(n)),
    "a list of parts": lambda n: with_content(
        [{"type": "text", "text": rows(n)[:9]}, {"type": "text", "text": rows(n)[9:]}]
    ),
    "a part of thoughts": lambda n: with_content(
        [{"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]}, {"type": "text", "text": rows(n)}]
    ),
    "null beside a tool call": lambda n: called(n),
    "null beside a function call": lambda n: called(n, "function_call"),
    "a stream": lambda n: stream(n),
    "a byte order mark": lambda n: HTTPResponse(body=b"\xef\xbb\xbf" + json.dumps(message(n).body).encode()),
    "white space before it": lambda n: HTTPResponse(body=b"\n\n  " + json.dumps(message(n).body).encode()),
    "a fence": lambda n: message(n, content=f"```json\n{rows(n)}\n```"),
    "words around it": lambda n: message(n, content=f"Sure, here it is:\n{rows(n)}\nHope this helps."),
    "a stream with the ids of its events": lambda n: events(plain_pieces(n), each=f"id: {n}\n"),
    "a stream that says when to come again": lambda n: events(plain_pieces(n), begin="retry: 100\n\n"),
    "a stream of tool calls": lambda n: events(tool_pieces(n)),
    "a stream of lists of parts": lambda n: events(
        in_pieces(rows(n), lambda text: {"content": [{"type": "text", "text": text}]})
    ),
    "a stream of two answers": lambda n: events(
        [piece for one in plain_pieces(n) for piece in (one, {**one, "index": 1})]
    ),
    "two answers, the second one first": lambda n: second_first(n),
    "UTF-16": lambda n: encoded(n, "utf-16", "; charset=utf-16"),
    "UTF-16 without a mark": lambda n: encoded(n, "utf-16-le"),
    "Latin-1": lambda n: encoded(n, "latin-1", '; charset="ISO-8859-1"'),
    "gzip that was not asked for": lambda n: compressed(n),
    "status 201": lambda n: HTTPResponse(201, message(n).body),
    "usage in floats": lambda n: with_usage(n, prompt_tokens=11.0, completion_tokens=7.0),
    "usage in texts": lambda n: with_usage(n, prompt_tokens="11", completion_tokens="7"),
    "a draft and its correction": lambda n: message(n, content=f"First: {DRAFT}\nWait, it is blue:\n{rows(n)}"),
    "a draft in a scratchpad": lambda n: message(n, content=f"<scratchpad>{DRAFT}</scratchpad>\n{rows(n)}"),
    "the schema before it": lambda n: message(n, content=f'{{"properties": {{"examples": {{}}}}}}\n{rows(n)}'),
    "usage by other names": lambda n: with_usage(n, input_tokens=11, output_tokens=7),
}  # fmt: skip


@pytest.mark.parametrize("dialect", USED)
def test_an_answer_that_can_be_used_is_used_and_paid_for_once(go: Callable[..., Outcome], dialect: str) -> None:
    came = go(lambda body, number: USED[dialect](number))
    assert came.questions == [row(number)["question"] for number in range(ROWS)]
    assert (len(came.got.rejects), came.requests, came.paid_calls, came.paid_tokens) == (0, ROWS, ROWS, ROWS * TOKENS)
    assert came.got.repaired == {}


@pytest.mark.parametrize("spelling", ["Blue", "BLUE", " blue", "**blue**", "blue."])
def test_a_label_in_another_spelling_is_the_label(go: Callable[..., Outcome], spelling: str) -> None:
    came = go(lambda body, number: completion(rows(number).replace('"blue"', json.dumps(spelling))))
    assert [example.answer for example in came.got.candidates] == ["blue"] * ROWS
    assert (came.got.rejects, came.requests) == ([], ROWS)


REPAIRED = {
    "raw line break": (lambda text: text.replace("blue cup", "blue\ncup"), {"line breaks"}),
    "trailing commas": (lambda text: text.replace("}]", ",},]"), {"syntax"}),
    "comments": (lambda text: text.replace('"answer"', '// the label\n"answer" /* one of the list */ '), {"syntax"}),
    "single quotes": (lambda text: text.replace('"', "'"), {"syntax"}),
    "names without quotes": (
        lambda text: text.replace('"question"', "question").replace('"answer"', "answer"), {"syntax"}
    ),
    "one object": (lambda text: json.dumps(json.loads(text)["examples"][0]), {"list"}),
    "a list without its key": (lambda text: json.dumps(json.loads(text)["examples"]), {"list"}),
    "another key": (lambda text: text.replace("examples", "rows"), {"list"}),
    "a backslash": (lambda text: text.replace("cup", r"\frac{1}{2} \times cup"), {"backslashes"}),
    "names in another case": (
        lambda text: text.replace("examples", "Examples").replace("question", "Question").replace("answer", "ANSWER"),
        {"form"},
    ),
    "names of a row in another case": (lambda text: text.replace("question", "Question"), {"form"}),
    "JSON in a text": (lambda text: json.dumps(text), {"form"}),
    "the list in a text": (lambda text: json.dumps({"examples": json.dumps(json.loads(text)["examples"])}), {"form"}),
    "rows in texts": (lambda text: json.dumps({"examples": [json.dumps(json.loads(text)["examples"][0])]}), {"form"}),
    "a row where the list should be": (lambda text: text.replace("[", "").replace("]", ""), {"form"}),
    "numbered rows": (lambda text: text.replace("[", '{"1": ').replace("]", "}"), {"form"}),
    "one object with more names": (
        lambda text: json.dumps({**json.loads(text)["examples"][0], "why": "it is blue"}), {"list"}
    ),
    "words of Python": (lambda text: text.replace('"}]', '", "note": None, "new": True}]'), {"syntax"}),
    "typographic quotes": (
        lambda text: text.replace(': "', ": “").replace('", ', "”, ").replace('"}', "”}"), {"syntax"}
    ),
    "fence and comma": (lambda text: f"```\n{text.replace('}]', '},]')}\n```", {"syntax"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", REPAIRED)
def test_json_as_models_write_it_is_repaired_and_counted(go: Callable[..., Outcome], kind: str) -> None:
    change, repairs = REPAIRED[kind]
    came = go(lambda body, number: completion(change(rows(number))))
    assert (len(came.got.candidates), came.requests, came.paid_tokens) == (ROWS, ROWS, ROWS * TOKENS)
    assert came.got.repaired == dict.fromkeys(repairs, ROWS)
    text = "".join(came.questions)
    assert "\f" not in text
    assert "\t" not in text
    if kind == "a backslash":
        assert came.questions[0] == r"a new blue \frac{1}{2} \times cup, number 0"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<think>" + DRAFT, "empty"),
        (f"<think>{DRAFT}</think>", "empty"),
        ('{"examples": [{"question": "a cup", "answer": "bl', "unparseable"),
        ('{"examples": [{"question": "a cup", "answer": "purple"}]}', "invalid"),
        ('{"examples": [{"question": "a \\f cup", "answer": "blue"}]}', "invalid"),
    ],
)
def test_what_is_no_answer_is_none(go: Callable[..., Outcome], content: str, reason: str) -> None:
    came = go(lambda body, number: completion(content), attempts=1)
    assert {reject.reason for reject in came.got.rejects} == {reason}
    assert (len(came.got.candidates), came.requests, came.paid_calls) == (0, ROWS, ROWS)


def test_thoughts_alone_are_told_plainly(go: Callable[..., Outcome]) -> None:
    came = go(lambda body, number: with_content(None, reasoning_content=f"Perhaps {DRAFT}?"), attempts=1)
    assert {reject.detail for reject in came.got.rejects} == {"the model wrote thoughts and no answer"}


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS"])
def test_an_answer_that_was_cut_off_is_never_completed(go: Callable[..., Outcome], reason: str) -> None:
    came = go(lambda body, number: completion('{"examples": [{"question": "a cup', finish_reason=reason), attempts=1)
    assert {reject.reason for reject in came.got.rejects} == {"truncated"}


def test_a_stream_that_ends_in_the_middle_was_cut_off(go: Callable[..., Outcome]) -> None:
    def answer(body: dict[str, Any], number: int) -> HTTPResponse:
        came = events(plain_pieces(number))
        came.body = came.body[: came.body.index(b"\n\n", 200) + 2]
        return came

    came = go(answer, attempts=1)
    assert {reject.reason for reject in came.got.rejects} == {"truncated"}
    assert came.paid_calls == ROWS


@pytest.mark.parametrize(
    "refused",
    [
        with_content([{"type": "refusal", "refusal": "I will not."}]),
        completion("", finish_reason="content_filter"),
        completion("", finish_reason="SAFETY"),
    ],
)
def test_a_refusal_is_told_as_one_however_it_comes(go: Callable[..., Outcome], refused: HTTPResponse) -> None:
    came = go(lambda body, number: refused, attempts=1)
    assert {reject.reason for reject in came.got.rejects} == {"refused"}


def test_the_page_of_a_proxy_costs_nothing(go: Callable[..., Outcome]) -> None:
    page = HTTPResponse(body=b"<html>back soon</html>", headers={"Content-Type": "text/html"})
    came = go(lambda body, number: page if number in (1, 2) else message(number))
    assert (len(came.got.candidates), came.requests, came.paid_tokens) == (ROWS, ROWS + 2, ROWS * TOKENS)


def test_an_answer_without_usage_is_booked_as_the_most_that_it_can_be(go: Callable[..., Outcome]) -> None:
    came = go(lambda body, number: stream(number, usage=False))
    assert (len(came.got.candidates), came.paid_calls) == (ROWS, ROWS)
    assert came.paid_tokens > ROWS * UNTOLD


def test_an_answer_without_a_choice_is_booked_as_its_usage_says(go: Callable[..., Outcome]) -> None:
    nothing = HTTPResponse(body={"choices": [], "usage": completion("").body["usage"]})
    came = go(lambda body, number: nothing if number in (1, 2) else message(number))
    assert (len(came.got.candidates), came.requests) == (ROWS, ROWS + 2)
    assert (came.paid_calls, came.paid_tokens) == (ROWS + 2, (ROWS + 2) * TOKENS)


def test_a_compression_that_cannot_be_read_ends_it_before_more_is_paid_for(
    endpoint: Endpoint, go: Callable[..., Outcome]
) -> None:
    unread = HTTPResponse(body=b"\x0b\x02\x80{}\x03", headers={"Content-Encoding": "br"})
    with pytest.raises(UserError, match="compresses its answers as br, which was not asked for; turn that off"):
        go(lambda body, number: unread)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "upstream is down", "code": 502}},
        {"error": {"message": "overloaded", "type": "overloaded_error"}, "choices": []},
        {"choices": [{"finish_reason": "error", "error": {"message": "it broke", "code": 500}}]},
        {"object": "error", "message": "the engine is dead", "type": "InternalServerError", "code": 50001},
    ],
)
def test_an_error_inside_200_costs_nothing_and_is_tried_again(go: Callable[..., Outcome], error: Any) -> None:
    came = go(lambda body, number: HTTPResponse(body=error) if number < 8 else message(number), tries=9,
              budget={"tokens": 5000})  # fmt: skip
    assert (len(came.got.candidates), came.requests, came.paid_tokens) == (ROWS, 8 + ROWS, ROWS * TOKENS)


def test_a_refusal_inside_200_fails_alone(go: Callable[..., Outcome]) -> None:
    refused = HTTPResponse(body={"error": {"message": "flagged", "type": "invalid_request_error"}})
    came = go(lambda body, number: message(number) if number else refused, structured="json_schema")
    assert len(came.got.candidates) == ROWS - 1
    (reject,) = came.got.rejects
    assert (reject.reason, reject.detail) == (
        "call_failed",
        "HTTP 200 with an error inside: flagged (invalid_request_error)",
    )
    assert came.paid_calls == ROWS - 1


class TestWithoutSchemas:
    """Each server is asked in words in the end; what it is sent before that costs as little as can be."""

    @pytest.mark.parametrize("status", [400, 404 + 18, 500, 501])
    def test_it_is_refused_or_breaks(self, go: Callable[..., Outcome], status: int, capfd: Any) -> None:
        def answer(body: dict[str, Any], number: int) -> HTTPResponse:
            if "response_format" in body:
                return HTTPResponse(status, {"error": {"message": "no"}})
            return message(number)

        came = go(answer, tries=2)
        assert len(came.got.candidates) == ROWS
        if status < 500:
            assert came.requests == ROWS + 1
        else:  # one failure may have another cause; others may be on their way when the second has come
            assert ROWS + 2 <= came.requests <= 2 * ROWS + 2
        assert (came.paid_calls, came.paid_tokens) == (ROWS, ROWS * TOKENS)
        assert capfd.readouterr().out.count("the form is asked for in words") == 1

    def test_it_is_ignored(self, go: Callable[..., Outcome]) -> None:
        def answer(body: dict[str, Any], number: int) -> HTTPResponse:
            return message(number, content="A cup." if "response_format" in body else rows(number))

        came = go(answer)
        assert (len(came.got.candidates), came.requests, came.paid_calls) == (ROWS, ROWS + 1, ROWS + 1)

    def test_a_server_that_once_took_one_is_not_doubted(self, endpoint: Endpoint, go: Callable[..., Outcome]) -> None:
        came = go(lambda body, number: HTTPResponse(500, {}) if number in (2, 3) else message(number))
        assert (len(came.got.candidates), came.requests) == (ROWS, ROWS + 2)
        assert all("response_format" in body for body in endpoint.requests)


@pytest.mark.parametrize(
    "said",
    [
        "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) is supported.",
        "Unsupported parameter: 'temperature' is not supported with this model.",
    ],
)
def test_a_model_without_a_temperature_is_asked_without_it(
    endpoint: Endpoint, go: Callable[..., Outcome], capfd: Any, said: str
) -> None:
    def answer(body: dict[str, Any], number: int) -> HTTPResponse:
        return HTTPResponse(400, {"error": {"message": said}}) if "temperature" in body else message(number)

    came = go(answer)
    assert (len(came.got.candidates), came.requests, came.paid_calls) == (ROWS, ROWS + 1, ROWS)
    assert all("response_format" in body for body in endpoint.requests), "the schema was not what it refused"
    assert "takes no temperature 0.7" in capfd.readouterr().out
    endpoint.requests.clear()
    assert go(answer, temperature=None).requests == ROWS


def test_further_parameters_and_headers_are_sent_and_secrets_come_from_the_environment(
    endpoint: Endpoint, go: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY", "canary-5f3a9c1e7b-gateway")
    go(lambda body, number: message(number), extra_body={"reasoning_effort": "low"},
       extra_headers={"X-Team": "colours", "X-Gateway-Token": "env:GATEWAY"})  # fmt: skip
    assert all(body["reasoning_effort"] == "low" for body in endpoint.requests)
    assert endpoint.headers[-1]["X-Team"] == "colours"
    assert endpoint.headers[-1]["X-Gateway-Token"] == "canary-5f3a9c1e7b-gateway"
    monkeypatch.delenv("GATEWAY")
    with pytest.raises(UserError, match=r"extra_headers.X-Gateway-Token: the environment variable GATEWAY is not set"):
        go(lambda body, number: message(number), extra_headers={"X-Gateway-Token": "env:GATEWAY"})


@pytest.mark.parametrize("path", ["", "/openai/deployments/mine", "/openai"])
def test_azure(endpoint: Endpoint, go: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-of-azure")
    endpoint.models = HTTPResponse(body={"data": [{"id": "gpt-base"}]})
    came = go(lambda body, number: message(number), url=endpoint.url.removesuffix("/v1") + path,
              api_version="2024-10-21")  # fmt: skip
    assert len(came.got.candidates) == ROWS
    deployment = "mine" if "deployments" in path else MODEL
    assert endpoint.paths == {
        "/openai/models?api-version=2024-10-21",
        f"/openai/deployments/{deployment}/chat/completions?api-version=2024-10-21",
    }
    assert endpoint.headers[-1]["api-key"] == "canary-of-azure"


class TestRowsThatAreKept:
    def test_rejects_are_asked_for_again_and_never_more_is_kept(self, go: Callable[..., Outcome]) -> None:
        came = go(lambda body, n: completion({"examples": [row(n if n % 2 else 1)]}), rows_per_iteration=4, attempts=5)
        assert len(came.got.candidates) == 4
        assert {reject.reason for reject in came.got.rejects} == {"copy"}
        assert len(came.got.rejects) + 4 == came.got.requested == came.requests
        assert came.got.wanted == 4

    def test_what_could_not_be_had_within_the_attempts_is_missing(self, go: Callable[..., Outcome]) -> None:
        came = go(lambda body, n: completion({"examples": [row(1)]}), rows_per_iteration=4, attempts=3)
        assert (len(came.got.candidates), came.got.wanted, came.requests) == (1, 4, 4 + 3 + 3)

    def test_a_question_of_the_training_set_is_no_new_row(self, go: Callable[..., Outcome]) -> None:
        came = go(
            lambda body, n: completion({"examples": [row(11, "a blue thing, number {}") if n < 4 else row(n)]}),
            rows_per_iteration=4,
        )
        assert (len(came.got.candidates), len(came.got.rejects), came.requests) == (4, 4, 8)

    def test_an_empty_purse_ends_it(self, go: Callable[..., Outcome]) -> None:
        came = go(
            lambda body, n: completion({"examples": [row(1)]}), rows_per_iteration=4, budget={"calls": 5}, attempts=9
        )
        assert (len(came.got.candidates), came.requests) == (1, 5)
        assert "over_budget" in {reject.reason for reject in came.got.rejects}

    def test_a_teacher_that_fails_is_not_asked_again_for_ever(
        self, endpoint: Endpoint, go: Callable[..., Outcome]
    ) -> None:
        with pytest.raises(TooManyFailures):
            go(lambda body, n: completion(""), rows_per_iteration=4, attempts=2, max_failed_fraction=0.1)
        assert len(endpoint.requests) == 8
