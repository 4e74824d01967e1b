"""A server on loopback that speaks as much of the Hugging Face Hub and of the Model Registry as is used."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.loopback import LoopbackServer

TOKEN = "hf_of-the-test"


class Handler(BaseHTTPRequestHandler):
    """Keeps what is posted; answers as the Hub does under /api/, and as the Model Registry does."""

    server: "Server"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        kind, query = parts.path.rsplit("/", 1)[-1], parse_qs(parts.query)
        if kind in ("registered_models", "model_versions"):
            return self._answer({"items": [], "nextPageToken": "", "pageSize": 1, "size": 0})
        if "/tree/" in parts.path:
            return self._answer([{"type": "file", "path": path, "size": 1, "oid": "1"} for path in self.server.files])
        end = "/artifacts" if kind == "model_artifact" else f"/{kind}s"
        found = [one for path, one in self.server.posted if path.endswith(end) and one["name"] == query["name"][0]]
        return (
            self._answer({"id": "1", **found[-1]}) if found else self._answer({"code": "404", "message": "none"}, 404)
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path
        if self.server.broken:
            return self._answer({"error": "down"}, 403)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and "model_registry" not in path:
            return self._answer({"error": "who are you?"}, 401)
        if "/commit/" in path:
            lines = [json.loads(line) for line in body.splitlines()]
            for value in (line["value"] for line in lines if line["key"] == "deletedFile"):
                del self.server.files[value["path"]]
            self.server.files |= {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            return self._answer({"commitUrl": f"{self.server.url}/me/student/commit/abc", "commitOid": "abc"})
        value = json.loads(body)
        if "/preupload/" in path:
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in value["files"]]
            return self._answer({"files": files})
        self.server.calls += 1
        fault = self.server.fault if self.server.calls == self.server.fault_at else ""
        if fault != "refused":
            self.server.posted.append((path, value))
        if fault:
            return self._answer({"error": fault}, 500)
        if path == "/api/repos/create":
            return self._answer({"url": f"{self.server.url}/me/student"})
        return self._answer({"id": "1", **value}, 201)

    def _answer(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(LoopbackServer):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, bytes] = {}
        self.broken = False
        self.calls = 0
        self.fault_at = 0
        """The number of the call, from 1, that fails; 0: none."""
        self.fault = "refused"
        """Or `lost`: it is done, and its answer says that it is not."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return server
