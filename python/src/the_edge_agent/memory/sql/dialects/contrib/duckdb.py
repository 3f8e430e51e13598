"""The dialect of DuckDB: one process, one writer at a time, and only the primary key has an index."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, TextClause, func, select
from sqlalchemy.engine import URL
from sqlalchemy.schema import CreateIndex, ExecutableDDLElement

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.sql.dialects.base import (
    COMMITS_ALONE,
    IN_USE,
    NO_HOST,
    Dialect,
    DialectSchema,
    Engines,
    Features,
    Sessions,
    Transactions,
)
from the_edge_agent.memory.sql.driver import internals
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sqlite.files import absolute

_LONGEST_WAIT: Final = 30.0  # seconds to wait for the turn to write, if the call has no deadline

_writers: dict[str, Lock] = {}  # one for each database that this process has opened


class DuckDBEngines(Engines):
    """Engines for DuckDB."""

    def located(self, url: URL) -> URL:
        """Make the path of a file absolute."""
        name = _file_of(url)
        return url if name is None else url.set(database=absolute(name))

    def arguments(self, url: URL) -> tuple[URL, dict[str, Any]]:
        """Give each memory database a name of its own, so that every thread has its own connection to it."""
        if url.host:
            raise LTMError("configuration_error", f"{NO_HOST}: duckdb:///file")
        if url.database in (None, "", ":memory:"):
            url = url.set(database=f":memory:{uuid.uuid4().hex}")
        return url, {}

    def new_file(self, url: URL) -> Path | None:
        """Return the file that a connection would create.

        Return None in memory, in the cloud, or for read-only access.
        """
        name = _file_of(url)
        if name is None or url.query.get("access_mode") == "read_only" or Path(name).exists():
            return None
        return Path(name)

    def prepare(self, engine: Engine) -> Any:
        """Keep one connection to a database in memory, because the database ends with its last connection."""
        if not (engine.url.database or "").startswith(":memory:"):
            return None
        args, kwargs = engine.dialect.create_connect_args(engine.url)
        return engine.dialect.connect(*args, **kwargs)


class DuckDBSessions(Sessions):
    """Connections to DuckDB."""

    def why_unusable(self, driver_connection: Any, *, is_shared: bool) -> str | None:
        """Refuse autocommit, and a connection on which the caller has begun a transaction."""
        if driver_connection.autocommit:
            return COMMITS_ALONE
        return IN_USE if is_shared and internals.is_in_transaction_of_duckdb(driver_connection) else None

    def stop(self, driver_connection: Any) -> None:
        """Interrupt the statement that is running."""
        driver_connection.interrupt()


class DuckDBSchema(DialectSchema):
    """Defines and creates our tables on DuckDB."""

    def probe(self, connection: Connection, entries: Table, catalog: Table) -> None:
        """Try nothing: DuckDB has no savepoints to undo a trial, and has the functions of the SQL standard."""

    def definitions(self, entries: Table, *others: Table) -> list[ExecutableDDLElement | TextClause]:
        """Leave out secondary indexes, because an update of an indexed column would delete and insert the row."""
        return [
            definition
            for definition in super().definitions(entries, *others)
            if not isinstance(definition, CreateIndex)
        ]

    def exclusively(self, connection: Connection, name: str) -> AbstractContextManager[Any]:
        """Do nothing: writers take turns, and a table with changes of this transaction could not be altered."""
        return nullcontext()

    def server_version(self, connection: Connection) -> str | None:
        """Return the version that DuckDB reports. SQLAlchemy's dialect reports a version of PostgreSQL."""
        version: str = connection.scalar(select(func.version())) or ""
        return version.removeprefix("v")


class DuckDBTransactions(Transactions):
    """Transactions of DuckDB."""

    @contextmanager
    def begin(
        self, connection: Connection, deadline: Deadline | None, *, write: bool, snapshot: bool = False
    ) -> Iterator[Any]:
        """Begin a transaction. Only one transaction at a time writes."""
        if not write:
            with super().begin(connection, deadline, write=write, snapshot=snapshot) as transaction:
                yield transaction
            return
        lock = _writer(connection.engine.url)
        if not lock.acquire(timeout=_LONGEST_WAIT if deadline is None else deadline.remaining()):
            raise LTMError("lock_timeout", "waited too long for the turn to write; try again")
        try:
            with super().begin(connection, deadline, write=write, snapshot=snapshot) as transaction:
                yield transaction
        finally:
            lock.release()

    def autocommit(self, driver_connection: Any, *, write: bool) -> AbstractContextManager[Any]:
        """Do nothing, because a statement outside a transaction commits by itself."""
        return nullcontext()


class DuckDBDialect(Dialect):
    """DuckDB 1.3 or later, through duckdb-sqlalchemy. A file belongs to one process at a time.

    It uses LIKE, because DuckDB's full-text index does not follow writes: a program must rebuild it. When one
    transaction deletes a row and another updates it at the same time, both succeed. So writers take turns.
    """

    features = Features(is_embedded=True, has_snapshot_reads=True)
    engines = DuckDBEngines()
    sessions = DuckDBSessions()
    schema_class = DuckDBSchema
    transactions_class = DuckDBTransactions


def _file_of(url: URL) -> str | None:
    name = url.database or ":memory:"
    return None if name.startswith((":memory:", "md:", "motherduck:")) else name


def _writer(url: URL) -> Lock:
    name = url.database or ""
    return _writers.setdefault(name if name.startswith(":memory:") else str(Path(name).resolve()), Lock())
