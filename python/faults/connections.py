"""What faults do to connections: kill them on the server, or cut, slow and stop them in a proxy before it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Protocol

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

OTHERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
}
KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}
SESSION = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}


class Addressed(Protocol):
    """A database, with its URL."""

    @property
    def url(self) -> str:
        """The URL, for SQLAlchemy."""


def kill_connections(database: Addressed, *only: int) -> int:
    """End every connection to a database, or only these, and return how many there were."""
    engine = create_engine(database.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        found = only or tuple(connection.scalars(text(OTHERS[engine.dialect.name])))
        for session in found:
            with contextlib.suppress(Exception):  # gone by itself
                connection.execute(text(KILL[engine.dialect.name].format(session)))
    return len(found)


def session_of(connection: Any) -> int:
    """Return the server's number of a connection."""
    return int(connection.scalar(text(SESSION[connection.dialect.name])))


class Proxy:
    """A TCP proxy before a server; while ``silent`` it accepts and holds connections, and passes nothing on.

    ``cut`` has it end the next connection that sends something in place of passing that on: a ``request``, which the
    server never sees then, or a ``reply``, so that the client is not told what was done; ``when_cut`` is called before.
    With ``skip`` so many of them pass first.
    """

    def __init__(self, url: str) -> None:
        target = make_url(url)
        self._target = (str(target.host), int(target.port or 0))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = target.set(host="127.0.0.1", port=self._listener.getsockname()[1]).render_as_string(
            hide_password=False
        )
        self.silent = threading.Event()
        self.cut: Literal["request", "reply"] | None = None
        self.skip = 0
        self.when_cut: Callable[[], object] = lambda: None
        self._servers: set[Any] = set()
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for each in (self._listener, *self._sockets):
            each.close()

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)
        while not self._ended.is_set():
            for ready, _ in selector.select(0.05):
                if ready.fileobj is self._listener:
                    self._accept(selector)
                elif not self.silent.is_set():
                    self._pass_on(selector, ready)
            if self.silent.is_set():
                self._ended.wait(0.01)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        ours, _ = self._listener.accept()
        try:
            theirs = socket.create_connection(self._target)
        except OSError:
            ours.close()
            raise
        self._sockets += [ours, theirs]
        self._servers.add(theirs)
        selector.register(ours, selectors.EVENT_READ, theirs)
        selector.register(theirs, selectors.EVENT_READ, ours)

    def _pass_on(self, selector: selectors.BaseSelector, ready: selectors.SelectorKey) -> None:
        source: Any = ready.fileobj
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(65536)
        if data and self.cut == ("reply" if source in self._servers else "request"):
            self.skip -= 1
            if self.skip < 0:
                self.cut, self.skip, data = None, 0, b""
                self.when_cut()
        if data:
            with contextlib.suppress(OSError):
                ready.data.sendall(data)
            return
        for each in (source, ready.data):
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(each)
            each.close()
