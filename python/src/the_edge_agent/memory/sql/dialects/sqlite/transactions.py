"""``SQLiteTransactions``: how transactions begin and end on SQLite."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from math import ceil
from types import TracebackType
from typing import Any, Final

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError

from the_edge_agent.memory.sql.dialects.base import Transactions
from the_edge_agent.memory.sql.dialects.sqlite.connection import BUSY_SETTING, BUSY_TIMEOUT
from the_edge_agent.memory.sql.dialects.sqlite.features import SQLiteFeatures
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sqlite.files import DatabaseFile
from the_edge_agent.memory.sqlite.settings import TOLERANT

_FILE_KNOWN: Final = "the_edge_agent.file_known"  # in the info of a caller's connection


class SQLiteTransactions(Transactions):
    """Transactions of SQLite."""

    features: SQLiteFeatures

    def begin(
        self, connection: Connection, deadline: Deadline | None, *, write: bool, snapshot: bool = False
    ) -> AbstractContextManager[Any]:
        """Begin a transaction.

        One that writes takes the lock first: a read before the write could make it fail as busy.
        """
        file = self.features.file
        if file is not None:
            file.check_read()
        driver_connection = connection.connection.driver_connection
        transaction, callers = super().begin(connection, deadline, write=write), None
        if driver_connection is not None and driver_connection.text_factory is str:  # a caller's connection
            if file is not None and _FILE_KNOWN not in connection.info:  # which SQLAlchemy empties with the connection
                file.opened(driver_connection)
                connection.info[_FILE_KNOWN] = True
            transaction = callers = _CallersTransaction(transaction, driver_connection, deadline if write else None)
        elif write:
            _wait_for_writers(connection, deadline)
        try:
            has_begun = driver_connection is not None and driver_connection.in_transaction  # by a caller's listener
            if has_begun and write:
                connection.exec_driver_sql("ROLLBACK")
            if write or not has_begun:
                connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
        except BaseException:
            if callers is not None:
                callers.give_back()
            raise
        return self._checked(transaction, driver_connection, write=write)

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Return a context manager that commits a write. A statement that only reads begins no transaction."""
        file = self.features.file
        if file is not None:
            file.check_read()
        ended = super().autocommit(driver_connection, write=True) if write else nullcontext()
        return self._checked(ended, driver_connection, write=write)

    def _checked(
        self, transaction: AbstractContextManager[Any], driver_connection: Any, *, write: bool
    ) -> AbstractContextManager[Any]:
        file = self.features.file
        if file is None or not (write or file.is_frozen):
            return transaction
        return _CheckedFile(transaction, file, driver_connection if write else None)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Do nothing: BEGIN IMMEDIATE has locked the database."""


class _CallersTransaction:
    """Ends a transaction on a caller's connection, and restores the connection's settings."""

    def __init__(
        self, transaction: AbstractContextManager[Any], driver_connection: Any, deadline: Deadline | None
    ) -> None:
        self._transaction, self._connection = transaction, driver_connection
        self._busy_timeout: int | None = None
        if deadline is not None:
            self._wait_no_longer_than(deadline)
        driver_connection.text_factory = TOLERANT

    def _wait_no_longer_than(self, deadline: Deadline) -> None:
        milliseconds = int(deadline.remaining() * 1000)
        busy_timeout = self._connection.execute("PRAGMA busy_timeout").fetchone()[0]
        if busy_timeout > milliseconds:
            self._connection.execute(f"PRAGMA busy_timeout={milliseconds}")
            self._busy_timeout = busy_timeout

    def __enter__(self) -> Any:
        return self._transaction.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._connection.text_factory = str
            self._transaction.__exit__(kind, error, trace)
        finally:
            self.give_back()

    def give_back(self) -> None:
        """Restore the connection's settings."""
        self._connection.text_factory = str
        if self._busy_timeout is not None:
            with suppress(Exception):  # the connection may be closed
                self._connection.execute(f"PRAGMA busy_timeout={self._busy_timeout}")


class _CheckedFile:
    """Ends a transaction and checks the file: it must have what was written, or must not have changed during a read.

    ``driver_connection`` is None if the transaction only read.
    """

    def __init__(self, transaction: AbstractContextManager[Any], file: DatabaseFile, driver_connection: Any) -> None:
        self._transaction, self._file, self._connection = transaction, file, driver_connection

    def __enter__(self) -> Any:
        return self._transaction.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transaction.__exit__(kind, error, trace)
        if error is None and self._connection is None:
            self._file.check()
        elif error is None:
            self._file.check_written(self._connection)
        elif isinstance(error, DBAPIError):
            self._file.check()


def _wait_for_writers(connection: Connection, deadline: Deadline | None) -> None:
    """Let the connection wait for other writers until the call's deadline, rounded to tenths of a second."""
    seconds = BUSY_TIMEOUT if deadline is None else min(BUSY_TIMEOUT, ceil(deadline.remaining() * 10) / 10)
    if connection.info.get(BUSY_SETTING, seconds) != seconds:  # it is rarely different
        connection.exec_driver_sql(f"PRAGMA busy_timeout={int(seconds * 1000)}")
        connection.info[BUSY_SETTING] = seconds
