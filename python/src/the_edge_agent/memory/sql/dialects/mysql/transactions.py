"""How transactions begin and end on MySQL, and what time it is in them."""

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
        """Do nothing where statements commit by themselves, as they do on an engine of our own."""
        get_autocommit = getattr(driver_connection, "get_autocommit", None)  # mysql-connector would ask the server
        if get_autocommit is not None and get_autocommit():
            return nullcontext()
        return super().autocommit(driver_connection, write=write)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Lock the row without writing it."""
        connection.execute(select(table).with_for_update(read=not exclusive))


class MySQLTimes(Times):
    """Times of MySQL."""

    @property
    def now(self) -> ColumnElement[Any]:
        """The server's time of the statement, unless the transaction has fixed one."""
        return func.coalesce(cast(super().now, self.features.time_type), func.utc_timestamp(literal_column("6")))

    def clock(self, connection: Connection | None = None, *, statements: int = 1) -> datetime | None:
        """Ask the server once for a transaction of several statements; UTC_TIMESTAMP moves between them."""
        if connection is None or statements == 1:
            return None
        return connection.scalar(select(cast(func.utc_timestamp(literal_column("6")), self.features.time_type)))

    @property
    def expiry(self) -> ColumnElement[Any]:
        """When an entry expires, by the server's clock."""
        lived = func.timestampadd(literal_column("MICROSECOND"), bindparam("b_ttl", type_=BigInteger()), self.now)
        return func.coalesce(bindparam("b_until", type_=self.timestamp), lived, type_=self.timestamp)

    def sortable(self, timestamp: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return it as text: PyMySQL takes longer to make a time than for the rest of the row."""
        return cast(timestamp, String(_TIME_LENGTH))
