"""Faults of connections: ends them on the server, or cuts and stops them in a proxy between client and server."""

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
    """End the connections in ``only``, or all connections to a database, and return how many there were."""
    engine = create_engine(database.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        sessions = only or tuple(connection.scalars(text(OTHERS[engine.dialect.name])))
        for session in sessions:
            with contextlib.suppress(Exception):  # the session has ended by itself
                connection.execute(text(KILL[engine.dialect.name].format(session)))
    return len(sessions)


def session_of(connection: Any) -> int:
    """Return the number that the server has given to a connection."""
    return int(connection.scalar(text(SESSION[connection.dialect.name])))


class Proxy:
    """A TCP proxy in front of a server.

    Attributes:
        url: the URL of the server, with the address of the proxy.
        silent: while this is set, the proxy accepts and holds connections, but passes nothing on.
        cut: if it is ``request``, the proxy does not pass the next request on, and ends its connection: the server
            never gets the request. If it is ``reply``, it does the same with the next reply: the client does not learn
            what the server has done.
        skip: how many requests or replies pass before the cut.
        when_cut: a function that is called before the connection is ended.
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
