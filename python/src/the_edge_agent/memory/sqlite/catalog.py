"""SQLiteCatalog: a catalog in one SQLite file, with the standard library alone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import generate_entry_id
from the_edge_agent.memory.contract.tracking import LOW_PART, Tracked, changes_of, total_of
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.namespaces import KeyRange
from the_edge_agent.memory.core.operations import Operation
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.validation import check_flag
from the_edge_agent.memory.database.native_catalog import (
    Answer,
    CatalogSQL,
    NativeCatalog,
    Row,
    Way,
    first_tracked,
    tracked_parameters,
)
from the_edge_agent.memory.database.native_rows import range_of
from the_edge_agent.memory.sqlite.database import SQLiteDatabase, now, timestamp, written

_SQL: Final = CatalogSQL(
    placeholder=":{}",
    now=":now",
    timestamp=str,
    read_time=timestamp,
    differs="IS NOT",
    more="",
    more_values="",
    more_changes="",
    expiry=":expires_at",
    is_version="typeof(c.version) = 'integer' AND c.version BETWEEN 1 AND 9223372036854775806",
)
_GET: Final = f"{_SQL.tracked} WHERE c.id = :id AND {_SQL.visible}"
_LIST: Final = f"{_SQL.listed} ORDER BY c.key"
_FORGET: Final = "DELETE FROM ltm_catalog WHERE id = :id AND expires_at <= :now"
_EXPIRED: Final = "SELECT id FROM ltm_catalog WHERE expires_at <= :now ORDER BY expires_at, id LIMIT :limit"
_SIZE: Final = f"""
    SELECT total(byte_size - byte_size % {LOW_PART}), sum(byte_size % {LOW_PART}) FROM ltm_snapshot_entries
    WHERE snapshot_id = :id"""


class SQLiteCatalog(NativeCatalog):
    """A ``CatalogBackend`` in one SQLite file, or in RAM. It needs only Python.

    ``CatalogBackend`` documents the methods. This class also has ``get_snapshot``, ``list_snapshots``,
    ``delete_snapshot``, ``get_deleted_entries`` and ``close``. Many threads and processes may use one file, and many
    threads one object. A forked child process opens its own connections. The class ``SQLAlchemyCatalog`` can open the
    same file.
    """

    _database_class = SQLiteDatabase
    _place = ("path", ":memory:")
    _sql = _SQL
    _database: SQLiteDatabase

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 30.0,
        lazy: bool = False,
        auto_migrate: bool = True,
    ) -> None:
        """Open the file and create the tables, unless ``lazy``.

        Args:
            path: the path of the file, which is created if it does not exist. ``":memory:"`` is a catalog in RAM that
                disappears when the object is closed.
            timeout: how many seconds a call may take, including the wait for other writers.
            lazy: open the file in the first call, and not now.
            auto_migrate: whether to create missing tables, and the file. If False, they must exist.

        Raises:
            LTMError: ``configuration_error`` and, unless ``lazy``, ``connection_error``.
        """
        if path is None:
            raise LTMError("configuration_error", "path is missing: that of the catalog's file, or ':memory:'")
        creates = check_flag("auto_migrate", auto_migrate)
        self._open(SQLiteDatabase(path, timeout, create_tables=creates), lazy)

    def _run(self, work: Callable[[Any], Answer], way: Way) -> Answer:
        with self._database.transaction(write=way == "write") as connection:
            return work(connection)

    def _now(self) -> dict[str, Any]:
        return {"now": written(now())}

    # --- entries -----------------------------------------------------------------------------------

    def _track(self, entry: Tracked) -> bool:
        with self._database.transaction(write=True) as connection:
            return _track(connection, entry, now())

    def _track_many(self, entries: Sequence[Tracked]) -> None:
        with self._database.transaction(write=True) as connection:
            at = now()
            for entry in entries:
                _track(connection, entry, at)

    def _rows_of_ids(self, connection: sqlite3.Connection, ids: Sequence[str]) -> list[Row]:
        at = written(now())
        rows = (connection.execute(_GET, {"id": each, "now": at}).fetchone() for each in ids)
        return [row for row in rows if row is not None]

    def _list(self, prefix: str, condition: Node | None, limit: int) -> list[dict[str, Any]]:
        with self._database.transaction() as connection:
            statement, values = (_LIST, range_of(KeyRange.of_prefix(prefix))) if prefix else (_SQL.every, {})
            # Close the cursor: a statement with unread rows keeps its read transaction, and the next write would fail.
            with closing(connection.execute(statement, {**values, "now": written(now())})) as rows:
                return first_tracked(self._database.in_time(rows), timestamp, condition, limit)

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        with self._database.transaction(write=True) as connection:
            at = written(now())
            expired = connection.execute(_EXPIRED, {"now": at, "limit": limit}).fetchall()
            connection.executemany(_FORGET, [{"id": row[0], "now": at} for row in expired])
            return len(expired), connection.execute(_SQL.expired, {"now": at}).fetchone()[0]

    def _time(self, moment: datetime | None) -> str | None:
        return None if moment is None else written(moment)

    def _total(self, connection: sqlite3.Connection, values: dict[str, Any]) -> int:
        return total_of(*connection.execute(_SIZE, values).fetchone())

    # --- as the ledger of a memory in the same file ------------------------------------------------

    def follow(self, connection: sqlite3.Connection, operations: Sequence[Operation], at: datetime) -> None:
        """Write the operations of a transaction of the memory into the catalog, with the time ``at``."""
        deleted, tracked = changes_of(operations)
        for key in deleted:
            connection.execute(_SQL.delete, {"id": generate_entry_id(key), "now": written(at)})
        for entry in tracked:
            _track(connection, entry, at)

    def touch(self, connection: sqlite3.Connection, expiries: Mapping[str, datetime], at: datetime) -> None:
        """Set when entries expire, by key, after a touch of the memory."""
        rows = [
            {"id": generate_entry_id(key), "expires_at": written(expires_at), "now": written(at)}
            for key, expires_at in expiries.items()
        ]
        connection.executemany(_SQL.touch, rows)

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
    ((version,),) = connection.execute(_SQL.track, values).fetchall()
    return bool(version == 1)
