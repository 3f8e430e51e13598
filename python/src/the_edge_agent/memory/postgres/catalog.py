"""PostgresCatalog: the ledger of what is stored, in one PostgreSQL database, with psycopg and without SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import generate_entry_id
from the_edge_agent.memory.contract.tracking import Tracked, changes_of
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.namespaces import KeyRange
from the_edge_agent.memory.core.operations import Operation
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
from the_edge_agent.memory.postgres.database import (
    ONE_STATE,
    WRITE,
    PostgresDatabase,
    in_time,
    streamed,
)
from the_edge_agent.memory.postgres.shared_sql import indexed_filter, json_copy
from the_edge_agent.memory.postgres.times import MICROSECONDS, in_utc, microseconds, utc

_SQL: Final = CatalogSQL(
    placeholder="%({})s",
    now="now()",
    timestamp=utc,
    read_time=in_utc,
    differs="IS DISTINCT FROM",
    more="metadata_json, ",
    more_values="%(metadata_json)s::jsonb, ",
    more_changes="metadata_json = excluded.metadata_json,",
    expiry=f"coalesce(%(expires_at)s::timestamptz, now() + %(ttl)s{MICROSECONDS})",
    is_version="c.version >= 1",
)

_GET_MANY: Final = f"{_SQL.tracked} WHERE c.id = ANY(%(ids)s) AND {_SQL.visible}"
# Rows are locked in the order of their keys, as writers of many entries do. Without MATERIALIZED the subquery could run
# again for each row, with a different result.
_GONE: Final = """
    WITH gone AS MATERIALIZED (SELECT c.id FROM ltm_catalog c WHERE {} ORDER BY {} FOR UPDATE)
    DELETE FROM ltm_catalog c USING gone WHERE c.id = gone.id"""
_DELETE: Final = _GONE.format(f"c.id = ANY(%(ids)s) AND {_SQL.visible}", "c.key")
_FORGET: Final = _GONE.format("c.id = ANY(%(ids)s) AND c.expires_at <= now()", "c.key")
_CLEAN: Final = _GONE.format("c.expires_at <= now()", "c.expires_at, c.id LIMIT %(limit)s")
_SIZE: Final = "SELECT sum(byte_size) FROM ltm_snapshot_entries WHERE snapshot_id = %(id)s"
_BEGIN: Final[dict[Way, str | None]] = {"read": None, "state": ONE_STATE, "write": WRITE}


class PostgresCatalog(NativeCatalog):
    """A ``CatalogBackend`` in one PostgreSQL database (12 or later); needs psycopg.

    ``CatalogBackend`` has the contract of each method. The class also has ``get_snapshot``, ``list_snapshots``,
    ``delete_snapshot``, ``get_deleted_entries`` and ``close``. Many threads and processes may use one database, and a
    forked child opens its own connections. ``SQLAlchemyCatalog`` can open the same database.
    """

    _database_class = PostgresDatabase
    _place = ("url", "postgresql://")
    _sql = _SQL
    # With the statistics of empty tables, a join of two large tables would never end.
    _after_snapshot = ("ANALYZE ltm_catalog", "ANALYZE ltm_snapshot_entries")
    _database: PostgresDatabase

    def __init__(
        self,
        url: str | None = None,
        *,
        pool_size: int = 10,
        timeout: float = 30.0,
        connect_timeout: float = 10.0,
        lazy: bool = False,
        idle_transaction_timeout: float | None = None,
        prepare_threshold: int | None = None,
        auto_migrate: bool = True,
    ) -> None:
        """Connect and create the tables, unless ``lazy``.

        Args:
            url: ``postgresql://user:password@host:5432/database``, with libpq's options after a ``?``.
            pool_size: the highest number of connections; each is opened when it is needed.
            timeout: seconds that a call may take, including the wait for a connection.
            connect_timeout: seconds that connecting may take.
            lazy: connect at the first call.
            idle_transaction_timeout: the server ends a transaction after so many seconds without a statement, and frees
                its locks. None means half of ``timeout``, at least 5. 0 means the server's setting.
            prepare_threshold: after how many runs the server keeps a statement prepared; None for never. Use None
                behind a connection pooler in transaction mode: otherwise another client's statement may run instead.
            auto_migrate: whether to create missing tables. If False, the tables must exist.

        Raises:
            LTMError: ``configuration_error`` and, unless ``lazy``, ``connection_error``, ``connection_timeout`` or
                ``auth_failed``. No message shows the password.
        """
        database = PostgresDatabase(
            url,
            pool_size=pool_size,
            timeout=timeout,
            connect_timeout=connect_timeout,
            idle_transaction_timeout=idle_transaction_timeout,
            prepare_threshold=prepare_threshold,
            create_tables=check_flag("auto_migrate", auto_migrate),
        )
        self._open(database, lazy)

    def _run(self, work: Callable[[Any], Answer], way: Way) -> Answer:
        return self._database.run(work, _BEGIN[way])

    def _now(self) -> dict[str, Any]:
        return {}  # the server's clock

    # --- entries -----------------------------------------------------------------------------------

    def _track(self, entry: Tracked) -> bool:
        values = _parameters(entry)
        version = self._database.run(lambda connection: connection.execute(_SQL.track, values).fetchone()[0], WRITE)
        return bool(version == 1)

    def _track_many(self, entries: Sequence[Tracked]) -> None:
        self._database.run(lambda connection: _track(connection, entries), WRITE)

    def _rows_of_ids(self, connection: Any, ids: Sequence[str]) -> list[Row]:
        rows: list[Row] = connection.execute(_GET_MANY, {"ids": [*ids]}).fetchall()
        return rows

    def _list(self, prefix: str, condition: Node | None, limit: int) -> list[dict[str, Any]]:
        in_index, values = indexed_filter(condition)
        statement = f"{_SQL.listed} AND {in_index} ORDER BY c.key"

        def work(connection: Any) -> list[dict[str, Any]]:
            with streamed(connection, limit) as cursor:
                rows = cursor.execute(statement, {**range_of(KeyRange.of_prefix(prefix)), **values})
                return first_tracked(in_time(connection, rows), in_utc, condition, limit)

        return self._database.run(work, ONE_STATE)

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        def work(connection: Any) -> tuple[int, int]:
            if not connection.execute(_SQL.expired).fetchone()[0]:  # a user who may only read can call this
                return 0, 0
            deleted = connection.execute(_CLEAN, {"limit": limit}).rowcount
            return deleted, connection.execute(_SQL.expired).fetchone()[0]

        return self._database.run(work, WRITE)

    def _total(self, connection: Any, values: dict[str, Any]) -> Any:
        return connection.execute(_SIZE, values).fetchone()[0]

    # --- as the ledger of a memory in the same database --------------------------------------------

    def follow(self, connection: Any, operations: Sequence[Operation]) -> None:
        """Record the operations of a transaction of the memory."""
        deleted, tracked = changes_of(operations)
        if deleted:
            connection.execute(_DELETE, {"ids": [*map(generate_entry_id, deleted)]})
        _track(connection, tracked)

    def touch(self, connection: Any, expiries: Mapping[str, datetime]) -> None:
        """Set when entries expire, by key, after a touch of the memory. The keys are sorted."""
        rows = [
            {"id": generate_entry_id(key), "expires_at": expires_at, "ttl": None}
            for key, expires_at in expiries.items()
        ]
        connection.cursor().executemany(_SQL.touch, rows)

    def forget(self, connection: Any, keys: Sequence[str]) -> None:
        """Remove the expired entries of keys that the memory has cleaned up."""
        connection.execute(_FORGET, {"ids": [*map(generate_entry_id, keys)]})


def _track(connection: Any, entries: Sequence[Tracked]) -> None:
    """Create or replace entries, sorted by key, without waiting for each reply."""
    in_order = sorted(entries, key=lambda entry: entry.key)
    if in_order:
        connection.cursor().executemany(_SQL.track, [_parameters(entry) for entry in in_order])


def _parameters(entry: Tracked) -> dict[str, Any]:
    return {
        **tracked_parameters(entry),
        "metadata_json": json_copy(entry.metadata),
        "expires_at": entry.expires_at,
        "ttl": microseconds(entry.ttl),
    }
