"""A real HTTP proxy on loopback: whole URLs and CONNECT tunnels, both led to one server whatever name they ask for."""

import base64
import http.client
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler

from tests.support.loopback import LoopbackServer


class ProxyServer:
    """`requests` has `METHOD target` of all that it was asked.

    Args:
        port: Of the server on loopback that every name leads to.
        credentials: `user:password` without which it answers 407; empty: it asks for none.
        status: What it answers in place of the server, such as 502; 0: nothing of the kind.
    """

    def __init__(self, port: int, credentials: str = "", status: int = 0) -> None:
        self.requests: list[str] = []
        self.status = status
        proxy = self
        wanted = f"Basic {base64.b64encode(credentials.encode()).decode()}"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _refused(self) -> bool:
                proxy.requests.append(f"{self.command} {self.path}")
                status = proxy.status
                if credentials and self.headers.get("proxy-authorization") != wanted:
                    status = 407
                if status:
                    self.close_connection = True
                    self.send_response(status)
                    self.send_header("content-length", "0")
                    self.end_headers()
                return bool(status)

            def do_CONNECT(self) -> None:
                if self._refused():
                    return
                with socket.create_connection(("127.0.0.1", port)) as server:
                    self.send_response(200)
                    self.end_headers()
                    ends = [self.connection, server]
                    while True:
                        for end in select.select(ends, [], [])[0]:
                            data = end.recv(65536)
                            if not data:
                                self.close_connection = True
                                return
                            ends[1 - ends.index(end)].sendall(data)

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self._refused():
                    return
                path = "/" + self.path.split("/", 3)[3]
                server = http.client.HTTPConnection("127.0.0.1", port)
                server.request(self.command, path, body, dict(self.headers))
                answer = server.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers.get("content-type", ""))
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                server.close()

            do_GET = do_POST = do_DELETE = _pass_on

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._http = LoopbackServer(Handler)
        self.address = f"127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
