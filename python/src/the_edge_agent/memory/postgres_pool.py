"""The connections of a process to one PostgreSQL database, in psycopg's pool: how they are made, checked and ended."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from the_edge_agent.memory.postgres_errors import OutOfTimeError, refusal_of
from the_edge_agent.memory.results import LTMError
from the_edge_agent.memory.sockets import has_ended

# What its warnings say is told by our errors too, or needs no telling: they are for those who configure logging.
logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())

_LAST_WAIT: Final = 0.2  # seconds for the pool's threads to end: one may be waiting for a server that never answers


class _Attempts:
    """What became of the attempts to connect: psycopg's pool makes them in its thread and tells nobody."""

    def __init__(self) -> None:
        self.is_under_way = False
        self.failed = 0
        self.last: Exception | None = None

    def add(self, error: Exception) -> None:
        self.failed, self.last = self.failed + 1, error.with_traceback(None)


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up waiting for the server at a deadline; psycopg alone would wait for ever."""

    deadline = math.inf

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Connection:
        """Connect, set the session up, and tell why that did not work."""
        attempts: _Attempts = options.pop("attempts")
        settings: str = options.pop("settings")
        attempts.is_under_way = True
        try:
            connection: Any = super().connect(conninfo, **options)
            connection._set_up(settings, float(options["connect_timeout"]))
        except Exception as error:  # the look-up of a host's name has errors that are not psycopg's
            attempts.add(error)
            raise
        finally:
            attempts.is_under_way = False
        made: Connection = connection
        return made

    def _set_up(self, settings: str, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        try:
            self.execute(settings)
        except BaseException:
            self.close()
            raise
        self.deadline = math.inf

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Wait for the server; psycopg resumes ``gen`` ten times a second while nothing comes."""
        return super().wait(self._until_the_deadline(gen), *arguments, **options)

    def _until_the_deadline(self, gen: Any) -> Generator[Any, Any, Any]:
        try:
            wanted = gen.send(None)
            while True:
                ready = yield wanted
                if time.monotonic() > self.deadline:
                    raise OutOfTimeError("the wait for the server timed out")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


class Pool:
    """Connections that are made as they are needed; each seems alive when it is taken."""

    def __init__(self, url: str, *, size: int, timeout: float, connect_timeout: float) -> None:
        """Start the pool's threads; connect to nothing.

        Args:
            url: as libpq reads it.
            size: how many connections there may be.
            timeout: seconds that a call may take.
            connect_timeout: seconds that connecting may take.
        """
        self._attempts = _Attempts()
        # The server ends a wait for a lock before the call's deadline, so that no session of ours stays behind.
        settings = f"SET lock_timeout = {max(1, round(timeout * 900))}; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'"
        self._pool = ConnectionPool(
            url,
            connection_class=Connection,
            kwargs={
                "autocommit": True,
                "client_encoding": "utf8",
                "connect_timeout": max(1, math.ceil(min(connect_timeout, timeout))),  # nobody waits for longer
                "attempts": self._attempts,
                "settings": settings,
            },
            min_size=0,
            max_size=size,
            num_workers=1,
            reconnect_timeout=0,  # whoever waits is told, and asks again
            name="the-edge-agent",
            open=True,
        )

    def take(self, deadline: float) -> Connection:
        """Return a connection that seems alive, by a look at its socket.

        Raises:
            LTMError: why there is none.
        """
        failed, patience = self._attempts.failed, 0.05
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._out_of_time()
            try:
                connection = self._pool.getconn(timeout=min(patience, remaining))
            except PoolTimeout:
                if self._attempts.failed > failed and self._attempts.last is not None:
                    raise refusal_of(self._attempts.last) from None
                patience = min(2 * patience, 1.0)
                continue
            except PoolClosed:
                raise closed() from None
            connection.deadline = deadline
            if not has_ended(connection.fileno()):
                return connection
            connection.close()
            self._pool.putconn(connection)

    def give_back(self, connection: Connection) -> None:
        """Take back a connection, whatever became of its transaction."""
        try:
            if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
                is_busy = connection.info.transaction_status == TransactionStatus.ACTIVE
                connection.close() if is_busy else connection.rollback()
        except psycopg.Error:
            connection.close()
        connection.deadline = math.inf
        self._pool.putconn(connection)

    def replace_all(self) -> None:
        """Make every connection anew, those in use when they come back."""
        self._pool.drain()

    def close(self) -> None:
        """Close every connection, those in use when they come back."""
        self._pool.close(timeout=_LAST_WAIT)

    def _out_of_time(self) -> LTMError:
        if self._attempts.is_under_way:
            return refusal_of(OutOfTimeError("connecting timed out"))
        return LTMError("connection_timeout", "no connection became free in the pool; raise pool_size")


def closed() -> LTMError:
    """Return the failure of a call after close."""
    return LTMError("connection_error", "this backend is closed")
