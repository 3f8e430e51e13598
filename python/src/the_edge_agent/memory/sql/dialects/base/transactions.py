"""How transactions begin and end, and what time it is in them: the portable way."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, bindparam, or_, update
from sqlalchemy.types import TypeEngine

from the_edge_agent.memory.sql.dialects.base.connection import BEGINS_ITSELF
from the_edge_agent.memory.sql.dialects.base.features import Features, Part
from the_edge_agent.memory.sql.driver.deadlines import Deadline


class Transactions(Part):
    """How transactions begin, lock and end."""

    def begin(
        self, connection: Connection, deadline: Deadline | None, *, write: bool, snapshot: bool = False
    ) -> AbstractContextManager[Any]:
        """Begin a transaction and return what ends it.

        Args:
            connection: on which there is none.
            deadline: when the call ends, so that the database waits for no lock longer; None for its own limit.
            write: whether it will write.
            snapshot: whether all of its reads must see one state, where the database can do that.
        """
        transaction = connection.begin()
        if snapshot and self.features.before_snapshot is not None:
            connection.exec_driver_sql(self.features.before_snapshot)
        if (write or snapshot) and connection.get_execution_options().get(BEGINS_ITSELF):
            connection.exec_driver_sql("START TRANSACTION")
        return transaction

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Return a context in which one statement is a whole transaction; the connection is in none before."""
        return _Ended(driver_connection, write)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Lock the one row of a table until the transaction ends.

        Args:
            connection: that is in a transaction.
            table: with one row.
            exclusive: whether all others must wait. Without it several transactions can hold the lock together, where
                the database has such locks.
        """
        first = next(iter(table.c))
        connection.execute(update(table).values({first.name: first}))

    def analyze(self, connection: Connection, *tables: Table) -> None:
        """Refresh the statistics of tables that have just got many rows, where the planner needs that."""


class Times(Part):
    """What time it is in a transaction, and what has expired by then."""

    def __init__(self, features: Features, timestamp: TypeEngine[datetime]) -> None:
        """Bind times as ``timestamp``."""
        super().__init__(features)
        self.timestamp = timestamp

    @property
    def now(self) -> ColumnElement[Any]:
        """The time of the transaction, in a statement; the portable one is the process's clock."""
        return bindparam("b_now", type_=self.timestamp)

    def clock(self, connection: Connection | None = None, *, statements: int = 1) -> datetime | None:
        """Return the value to bind as the time of a transaction of that many statements; one needs no connection."""
        return datetime.now(timezone.utc)

    @property
    def expiry(self) -> ColumnElement[Any]:
        """When a row expires that is stored now; NULL for never.

        Of ``b_expires_at``; or of ``b_until`` and else, by the server's clock, of ``b_ttl``.
        """
        return bindparam("b_expires_at", type_=self.timestamp)

    def visible(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row has not expired."""
        return or_(table.c.expires_at.is_(None), table.c.expires_at > self.now)

    def expired(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row has expired."""
        return table.c.expires_at <= self.now

    def sortable(self, timestamp: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column of times in the form in which Python reads it quickest and can sort by it."""
        return timestamp


class _Ended:
    """Ends what a statement has begun."""

    def __init__(self, driver_connection: Any, write: bool) -> None:
        self._connection, self._write = driver_connection, write

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(Exception):  # of a lost connection
                self._connection.rollback()
        elif self._write:
            self._connection.commit()
        else:
            self._connection.rollback()
