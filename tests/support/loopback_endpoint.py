"""An endpoint on loopback that does what a test says."""

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.loopback import LoopbackServer

MODEL = "teacher-8b"


@dataclass
class HTTPResponse:
    """What the endpoint sends: a status and a body, which is JSON unless it is bytes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


def completion(content: Any, finish_reason: str = "stop", **message: Any) -> HTTPResponse:
    """A chat completion; content that is no text is sent as JSON text."""
    text = content if isinstance(content, str) else json.dumps(content)
    message = {"role": "assistant", "content": text, **message}
    return HTTPResponse(
        body={
            "id": "c1",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }
    )


def with_logprobs(content: str, *places: dict[str, float], as_bytes: bool = True) -> HTTPResponse:
    """A completion whose tokens come with log-probabilities, as OpenAI and vLLM send them.

    Args:
        content: The text.
        places: The likeliest tokens at each place with their probabilities; the first is the one that was written.
        as_bytes: Whether `bytes` come along, as not every server sends them.
    """

    def token(text: str, probability: float) -> dict[str, Any]:
        raw = list(text.encode()) if as_bytes else None
        return {"token": text, "bytes": raw, "logprob": math.log(probability) if probability else -9999.0}

    answer = completion(content)
    told = [
        {**token(*next(iter(place.items()))), "top_logprobs": [token(*one) for one in place.items()]}
        for place in places
    ]
    answer.body["choices"][0]["logprobs"] = {"content": told, "refusal": None}
    return answer


def written(*examples: tuple[str, str]) -> HTTPResponse:
    """A completion that holds these (question, answer) pairs in the form asked for."""
    return completion({"examples": [{"question": question, "answer": answer} for question, answer in examples]})


class Endpoint:
    """An OpenAI-compatible server. `answer` gets each chat request's body and its number, from 0."""

    def __init__(self) -> None:
        self.models: HTTPResponse | Callable[[], HTTPResponse] = HTTPResponse(
            body={"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        )
        self.answer: Callable[[dict[str, Any], int], HTTPResponse] = lambda body, number: written(
            (f"a new blue thing, number {number}", "blue")
        )
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.paths: set[str] = set()
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                endpoint.keys.add(self.headers.get("Authorization", ""))
                endpoint.paths.add(self.path)
                models = endpoint.models
                self._send(models if isinstance(models, HTTPResponse) else models())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.keys.add(self.headers.get("Authorization", ""))
                endpoint.paths.add(self.path)
                endpoint.headers.append(dict(self.headers.items()))
                with endpoint._lock:
                    number = len(endpoint.requests)
                    endpoint.requests.append(body)
                    endpoint.in_flight += 1
                    endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
                answer = endpoint.answer(body, number)
                time.sleep(answer.delay)
                with endpoint._lock:
                    endpoint.in_flight -= 1
                self._send(answer)

            def _send(self, answer: HTTPResponse) -> None:
                content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **answer.headers}
                try:
                    self.send_response(answer.status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                    if int(headers["Content-Length"]) != len(content):
                        self.close_connection = True
                except OSError:
                    self.close_connection = True  # the client has given up

            def log_message(self, *_: Any) -> None:
                pass

        self._server = LoopbackServer(Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
