"""A server with so much of PostgreSQL's protocol that it can refuse a connection, with a text in any language."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

_ASKS_FOR_ENCRYPTION = (80877103, 80877104)  # SSLRequest and GSSENCRequest


class RefusingServer:
    """Refuses each connection with a code and a text, as PostgreSQL does.

    Attributes:
        port: the port on 127.0.0.1.
        count: how many connections were refused.
    """

    def __init__(self, code: str, text: str) -> None:
        self._fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": text}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self.count = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> RefusingServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError, struct.error):  # such as when a client ends the connection
                client, _ = self._listener.accept()
                with client:
                    client.settimeout(5)
                    self._refuse(client)

    def _refuse(self, client: socket.socket) -> None:
        while True:
            length, kind = struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))
            if length > 8:
                client.recv(length - 8, socket.MSG_WAITALL)
            if kind not in _ASKS_FOR_ENCRYPTION:
                break
            client.sendall(b"N")
        self.count += 1
        body = b"".join(name.encode() + text.encode() + b"\0" for name, text in self._fields.items())
        client.sendall(b"E" + struct.pack("!i", len(body) + 5) + body + b"\0")
