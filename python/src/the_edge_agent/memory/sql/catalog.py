"""SQLAlchemyCatalog: the ledger of what is stored, on any SQL database."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Final

try:
    from sqlalchemy import URL, Connection, Engine
except ImportError as error:
    raise ImportError(
        'SQLAlchemyCatalog needs SQLAlchemy; install it with: pip install "the-edge-agent[sqlalchemy]"'
    ) from error

from the_edge_agent.memory.contract.catalog import DatabaseCatalog, generate_entry_id
from the_edge_agent.memory.contract.tracking import Tracked, check_batch, check_snapshot_id
from the_edge_agent.memory.core.damage import whole, whole_entries
from the_edge_agent.memory.core.filters import parse_filter
from the_edge_agent.memory.core.results import Result, ok, returns_result
from the_edge_agent.memory.core.validation import (
    check_batch_size,
    check_flag,
    check_key,
    check_keys,
    check_limit,
    check_prefix,
    check_text,
)
from the_edge_agent.memory.sql.database import Database, OnDatabase
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.driver.errors import UnreadableMetadataError
from the_edge_agent.memory.sql.driver.options import EngineOptions, check_source
from the_edge_agent.memory.sql.queries.catalog import sent_bytes
from the_edge_agent.memory.sql.queries.statements import Statements
from the_edge_agent.memory.sql.schema.tables import LTMEntry

_SMALL: Final = 500_000  # bytes of an entry that every server reads, whatever its limit


class SQLAlchemyCatalog(OnDatabase, DatabaseCatalog):
    """A ``CatalogBackend`` on SQLite, PostgreSQL, MySQL, MariaDB, or any database that SQLAlchemy speaks to.

    The contract of each method is ``CatalogBackend``'s, the same on every database; ``get_snapshot``,
    ``list_snapshots``, ``delete_snapshot``, ``get_deleted_entries`` and ``close`` come with it. Safe for many
    threads and for forks. A call is one transaction, and takes no longer than ``timeout``.
    """

    _database_class = Database
    _place = ("url", "sqlite://")
    _database: Database

    #: Set in a subclass to use a dialect class of one's own in place of the database's.
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
            pool_size: connections kept open.
            echo: log every statement, without the values.
            auto_migrate: whether to create the tables that are missing; otherwise they must be there.
            lazy: import no driver and connect to nothing until the first call.
            engine: an engine of the caller's, in place of ``url``; shared and never disposed.
            max_overflow: connections above ``pool_size``, closed after use.
            pool_timeout: seconds to wait for a free connection.
            connect_timeout: seconds to wait for the server when connecting.
            timeout: seconds that a call may take, all waiting and trying again included.
            idle_transaction_timeout: seconds after which the server ends a transaction of a client that sends nothing
                more, so that its locks are free; None for half of ``timeout``, at least 5; 0 for the server's setting.
            prepare_threshold: with psycopg, after how many runs the server keeps a statement prepared; None for never.
                Never behind a connection pooler in transaction mode, where a statement of another client would run in
                its place.
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
        self._owns_database = True
        self._database = Database(
            check_source(url, engine, options),
            options,
            entries_name=LTMEntry.__tablename__,
            dialect_class=self.dialect_class,
        )
        if not check_flag("lazy", lazy):
            self._database.start()

    def is_on(self, database: Any) -> bool:
        """Return whether this is the database of a backend, so that one transaction can write both."""
        return isinstance(database, Database) and self._database.is_same(database)

    @property
    def dialect(self) -> str:
        """The name of SQLAlchemy's dialect, such as ``postgresql``; connects first if need be."""
        return str(self._database.start().engine.dialect.name)

    def ddl(self) -> list[str]:
        """Return the SQL statements that create what is missing of the tables, for those who run DDL themselves.

        Connects, because they depend on the server, and creates nothing; to be called on a catalog that is
        ``lazy`` while the tables are not there.

        Raises:
            LTMError: the database cannot be reached.
        """
        return self._database.ddl()

    # --- entries -----------------------------------------------------------------------------------

    @returns_result
    def track_entry(
        self,
        key: str,
        content_hash: str,
        storage_uri: str | None,
        byte_size: int | None,
        metadata: dict[str, Any] | None,
        inlined_value: Any = None,
        expires_at: datetime | None = None,
    ) -> Result:
        """Create or replace the entry of a key; see ``CatalogBackend.track_entry``."""
        entry = Tracked.of(key, content_hash, storage_uri, byte_size, metadata, inlined_value, expires_at)
        self._check_size(entry)
        (created,) = self._track([entry])
        return ok(entry_id=entry.entry_id, created=created)

    def get_entry(self, key: str) -> dict[str, Any] | None:
        """Return the entry of a key, None if there is none; see ``CatalogBackend.get_entry``."""
        wanted = check_key(key)
        return whole(self._database.run(lambda connection, sql: sql.catalog.get(connection, wanted)))

    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the first entries by key; see ``CatalogBackend.list_entries``."""
        beginning, condition, most = check_prefix(prefix), parse_filter(metadata_filter), check_limit(limit)

        def found(*, filters: bool) -> list[dict[str, Any]]:
            def work(connection: Connection, sql: Statements) -> list[dict[str, Any]]:
                return sql.catalog.list_entries(connection, beginning, condition, most, filters=filters)

            return self._database.run(work, snapshot=condition is not None)

        try:
            return found(filters=True)
        except UnreadableMetadataError:
            pass
        return found(filters=False)

    def delete_entry(self, key: str) -> bool:
        """Delete the entry of a key and return whether it was there; see ``CatalogBackend.delete_entry``."""
        entry_id = generate_entry_id(check_key(key))
        return bool(
            self._database.run(
                lambda connection, sql: sql.catalog.delete(connection, [entry_id], sql.clock(connection)), write=True
            )
        )

    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        """Track many entries; see ``CatalogBackend.store_batch``."""
        good, errors = check_batch(entries, atomic, self._check_size)
        self._track(good)
        return ok(stored_count=len(good), failed_count=len(errors), errors=errors)

    @returns_result
    def retrieve_batch(self, keys: Iterable[str]) -> Result:
        """Return the entries of many keys, of one state; see ``CatalogBackend.retrieve_batch``."""
        wanted = check_keys(keys)
        several = len(wanted) > 1
        found = self._database.run(lambda connection, sql: sql.catalog.get_many(connection, wanted), snapshot=several)
        return whole_entries(found)

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        """Remove expired entries; see ``CatalogBackend.cleanup_expired``."""
        most = check_batch_size(batch_size)
        deleted, remaining = self._database.run(
            lambda connection, sql: sql.catalog.cleanup_expired(connection, most), write=True
        )
        return ok(deleted_count=deleted, remaining_count=remaining)

    # --- snapshots ---------------------------------------------------------------------------------

    def create_snapshot(self, name: str) -> str:
        """Keep what there is now and return the snapshot's id; see ``CatalogBackend.create_snapshot``."""
        snapshot_id, label = str(uuid.uuid4()), check_text(name, "name")
        self._database.run(
            lambda connection, sql: sql.catalog.create_snapshot(connection, snapshot_id, label), write=True
        )
        return snapshot_id

    def get_snapshot(self, snapshot_id: str) -> dict[str, Any] | None:
        """Return ``{"id", "name", "entry_count", "total_bytes", "created_at"}``, None if there is none."""
        wanted = check_snapshot_id(snapshot_id, "snapshot_id")
        return whole(self._database.run(lambda connection, sql: sql.catalog.snapshot(connection, wanted)), "snapshot")

    def list_snapshots(self) -> list[dict[str, Any]]:
        """Return all snapshots as ``get_snapshot`` does, newest first."""
        return self._database.run(lambda connection, sql: sql.catalog.snapshots(connection))

    def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete a snapshot, not the entries, and return whether it was there."""
        wanted = check_snapshot_id(snapshot_id, "snapshot_id")
        return self._database.run(lambda connection, sql: sql.catalog.delete_snapshot(connection, wanted), write=True)

    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[dict[str, Any]]:
        """Return what is new or different since a snapshot; see ``CatalogBackend.get_changed_entries``."""
        wanted = None if since_snapshot_id is None else check_snapshot_id(since_snapshot_id, "since_snapshot_id")
        return self._database.run(lambda connection, sql: sql.catalog.changed(connection, wanted), snapshot=True)

    def get_deleted_entries(self, since_snapshot_id: str) -> list[dict[str, Any]]:
        """Return what a snapshot has and the catalog has no more, expired entries included, by key.

        Returns:
            ``[{"id", "key", "content_hash", "byte_size", "expires_at"}]``, as the snapshot saw it.

        Raises:
            LTMError: ``validation_error`` for an unknown snapshot.
        """
        wanted = check_snapshot_id(since_snapshot_id, "since_snapshot_id")
        return self._database.run(lambda connection, sql: sql.catalog.deleted(connection, wanted), snapshot=True)

    def _track(self, entries: list[Tracked]) -> list[bool]:
        return self._database.run(
            lambda connection, sql: sql.catalog.track(connection, entries, sql.clock(connection, len(entries))),
            write=True,
        )

    def _check_size(self, entry: Tracked) -> None:
        if (size := sent_bytes(entry, _SMALL)) > _SMALL:
            self._database.check_size(size)
