"""The portable parts ``Transactions``, which begins and ends transactions, and ``Times``, the SQL for times."""

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
    """Begins, locks and ends transactions."""

    def begin(
        self, connection: Connection, deadline: Deadline | None, *, write: bool, snapshot: bool = False
    ) -> AbstractContextManager[Any]:
        """Begin a transaction and return the context manager that ends it.

        Args:
            connection: a connection that is in no transaction.
            deadline: when the call ends. The database waits for locks no longer than that; None keeps its own limit.
            write: whether the transaction will write.
            snapshot: whether all its reads must see one state, if the database can do that.
        """
        transaction = connection.begin()
        if snapshot and self.features.before_snapshot is not None:
            connection.exec_driver_sql(self.features.before_snapshot)
        if (write or snapshot) and connection.get_execution_options().get(BEGINS_ITSELF):
            connection.exec_driver_sql("START TRANSACTION")
        return transaction

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Return a context manager in which one statement is a whole transaction.

        The connection is in no transaction before.
        """
        return _EndOfStatement(driver_connection, write)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Lock the one row of a table until the transaction ends.

        Args:
            connection: a connection that is in a transaction.
            table: a table with one row.
            exclusive: whether all others must wait. If False, several transactions can hold the lock together, if the
                database has such locks.
        """
        first = next(iter(table.c))
        connection.execute(update(table).values({first.name: first}))

    def analyze(self, connection: Connection, *tables: Table) -> None:
        """Refresh the statistics of tables that have just got many rows, if the planner needs them."""


class Times(Part):
    """SQL for the time of a transaction, and for expiry at that time."""

    def __init__(self, features: Features, timestamp: TypeEngine[datetime]) -> None:
        """``timestamp`` is the SQL type for times that are bound."""
        super().__init__(features)
        self.timestamp = timestamp

    @property
    def now(self) -> ColumnElement[Any]:
        """The SQL for the time of the transaction. The portable dialect binds the time of the process's clock."""
        return bindparam("b_now", type_=self.timestamp)

    def clock(self, connection: Connection | None = None, *, statements: int = 1) -> datetime | None:
        """Return the time to bind in a transaction of so many statements. For one statement no connection is needed."""
        return datetime.now(timezone.utc)

    @property
    def expiry(self) -> ColumnElement[Any]:
        """The SQL expression for the expiry of a row that is stored now; NULL for never.

        The portable dialect binds ``b_expires_at``. With the server's clock it is ``b_until`` or, if that is NULL, the
        time now plus ``b_ttl``.
        """
        return bindparam("b_expires_at", type_=self.timestamp)

    def visible(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row has not expired."""
        return or_(table.c.expires_at.is_(None), table.c.expires_at > self.now)

    def expired(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row has expired."""
        return table.c.expires_at <= self.now

    def sortable(self, timestamp: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column of times in the form that Python reads fastest and that sorts in the order of time."""
        return timestamp


class _EndOfStatement:
    """Ends the transaction that a single statement began."""

    def __init__(self, driver_connection: Any, write: bool) -> None:
        self._connection, self._write = driver_connection, write

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(Exception):  # the connection may be lost
                self._connection.rollback()
        elif self._write:
            self._connection.commit()
        else:
            self._connection.rollback()
