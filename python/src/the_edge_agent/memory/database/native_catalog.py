"""What the native catalogs on SQLite and on PostgreSQL share: most statements, and what is done with their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypeVar

from the_edge_agent.memory.contract.catalog import generate_entry_id
from the_edge_agent.memory.contract.result_types import RecordedEntry, Snapshot
from the_edge_agent.memory.contract.tracking import (
    Tracked,
    check_snapshot_found,
    check_total,
    read_recorded,
    read_tracked_at,
)
from the_edge_agent.memory.core.damage import (
    Damage,
    Listed,
    Timestamp,
    read_gone,
    read_snapshot,
    read_tracked,
)
from the_edge_agent.memory.core.filters import Node, matches
from the_edge_agent.memory.database.catalog import DatabaseCatalog

Answer = TypeVar("Answer")
Row: TypeAlias = Sequence[Any]
#: One statement that reads, several that see one state, or some that write.
Way: TypeAlias = Literal["read", "state", "write"]

_OF_IMPORT: Final = ("snapshot_id", "ends", "entry_count", "total_bytes", "created_at")
_COLUMNS: Final = ("id", "key", "content_hash", "storage_uri", "byte_size", "inlined_value", "metadata")
# Each write of an entry changes these. An expired entry counts as absent.
_OF_WRITE: Final = """
        version = CASE WHEN c.expires_at <= {now} THEN 1 WHEN {is_version} THEN c.version + 1 END,
        created_at = CASE WHEN c.expires_at <= {now} THEN {now} ELSE c.created_at END,
        expires_at = {expiry}, updated_at = {now}"""
_UPSERT: Final = f"""
    INSERT INTO ltm_catalog AS c (id, key, content_hash, storage_uri, byte_size, inlined_value, metadata, metadata_hash,
                                  {{more}}expires_at, created_at, updated_at, version)
    VALUES ({{id}}, {{key}}, {{content_hash}}, {{storage_uri}}, {{byte_size}}, {{inlined_value}}, {{metadata}},
            {{metadata_hash}}, {{more_values}}{{expiry}}, {{now}}, {{now}}, 1)
    ON CONFLICT (id) DO UPDATE SET
        key = excluded.key, content_hash = excluded.content_hash, storage_uri = excluded.storage_uri,
        byte_size = excluded.byte_size, inlined_value = excluded.inlined_value, metadata = excluded.metadata,
        metadata_hash = excluded.metadata_hash, {{more_changes}}{_OF_WRITE}
    RETURNING version"""
_TOUCH: Final = f"UPDATE ltm_catalog AS c SET {_OF_WRITE} WHERE c.id = {{id}}"
_KEEP: Final = """
    INSERT INTO ltm_snapshot_entries (snapshot_id, entry_id, key, content_hash, metadata_hash, byte_size, expires_at)
    SELECT CAST({id} AS TEXT), c.id, c.key, c.content_hash, c.metadata_hash, c.byte_size, c.expires_at
    FROM ltm_catalog c WHERE {visible}"""
_FINISH: Final = """
    INSERT INTO ltm_snapshots (id, name, entry_count, total_bytes, created_at)
    SELECT CAST({id} AS TEXT), CAST({name} AS TEXT), count(*), coalesce(sum(byte_size), 0), {now}
    FROM ltm_snapshot_entries WHERE snapshot_id = {id}"""
_CHANGED: Final = """
    {tracked} LEFT JOIN ltm_snapshot_entries s ON s.snapshot_id = {id} AND s.entry_id = c.id
    WHERE {visible} AND (s.entry_id IS NULL OR s.content_hash {differs} c.content_hash
                         OR s.metadata_hash {differs} c.metadata_hash OR s.expires_at {differs} c.expires_at)
    ORDER BY c.key"""
_DELETED: Final = """
    SELECT s.entry_id, s.key, s.content_hash, s.byte_size, {expires_at} FROM ltm_snapshot_entries s
    WHERE s.snapshot_id = {id} AND NOT EXISTS (SELECT 1 FROM ltm_catalog c WHERE c.id = s.entry_id AND {visible})
    ORDER BY s.key"""

_RECORDED: Final = """
    SELECT s.entry_id, s.key, s.content_hash, s.metadata_hash, s.byte_size, {expires_at} FROM ltm_snapshot_entries s
    WHERE s.snapshot_id = {id} AND s.entry_id > {start} ORDER BY s.entry_id LIMIT {limit}"""
_RECORD: Final = """
    INSERT INTO ltm_snapshot_entries (snapshot_id, entry_id, key, content_hash, metadata_hash, byte_size, expires_at)
    VALUES ({snapshot_id}, {id}, {key}, {content_hash}, {metadata_hash}, {byte_size}, {ends})"""
_IMPORT: Final = """
    INSERT INTO ltm_snapshots (id, name, entry_count, total_bytes, created_at)
    VALUES ({id}, {name}, {entry_count}, {total_bytes}, {created_at})"""


class CatalogSQL:
    """The statements of one database, as its driver takes them.

    Attributes:
        tracked: the SELECT of entries ``c``, with the columns that ``read_tracked`` reads.
        visible: the condition that an entry ``c`` has not expired.
        every: the entries that have not expired, by key.
        listed: those of a range of keys, without an order.
        track: the upsert of an entry.
        touch: the update of an entry with a new ``expires_at``.
        delete: the end of an entry that has not expired.
        expired: how many entries have expired.
        keep: writes the entries of a snapshot.
        finish: writes the snapshot, after them.
        snapshots: the SELECT of snapshots.
        snapshot: one of them.
        drop: the end of a snapshot.
        drop_entries: the end of its entries.
        changed: the entries that differ from a snapshot.
        deleted: the entries of a snapshot that are gone.
        recorded: a page of the entries of a snapshot.
        record: adds an entry to a snapshot.
        import_snapshot: adds a snapshot.
        read_time: makes a time of what is selected.
    """

    def __init__(
        self,
        *,
        placeholder: str,
        now: str,
        timestamp: Callable[[str], str],
        read_time: Timestamp,
        differs: str,
        **of_upsert: str,
    ) -> None:
        """Make the statements.

        Args:
            placeholder: the placeholder of a parameter, with ``{}`` for its name.
            now: the SQL for the current time.
            timestamp: takes a column of times and returns the SQL that selects it.
            read_time: takes a selected value and returns the time.
            differs: the SQL operator that is true if two values differ; one of them may be NULL.
            of_upsert: the fields of ``_UPSERT`` that are not parameters.
        """
        self.read_time = read_time
        names = (*_COLUMNS, "metadata_hash", "name", "start", "end", "limit", *_OF_IMPORT)
        fields = {name: placeholder.format(name) for name in names} | {"now": now, "differs": differs}
        times = ", ".join(timestamp(f"c.{name}") for name in ("expires_at", "created_at", "updated_at"))
        self.tracked = f"SELECT {', '.join(f'c.{name}' for name in _COLUMNS)}, {times} FROM ltm_catalog c"
        self.visible = f"(c.expires_at IS NULL OR c.expires_at > {now})"
        fields |= {"tracked": self.tracked, "visible": self.visible, "expires_at": timestamp("s.expires_at")}
        self.every = f"{self.tracked} WHERE {self.visible} ORDER BY c.key"
        in_range = "c.key >= {start} AND c.key < {end}".format(**fields)
        self.listed = f"{self.tracked} WHERE {in_range} AND {self.visible}"
        self.track, self.touch = _UPSERT.format(**fields, **of_upsert), _TOUCH.format(**fields, **of_upsert)
        self.delete = "DELETE FROM ltm_catalog AS c WHERE c.id = {id} AND {visible}".format(**fields)
        self.expired = f"SELECT count(*) FROM ltm_catalog WHERE expires_at <= {now}"
        self.keep, self.finish = _KEEP.format(**fields), _FINISH.format(**fields)
        self.snapshots = f"SELECT id, name, entry_count, total_bytes, {timestamp('created_at')} FROM ltm_snapshots"
        self.snapshot = f"{self.snapshots} WHERE id = {fields['id']}"
        self.drop = f"DELETE FROM ltm_snapshots WHERE id = {fields['id']}"
        self.drop_entries = f"DELETE FROM ltm_snapshot_entries WHERE snapshot_id = {fields['id']}"
        self.recorded, self.record = _RECORDED.format(**fields), _RECORD.format(**fields)
        self.import_snapshot = _IMPORT.format(**fields)
        self.changed, self.deleted = _CHANGED.format(**fields), _DELETED.format(**fields)


class NativeCatalog(DatabaseCatalog):
    """The base of the native catalogs. A subclass has the statements, and overrides the hooks."""

    _sql: ClassVar[CatalogSQL]
    _after_snapshot: ClassVar[Iterable[str]] = ()  # statements

    # --- hooks -------------------------------------------------------------------------------------

    def _run(self, work: Callable[[Any], Answer], way: Way) -> Answer:
        """Call ``work`` with a connection, in a transaction if it needs one, and return its result."""
        raise NotImplementedError

    def _now(self) -> dict[str, Any]:
        """Return the parameters for the time, in a transaction that has begun."""
        raise NotImplementedError

    def _rows_of_ids(self, connection: Any, ids: Sequence[str]) -> Iterable[Row]:
        """Return the rows of entries that have not expired."""
        raise NotImplementedError

    def _total(self, connection: Any, values: dict[str, Any]) -> Any:
        """Return the exact sum of the sizes of a snapshot's entries; None for that of nothing."""
        raise NotImplementedError

    # --- entries -----------------------------------------------------------------------------------

    def _get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any] | Damage | None]:
        ids = [*map(generate_entry_id, keys)]
        rows = self._run(lambda connection: self._rows_of_ids(connection, ids), "read")
        return read_tracked_at(keys, rows, self._sql.read_time)

    def _delete(self, key: str) -> bool:
        entry_id = generate_entry_id(key)

        def work(connection: Any) -> int:
            return int(connection.execute(self._sql.delete, {"id": entry_id, **self._now()}).rowcount)

        return bool(self._run(work, "write"))

    # --- snapshots ---------------------------------------------------------------------------------

    def _keep(self, snapshot_id: str, name: str) -> None:
        def work(connection: Any) -> None:
            values = {"id": snapshot_id, "name": name, **self._now()}
            connection.execute(self._sql.keep, values)
            check_total(self._total(connection, values))
            connection.execute(self._sql.finish, values)
            for statement in self._after_snapshot:
                connection.execute(statement)

        self._run(work, "write")

    def _snapshot(self, snapshot_id: str) -> dict[str, Any] | Damage | None:
        values = {"id": snapshot_id}
        row = self._run(lambda connection: connection.execute(self._sql.snapshot, values).fetchone(), "read")
        return None if row is None else read_snapshot(row, self._sql.read_time)

    def _snapshots(self) -> list[dict[str, Any]]:
        statement = f"{self._sql.snapshots} ORDER BY created_at DESC, id"
        rows = self._run(lambda connection: connection.execute(statement).fetchall(), "read")
        return Listed(read_snapshot(row, self._sql.read_time) for row in rows)

    def _delete_snapshot(self, snapshot_id: str) -> bool:
        values = {"id": snapshot_id}

        def work(connection: Any) -> int:
            found = connection.execute(self._sql.drop, values).rowcount
            connection.execute(self._sql.drop_entries, values)
            return int(found)

        return bool(self._run(work, "write"))

    def _recorded(self, snapshot_id: str, after: str, limit: int) -> list[RecordedEntry]:
        values = {"id": snapshot_id, "start": after, "limit": limit}
        rows = self._run(lambda connection: connection.execute(self._sql.recorded, values).fetchall(), "read")
        return [read_recorded(row, self._sql.read_time) for row in rows]

    def _record(self, snapshot_id: str, entries: Sequence[RecordedEntry]) -> None:
        rows = [{**each, "snapshot_id": snapshot_id, "ends": self._time(each["expires_at"])} for each in entries]

        def work(connection: Any) -> None:
            for row in rows:
                connection.execute(self._sql.record, row)

        self._run(work, "write")

    def _import_snapshot(self, snapshot: Snapshot) -> None:
        values = {**snapshot, "created_at": self._time(snapshot["created_at"])}

        def work(connection: Any) -> None:
            connection.execute(self._sql.import_snapshot, values)
            for statement in self._after_snapshot:
                connection.execute(statement)

        self._run(work, "write")

    def _time(self, moment: datetime | None) -> Any:
        """Return a time as the driver takes it."""
        return moment

    def _changed(self, snapshot_id: str | None) -> list[dict[str, Any]]:
        if snapshot_id is None:
            rows = self._run(lambda connection: connection.execute(self._sql.every, self._now()).fetchall(), "read")
        else:
            rows = self._since(snapshot_id, self._sql.changed)
        return Listed(read_tracked(row, self._sql.read_time) for row in rows)

    def _deleted(self, snapshot_id: str) -> list[dict[str, Any]]:
        return Listed(read_gone(row, self._sql.read_time) for row in self._since(snapshot_id, self._sql.deleted))

    def _since(self, snapshot_id: str, statement: str) -> list[Row]:
        def work(connection: Any) -> list[Row]:
            values = {"id": snapshot_id, **self._now()}
            check_snapshot_found(connection.execute(self._sql.snapshot, values).fetchone())
            rows: list[Row] = connection.execute(statement, values).fetchall()
            return rows

        return self._run(work, "state")


def tracked_parameters(entry: Tracked) -> dict[str, Any]:
    """Return the parameters of a tracked entry, but for its times."""
    return {
        "id": entry.entry_id,
        "key": entry.key,
        "content_hash": entry.content_hash,
        "storage_uri": entry.storage_uri,
        "byte_size": entry.byte_size,
        "inlined_value": entry.inlined_value,
        "metadata": entry.metadata,
        "metadata_hash": entry.metadata_hash,
    }


def first_tracked(
    rows: Iterable[Row], timestamp: Timestamp, condition: Node | None, limit: int
) -> Listed[dict[str, Any]]:
    """Return the entries of the first rows of ``CatalogSQL.tracked`` whose metadata satisfies a condition."""
    tracked = map(partial(read_tracked, timestamp=timestamp), rows)
    return Listed(tracked, lambda entry: matches(condition, entry["metadata"]), limit)
