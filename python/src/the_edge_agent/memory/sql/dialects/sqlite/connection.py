"""``SQLiteEngines`` prepares engines for SQLite, ``SQLiteSessions`` its connections."""

from __future__ import annotations

import gc
import os
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path as FilePath
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool
from sqlalchemy.util import asbool

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.showing import ordinary
from the_edge_agent.memory.database.errors import UNKNOWN_OPTION
from the_edge_agent.memory.sql.dialects.base import COMMITS_ALONE, IN_USE, NO_HOST, Engines, Sessions
from the_edge_agent.memory.sqlite.damage import is_damage
from the_edge_agent.memory.sqlite.files import DatabaseFile, absolute
from the_edge_agent.memory.sqlite.forks import SQLiteCall
from the_edge_agent.memory.sqlite.settings import OURS, TOLERANT

MEMDB_VERSION: Final = (3, 36, 0)  # the first SQLite whose connections can share a database in memory
BUSY_TIMEOUT: Final = 30.0  # seconds to wait for another writer
UNSOUND: Final = (
    "the driver of libSQL is not sound enough to keep a memory: it stops all threads while one waits for a lock, "
    "cannot be interrupted, and its errors have no codes; use sqlite:/// for local files"
)
_UNSOUND_DRIVERS: Final = frozenset({"libsql", "aiolibsql"})
BUSY_SETTING: Final = (
    "the_edge_agent.busy_timeout"  # in the info of connections: the last value that was set, None for the default
)
FILE: Final = "the_edge_agent.file"  # option of an engine that we made
# The arguments of ``sqlite3.connect``.
_DRIVER_OPTIONS: Final = frozenset(
    ("timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "cached_statements", "uri")
)


class SQLiteEngines(Engines):
    """Engines for SQLite."""

    def connect_args(self, driver: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
        """Return how long to wait for another writer."""
        return {"timeout": min(BUSY_TIMEOUT, timeout)}

    def located(self, url: URL) -> URL:
        """Make the path of a file absolute, also in a URI of SQLite."""
        name = url.database or ""
        if path_of(url) is None:
            return url
        if not _is_uri(url):
            return url.set(database=absolute(name))
        rest = name.removeprefix("file:")
        return url if rest.startswith("/") else url.set(database=f"file:{quote(absolute('.'))[:-1]}{rest}")

    def identity(self, url: URL) -> URL:
        """Return the URL with the real path, without links. It is the same for a path and a URI."""
        path = path_of(url)
        return url if path is None else url.set(database=os.path.realpath(path)).difference_update_query(["uri"])

    def check_options(self, url: URL, connect_args: Mapping[str, Any]) -> None:
        """Refuse an option that neither the driver nor SQLite reads."""
        unknown = ordinary(name for name in url.query if name not in _DRIVER_OPTIONS)
        if unknown and url.get_driver_name() == "pysqlite" and not asbool(url.query.get("uri", False)):
            advice = "options of SQLite itself need sqlite:///file:PATH?...&uri=true"
            raise LTMError("configuration_error", f"{UNKNOWN_OPTION[2]} ({', '.join(unknown)}); {advice}")

    def arguments(self, url: URL) -> tuple[URL, dict[str, Any]]:
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

    def new_file(self, url: URL) -> FilePath | None:
        """Return the file that a connection would create. Return None in memory, or if the mode forbids creating it."""
        path = path_of(url)
        return None if path is None or not _can_create(url) or FilePath(path).exists() else FilePath(path)

    def prepare(self, engine: Engine) -> Any:
        """Add listeners that set up connections.

        Keep one connection to a database in memory, which ends with the last one.
        """
        path = path_of(engine.url)
        file = None if path is None or not _is_on_disk(engine.url) else DatabaseFile(path)
        if file is not None:
            _watch_file(engine, file)

        @event.listens_for(engine, "connect")
        def on_connect(driver_connection: Any, record: Any) -> None:
            for setting in OURS:
                driver_connection.execute(setting)
            driver_connection.text_factory, driver_connection.row_factory = TOLERANT, None
            record.info[BUSY_SETTING] = None
            if file is not None:
                file.opened(driver_connection)

        # An exception at any moment, such as KeyboardInterrupt, may leave an open transaction, which holds the lock.
        # While there is a cursor, the lock stays even after the connection is closed.
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


class SQLiteSessions(Sessions):
    """Connections to SQLite."""

    def why_unusable(self, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Refuse a driver that no deadline can stop, and Python 3.12's ``autocommit``, which prevents our BEGIN."""
        if not hasattr(driver_connection, "interrupt"):
            return UNSOUND
        if isinstance(getattr(driver_connection, "autocommit", None), bool):
            return COMMITS_ALONE
        return IN_USE if is_shared and driver_connection.in_transaction else None

    def call(self) -> AbstractContextManager[None]:
        """Return a context manager that makes forks wait until the call has ended."""
        return SQLiteCall()

    def stop(self, driver_connection: Any) -> None:
        """Interrupt the statement that is running."""
        driver_connection.interrupt()

    def is_damage(self, error: BaseException, driver_connection: Any) -> bool:
        """Return whether the file is damaged, by the error or by a check that SQLite runs."""
        return is_damage(error, driver_connection)


def _is_uri(url: URL) -> bool:
    return (url.database or "").startswith("file:") and asbool(url.query.get("uri", False))


def _options(url: URL) -> dict[str, Any]:
    """Return the options of a URL that SQLite itself reads, such as ``mode``."""
    inner = parse_qsl((url.database or "").partition("?")[2]) if _is_uri(url) else []
    return {**url.query, **dict(inner)}


def path_of(url: URL) -> str | None:
    """Return the path of the URL's file, or None for a database in memory."""
    name, options = url.database or "", _options(url)
    if _is_uri(url):
        name = unquote(urlsplit(name).path)
        if options.get("mode") == "memory" or options.get("vfs") == "memdb":
            return None
    return None if name in ("", ":memory:") else name


def _can_create(url: URL) -> bool:
    return not _is_uri(url) or _options(url).get("mode", "rwc") == "rwc"


def _is_on_disk(url: URL) -> bool:
    """Return whether the file is in the operating system's file system.

    Another VFS of SQLite may store it elsewhere.
    """
    return not _is_uri(url) or "vfs" not in _options(url)


def file_of(connection: Connection) -> DatabaseFile | None:
    """Return the file of a caller's connection. SQLite returns its path."""
    if not _is_on_disk(connection.engine.url):
        return None
    path = connection.exec_driver_sql("PRAGMA database_list").fetchall()[0][2]
    if not isinstance(path, str) or not path:  # a caller's text_factory is refused later
        return None
    file = DatabaseFile(path)
    with file.opening(create=False):
        return file


def _watch_file(engine: Engine, file: DatabaseFile) -> None:
    engine.update_execution_options(**{FILE: file})
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
