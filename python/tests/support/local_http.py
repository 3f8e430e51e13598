"""An HTTP server in threads, for tests of actions that send requests."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Request:
    """What the server received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What the server sends. ``parts`` are sent one by one; ``cut`` then closes the connection before the end."""

    status: int = 200
    body: Any = ""
    headers: dict[str, str] = field(default_factory=dict)
    parts: Iterator[bytes] | None = None
    cut: bool = False


Answer: TypeAlias = Callable[[Request], Reply]


@dataclass
class LocalServer:
    """A running server: its address, the requests that it has received, and what answers them."""

    url: str
    answer: Answer
    requests: list[Request] = field(default_factory=list)


@contextmanager
def local_server(answer: Answer) -> Iterator[LocalServer]:
    """Run a server on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            server.requests.append(request)
            try:
                self._send(server.answer(request))
            except OSError:  # the client has gone
                self.close_connection = True

        do_GET = do_POST = _serve  # noqa: N815 - the names of http.server

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.parts is None:
                body = reply.body if isinstance(reply.body, bytes) else _encoded(reply.body)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in reply.parts:
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            if reply.cut:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Print nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = LocalServer(f"http://127.0.0.1:{http.server_port}", answer)
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def _encoded(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
