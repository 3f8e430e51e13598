"""SQLiteCatalog: a catalog in one SQLite file, with the standard library alone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import generate_entry_id
from the_edge_agent.memory.contract.tracking import (
    LOW_PART,
    Tracked,
    changes_of,
    check_snapshot_found,
    check_total,
    read_tracked_at,
    total_of,
)
from the_edge_agent.memory.core.damage import (
    Damage,
    Listed,
    read_gone,
    read_snapshot,
    read_tracked,
)
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.operations import Operation
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import (
    check_flag,
)
from the_edge_agent.memory.database.catalog import DatabaseCatalog
from the_edge_agent.memory.database.native_rows import (
    SNAPSHOTS,
    TRACKED,
    first_tracked,
    range_of,
    tracked_parameters,
)
from the_edge_agent.memory.sqlite.database import SQLiteDatabase, now, timestamp, written

_VISIBLE: Final = "(c.expires_at IS NULL OR c.expires_at > :now)"
_GET: Final = f"{TRACKED} WHERE c.id = :id AND {_VISIBLE}"
_LIST: Final = f"{TRACKED} WHERE c.key >= :prefix AND c.key < :end AND {_VISIBLE} ORDER BY c.key"
_ALL: Final = f"{TRACKED} WHERE {_VISIBLE} ORDER BY c.key"
_TRACK: Final = """
    INSERT INTO ltm_catalog (id, key, content_hash, storage_uri, byte_size, inlined_value, metadata, metadata_hash,
                             expires_at, created_at, updated_at, version)
    VALUES (:id, :key, :content_hash, :storage_uri, :byte_size, :inlined_value, :metadata, :metadata_hash,
            :expires_at, :now, :now, 1)
    ON CONFLICT (id) DO UPDATE SET
        key = excluded.key, content_hash = excluded.content_hash, storage_uri = excluded.storage_uri,
        byte_size = excluded.byte_size, inlined_value = excluded.inlined_value, metadata = excluded.metadata,
        metadata_hash = excluded.metadata_hash,
        version = CASE WHEN expires_at <= :now THEN 1
                       WHEN typeof(version) = 'integer' AND version BETWEEN 1 AND 9223372036854775806
                       THEN version + 1 END,
        created_at = CASE WHEN expires_at <= :now THEN :now ELSE created_at END,
        expires_at = excluded.expires_at, updated_at = :now
    RETURNING version"""
_DELETE: Final = "DELETE FROM ltm_catalog WHERE id = :id AND (expires_at IS NULL OR expires_at > :now)"
_FORGET: Final = "DELETE FROM ltm_catalog WHERE id = :id AND expires_at <= :now"
_EXPIRED: Final = "SELECT id FROM ltm_catalog WHERE expires_at <= :now ORDER BY expires_at, id LIMIT :limit"
_EXPIRED_COUNT: Final = "SELECT count(*) FROM ltm_catalog WHERE expires_at <= :now"
_KEEP: Final = f"""
    INSERT INTO ltm_snapshot_entries (snapshot_id, entry_id, key, content_hash, metadata_hash, byte_size, expires_at)
    SELECT :id, c.id, c.key, c.content_hash, c.metadata_hash, c.byte_size, c.expires_at
    FROM ltm_catalog c WHERE {_VISIBLE}"""
_SIZE: Final = f"""
    SELECT total(byte_size - byte_size % {LOW_PART}), sum(byte_size % {LOW_PART}) FROM ltm_snapshot_entries
    WHERE snapshot_id = :id"""
_FINISH: Final = """
    INSERT INTO ltm_snapshots (id, name, entry_count, total_bytes, created_at)
    SELECT :id, :name, count(*), coalesce(sum(byte_size), 0), :now FROM ltm_snapshot_entries WHERE snapshot_id = :id"""
_CHANGED: Final = f"""
    {TRACKED} LEFT JOIN ltm_snapshot_entries s ON s.snapshot_id = :id AND s.entry_id = c.id
    WHERE {_VISIBLE} AND (s.entry_id IS NULL OR s.content_hash IS NOT c.content_hash
                          OR s.metadata_hash IS NOT c.metadata_hash OR s.expires_at IS NOT c.expires_at)
    ORDER BY c.key"""
_DELETED: Final = f"""
    SELECT s.entry_id, s.key, s.content_hash, s.byte_size, s.expires_at FROM ltm_snapshot_entries s
    WHERE s.snapshot_id = :id AND NOT EXISTS (SELECT 1 FROM ltm_catalog c WHERE c.id = s.entry_id AND {_VISIBLE})
    ORDER BY s.key"""


class SQLiteCatalog(DatabaseCatalog):
    """A ``CatalogBackend`` in one SQLite file, or in RAM. It needs only Python.

    ``CatalogBackend`` documents the methods. This class also has ``get_snapshot``, ``list_snapshots``,
    ``delete_snapshot``, ``get_deleted_entries`` and ``close``. Many threads and processes may use one file, and many
    threads one object. A forked child process opens its own connections. The class ``SQLAlchemyCatalog`` can open the
    same file.
    """

    _database_class = SQLiteDatabase
    _place = ("path", ":memory:")
    _database: SQLiteDatabase

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, timeout: float = 30.0, lazy: bool = False
    ) -> None:
        """Open the file and create the tables, unless ``lazy``.

        Args:
            path: the path of the file, which is created if it does not exist. ``":memory:"`` is a catalog in RAM that
                disappears when the object is closed.
            timeout: how many seconds a call may take, including the wait for other writers.
            lazy: open the file in the first call, and not now.

        Raises:
            LTMError: ``configuration_error`` and, unless ``lazy``, ``connection_error``.
        """
        if path is None:
            raise LTMError("configuration_error", "path is missing: that of the catalog's file, or ':memory:'")
        self._owns_database = True
        self._database = SQLiteDatabase(path, timeout)
        if not check_flag("lazy", lazy):
            self._database.start()

    def is_on(self, database: Any) -> bool:
        """Return whether the catalog is in the database of a memory, so that one transaction can write both."""
        if not isinstance(database, SQLiteDatabase):
            return False
        return self._database is database or database.is_at(self._database.path)

    # --- entries -----------------------------------------------------------------------------------

    def _track(self, entry: Tracked) -> bool:
        with self._database.transaction(write=True) as connection:
            return _track(connection, entry, now())

    def _track_many(self, entries: Sequence[Tracked]) -> None:
        with self._database.transaction(write=True) as connection:
            at = now()
            for entry in entries:
                _track(connection, entry, at)

    def _get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any] | Damage | None]:
        with self._database.transaction() as connection:
            at = written(now())
            rows = [connection.execute(_GET, {"id": generate_entry_id(key), "now": at}).fetchone() for key in keys]
        return read_tracked_at(keys, filter(None, rows), timestamp)

    def _list(self, prefix: str, condition: Node | None, limit: int) -> list[dict[str, Any]]:
        with self._database.transaction() as connection:
            statement, values = (_LIST, range_of(prefix)) if prefix else (_ALL, {})
            # Close the cursor: a statement with unread rows keeps its read transaction, and the next write would fail.
            with closing(connection.execute(statement, {**values, "now": written(now())})) as rows:
                return first_tracked(self._database.in_time(rows), timestamp, condition, limit)

    def _delete(self, key: str) -> bool:
        with self._database.transaction(write=True) as connection:
            return bool(connection.execute(_DELETE, {"id": generate_entry_id(key), "now": written(now())}).rowcount)

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        with self._database.transaction(write=True) as connection:
            at = written(now())
            expired = connection.execute(_EXPIRED, {"now": at, "limit": limit}).fetchall()
            connection.executemany(_FORGET, [{"id": row[0], "now": at} for row in expired])
            return len(expired), connection.execute(_EXPIRED_COUNT, {"now": at}).fetchone()[0]

    # --- snapshots ---------------------------------------------------------------------------------

    def _keep(self, snapshot_id: str, name: str) -> None:
        with self._database.transaction(write=True) as connection:
            at = written(now())
            connection.execute(_KEEP, {"id": snapshot_id, "now": at})
            check_total(total_of(*connection.execute(_SIZE, {"id": snapshot_id}).fetchone()))
            connection.execute(_FINISH, {"id": snapshot_id, "name": name, "now": at})

    def _snapshot(self, snapshot_id: str) -> dict[str, Any] | Damage | None:
        with self._database.transaction() as connection:
            row = connection.execute(f"{SNAPSHOTS} WHERE id = ?", (snapshot_id,)).fetchone()
        return row and read_snapshot(row, timestamp)

    def _snapshots(self) -> list[dict[str, Any]]:
        with self._database.transaction() as connection:
            rows = connection.execute(f"{SNAPSHOTS} ORDER BY created_at DESC, id")
            return Listed(read_snapshot(row, timestamp) for row in rows)

    def _delete_snapshot(self, snapshot_id: str) -> bool:
        with self._database.transaction(write=True) as connection:
            connection.execute("DELETE FROM ltm_snapshot_entries WHERE snapshot_id = ?", (snapshot_id,))
            return bool(connection.execute("DELETE FROM ltm_snapshots WHERE id = ?", (snapshot_id,)).rowcount)

    def _changed(self, snapshot_id: str | None) -> list[dict[str, Any]]:
        with self._database.transaction() as connection:
            if snapshot_id is not None:
                _require_snapshot(connection, snapshot_id)
            statement = _ALL if snapshot_id is None else _CHANGED
            rows = connection.execute(statement, {"id": snapshot_id, "now": written(now())})
            return Listed(read_tracked(row, timestamp) for row in rows)

    def _deleted(self, snapshot_id: str) -> list[dict[str, Any]]:
        with self._database.transaction() as connection:
            _require_snapshot(connection, snapshot_id)
            rows = connection.execute(_DELETED, {"id": snapshot_id, "now": written(now())})
            return Listed(read_gone(row, timestamp) for row in rows)

    # --- as the ledger of a memory in the same file ------------------------------------------------

    def follow(self, connection: sqlite3.Connection, operations: Sequence[Operation], at: datetime) -> None:
        """Write the operations of a transaction of the memory into the catalog, with the time ``at``."""
        deleted, tracked = changes_of(operations)
        for key in deleted:
            connection.execute(_DELETE, {"id": generate_entry_id(key), "now": written(at)})
        for entry in tracked:
            _track(connection, entry, at)

    def forget(self, connection: sqlite3.Connection, keys: Sequence[str], at: datetime) -> None:
        """Remove the expired entries of keys that the memory has cleaned up."""
        connection.executemany(_FORGET, [{"id": generate_entry_id(key), "now": written(at)} for key in keys])


def _track(connection: sqlite3.Connection, entry: Tracked, at: datetime) -> bool:
    """Create or replace an entry at the time ``at`` and return whether it was created."""
    values = {
        **tracked_parameters(entry),
        "expires_at": written(at + entry.ttl if entry.ttl else entry.expires_at),
        "now": written(at),
    }
    ((version,),) = connection.execute(_TRACK, values).fetchall()
    return bool(version == 1)


def _require_snapshot(connection: sqlite3.Connection, snapshot_id: str) -> None:
    check_snapshot_found(connection.execute("SELECT 1 FROM ltm_snapshots WHERE id = ?", (snapshot_id,)).fetchone())
