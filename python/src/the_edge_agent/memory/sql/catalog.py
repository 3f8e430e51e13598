"""SQLAlchemyCatalog: the ledger of what is stored, on any SQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

try:
    from sqlalchemy import URL, Connection, Engine
except ImportError as error:
    raise ImportError(
        'SQLAlchemyCatalog needs SQLAlchemy; install it with: pip install "the-edge-agent[sqlalchemy]"'
    ) from error

from the_edge_agent.memory.contract.catalog import generate_entry_id
from the_edge_agent.memory.contract.result_types import RecordedEntry, Snapshot
from the_edge_agent.memory.contract.tracking import Tracked
from the_edge_agent.memory.core.damage import Damage
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.validation import (
    check_flag,
)
from the_edge_agent.memory.database.catalog import DatabaseCatalog
from the_edge_agent.memory.sql.database import Database, OnDatabase
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sql.driver.errors import UnreadableMetadataError
from the_edge_agent.memory.sql.driver.options import EngineOptions, check_source
from the_edge_agent.memory.sql.queries.catalog import sent_bytes
from the_edge_agent.memory.sql.queries.statements import Statements
from the_edge_agent.memory.sql.schema.tables import LTMEntry

_SMALL: Final = 500_000  # bytes; every server accepts an entry of this size


class SQLAlchemyCatalog(OnDatabase, DatabaseCatalog):
    """A ``CatalogBackend`` on SQLite, PostgreSQL, MySQL, MariaDB, or any database that SQLAlchemy speaks to.

    ``CatalogBackend`` has the contract of each method, which is the same on every database. The class also has
    ``get_snapshot``, ``list_snapshots``, ``delete_snapshot``, ``get_deleted_entries`` and ``close``. Many threads may
    use one object, and after a fork the child opens its own connections. A call is one transaction, and takes no longer
    than ``timeout``.
    """

    _database_class = Database
    _place = ("url", "sqlite://")
    _database: Database

    #: A subclass may set its own dialect class here, in place of the database's.
    dialect_class: ClassVar[type[Dialect] | None] = None

    def __init__(
        self,
        url: str | URL | None = None,
        pool_size: int = 5,
        echo: bool = False,
        auto_migrate: bool = True,
        lazy: bool = False,
        *,
        engine: Engine | None = None,
        max_overflow: int = 10,
        pool_timeout: float = 10.0,
        connect_timeout: float = 10.0,
        timeout: float = 30.0,
        idle_transaction_timeout: float | None = None,
        prepare_threshold: int | None = None,
        engine_args: Mapping[str, Any] | None = None,
        connect_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect and create the tables, unless ``lazy``. Either ``url`` or ``engine`` is needed.

        Args:
            url: a SQLAlchemy database URL.
            pool_size: how many connections stay open.
            echo: log every statement, without the values.
            auto_migrate: whether to create missing tables. If False, the tables must exist.
            lazy: import no driver and connect to nothing until the first call.
            engine: an engine of the caller, in place of ``url``. The catalog shares it and never disposes it.
            max_overflow: how many connections there may be above ``pool_size``; they are closed after use.
            pool_timeout: seconds to wait for a free connection.
            connect_timeout: seconds to wait for the server when connecting.
            timeout: seconds that a call may take, including all waits and repetitions.
            idle_transaction_timeout: the server ends a transaction after so many seconds without a statement, and frees
                its locks. None means half of ``timeout``, at least 5. 0 means the server's setting.
            prepare_threshold: with psycopg, after how many runs the server keeps a statement prepared; None for never.
                Use None behind a connection pooler in transaction mode: otherwise another client's statement may run
                instead.
            engine_args: more arguments of SQLAlchemy's ``create_engine``.
            connect_args: more arguments of the driver's ``connect``.

        Raises:
            LTMError: ``configuration_error``, ``dependency_missing`` and, unless ``lazy``,
                ``connection_error``, ``connection_timeout`` or ``auth_failed``.
        """
        options = EngineOptions(
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=pool_timeout,
            connect_timeout=connect_timeout,
            timeout=timeout,
            idle_transaction_timeout=idle_transaction_timeout,
            prepare_threshold=prepare_threshold,
            echo=echo,
            create_tables=check_flag("auto_migrate", auto_migrate),
            engine_args={} if engine_args is None else engine_args,
            connect_args={} if connect_args is None else connect_args,
        )
        database = Database(
            check_source(url, engine, options),
            options,
            entries_name=LTMEntry.__tablename__,
            dialect_class=self.dialect_class,
        )
        self._open(database, lazy)

    @property
    def dialect(self) -> str:
        """The name of SQLAlchemy's dialect, such as ``postgresql``; connects first if need be."""
        return str(self._database.start().engine.dialect.name)

    def ddl(self) -> list[str]:
        """Return the SQL statements that create the missing tables, for those who run DDL themselves.

        It connects, because the SQL depends on the server, but it creates nothing. Call it on a ``lazy`` catalog before
        the tables exist.

        Raises:
            LTMError: the database cannot be reached.
        """
        return self._database.ddl()

    # --- entries -----------------------------------------------------------------------------------

    def _track(self, entry: Tracked) -> bool:
        (created,) = self._tracked([entry])
        return created

    def _track_many(self, entries: Sequence[Tracked]) -> None:
        self._tracked(entries)

    def _tracked(self, entries: Sequence[Tracked]) -> list[bool]:
        return self._database.run(
            lambda connection, sql: sql.catalog.track(connection, entries, sql.clock(connection, len(entries))),
            write=True,
        )

    def _check_size(self, entry: Tracked) -> None:
        if (size := sent_bytes(entry, _SMALL)) > _SMALL:
            self._database.check_size(size)

    def _get(self, key: str) -> dict[str, Any] | Damage | None:
        return self._database.run(lambda connection, sql: sql.catalog.get(connection, key))

    def _get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any] | Damage | None]:
        several = len(keys) > 1
        return self._database.run(lambda connection, sql: sql.catalog.get_many(connection, keys), snapshot=several)

    def _list(self, prefix: str, condition: Node | None, limit: int) -> list[dict[str, Any]]:
        def listed(*, filters: bool) -> list[dict[str, Any]]:
            def work(connection: Connection, sql: Statements, deadline: Deadline) -> list[dict[str, Any]]:
                return sql.catalog.list_entries(connection, prefix, condition, limit, deadline, filters=filters)

            return self._database.run_timed(work, snapshot=condition is not None)

        try:
            return listed(filters=True)
        except UnreadableMetadataError:
            pass
        return listed(filters=False)

    def _delete(self, key: str) -> bool:
        ids = [generate_entry_id(key)]
        deleted = self._database.run(
            lambda connection, sql: sql.catalog.delete(connection, ids, sql.clock(connection)), write=True
        )
        return bool(deleted)

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        return self._database.run(lambda connection, sql: sql.catalog.cleanup_expired(connection, limit), write=True)

    # --- snapshots ---------------------------------------------------------------------------------

    def _keep(self, snapshot_id: str, name: str) -> None:
        self._database.run(
            lambda connection, sql: sql.catalog.create_snapshot(connection, snapshot_id, name), write=True
        )

    def _snapshot(self, snapshot_id: str) -> dict[str, Any] | Damage | None:
        return self._database.run(lambda connection, sql: sql.catalog.snapshot(connection, snapshot_id))

    def _snapshots(self) -> list[dict[str, Any]]:
        return self._database.run(lambda connection, sql: sql.catalog.snapshots(connection))

    def _delete_snapshot(self, snapshot_id: str) -> bool:
        return self._database.run(
            lambda connection, sql: sql.catalog.delete_snapshot(connection, snapshot_id), write=True
        )

    def _recorded(self, snapshot_id: str, after: str, limit: int) -> list[RecordedEntry]:
        return self._database.run(lambda connection, sql: sql.catalog.recorded(connection, snapshot_id, after, limit))

    def _record(self, snapshot_id: str, entries: Sequence[RecordedEntry]) -> None:
        self._database.run(lambda connection, sql: sql.catalog.record(connection, snapshot_id, entries), write=True)

    def _import_snapshot(self, snapshot: Snapshot) -> None:
        self._database.run(lambda connection, sql: sql.catalog.import_snapshot(connection, snapshot), write=True)

    def _changed(self, snapshot_id: str | None) -> list[dict[str, Any]]:
        return self._database.run(lambda connection, sql: sql.catalog.changed(connection, snapshot_id), snapshot=True)

    def _deleted(self, snapshot_id: str) -> list[dict[str, Any]]:
        return self._database.run(lambda connection, sql: sql.catalog.deleted(connection, snapshot_id), snapshot=True)
