"""PostgresCatalog: the ledger of what is stored, in one PostgreSQL database, with psycopg and without SQLAlchemy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import generate_entry_id
from the_edge_agent.memory.contract.tracking import (
    Tracked,
    changes_of,
    check_snapshot_found,
    check_total,
    read_tracked_at,
)
from the_edge_agent.memory.core.codec import comparable_json, decode
from the_edge_agent.memory.core.damage import (
    Damage,
    Listed,
    read_gone,
    read_snapshot,
    read_tracked,
)
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.operations import Operation
from the_edge_agent.memory.core.validation import (
    check_flag,
)
from the_edge_agent.memory.database.catalog import DatabaseCatalog
from the_edge_agent.memory.database.native_rows import (
    first_tracked,
    range_of,
    select_snapshots,
    select_tracked,
    tracked_parameters,
)
from the_edge_agent.memory.postgres.database import (
    MICROSECONDS,
    ONE_STATE,
    WRITE,
    PostgresDatabase,
    contained,
    in_time,
    in_utc,
    microseconds,
    streamed,
    utc,
)

_TRACKED: Final = select_tracked(utc)
_SNAPSHOTS: Final = select_snapshots(utc)
_VISIBLE: Final = "(c.expires_at IS NULL OR c.expires_at > now())"
_GET: Final = f"{_TRACKED} WHERE c.id = %(id)s AND {_VISIBLE}"
_GET_MANY: Final = f"{_TRACKED} WHERE c.id = ANY(%(ids)s) AND {_VISIBLE}"
_LIST: Final = f"{_TRACKED} WHERE c.key >= %(prefix)s AND c.key < %(end)s AND {_VISIBLE}"
_ALL: Final = f"{_TRACKED} WHERE {_VISIBLE} ORDER BY c.key"
_TRACK: Final = f"""
    INSERT INTO ltm_catalog AS c (id, key, content_hash, storage_uri, byte_size, inlined_value, metadata,
                                  metadata_json, metadata_hash, expires_at, created_at, updated_at, version)
    VALUES (%(id)s, %(key)s, %(content_hash)s, %(storage_uri)s, %(byte_size)s, %(inlined_value)s, %(metadata)s,
            %(metadata_json)s::jsonb, %(metadata_hash)s,
            coalesce(%(expires_at)s::timestamptz, now() + %(ttl)s{MICROSECONDS}), now(), now(), 1)
    ON CONFLICT (id) DO UPDATE SET
        key = excluded.key, content_hash = excluded.content_hash, storage_uri = excluded.storage_uri,
        byte_size = excluded.byte_size, inlined_value = excluded.inlined_value, metadata = excluded.metadata,
        metadata_json = excluded.metadata_json, metadata_hash = excluded.metadata_hash,
        version = CASE WHEN c.expires_at <= now() THEN 1 WHEN c.version >= 1 THEN c.version + 1 END,
        created_at = CASE WHEN c.expires_at <= now() THEN now() ELSE c.created_at END,
        expires_at = excluded.expires_at, updated_at = now()
    RETURNING version"""
# Rows are locked in the order of their keys, as the writers of many entries do; a subquery in place of MATERIALIZED may
# run again for each row, with other rows.
_GONE: Final = """
    WITH gone AS MATERIALIZED (SELECT c.id FROM ltm_catalog c WHERE {} ORDER BY {} FOR UPDATE)
    DELETE FROM ltm_catalog c USING gone WHERE c.id = gone.id"""
_DELETE: Final = _GONE.format(f"c.id = ANY(%(ids)s) AND {_VISIBLE}", "c.key")
_FORGET: Final = _GONE.format("c.id = ANY(%(ids)s) AND c.expires_at <= now()", "c.key")
_CLEAN: Final = _GONE.format("c.expires_at <= now()", "c.expires_at, c.id LIMIT %(limit)s")
_EXPIRED_COUNT: Final = "SELECT count(*) FROM ltm_catalog WHERE expires_at <= now()"
_KEEP: Final = f"""
    INSERT INTO ltm_snapshot_entries (snapshot_id, entry_id, key, content_hash, metadata_hash, byte_size, expires_at)
    SELECT %(id)s::text, c.id, c.key, c.content_hash, c.metadata_hash, c.byte_size, c.expires_at
    FROM ltm_catalog c WHERE {_VISIBLE}"""
_SIZE: Final = "SELECT sum(byte_size) FROM ltm_snapshot_entries WHERE snapshot_id = %(id)s"
_FINISH: Final = """
    INSERT INTO ltm_snapshots (id, name, entry_count, total_bytes, created_at)
    SELECT %(id)s::text, %(name)s::text, count(*), coalesce(sum(byte_size), 0), now()
    FROM ltm_snapshot_entries WHERE snapshot_id = %(id)s"""
# With the statistics of an empty table a join of two large ones never ends.
_ANALYZE: Final = ("ANALYZE ltm_catalog", "ANALYZE ltm_snapshot_entries")
_SNAPSHOT: Final = f"{_SNAPSHOTS} WHERE id = %(id)s"
_CHANGED: Final = f"""
    {_TRACKED} LEFT JOIN ltm_snapshot_entries s ON s.snapshot_id = %(id)s AND s.entry_id = c.id
    WHERE {_VISIBLE} AND (s.entry_id IS NULL OR s.content_hash IS DISTINCT FROM c.content_hash
                          OR s.metadata_hash IS DISTINCT FROM c.metadata_hash
                          OR s.expires_at IS DISTINCT FROM c.expires_at)
    ORDER BY c.key"""
_DELETED: Final = f"""
    SELECT s.entry_id, s.key, s.content_hash, s.byte_size, {utc("s.expires_at")} FROM ltm_snapshot_entries s
    WHERE s.snapshot_id = %(id)s
      AND NOT EXISTS (SELECT 1 FROM ltm_catalog c WHERE c.id = s.entry_id AND {_VISIBLE})
    ORDER BY s.key"""


class PostgresCatalog(DatabaseCatalog):
    """A ``CatalogBackend`` in one PostgreSQL database (12 or later); needs psycopg.

    The contract of each method is ``CatalogBackend``'s; ``get_snapshot``, ``list_snapshots``, ``delete_snapshot``,
    ``get_deleted_entries`` and ``close`` come with it. Safe for many threads and processes; a forked child opens
    connections of its own. ``SQLAlchemyCatalog`` opens the same database too.
    """

    _database_class = PostgresDatabase
    _place = ("url", "postgresql://")
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
    ) -> None:
        """Connect and create the tables, unless ``lazy``.

        Args:
            url: ``postgresql://user:password@host:5432/database``, with libpq's options after a ``?``.
            pool_size: how many connections there may be; they are made as they are needed.
            timeout: seconds that a call may take, the wait for a connection included.
            connect_timeout: seconds that connecting may take.
            lazy: connect at the first call.
            idle_transaction_timeout: seconds after which the server ends a transaction of a client that sends nothing
                more, so that its locks are free; None for half of ``timeout``, at least 5; 0 for the server's setting.
            prepare_threshold: after how many runs the server keeps a statement prepared; None for never. Never behind
                a connection pooler in transaction mode, where a statement of another client would run in its place.

        Raises:
            LTMError: ``configuration_error`` and, unless ``lazy``, ``connection_error``, ``connection_timeout`` or
                ``auth_failed``. No message shows the password.
        """
        self._owns_database = True
        self._database = PostgresDatabase(
            url,
            pool_size=pool_size,
            timeout=timeout,
            connect_timeout=connect_timeout,
            idle_transaction_timeout=idle_transaction_timeout,
            prepare_threshold=prepare_threshold,
        )
        if check_flag("lazy", lazy):
            return
        try:
            self._database.start()
        except BaseException:
            self._database.close()
            raise

    def is_on(self, database: Any) -> bool:
        """Return whether this is the database of a backend, so that one transaction can write both."""
        return isinstance(database, PostgresDatabase) and (
            self._database is database or database.is_same(self._database)
        )

    # --- entries -----------------------------------------------------------------------------------

    def _track(self, entry: Tracked) -> bool:
        values = _parameters(entry)
        version = self._database.run(lambda connection: connection.execute(_TRACK, values).fetchone()[0], WRITE)
        return bool(version == 1)

    def _track_many(self, entries: Sequence[Tracked]) -> None:
        self._database.run(lambda connection: _track(connection, entries), WRITE)

    def _get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any] | Damage | None]:
        ids = {"ids": [*map(generate_entry_id, keys)]}
        rows = self._database.run(lambda connection: connection.execute(_GET_MANY, ids).fetchall())
        return read_tracked_at(keys, rows, in_utc)

    def _list(self, prefix: str, condition: Node | None, limit: int) -> list[dict[str, Any]]:
        in_index, values = contained(condition)
        statement = f"{_LIST} AND {in_index} ORDER BY c.key"

        def work(connection: Any) -> list[dict[str, Any]]:
            with streamed(connection, limit) as cursor:
                rows = cursor.execute(statement, {**range_of(prefix), **values})
                return first_tracked(in_time(connection, rows), in_utc, condition, limit)

        return self._database.run(work, ONE_STATE)

    def _delete(self, key: str) -> bool:
        ids = {"ids": [generate_entry_id(key)]}
        return bool(self._database.run(lambda connection: connection.execute(_DELETE, ids).rowcount, WRITE))

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        def work(connection: Any) -> tuple[int, int]:
            if not connection.execute(_EXPIRED_COUNT).fetchone()[0]:  # then also those may ask who may only read
                return 0, 0
            deleted = connection.execute(_CLEAN, {"limit": limit}).rowcount
            return deleted, connection.execute(_EXPIRED_COUNT).fetchone()[0]

        return self._database.run(work, WRITE)

    # --- snapshots ---------------------------------------------------------------------------------

    def _keep(self, snapshot_id: str, name: str) -> None:
        values = {"id": snapshot_id, "name": name}

        def work(connection: Any) -> None:
            connection.execute(_KEEP, values)
            check_total(connection.execute(_SIZE, values).fetchone()[0])
            connection.execute(_FINISH, values)
            for statement in _ANALYZE:
                connection.execute(statement)

        self._database.run(work, WRITE)

    def _snapshot(self, snapshot_id: str) -> dict[str, Any] | Damage | None:
        row = self._database.run(lambda connection: connection.execute(_SNAPSHOT, {"id": snapshot_id}).fetchone())
        return None if row is None else read_snapshot(row, in_utc)

    def _snapshots(self) -> list[dict[str, Any]]:
        statement = f"{_SNAPSHOTS} ORDER BY created_at DESC, id"
        rows = self._database.run(lambda connection: connection.execute(statement).fetchall())
        return Listed(read_snapshot(row, in_utc) for row in rows)

    def _delete_snapshot(self, snapshot_id: str) -> bool:
        values = {"id": snapshot_id}

        def work(connection: Any) -> bool:
            found = connection.execute("DELETE FROM ltm_snapshots WHERE id = %(id)s", values).rowcount
            connection.execute("DELETE FROM ltm_snapshot_entries WHERE snapshot_id = %(id)s", values)
            return bool(found)

        return self._database.run(work, WRITE)

    def _changed(self, snapshot_id: str | None) -> list[dict[str, Any]]:
        if snapshot_id is None:
            rows = self._database.run(lambda connection: connection.execute(_ALL).fetchall())
        else:
            rows = self._since(snapshot_id, _CHANGED)
        return Listed(read_tracked(row, in_utc) for row in rows)

    def _deleted(self, snapshot_id: str) -> list[dict[str, Any]]:
        return Listed(read_gone(row, in_utc) for row in self._since(snapshot_id, _DELETED))

    def _since(self, snapshot_id: str, statement: str) -> list[Sequence[Any]]:
        values = {"id": snapshot_id}

        def work(connection: Any) -> list[Sequence[Any]]:
            check_snapshot_found(connection.execute(_SNAPSHOT, values).fetchone())
            rows: list[Sequence[Any]] = connection.execute(statement, values).fetchall()
            return rows

        return self._database.run(work, ONE_STATE)

    # --- as the ledger of a memory in the same database --------------------------------------------

    def follow(self, connection: Any, operations: Sequence[Operation]) -> None:
        """Write down what a transaction of the memory does."""
        deleted, tracked = changes_of(operations)
        if deleted:
            connection.execute(_DELETE, {"ids": [*map(generate_entry_id, deleted)]})
        _track(connection, tracked)

    def forget(self, connection: Any, keys: Sequence[str]) -> None:
        """Remove what has expired of keys that the memory has cleaned up."""
        connection.execute(_FORGET, {"ids": [*map(generate_entry_id, keys)]})


def _track(connection: Any, entries: Sequence[Tracked]) -> None:
    """Create or replace entries, by key and then in their order, without a wait for each answer."""
    in_order = sorted(entries, key=lambda entry: entry.key)
    if in_order:
        connection.cursor().executemany(_TRACK, [_parameters(entry) for entry in in_order])


def _parameters(entry: Tracked) -> dict[str, Any]:
    return {
        **tracked_parameters(entry),
        "metadata_json": comparable_json(decode(entry.metadata or "{}")),
        "expires_at": entry.expires_at,
        "ttl": microseconds(entry.ttl),
    }
