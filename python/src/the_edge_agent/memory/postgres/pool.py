"""``Pool``: opens, checks and closes the connections of a process to one PostgreSQL database."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from the_edge_agent.memory.contract.result_types import PoolState
from the_edge_agent.memory.core.calls import note_retry
from the_edge_agent.memory.core.in_time import TimedOutError, call_in_time
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.database.sockets import has_ended
from the_edge_agent.memory.database.tickets import Ticket, Tickets
from the_edge_agent.memory.postgres.errors import OutOfTimeError, refusal_of
from the_edge_agent.memory.postgres.refusals import learn_code
from the_edge_agent.memory.postgres.sessions import BEGIN_TO_SET_UP, lock_timeout, session_settings
from the_edge_agent.memory.postgres.url import where_of

_TO_CANCEL: Final = 1.0  # seconds
ENDS_A_PIPELINE: Final = "_exit_gen"  # the name of psycopg's generator that ends a pipeline


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that stops waiting for the server at a deadline. psycopg alone would wait for ever.

    Attributes:
        deadline: the deadline of the call that uses the connection.
        ticket: the ticket of the pool, while the connection is in use.
        age: the number of renewals of the pool at the time when the connection was opened.
        is_direct: whether there is no pooler between us and the server, so that the session keeps its settings.
    """

    deadline = math.inf
    ticket: Ticket | None = None
    age = 0
    is_direct = False
    _has_failed = False  # whether the last wait failed

    def set_up(self, *, timeout: float, idle: float, seconds: float) -> None:
        """Make the settings of the session, within ``seconds``; see ``session_settings``."""
        self.deadline = time.monotonic() + seconds
        settings = session_settings(
            timeout=timeout, idle=idle, server_version=self.info.server_version, process=self.info.backend_pid
        )
        answer = self.execute(f"{BEGIN_TO_SET_UP}; {settings}; COMMIT", prepare=False)  # cannot prepare several
        answer.nextset()  # skip the result of BEGIN
        self.is_direct = answer.fetchone() is not None
        self.deadline = math.inf

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Wait for the server. While the server sends nothing, psycopg resumes ``gen`` ten times a second.

        If a pipeline has failed, its end raises no second error, because psycopg would log both. The first error is
        raised.
        """
        has_failed, self._has_failed = self._has_failed, True
        try:
            answer = super().wait(self._until_the_deadline(gen), *arguments, **options)
        except psycopg.Error:
            if has_failed and getattr(gen, "__name__", "") == ENDS_A_PIPELINE:
                return None
            raise
        self._has_failed = False
        return answer

    def _until_the_deadline(self, gen: Any) -> Generator[Any, Any, Any]:
        try:
            event = gen.send(None)
            while True:
                ready = yield event
                if time.monotonic() > self.deadline:
                    raise OutOfTimeError("the wait for the server timed out")
                event = gen.send(ready)
        except StopIteration as end:
            return end.value

    def stop(self) -> None:
        """Stop waiting for the server soon: within a tenth of a second. Another thread may call this."""
        self.deadline = -math.inf

    def __del__(self, *_: Any) -> None:
        """Do not warn. If an exception interrupted the call, the connection is closed when it is freed."""

    def drop(self) -> None:
        """Cancel the running statement and close. psycopg cancels only for KeyboardInterrupt."""
        try:
            if self.info.transaction_status == TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):
                    self.cancel_safe(timeout=_TO_CANCEL)
        finally:  # an interrupt may come here too
            self.close()


class Pool:
    """Connections that are opened when they are needed. ``take`` checks that the connection seems alive.

    An exception at any moment, such as KeyboardInterrupt, does not damage the pool; see ``Tickets``. Either the pool or
    one call has a reference to a connection, so that two calls never use the same connection.
    """

    def __init__(
        self, url: str, *, size: int, timeout: float, connect_timeout: float, idle: float, prepare_threshold: int | None
    ) -> None:
        """Prepare the pool. Do not connect.

        Args:
            url: the URL, as libpq reads it.
            size: the highest number of connections.
            timeout: seconds that a call may take.
            connect_timeout: seconds that connecting may take.
            idle: the server ends a transaction after so many seconds without a statement; 0 means the server's setting.
            prepare_threshold: the option of psycopg.
        """
        self._where, self._sent = where_of(url)
        self._url, self._connect_timeout = url, min(connect_timeout, timeout)
        self._options: dict[str, Any] = {
            "autocommit": True,
            "client_encoding": "utf8",
            "connect_timeout": max(1, math.ceil(self._connect_timeout)),
            "prepare_threshold": prepare_threshold,
        }
        self._timeout, self._idle = timeout, idle
        self.lock_timeout = lock_timeout(timeout)
        self._size, self._tickets = size, Tickets(size)
        self._unused: deque[Connection] = deque()
        self._age = 0
        self._is_closed = False

    def take(self, deadline: float) -> Connection:
        """Return a connection whose socket shows that it seems alive.

        Raises:
            LTMError: there is no connection; the message says why.
        """
        ticket = self._tickets.take(deadline - time.monotonic())
        if ticket is None:
            raise LTMError("connection_timeout", "no connection became free in the pool; raise pool_size")
        try:
            connection = self._idle_one() or self._new(deadline, ticket)
        except LTMError:
            self._tickets.give_back(ticket)
            raise
        connection.ticket, connection.deadline = ticket, deadline
        return connection

    def give_back(self, connection: Connection, *, is_sound: bool) -> None:
        """Take back a connection, after its transaction succeeded or failed.

        Args:
            connection: a connection that ``take`` returned.
            is_sound: whether the call succeeded or failed with an error of the database, and not by another exception.
        """
        ticket, connection.ticket = connection.ticket, None
        try:
            self._keep(connection, is_sound)
        finally:
            if ticket is not None:
                self._tickets.give_back(ticket)

    def replace_all(self) -> None:
        """Replace every connection. Those in use are closed when they come back."""
        self._age += 1
        self._close_idle()

    def close(self) -> None:
        """Close every connection. Those in use are closed when they come back."""
        self._is_closed = True
        self._close_idle()

    def state(self) -> PoolState:
        """Return the numbers of connections."""
        return {
            "size": self._size,
            "in_use": self._tickets.taken(),
            "idle": len(self._unused),
            "overflow": 0,
            "waiting": self._tickets.waiting(),
        }

    def _keep(self, connection: Connection, is_sound: bool) -> None:
        status = connection.info.transaction_status
        if not is_sound or connection.deadline == -math.inf:
            connection.drop()
            return
        try:
            if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                connection.rollback()
                status = connection.info.transaction_status
        except psycopg.Error:
            is_sound = False
        if not is_sound or status != TransactionStatus.IDLE or connection.age != self._age:
            connection.close()
            return
        connection.deadline = math.inf
        self._unused.append(connection)
        if self._is_closed:
            self._close_idle()

    def _idle_one(self) -> Connection | None:
        while self._unused:
            try:
                connection = self._unused.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.age == self._age and not has_ended(connection.fileno()):
                return connection
            connection.close()
            note_retry()
        return None

    def _close_idle(self) -> None:
        while self._unused:
            try:
                self._unused.pop().close()
            except IndexError:
                return

    def _new(self, deadline: float, ticket: Ticket) -> Connection:
        if self._is_closed:
            raise closed()
        seconds, age = min(self._connect_timeout, deadline - time.monotonic()), self._age
        problem: LTMError
        try:
            work = partial(self._connected, seconds, ticket)
            connection = call_in_time(work, seconds=seconds, undo=Connection.close)
        except TimedOutError:
            problem = refusal_of(OutOfTimeError("connecting timed out"), self._where, self._sent)
        except Exception as error:  # looking up the name of a host raises errors that are not psycopg's
            problem = refusal_of(error, self._where, self._sent)
        else:
            connection.age = age
            return connection
        raise problem

    def _connected(self, seconds: float, _: Ticket) -> Connection:
        """Connect. The ticket stays taken until this ends, even if an exception has ended the wait for it."""
        end = time.monotonic() + seconds
        try:
            connection = Connection.connect(self._url, **self._options)
        except psycopg.Error as error:
            learn_code(error, self._url, end - time.monotonic())
            raise
        try:
            connection.set_up(timeout=self._timeout, idle=self._idle, seconds=seconds)
        except BaseException:
            connection.close()
            raise
        return connection


def closed() -> LTMError:
    """Return the failure of a call after close."""
    return LTMError("connection_error", "this backend is closed")
