"""``CallPool``, the connection pool of our own engines: waits end with the call, and one statement needs no proxy."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any, Final
from weakref import ref

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from the_edge_agent.memory.database.tickets import Ticket, Tickets
from the_edge_agent.memory.sql.driver import internals
from the_edge_agent.memory.sql.driver.deadlines import DeadlineError, current

_TICKET: Final = "the_edge_agent.ticket"
_connecting = threading.local()


class CallPool(QueuePool):
    """A pool in which a call waits for a connection no longer than the call may take.

    An exception at any moment, such as KeyboardInterrupt, cannot make its counts wrong; see ``Tickets``.
    """

    def __init__(self, creator: Any, pool_size: int = 5, max_overflow: int = 10, **options: Any) -> None:
        """Create the pool, with SQLAlchemy's arguments."""
        super().__init__(creator, pool_size, max_overflow, **options)
        if isinstance(self.logger, logging.Logger):  # otherwise ``echo_pool`` asked for messages
            self.logger = logging.getLogger("sqlalchemy.pool.CallPool")  # they are SQLAlchemy's, not ours
        self._tickets = Tickets(pool_size + max_overflow)
        self._idle: deque[ConnectionPoolEntry] = deque()

    def loan(self) -> Loan | None:
        """Return an idle connection without SQLAlchemy's proxy around it.

        Returns:
            None if no connection is idle, or if the pool logs, pings or has listeners, which needs the proxy.
        """
        if internals.needs_proxy(self):
            return None
        ticket = self._tickets.take_free()
        if ticket is None:
            return None
        entry = self._idle_one()
        if entry is None:
            self._tickets.give_back(ticket)
            return None
        info: Any = entry.record_info
        info[_TICKET] = ticket
        return Loan(self, entry)

    def take_back(self, entry: ConnectionPoolEntry) -> None:
        """Return the connection of a loan to the pool."""
        internals.call_checkin_listeners(self, entry)
        self._do_return_conn(entry)

    def _do_get(self) -> ConnectionPoolEntry:
        ticket = self._tickets.take(self._timeout)
        if ticket is None:
            raise PoolTimeout("no connection became free")
        _connecting.ticket = ref(ticket)
        try:
            entry = self._idle_one() or self._create_connection()
        except DeadlineError:
            del ticket  # the thread that is still connecting holds it until it ends
            raise
        except Exception:
            self._tickets.give_back(ticket)
            raise
        info: Any = entry.record_info
        info[_TICKET] = ticket
        return entry

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        info: Any = record.record_info
        ticket = info.pop(_TICKET, None)
        try:
            if len(self._idle) < self.size():
                self._idle.append(record)
            else:
                record.close()
        finally:
            if ticket is not None:
                self._tickets.give_back(ticket)

    def _idle_one(self) -> ConnectionPoolEntry | None:
        try:
            return self._idle.pop() if self._pool.use_lifo else self._idle.popleft()
        except IndexError:
            return None

    def dispose(self) -> None:
        """Close the idle connections."""
        while (entry := self._idle_one()) is not None:
            entry.close()

    def checkedin(self) -> int:
        """Return how many connections are idle."""
        return len(self._idle)

    def checkedout(self) -> int:
        """Return how many connections are in use."""
        return self._tickets.taken()

    def waiting(self) -> int:
        """Return how many threads wait for a connection."""
        return self._tickets.waiting()

    def overflow(self) -> int:
        """Return how many connections there are above ``pool_size``."""
        return self.checkedin() + self.checkedout() - self.size()

    @property
    def _timeout(self) -> float:
        deadline = current()
        return self._longest_wait if deadline is None else min(self._longest_wait, deadline.remaining())

    @_timeout.setter
    def _timeout(self, seconds: float) -> None:
        self._longest_wait = seconds


class Loan:
    """A connection of the pool for one statement.

    If an exception interrupts the call, the connection still goes back.
    """

    __slots__ = ("_connection_record", "_pool", "driver_connection")

    def __init__(self, pool: CallPool, entry: ConnectionPoolEntry) -> None:
        """Connect again if the connection is closed or too old."""
        self._pool = pool
        self._connection_record: ConnectionPoolEntry | None = entry
        try:
            self.driver_connection: Any = internals.connection_of(entry)
        except BaseException:
            self.close()  # now: the error may be in a reference cycle, which would hold this object
            raise

    @property
    def is_valid(self) -> bool:
        """Whether the connection was neither closed nor returned."""
        return self._connection_record is not None and self._connection_record.dbapi_connection is not None

    def invalidate(self, error: BaseException | None = None) -> None:
        """Close the connection, because its state is unknown."""
        if self._connection_record is not None:
            self._connection_record.invalidate(error)

    def close(self) -> None:
        """Return the connection to the pool."""
        entry, self._connection_record = self._connection_record, None
        if entry is not None:
            self._pool.take_back(entry)

    def __del__(self) -> None:
        """Return the connection if that was not done."""
        if getattr(self, "_connection_record", None) is not None:  # an interrupt may have come before ``__init__``
            self.close()


def ticket_of_this_thread() -> Ticket | None:
    """Return the ticket for the connection that this thread is opening."""
    ticket: ref[Ticket] | None = getattr(_connecting, "ticket", None)
    return None if ticket is None else ticket()
