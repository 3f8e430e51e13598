"""How transactions begin and end on PostgreSQL, and what time it is in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Interval,
    Table,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)

from the_edge_agent.memory.postgres.sessions import lock_timeout
from the_edge_agent.memory.sql.dialects.base import SECONDS, Times, Transactions
from the_edge_agent.memory.sql.dialects.postgresql.features import PostgreSQLFeatures
from the_edge_agent.memory.sql.driver.deadlines import Deadline


class PostgreSQLTransactions(Transactions):
    """Transactions of PostgreSQL."""

    features: PostgreSQLFeatures

    def begin(
        self, connection: Connection, deadline: Deadline | None, *, write: bool, snapshot: bool = False
    ) -> AbstractContextManager[Any]:
        """Begin a transaction; only REPEATABLE READ keeps one state.

        In a session that is not ours what it needs is set until it ends.
        """
        if snapshot:
            connection.execution_options(isolation_level="REPEATABLE READ")
        if self.features.keeps_settings:
            return super().begin(connection, deadline, write=write)
        return self._begin_with_settings(connection, deadline, "REPEATABLE READ" if snapshot else "READ COMMITTED")

    @contextmanager
    def _begin_with_settings(self, connection: Connection, deadline: Deadline | None, level: str) -> Iterator[Any]:
        seconds = connection.get_execution_options().get(SECONDS)
        settings = ["SET LOCAL gin_fuzzy_search_limit = 0"]
        if seconds is not None:
            settings.append(f"SET LOCAL lock_timeout = {lock_timeout(seconds)}")
        driver_connection: Any = connection.connection.driver_connection
        if connection.dialect.driver not in self.features.preparing_drivers:
            with super().begin(connection, deadline, write=True) as transaction:
                connection.exec_driver_sql("; ".join(settings))
                yield transaction
            return
        # psycopg commits what it has not begun: so the settings come in the round trip of BEGIN.
        with _Autocommit(driver_connection), super().begin(connection, deadline, write=True) as transaction:
            begin = "; ".join([f"BEGIN ISOLATION LEVEL {level}", *settings])
            driver_connection.execute(begin, prepare=False)  # several statements cannot be prepared as one
            yield transaction

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Turn autocommit on for a while: psycopg and psycopg2 send nothing for that."""
        return _Autocommit(driver_connection)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Lock the row without writing it."""
        connection.execute(select(table).with_for_update(read=not exclusive))

    def analyze(self, connection: Connection, *tables: Table) -> None:
        """Refresh the statistics: with those of an empty table a join of two large ones never ends."""
        for table in tables:
            connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.format_table(table)}")


class PostgreSQLTimes(Times):
    """Times of PostgreSQL."""

    @property
    def now(self) -> ColumnElement[Any]:
        """The server's time at which the transaction began."""
        return func.now()

    def clock(self, connection: Connection | None = None, *, statements: int = 1) -> datetime | None:
        """Return None: ``now`` needs no parameter."""
        return None

    @property
    def expiry(self) -> ColumnElement[Any]:
        """When an entry expires, by the server's clock."""
        microsecond: ColumnElement[Any] = literal_column("interval '1 microsecond'", type_=Interval())
        lived = self.now + cast(bindparam("b_ttl", type_=BigInteger()), BigInteger) * microsecond
        return func.coalesce(
            cast(bindparam("b_until", type_=self.timestamp), self.features.time_type), lived, type_=self.timestamp
        )


class _Autocommit:
    """Each statement is a transaction of its own."""

    def __init__(self, driver_connection: Any) -> None:
        self._connection = driver_connection

    def __enter__(self) -> None:
        self._before = self._connection.autocommit
        self._level = getattr(self._connection, "isolation_level", None)
        # Else psycopg2 resets the session's own level, each time, to that of the database.
        self._takes_level = self._level is not None and hasattr(self._connection, "set_session")
        if self._takes_level:
            self._connection.isolation_level = None
        self._connection.autocommit = True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._connection.closed:
            return
        # In the middle of a statement psycopg refuses: that must not replace an exception such as SystemExit.
        with nullcontext() if error is None else suppress(Exception):
            self._connection.autocommit = self._before
            if self._takes_level:
                self._connection.isolation_level = self._level
