"""SQLite: FTS5 over the tokens, json_each for filters, BEGIN IMMEDIATE for writes."""

from __future__ import annotations

import gc
import os
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from math import ceil
from pathlib import Path as FilePath
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    TextClause,
    UniqueConstraint,
    event,
    inspect,
    text,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.util import asbool

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.showing import ordinary
from the_edge_agent.memory.database.errors import UNKNOWN_OPTION
from the_edge_agent.memory.sql.dialects.base import (
    COMMITS_ALONE,
    IN_USE,
    LIKE_INSTEAD,
    NO_HOST,
    PYTHON_INSTEAD,
    Dialect,
)
from the_edge_agent.memory.sql.dialects.conditions import FilterConditions
from the_edge_agent.memory.sql.dialects.probing import accepts
from the_edge_agent.memory.sql.dialects.sqlite.features import SQLiteFeatures
from the_edge_agent.memory.sql.dialects.sqlite.search import FTSConditions, JSONEachConditions
from the_edge_agent.memory.sql.dialects.text import TextConditions
from the_edge_agent.memory.sql.dialects.upsert import OnConflict, Upsert
from the_edge_agent.memory.sql.driver.deadlines import current
from the_edge_agent.memory.sql.driver.errors import classify
from the_edge_agent.memory.sqlite.damage import is_damage
from the_edge_agent.memory.sqlite.files import DatabaseFile, absolute
from the_edge_agent.memory.sqlite.forks import SQLiteCall
from the_edge_agent.memory.sqlite.index import definitions
from the_edge_agent.memory.sqlite.settings import OURS, TOLERANT, why_unusable

MEMDB_VERSION: Final = (3, 36, 0)  # the first whose connections can share a database in memory
BUSY_TIMEOUT: Final = 30.0  # seconds to wait for another writer
UNSOUND: Final = (
    "the driver of libSQL is not sound enough to keep a memory: it stops all threads while one waits for a lock, "
    "cannot be interrupted, and its errors have no codes; use sqlite:/// for local files"
)
_UNSOUND_DRIVERS: Final = frozenset({"libsql", "aiolibsql"})
_BUSY_TIMEOUT: Final = "the_edge_agent.busy_timeout"
_FILE: Final = "the_edge_agent.file"  # option of an engine of our own

