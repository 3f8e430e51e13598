"""The connections of a process to one PostgreSQL database: how they are made, checked and ended."""

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

from the_edge_agent.memory.core.in_time import TimedOutError, call_in_time
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.database.sockets import has_ended
from the_edge_agent.memory.database.tickets import Ticket, Tickets
from the_edge_agent.memory.postgres.errors import OutOfTimeError, refusal_of
from the_edge_agent.memory.postgres.refusals import learn_code
from the_edge_agent.memory.postgres.sessions import BEGIN_TO_SET_UP, lock_timeout, session_settings
from the_edge_agent.memory.postgres.url import where_of

_TO_CANCEL: Final = 1.0  # seconds
ENDS_A_PIPELINE: Final = "_exit_gen"  # psycopg's generator for it


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up waiting for the server at a deadline; psycopg alone would wait for ever.

    Attributes:
        deadline: of the call that uses it.
        ticket: of the pool, while it is in use.
        age: how often the pool had been renewed when it was made.
        is_direct: whether no pooler stands between, so that the session is ours and keeps its settings.
    """

    deadline = math.inf
    ticket: Ticket | None = None
    age = 0
    is_direct = False
    _has_failed = False  # the last wait

    def set_up(self, *, timeout: float, idle: float, seconds: float) -> None:
        """Make the settings of the session, in so many seconds; see ``session_settings``."""
        self.deadline = time.monotonic() + seconds
        settings = session_settings(
            timeout=timeout, idle=idle, server_version=self.info.server_version, process=self.info.backend_pid
        )
        answer = self.execute(f"{BEGIN_TO_SET_UP}; {settings}; COMMIT", prepare=False)  # several cannot be prepared
        answer.nextset()  # of BEGIN
        self.is_direct = answer.fetchone() is not None
        self.deadline = math.inf

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Wait for the server; psycopg resumes ``gen`` ten times a second while nothing comes.

        The end of a pipeline raises nothing after an error in it, which goes on: psycopg would log both.
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

    def __del__(self, *_: Any) -> None:
        """Say nothing: one that an exception has torn out of its call is closed with its memory."""

    def drop(self) -> None:
        """Close it, and first end what the server still does for it: psycopg does so for KeyboardInterrupt alone."""
        try:
            if self.info.transaction_status == TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):
                    self.cancel_safe(timeout=_TO_CANCEL)
        finally:  # an interrupt may strike here too
            self.close()


class Pool:
    """Connections that are made as they are needed; each seems alive when it is taken.

    An exception at any moment, as KeyboardInterrupt, leaves it whole: see ``Tickets``. A connection is referred to
    either by the pool, which lets no one have it twice, or by the call that uses it.
    """

    def __init__(
        self, url: str, *, size: int, timeout: float, connect_timeout: float, idle: float, prepare_threshold: int | None
    ) -> None:
        """Connect to nothing.

        Args:
            url: as libpq reads it.
            size: how many connections there may be.
            timeout: seconds that a call may take.
            connect_timeout: seconds that connecting may take.
            idle: seconds after which the server ends a transaction whose client sends nothing; 0 for its own setting.
            prepare_threshold: psycopg's.
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
        self._tickets = Tickets(size)
        self._unused: deque[Connection] = deque()
        self._age = 0
        self._is_closed = False

    def take(self, deadline: float) -> Connection:
        """Return a connection that seems alive, by a look at its socket.

        Raises:
            LTMError: why there is none.
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
        """Take back a connection, whatever became of its transaction.

        Args:
            connection: that ``take`` has returned.
            is_sound: whether it was left by an answer or by an error of the database, and not by any other exception.
        """
        ticket, connection.ticket = connection.ticket, None
        try:
            self._keep(connection, is_sound)
        finally:
            if ticket is not None:
                self._tickets.give_back(ticket)

    def replace_all(self) -> None:
        """Make every connection anew, those in use when they come back."""
        self._age += 1
        self._close_idle()

    def close(self) -> None:
        """Close every connection, those in use when they come back."""
        self._is_closed = True
        self._close_idle()

    def _keep(self, connection: Connection, is_sound: bool) -> None:
        status = connection.info.transaction_status
        if not is_sound:
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
            except IndexError:  # another thread was quicker
                return None
            if connection.age == self._age and not has_ended(connection.fileno()):
                return connection
            connection.close()
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
        except Exception as error:  # the look-up of a host's name has errors that are not psycopg's
            problem = refusal_of(error, self._where, self._sent)
        else:
            connection.age = age
            return connection
        raise problem

    def _connected(self, seconds: float, _: Ticket) -> Connection:
        """Connect; the ticket stays taken meanwhile, also when an exception has ended the wait for this."""
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
