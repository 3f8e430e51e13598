"""PostgresCatalog: the ledger of what is stored, in one PostgreSQL database, with psycopg and without SQLAlchemy."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import DatabaseCatalog, generate_entry_id
from the_edge_agent.memory.contract.tracking import (
    Tracked,
    changes_of,
    check_batch,
    check_snapshot_found,
    check_snapshot_id,
    check_total,
    read_tracked_at,
)
from the_edge_agent.memory.core.codec import comparable_json, decode
from the_edge_agent.memory.core.damage import (
    Listed,
    read_gone,
    read_snapshot,
    read_tracked,
    whole,
    whole_entries,
)
from the_edge_agent.memory.core.filters import parse_filter
from the_edge_agent.memory.core.operations import Operation
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
_CLEAN: Final = _GONE.format("c.expires_at <= now()", "c.expires_at, c.id LIMIT %(most)s")
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
        version = self._database.run(lambda c: c.execute(_TRACK, _parameters(entry)).fetchone()[0], WRITE)
        return ok(entry_id=entry.entry_id, created=version == 1)

    def get_entry(self, key: str) -> dict[str, Any] | None:
        """Return the entry of a key, None if there is none; see ``CatalogBackend.get_entry``."""
        wanted = {"id": generate_entry_id(check_key(key))}
        rows = self._database.run(lambda connection: connection.execute(_GET, wanted).fetchall())
        return whole(read_tracked_at([key], rows, in_utc)[key])

    def list_entries(
        self, prefix: str | None = None, metadata_filter: dict[str, Any] | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the first entries by key; see ``CatalogBackend.list_entries``."""
        beginning, condition, most = check_prefix(prefix), parse_filter(metadata_filter), check_limit(limit)
        in_index, values = contained(condition)
        statement = f"{_LIST} AND {in_index} ORDER BY c.key"

        def work(connection: Any) -> list[dict[str, Any]]:
            with streamed(connection, most) as cursor:
                rows = cursor.execute(statement, {**range_of(beginning), **values})
                return first_tracked(in_time(connection, rows), in_utc, condition, most)

        return self._database.run(work, ONE_STATE)

    def delete_entry(self, key: str) -> bool:
        """Delete the entry of a key and return whether it was there; see ``CatalogBackend.delete_entry``."""
        wanted = {"ids": [generate_entry_id(check_key(key))]}
        return bool(self._database.run(lambda connection: connection.execute(_DELETE, wanted).rowcount, WRITE))

    @returns_result
    def store_batch(self, entries: Iterable[Mapping[str, Any]], atomic: bool = True) -> Result:
        """Track many entries; see ``CatalogBackend.store_batch``."""
        good, errors = check_batch(entries, atomic)
        self._database.run(lambda connection: _track(connection, good), WRITE)
        return ok(stored_count=len(good), failed_count=len(errors), errors=errors)

    @returns_result
    def retrieve_batch(self, keys: Iterable[str]) -> Result:
        """Return the entries of many keys, of one state; see ``CatalogBackend.retrieve_batch``."""
        wanted = check_keys(keys)
        ids = {"ids": [generate_entry_id(key) for key in wanted]}
        rows = self._database.run(lambda connection: connection.execute(_GET_MANY, ids).fetchall())
        return whole_entries(read_tracked_at(wanted, rows, in_utc))

    @returns_result
    def cleanup_expired(self, batch_size: int = 100) -> Result:
        """Remove expired entries; see ``CatalogBackend.cleanup_expired``."""
        most = check_batch_size(batch_size)

        def work(connection: Any) -> Result:
            if not connection.execute(_EXPIRED_COUNT).fetchone()[0]:  # then also those may ask who may only read
                return ok(deleted_count=0, remaining_count=0)
            deleted = connection.execute(_CLEAN, {"most": most}).rowcount
            return ok(deleted_count=deleted, remaining_count=connection.execute(_EXPIRED_COUNT).fetchone()[0])

        return self._database.run(work, WRITE)

    # --- snapshots ---------------------------------------------------------------------------------

    def create_snapshot(self, name: str) -> str:
        """Keep what there is now and return the snapshot's id; see ``CatalogBackend.create_snapshot``."""
        values = {"id": str(uuid.uuid4()), "name": check_text(name, "name")}

        def work(connection: Any) -> None:
            connection.execute(_KEEP, values)
            check_total(connection.execute(_SIZE, values).fetchone()[0])
            connection.execute(_FINISH, values)
            for statement in _ANALYZE:
                connection.execute(statement)

        self._database.run(work, WRITE)
        return values["id"]

    def get_snapshot(self, snapshot_id: str) -> dict[str, Any] | None:
        """Return ``{"id", "name", "entry_count", "total_bytes", "created_at"}``, None if there is none."""
        wanted = {"id": check_snapshot_id(snapshot_id, "snapshot_id")}
        row = self._database.run(lambda connection: connection.execute(_SNAPSHOT, wanted).fetchone())
        return whole(row and read_snapshot(row, in_utc), "snapshot")

    def list_snapshots(self) -> list[dict[str, Any]]:
        """Return all snapshots as ``get_snapshot`` does, newest first."""
        statement = f"{_SNAPSHOTS} ORDER BY created_at DESC, id"
        rows = self._database.run(lambda connection: connection.execute(statement).fetchall())
        return Listed(read_snapshot(row, in_utc) for row in rows)

    def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete a snapshot, not the entries, and return whether it was there."""
        wanted = {"id": check_snapshot_id(snapshot_id, "snapshot_id")}

        def work(connection: Any) -> bool:
            found = connection.execute("DELETE FROM ltm_snapshots WHERE id = %(id)s", wanted).rowcount
            connection.execute("DELETE FROM ltm_snapshot_entries WHERE snapshot_id = %(id)s", wanted)
            return bool(found)

        return self._database.run(work, WRITE)

    def get_changed_entries(self, since_snapshot_id: str | None = None) -> list[dict[str, Any]]:
        """Return what is new or different since a snapshot; see ``CatalogBackend.get_changed_entries``."""
        if since_snapshot_id is None:
            rows = self._database.run(lambda connection: connection.execute(_ALL).fetchall())
        else:
            rows = self._since(since_snapshot_id, _CHANGED)
        return Listed(read_tracked(row, in_utc) for row in rows)

    def get_deleted_entries(self, since_snapshot_id: str) -> list[dict[str, Any]]:
        """Return what a snapshot has and the catalog has no more, expired entries included, by key.

        Returns:
            ``[{"id", "key", "content_hash", "byte_size", "expires_at"}]``, as the snapshot saw it.

        Raises:
            LTMError: ``validation_error`` for an unknown snapshot.
        """
        return Listed(read_gone(row, in_utc) for row in self._since(since_snapshot_id, _DELETED))

    def _since(self, snapshot_id: Any, statement: str) -> list[Sequence[Any]]:
        wanted = {"id": check_snapshot_id(snapshot_id, "since_snapshot_id")}

        def work(connection: Any) -> list[Sequence[Any]]:
            check_snapshot_found(connection.execute(_SNAPSHOT, wanted).fetchone())
            rows: list[Sequence[Any]] = connection.execute(statement, wanted).fetchall()
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
