"""``PostgreSQLTransactions`` and ``PostgreSQLTimes``: transactions on PostgreSQL, and the SQL for times."""

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
        """Begin a transaction. With ``snapshot`` it is REPEATABLE READ, the only level whose reads see one state.

        If the session does not keep settings, they are set for this transaction.
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
        # psycopg also commits a transaction that we begin ourselves. So BEGIN and the settings need only one round
        # trip.
        with _Autocommit(driver_connection), super().begin(connection, deadline, write=True) as transaction:
            begin = "; ".join([f"BEGIN ISOLATION LEVEL {level}", *settings])
            driver_connection.execute(begin, prepare=False)  # several statements cannot be prepared as one
            yield transaction

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Switch autocommit on for one statement. psycopg and psycopg2 send nothing for that."""
        return _Autocommit(driver_connection)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Lock the row without writing it."""
        connection.execute(select(table).with_for_update(read=not exclusive))

    def analyze(self, connection: Connection, *tables: Table) -> None:
        """Refresh the statistics. With the statistics of empty tables, a join of two large tables would never end."""
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
    """Switches autocommit on, so that each statement is a transaction of its own, and restores it at the end."""

    def __init__(self, driver_connection: Any) -> None:
        self._connection = driver_connection

    def __enter__(self) -> None:
        self._before = self._connection.autocommit
        self._level = getattr(self._connection, "isolation_level", None)
        # Otherwise psycopg2 sets the level of the session to the database's default each time.
        self._takes_level = self._level is not None and hasattr(self._connection, "set_session")
        if self._takes_level:
            self._connection.isolation_level = None
        self._connection.autocommit = True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._connection.closed:
            return
        # During a statement psycopg raises an error here, which must not replace an exception such as SystemExit.
        with nullcontext() if error is None else suppress(Exception):
            self._connection.autocommit = self._before
            if self._takes_level:
                self._connection.isolation_level = self._level
