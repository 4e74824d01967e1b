"""A loopback server with OpenAI's batch API, which does what a test says and keeps count of what was sent to it."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.loopback import LoopbackServer

MODEL = "teacher-8b"
Line = dict[str, Any]


def answered(key: str, text: str = "yes", **message: Any) -> Line:
    """A line of results: a chat completion of 11 tokens in and 7 out."""
    body = {
        "model": MODEL,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
    return {"id": f"r-{key}", "custom_id": key, "response": {"status_code": 200, "body": body}, "error": None}


def refused(key: str, status: int, message: str) -> Line:
    """A line of errors: a request that the endpoint did not take."""
    body = {"error": {"message": message, "type": "invalid_request_error"}}
    return {"id": f"r-{key}", "custom_id": key, "response": {"status_code": status, "body": body}, "error": None}


def expired(key: str) -> Line:
    return {"custom_id": key, "response": None, "error": {"code": "batch_expired", "message": "not done within 24 h"}}


@dataclass
class Batch:
    id: str
    input_file: str
    metadata: dict[str, str]
    lines: list[Line]
    looks: int = 0

    @property
    def keys(self) -> list[str]:
        return [line["custom_id"] for line in self.lines]


@dataclass
class Ending:
    """How a batch ends: its status and the lines of its two files, which are JSON unless they are bytes."""

    output: list[Line | bytes] = field(default_factory=list)
    errors: list[Line | bytes] = field(default_factory=list)
    status: str = "completed"
    why: str = ""


@dataclass
class BatchServer:
    """`ends` says how a batch ends; None: it is still at work. `before` may answer any request in its stead with a
    status and a body, or with None, which drops the connection."""

    ends: Callable[[Batch], Ending | None] = field(
        default=lambda batch: Ending([answered(key, f"answer to {key}") for key in batch.keys])
    )
    before: Callable[[str, str], tuple[int, Any] | bool | None] = field(default=lambda method, path: False)
    after_create: Callable[[Batch], bool] = field(default=lambda batch: True)
    """Whether the answer to the creation of a batch is sent."""
    batches: list[Batch] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        server, self._lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer("GET", b"")

            def do_POST(self) -> None:
                self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, method: str, data: bytes) -> None:
                path = self.path.split("?")[0].removeprefix("/v1")
                server.keys.add(self.headers.get("Authorization", ""))
                server.seen.append(f"{method} {path}")
                instead = server.before(method, path)
                if instead is False:
                    with server._lock:
                        instead = server._route(method, path, data, self.headers.get("Content-Type", ""))
                if not isinstance(instead, tuple):
                    self.close_connection = True
                    self.connection.close()
                    return
                status, body = instead
                sent = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = LoopbackServer(Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def requested(self) -> list[str]:
        """The key of every request in every batch: what the bill is made from."""
        return [key for batch in self.batches for key in batch.keys]

    def _route(self, method: str, path: str, data: bytes, kind: str) -> tuple[int, Any] | None:
        if path == "/models":
            return 200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        if (method, path) == ("POST", "/files"):
            name = f"file-{len(self.files)}"
            self.files[name] = _uploaded(data, kind)
            return 200, {"id": name, "object": "file", "purpose": "batch", "bytes": len(data), "status": "processed"}
        if (method, path) == ("POST", "/batches"):
            asked = json.loads(data)
            assert asked["endpoint"] == "/v1/chat/completions"
            lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
            batch = Batch(f"batch-{len(self.batches)}", asked["input_file_id"], asked.get("metadata") or {}, lines)
            self.batches.append(batch)
            return (200, self._state(batch, None)) if self.after_create(batch) else None
        if (method, path) == ("GET", "/batches"):
            states = [self._state(batch, None) for batch in reversed(self.batches)]
            return 200, {"object": "list", "data": states, "has_more": False}
        if found := re.fullmatch(r"/batches/(.+)", path):
            batch = next((b for b in self.batches if b.id == found[1]), None)
            if batch is None:
                return 404, {"error": {"message": "no such batch"}}
            batch.looks += 1
            return 200, self._state(batch, self.ends(batch))
        if (found := re.fullmatch(r"/files/(.+)/content", path)) and found[1] in self.files:
            return 200, self.files[found[1]]
        return 404, {"error": {"message": f"no {path} here"}}

    def _state(self, batch: Batch, ending: Ending | None) -> dict[str, Any]:
        state: dict[str, Any] = {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "created_at": 0,
            "input_file_id": batch.input_file,
            "metadata": batch.metadata,
            "status": "in_progress" if ending is None else ending.status,
            "request_counts": {"total": len(batch.lines), "completed": 0, "failed": 0},
        }
        for name, lines in (("output", ending.output), ("error", ending.errors)) if ending else ():
            if lines:
                file = f"{batch.id}-{name}"
                sent = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
                self.files[file] = b"\n".join(sent) + b"\n"
                state[f"{name}_file_id"] = file
        if ending and ending.why:
            state["errors"] = {"object": "list", "data": [{"code": "limit", "message": ending.why}]}
        return state


def _uploaded(data: bytes, kind: str) -> bytes:
    """The file in a form that was posted."""
    form = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + data)
    for part in form.walk():
        if part.get_param("name", header="Content-Disposition") == "file":
            found = part.get_payload(decode=True)
            assert isinstance(found, bytes)
            return found
    raise AssertionError("no file in the form")