# The arguments of ``sqlite3.connect``.
_DRIVER_OPTIONS: Final = frozenset(
    ("timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "cached_statements", "uri")
)
_FTS_TRIAL: Final = ("CREATE VIRTUAL TABLE temp.tea_trial USING fts5(text, tokenize='ascii', detail='none')",)
_JSON_TRIAL: Final = (
    "SELECT each.key, each.type, each.atom, each.value, json_valid(tree.value) "
    "FROM json_each('[1]') AS each, json_tree('[1]') AS tree"
)


class SQLiteDialect(Dialect):
    """SQLite 3.35 or later; without FTS5 or JSON functions it falls back to LIKE and to Python."""

    features: SQLiteFeatures = SQLiteFeatures()

    @classmethod
    def connect_args(cls, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return how long to wait for another writer."""
        return {"timeout": min(BUSY_TIMEOUT, timeout)}

    @classmethod
    def check_options(cls, url: URL, connect_args: Mapping[str, Any]) -> None:
        """Refuse an option that neither the driver nor SQLite would read."""
        unknown = ordinary(name for name in url.query if name not in _DRIVER_OPTIONS)
        if unknown and url.get_driver_name() == "pysqlite" and not asbool(url.query.get("uri", False)):
            advice = "what SQLite reads itself needs sqlite:///file:PATH?...&uri=true"
            raise LTMError("configuration_error", f"{UNKNOWN_OPTION[2]} ({', '.join(unknown)}); {advice}")

    @classmethod
    def engine_options(cls, url: URL) -> tuple[URL, dict[str, Any]]:
        """Give each memory database a name of its own, so that every thread has its own connection to it."""
        if url.get_driver_name() in _UNSOUND_DRIVERS:
            raise LTMError("configuration_error", UNSOUND)
        if url.host:
            raise LTMError("configuration_error", f"{NO_HOST}: {url.drivername}:///file")
        if url.get_driver_name() == "pysqlcipher" and not url.password:
            raise LTMError("configuration_error", "the url has no key: sqlite+pysqlcipher://:KEY@/file")
        if url.database not in (None, "", ":memory:"):
            return url, {}
        if sqlite3.sqlite_version_info < MEMDB_VERSION:
            return url, {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        named = url.set(database=f"file:/{uuid.uuid4()}").update_query_dict({"vfs": "memdb", "uri": "true"})
        return named, {}

    @classmethod
    def call(cls) -> AbstractContextManager[None]:
        """Let forks wait for the call."""
        return SQLiteCall()

    @classmethod
    def located(cls, url: URL) -> URL:
        """Make the path of a file absolute, also in a URI of SQLite."""
        name = url.database or ""
        if _path_of(url) is None:
            return url
        if not _is_uri(url):
            return url.set(database=absolute(name))
        rest = name.removeprefix("file:")
        return url if rest.startswith("/") else url.set(database=f"file:{quote(absolute('.'))[:-1]}{rest}")

    @classmethod
    def identity(cls, url: URL) -> URL:
        """Return a URL with the path that links lead to, the same for a path and a URI."""
        path = _path_of(url)
        return url if path is None else url.set(database=os.path.realpath(path)).difference_update_query(["uri"])

    @classmethod
    def new_file(cls, url: URL) -> FilePath | None:
        """Return the file that connecting would create: none in memory, nor where the mode forbids it."""
        path = _path_of(url)
        return None if path is None or not _can_create(url) or FilePath(path).exists() else FilePath(path)

    @classmethod
    def prepare_engine(cls, engine: Engine) -> Any:
        """Set each connection up; keep one open beside the pool, because a memory database lives that long."""
        path = _path_of(engine.url)
        file = None if path is None or not _is_on_disk(engine.url) else DatabaseFile(path)
        if file is not None:
            _look_after(engine, file)

        @event.listens_for(engine, "connect")
        def on_connect(driver_connection: Any, record: Any) -> None:
            for setting in OURS:
                driver_connection.execute(setting)
            driver_connection.text_factory, driver_connection.row_factory = TOLERANT, None
            record.info[_BUSY_TIMEOUT] = None
            if file is not None:
                file.opened(driver_connection)

        # An exception at any moment, such as KeyboardInterrupt, may have left a transaction, which holds the lock. That
        # outlives the connection's end while there is a cursor.
        @event.listens_for(engine, "checkin")
        @event.listens_for(engine, "close")
        def end_transaction(driver_connection: Any, record: Any) -> None:
            if driver_connection is not None and driver_connection.in_transaction:
                driver_connection.rollback()

        @event.listens_for(engine, "invalidate")
        def end_cursors(driver_connection: Any, record: Any, error: BaseException | None) -> None:
            for cursor in gc.get_referrers(driver_connection):
                if isinstance(cursor, engine.dialect.loaded_dbapi.Cursor):
                    cursor.close()

        if engine.url.query.get("vfs") != "memdb":
            return None
        args, kwargs = engine.dialect.create_connect_args(engine.url)
        return engine.dialect.loaded_dbapi.connect(*args, **kwargs)

    def extend(self, entries: Table, catalog: Table) -> None:
        """Give the full-text index a stable row number to point to."""
        entries.c.key.primary_key = False
        entries.append_column(Column("id", Integer, primary_key=True))
        entries.append_constraint(PrimaryKeyConstraint("id"))
        entries.append_constraint(UniqueConstraint("key"))

    @classmethod
    def why_unusable(cls, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Refuse a driver that no deadline can stop, and Python 3.12's transactions: they leave no room for ours."""
        if not hasattr(driver_connection, "interrupt"):
            return UNSOUND
        if isinstance(getattr(driver_connection, "autocommit", None), bool):
            return COMMITS_ALONE
        return IN_USE if is_shared and driver_connection.in_transaction else None

    @classmethod
    def is_damage(cls, error: BaseException, driver_connection: Any) -> bool:
        """Ask SQLite, unless the error tells it already."""
        return is_damage(error, driver_connection)

    @classmethod
    def stop(cls, driver_connection: Any) -> None:
        """Interrupt the statement that is running."""
        driver_connection.interrupt()

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
        callers = None if _FILE in connection.get_execution_options() else _file_of(connection)  # before a first read
        problem = why_unusable(driver_connection, is_file=_path_of(connection.engine.url) is not None)
        if problem is not None:
            raise LTMError("configuration_error", problem)
        if callers is not None:
            callers.opened(driver_connection)
        self.features.file = connection.get_execution_options().get(_FILE, callers)
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
            _wait_for_writers(connection)
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


def _is_uri(url: URL) -> bool:
    return (url.database or "").startswith("file:") and asbool(url.query.get("uri", False))


def _options(url: URL) -> dict[str, Any]:
    """Return the options in a URL that SQLite itself reads, such as ``mode``."""
    inner = parse_qsl((url.database or "").partition("?")[2]) if _is_uri(url) else []
    return {**url.query, **dict(inner)}


def _path_of(url: URL) -> str | None:
    """Return the path of the file that a URL means, None in memory."""
    name, options = url.database or "", _options(url)
    if _is_uri(url):
        name = unquote(urlsplit(name).path)
        if options.get("mode") == "memory" or options.get("vfs") == "memdb":
            return None
    return None if name in ("", ":memory:") else name


def _can_create(url: URL) -> bool:
    return not _is_uri(url) or _options(url).get("mode", "rwc") == "rwc"


def _is_on_disk(url: URL) -> bool:
    """Return whether the operating system has the file under its path; SQLite's other file systems need not."""
    return not _is_uri(url) or "vfs" not in _options(url)


def _file_of(connection: Connection) -> DatabaseFile | None:
    """Return the file of a caller's connection, as SQLite tells it."""
    if not _is_on_disk(connection.engine.url):
        return None
    path = connection.exec_driver_sql("PRAGMA database_list").fetchall()[0][2]
    if not isinstance(path, str) or not path:  # a text_factory is refused later
        return None
    file = DatabaseFile(path)
    with file.opening(create=False):
        return file


def _look_after(engine: Engine, file: DatabaseFile) -> None:
    engine.update_execution_options(**{_FILE: file})
    can_create = _can_create(engine.url)

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, args: Any, kwargs: Any) -> Any:
        connection = None
        try:
            with file.opening(create=can_create):
                connection = dialect.connect(*args, **kwargs)
                uri = file.frozen(connection)
                if uri is not None:
                    connection.close()
                    connection = dialect.connect(uri, **{**kwargs, "uri": True})
        except Exception:
            if connection is not None:
                connection.close()
            raise
        return connection

    @event.listens_for(engine, "close")
    def closed(driver_connection: Any, record: Any) -> None:
        file.closed(driver_connection)


def _columns(connection: Connection, name: str) -> set[str]:
    inspector = inspect(connection)
    return {found["name"] for found in inspector.get_columns(name)} if inspector.has_table(name) else set()


def _wait_for_writers(connection: Connection) -> None:
    """Let the connection wait for another writer as long as the call may take, in tenths of seconds."""
    deadline = current()
    seconds = BUSY_TIMEOUT if deadline is None else min(BUSY_TIMEOUT, ceil(deadline.remaining() * 10) / 10)
    if connection.info.get(_BUSY_TIMEOUT, seconds) != seconds:  # seldom
        connection.exec_driver_sql(f"PRAGMA busy_timeout={int(seconds * 1000)}")
        connection.info[_BUSY_TIMEOUT] = seconds
