"""A loopback server that answers JSON from a dict: the few paths of Kubernetes, a registry or a teacher."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.loopback import LoopbackServer


class JsonServer:
    """`answers` has (status, JSON) for each `METHOD path`, or a function of the body; 404 for the rest."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any] | Callable[[Any], tuple[int, Any]]] = {}
        self.headers: dict[str, dict[str, str]] = {}
        """Further headers of an answer, by `METHOD path`."""
        self.needs: dict[str, str] = {}
        """The Authorization without which an answer is 401, by `METHOD path`."""
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                name = f"{self.command} {self.path.partition('?')[0]}"
                server.requests.append(name)
                answer = server.answers.get(name, (404, {"kind": "Status", "status": "Failure", "reason": "NotFound"}))
                status, value = answer(json.loads(body or b"{}")) if callable(answer) else answer
                if name in server.needs and self.headers.get("authorization") != server.needs[name]:
                    status, value = 401, {"error": {"message": f"bad key {self.headers.get('authorization')}"}}
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                for key, text in server.headers.get(name, {}).items():
                    self.send_header(key, text)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_HEAD = _any

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = LoopbackServer(Handler)
        self.address = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
