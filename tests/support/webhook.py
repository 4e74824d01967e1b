"""A loopback webhook that keeps what it is told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.support.loopback import LoopbackServer

URL = "LLM2LLM_NOTIFY_URL"
"""The environment variable that `notify.url_env` names by default."""


class Webhook:
    """`received` has the JSON of each message, in order; `status` is what it answers."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                hook.paths.append(self.path)
                self.send_response(hook.status)
                self.send_header("content-length", "0")
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = LoopbackServer(Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/hook/s3cret"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """A webhook whose address is in the environment."""
    server = Webhook()
    monkeypatch.setenv(URL, server.url)
    yield server
    server.stop()
