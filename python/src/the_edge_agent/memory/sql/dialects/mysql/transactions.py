"""``MySQLTransactions`` and ``MySQLTimes``: transactions on MySQL, and the SQL for times."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    String,
    Table,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)

from the_edge_agent.memory.sql.dialects.base import Times, Transactions

_TIME_LENGTH: Final = 26  # characters of a time with its microseconds


class MySQLTransactions(Transactions):
    """Transactions of MySQL."""

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Do nothing if the connection is in autocommit mode, as those of our own engines are."""
        get_autocommit = getattr(driver_connection, "get_autocommit", None)  # mysql-connector would ask the server
        if get_autocommit is not None and get_autocommit():
            return nullcontext()
        return super().autocommit(driver_connection, write=write)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Lock the row by SELECT ... FOR UPDATE or FOR SHARE, which writes nothing."""
        connection.execute(select(table).with_for_update(read=not exclusive))


class MySQLTimes(Times):
    """Times of MySQL."""

    @property
    def now(self) -> ColumnElement[Any]:
        """The server's time of the statement, or the time that ``clock`` returned for the transaction."""
        return func.coalesce(cast(super().now, self.features.time_type), func.utc_timestamp(literal_column("6")))

    def clock(self, connection: Connection | None = None, *, statements: int = 1) -> datetime | None:
        """Read the server's time once for several statements, because UTC_TIMESTAMP changes between them."""
        if connection is None or statements == 1:
            return None
        return connection.scalar(select(cast(func.utc_timestamp(literal_column("6")), self.features.time_type)))

    @property
    def expiry(self) -> ColumnElement[Any]:
        """The SQL for when an entry expires, by the server's clock."""
        lived = func.timestampadd(literal_column("MICROSECOND"), bindparam("b_ttl", type_=BigInteger()), self.now)
        return func.coalesce(bindparam("b_until", type_=self.timestamp), lived, type_=self.timestamp)

    def sortable(self, timestamp: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the time as text: PyMySQL needs more time to parse it than for the rest of the row."""
        return cast(timestamp, String(_TIME_LENGTH))
