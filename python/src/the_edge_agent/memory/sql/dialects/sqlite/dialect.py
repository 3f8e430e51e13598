"""SQLite: FTS5 over the tokens, json_each for filters, BEGIN IMMEDIATE for writes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    TextClause,
    UniqueConstraint,
    inspect,
    text,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.sql.dialects.base import LIKE_INSTEAD, PYTHON_INSTEAD, Dialect
from the_edge_agent.memory.sql.dialects.conditions import FilterConditions
from the_edge_agent.memory.sql.dialects.probing import accepts
from the_edge_agent.memory.sql.dialects.sqlite.connection import (
    FILE,
    SQLiteEngines,
    SQLiteSessions,
    file_of,
    path_of,
    wait_for_writers,
)
from the_edge_agent.memory.sql.dialects.sqlite.features import SQLiteFeatures
from the_edge_agent.memory.sql.dialects.sqlite.search import FTSConditions, JSONEachConditions
from the_edge_agent.memory.sql.dialects.text import TextConditions
from the_edge_agent.memory.sql.dialects.upsert import OnConflict, Upsert
from the_edge_agent.memory.sql.driver.deadlines import current
from the_edge_agent.memory.sql.driver.errors import classify
from the_edge_agent.memory.sqlite.files import DatabaseFile
from the_edge_agent.memory.sqlite.index import definitions
from the_edge_agent.memory.sqlite.settings import TOLERANT, why_unusable

_FTS_TRIAL: Final = ("CREATE VIRTUAL TABLE temp.tea_trial USING fts5(text, tokenize='ascii', detail='none')",)
_JSON_TRIAL: Final = (
    "SELECT each.key, each.type, each.atom, each.value, json_valid(tree.value) "
    "FROM json_each('[1]') AS each, json_tree('[1]') AS tree"
)


class SQLiteDialect(Dialect):
    """SQLite 3.35 or later; without FTS5 or JSON functions it falls back to LIKE and to Python."""

    features: SQLiteFeatures = SQLiteFeatures()
    engines = SQLiteEngines()
    sessions = SQLiteSessions()

    def extend(self, entries: Table, catalog: Table) -> None:
        """Give the full-text index a stable row number to point to."""
        entries.c.key.primary_key = False
        entries.append_column(Column("id", Integer, primary_key=True))
        entries.append_constraint(PrimaryKeyConstraint("id"))
        entries.append_constraint(UniqueConstraint("key"))

    def set_up(self, connection: Connection) -> None:
        """Switch to WAL, which lasts; a file that is read-only stays as it is."""
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        except DBAPIError as error:
            if not classify(error).denied:
                raise

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Refuse settings that change answers, then look at what the tables and this SQLite have.

        Raises:
            LTMError: ``configuration_error`` for such settings, or an index that this SQLite cannot keep.
        """
        driver_connection = connection.connection.driver_connection
        callers = None if FILE in connection.get_execution_options() else file_of(connection)  # before a first read
        problem = why_unusable(driver_connection, is_file=path_of(connection.engine.url) is not None)
        if problem is not None:
            raise LTMError("configuration_error", problem)
        if callers is not None:
            callers.opened(driver_connection)
        self.features.file = connection.get_execution_options().get(FILE, callers)
        self._look_at(connection, entries)

    def _look_at(self, connection: Connection, entries: Table) -> None:
        """Look for the full-text index of a table that is there, else whether FTS5 can make one; and for json_each."""
        features = self.features
        has_fts5, features.has_json = accepts(connection, *_FTS_TRIAL), accepts(connection, _JSON_TRIAL)
        index = _columns(connection, f"{entries.name}_fts")
        has_words = "metadata" in index
        for lacks, needs in (
            (index and not has_fts5, "FTS5"),
            (has_words and not features.has_json, "JSON functions"),
        ):
            if lacks:
                message = f"the database has a full-text index that needs {needs}, which this SQLite lacks"
                raise LTMError("configuration_error", f"{message}; it cannot keep it in step")
        keeps_text = "search_text" in entries.c
        is_made = keeps_text and not index and has_fts5 and "search_text" not in _columns(connection, entries.name)
        features.has_text_index = keeps_text and (bool(index) or is_made)
        features.has_metadata_words = has_words or (is_made and features.has_json)
        missing = {
            LIKE_INSTEAD: keeps_text and not features.has_text_index,
            PYTHON_INSTEAD: not features.has_json,
        }
        features.fall_back(missing)

    def create(self, connection: Connection, *tables: Table) -> None:
        """Create what is missing; look again first, because another process may have made the table meanwhile."""
        # Without the check of the settings, which ends the transaction that the tables are created in.
        self._look_at(connection, tables[0])
        super().create(connection, *tables)

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Add the full-text index and the triggers that keep it."""
        found = super().definitions(entries, *others)
        if self.features.has_text_index:
            found += map(text, definitions(entries.name, has_json=self.features.has_metadata_words))
        return found

    def search_tables(self, entries: Table) -> list[Table]:
        """Return the full-text index, whose own tables go with it, and the entries' triggers with the entries."""
        return [Table(f"{entries.name}_fts", MetaData())] if self.features.has_text_index else []

    def begin(self, connection: Connection, *, write: bool, snapshot: bool = False) -> AbstractContextManager[Any]:
        """Take the write lock first: a transaction that reads and then writes would fail as busy."""
        if self.features.file is not None:
            self.features.file.check_read()
        driver_connection = connection.connection.driver_connection
        transaction, callers = super().begin(connection, write=write), None
        if driver_connection is not None and driver_connection.text_factory is str:  # a caller's
            transaction = callers = _OnCallers(transaction, driver_connection, write=write)
        elif write:
            wait_for_writers(connection)
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
        return self._kept(transaction, driver_connection, write=write)

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Commit what is written: a statement that reads begins no transaction."""
        if self.features.file is not None:
            self.features.file.check_read()
        ended = super().autocommit(driver_connection, write=True) if write else nullcontext()
        return self._kept(ended, driver_connection, write=write)

    def _kept(
        self, transaction: AbstractContextManager[Any], driver_connection: Any, *, write: bool
    ) -> AbstractContextManager[Any]:
        if self.features.file is None or not (write or self.features.file.is_frozen):
            return transaction
        return _Kept(transaction, self.features.file, driver_connection if write else None)

    def lock_row(self, connection: Connection, table: Table, *, exclusive: bool) -> None:
        """Do nothing: BEGIN IMMEDIATE has locked the database."""

    def upsert(self, table: Table, row: Mapping[str, Any]) -> Upsert:
        """Return an upsert that stores rows in one statement."""
        return OnConflict(table, row, insert)

    def filters(self, table: Table) -> FilterConditions:
        """Return the conditions by json_each, if this SQLite has it."""
        return JSONEachConditions(table) if self.features.has_json else super().filters(table)

    def texts(self, entries: Table) -> TextConditions:
        """Return the conditions by FTS5, if this SQLite has it."""
        if not self.features.has_text_index:
            return super().texts(entries)
        return FTSConditions(entries, has_metadata_words=self.features.has_metadata_words)


class _OnCallers:
    """Ends a transaction on a caller's connection, and gives it its settings back."""

    def __init__(self, transaction: AbstractContextManager[Any], driver_connection: Any, *, write: bool) -> None:
        self._transaction, self._connection = transaction, driver_connection
        self._busy_timeout: int | None = None
        if write:
            self._wait_no_longer_than_the_call()
        driver_connection.text_factory = TOLERANT

    def _wait_no_longer_than_the_call(self) -> None:
        deadline = current()
        if deadline is None:
            return
        milliseconds = int(deadline.remaining() * 1000)
        kept = self._connection.execute("PRAGMA busy_timeout").fetchone()[0]
        if kept > milliseconds:
            self._connection.execute(f"PRAGMA busy_timeout={milliseconds}")
            self._busy_timeout = kept

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
        """Give the connection its settings back."""
        self._connection.text_factory = str
        if self._busy_timeout is not None:
            with suppress(Exception):  # the connection may be closed
                self._connection.execute(f"PRAGMA busy_timeout={self._busy_timeout}")


class _Kept:
    """Ends a transaction, and looks at the file: what was written must be found there, or what was read be unchanged.

    It was read if there is no connection.
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


def _columns(connection: Connection, name: str) -> set[str]:
    inspector = inspect(connection)
    return {found["name"] for found in inspector.get_columns(name)} if inspector.has_table(name) else set()
