"""``Catalog``: the statements of a catalog, built once, and the methods that run them on a connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, groupby
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Double,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    type_coerce,
    update,
)

from the_edge_agent.memory.contract.catalog import generate_entry_id
from the_edge_agent.memory.contract.result_types import RecordedEntry, Snapshot
from the_edge_agent.memory.contract.tracking import (
    LOW_PART,
    RECORDED,
    Tracked,
    check_snapshot_found,
    check_total,
    read_recorded,
    read_tracked_at,
    total_of,
)
from the_edge_agent.memory.core.damage import (
    TRACKED,
    Damage,
    Listed,
    place_after,
    read_gone,
    read_snapshot,
    read_tracked,
)
from the_edge_agent.memory.core.filters import Node, matches
from the_edge_agent.memory.core.namespaces import KeyRange
from the_edge_agent.memory.sql.dialects.base.match_query import conditions_of
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sql.queries.batches import batches, exact_bytes
from the_edge_agent.memory.sql.queries.search import range_parameters
from the_edge_agent.memory.sql.schema.create import Schema
from the_edge_agent.memory.sql.schema.rows import catalog_parameters, catalog_row, time_of

_ID_BYTES: Final = 64
_WIDEST: Final = 4  # bytes of a character
_PAGE_ROWS: Final = 500  # rows that Python filters at a time

_SNAPSHOT: Final = ("id", "name", "entry_count", "total_bytes", "created_at")
# The columns of an entry that a snapshot stores
_SNAPSHOT_COLUMNS: Final = ("key", "content_hash", "metadata_hash", "byte_size", "expires_at")


class Catalog:
    """Reads and writes the tables of the catalog of one engine."""

    def __init__(self, schema: Schema) -> None:
        """Build the statements."""
        self._dialect, self._packet = schema.dialect, schema.packet
        tables = schema.tables
        catalog, snapshot_rows, snapshots = tables.catalog, tables.snapshot_entries, tables.snapshots
        self._joined = (catalog, snapshot_rows)
        columns = catalog.c
        self._key, self._metadata = columns.key, type_coerce(columns.metadata, Text())
        self._filters = self._dialect.queries.filters(catalog)
        self._upsert = self._dialect.queries.upsert(catalog, catalog_row(self._dialect, catalog))
        visible, expired = self._dialect.times.visible(catalog), self._dialect.times.expired(catalog)
        is_one, are_some = columns.id == bindparam("b_id"), columns.id.in_(bindparam("b_ids", expanding=True))
        texts = {"inlined_value": type_coerce(columns.inlined_value, Text()), "metadata": self._metadata}
        entry = select(*(texts.get(name, columns[name]) for name in TRACKED)).where(visible)
        self._get, self._get_many = entry.where(is_one), entry.where(are_some)
        self._all, self._list = entry, entry.order_by(columns.key)
        self._delete = delete(catalog).where(are_some, visible)
        ends = bindparam("b_ends", type_=columns.expires_at.type)
        renewed = {"expires_at": ends, "updated_at": self._dialect.times.now, "version": columns.version + 1}
        self._renew = update(catalog).where(is_one).values(renewed)
        self._expired = select(columns.id).where(expired).order_by(columns.expires_at, columns.id)
        self._clean = delete(catalog).where(are_some, expired)
        self._expired_count = select(func.count()).select_from(catalog).where(expired)

        the_snapshot = snapshot_rows.c.snapshot_id == bindparam("b_snapshot")
        of_entry = and_(the_snapshot, snapshot_rows.c.entry_id == columns.id)
        differs = or_(
            snapshot_rows.c.entry_id.is_(None), *(_differs(columns[name], snapshot_rows.c[name]) for name in _COMPARED)
        )
        self._changed = entry.select_from(catalog.outerjoin(snapshot_rows, of_entry)).where(differs)
        gone = select(literal(1)).select_from(catalog).where(columns.id == snapshot_rows.c.entry_id, visible).exists()
        self._deleted = select(
            snapshot_rows.c.entry_id.label("id"),
            snapshot_rows.c.key,
            snapshot_rows.c.content_hash,
            snapshot_rows.c.byte_size,
            snapshot_rows.c.expires_at,
        ).where(the_snapshot, ~gone)
        source = select(bindparam("b_snapshot", type_=snapshot_rows.c.snapshot_id.type), columns.id)
        source = source.add_columns(*(columns[name] for name in _SNAPSHOT_COLUMNS)).where(visible)
        self._keep = insert(snapshot_rows).from_select(["snapshot_id", "entry_id", *_SNAPSHOT_COLUMNS], source)
        totals = select(
            bindparam("b_snapshot", type_=snapshots.c.id.type),
            bindparam("b_name", type_=snapshots.c.name.type),
            func.count(),
            func.coalesce(func.sum(snapshot_rows.c.byte_size), 0),
            self._dialect.times.now,
        ).where(the_snapshot)
        low = snapshot_rows.c.byte_size % LOW_PART
        self._size = select(func.sum((snapshot_rows.c.byte_size - low) * literal(1.0, Double())), func.sum(low))
        self._size = self._size.where(the_snapshot)
        self._finish = insert(snapshots).from_select(list(_SNAPSHOT), totals)
        self._snapshots = select(*(snapshots.c[name] for name in _SNAPSHOT))
        self._snapshot = self._snapshots.where(snapshots.c.id == bindparam("b_snapshot"))
        self._recorded = select(*(snapshot_rows.c[name] for name in RECORDED)).where(
            the_snapshot, snapshot_rows.c.entry_id > bindparam("b_after", type_=snapshot_rows.c.entry_id.type)
        )
        self._recorded = self._recorded.order_by(snapshot_rows.c.entry_id)
        self._record, self._import_snapshot = insert(snapshot_rows), insert(snapshots)
        self._newest_first = self._snapshots.order_by(snapshots.c.created_at.desc(), snapshots.c.id)
        self._forget = delete(snapshots).where(snapshots.c.id == bindparam("b_snapshot"))
        self._forget_entries = delete(snapshot_rows).where(the_snapshot)

    # --- writes ------------------------------------------------------------------------------------

    def track(self, connection: Connection, entries: Sequence[Tracked], now: datetime | None) -> list[bool]:
        """Store entries at the time ``now``, sorted by key. Return for each entry whether it was created."""
        by_key = sorted(range(len(entries)), key=lambda place: entries[place].key)
        groups = [[*group] for _, group in groupby(by_key, key=lambda place: entries[place].key)]
        created = [False] * len(entries)
        for part in _in_write_order(groups, entries):
            for batch in batches(part, lambda places: _most_bytes(entries[places[-1]]), self._packet):
                for places, version in zip(batch, self._tracked(connection, entries, batch, now), strict=True):
                    created[places[0]] = version == len(places)
        return created

    def _tracked(
        self, connection: Connection, entries: Sequence[Tracked], batch: list[list[int]], now: datetime | None
    ) -> list[int]:
        """Write the last entry of each group. Return the new version of each."""
        rows = [catalog_parameters(self._dialect, entries[places[-1]], now, len(places)) for places in batch]
        if len(rows) == 1:
            return [self._upsert.one(connection, rows[0])]
        versions = self._upsert.many(connection, rows)
        return [versions[row["b_id"]] for row in rows]

    def delete(self, connection: Connection, entry_ids: Sequence[str], now: datetime | None) -> int:
        """Delete the entries that have not expired at the time ``now``. Return how many were deleted."""
        parts = batches(entry_ids, lambda _: _ID_BYTES, self._packet)
        return sum(connection.execute(self._delete, {"b_ids": part, "b_now": now}).rowcount for part in parts)

    def renew(self, connection: Connection, expiries: Mapping[str, datetime | None], now: datetime | None) -> None:
        """Set when entries expire, by their keys. This is a change of the entries, as ``track`` makes it."""
        rows = [{"b_id": generate_entry_id(key), "b_ends": ends, "b_now": now} for key, ends in expiries.items()]
        if rows:
            connection.execute(self._renew, sorted(rows, key=lambda row: str(row["b_id"])))

    def forget(self, connection: Connection, entry_ids: Sequence[str], now: datetime | None) -> None:
        """Remove entries if they have expired."""
        for part in batches(entry_ids, lambda _: _ID_BYTES, self._packet):
            connection.execute(self._clean, {"b_ids": part, "b_now": now})

    def cleanup_expired(self, connection: Connection, batch_size: int) -> tuple[int, int]:
        """Remove some expired entries; return how many, and how many remain."""
        now = self._now(connection, 3)
        ids = sorted(connection.scalars(self._expired.limit(batch_size), now))
        parts = batches(ids, lambda _: _ID_BYTES, self._packet)
        deleted = sum(connection.execute(self._clean, {"b_ids": part, **now}).rowcount for part in parts)
        return deleted, connection.scalar(self._expired_count, now) or 0

    # --- reads -------------------------------------------------------------------------------------

    def get(self, connection: Connection, key: str) -> dict[str, Any] | Damage | None:
        """Return an entry, or None if there is none."""
        rows = connection.execute(self._get, {"b_id": generate_entry_id(key), **self._now(connection)})
        return read_tracked_at([key], rows, time_of)[key]

    def get_many(self, connection: Connection, keys: Sequence[str]) -> dict[str, dict[str, Any] | Damage | None]:
        """Return the entries at keys. A key without an entry has the value None."""
        parts = [*batches([*map(generate_entry_id, keys)], lambda _: _ID_BYTES, self._packet)]
        now = self._now(connection, len(parts))
        results = (connection.execute(self._get_many, {"b_ids": part, **now}) for part in parts)
        return read_tracked_at(keys, chain.from_iterable(results), time_of)

    def list_entries(
        self,
        connection: Connection,
        prefix: str,
        condition: Node | None,
        limit: int,
        deadline: Deadline,
        *,
        filters: bool = True,
    ) -> Listed[dict[str, Any]]:
        """Return the first entries by key with the prefix that satisfy the filter.

        Without ``filters`` Python decides it.
        """
        in_sql = self._filters.condition(condition) if filters and condition is not None else None
        keys = KeyRange.of_prefix(prefix)
        statement = self._list.where(*conditions_of(self._key, keys))
        if in_sql is not None:
            statement = statement.where(in_sql)
        now = {**self._now(connection, 2), **range_parameters(keys)}
        if condition is None or in_sql is not None:
            entries = [read_tracked(row, time_of) for row in connection.execute(statement.limit(limit), now)]
            if Damage not in map(type, entries):
                return Listed(entries)
        entries_in_time = deadline.in_time(self._pages(connection, statement, now))
        return Listed(entries_in_time, lambda entry: matches(condition, entry["metadata"]), limit)

    def changed(self, connection: Connection, snapshot_id: str | None) -> list[dict[str, Any]]:
        """Return the entries that differ from a snapshot. Without a snapshot return all entries.

        Raises:
            LTMError: ``validation_error`` for an unknown snapshot.
        """
        now = self._now(connection, 2)
        if snapshot_id is None:
            return _by_key(read_tracked(row, time_of) for row in connection.execute(self._all, now))
        self._require_snapshot(connection, snapshot_id)
        rows = connection.execute(self._changed, {"b_snapshot": snapshot_id, **now})
        return _by_key(read_tracked(row, time_of) for row in rows)

    def deleted(self, connection: Connection, snapshot_id: str) -> list[dict[str, Any]]:
        """Return the entries of a snapshot that the catalog no longer has.

        Raises:
            LTMError: ``validation_error`` for an unknown snapshot.
        """
        self._require_snapshot(connection, snapshot_id)
        rows = connection.execute(self._deleted, {"b_snapshot": snapshot_id, **self._now(connection)})
        return _by_key(read_gone(row, time_of) for row in rows)

    # --- snapshots ---------------------------------------------------------------------------------

    def create_snapshot(self, connection: Connection, snapshot_id: str, name: str) -> None:
        """Create the snapshot on the server. The first statement decides which state the snapshot has.

        Raises:
            LTMError: ``validation_error`` if the sum of the sizes is too large for the column.
        """
        now = self._now(connection, 3)
        connection.execute(self._keep, {"b_snapshot": snapshot_id, **now})
        check_total(total_of(*connection.execute(self._size, {"b_snapshot": snapshot_id}).one()))
        connection.execute(self._finish, {"b_snapshot": snapshot_id, "b_name": name, **now})
        self._dialect.transactions.analyze(connection, *self._joined)

    def snapshot(self, connection: Connection, snapshot_id: str) -> dict[str, Any] | Damage | None:
        """Return a snapshot, or None if there is none."""
        row = connection.execute(self._snapshot, {"b_snapshot": snapshot_id}).first()
        return None if row is None else read_snapshot(row, time_of)

    def snapshots(self, connection: Connection) -> list[dict[str, Any]]:
        """Return all snapshots, newest first."""
        return Listed(read_snapshot(row, time_of) for row in connection.execute(self._newest_first))

    def recorded(self, connection: Connection, snapshot_id: str, after: str, limit: int) -> list[RecordedEntry]:
        """Return the first entries of a snapshot after an id, by id."""
        rows = connection.execute(self._recorded.limit(limit), {"b_snapshot": snapshot_id, "b_after": after})
        return [read_recorded(row, time_of) for row in rows]

    def record(self, connection: Connection, snapshot_id: str, entries: Sequence[RecordedEntry]) -> None:
        """Add entries to a snapshot that is being imported."""
        rows: list[dict[str, Any]] = [
            {**entry, "snapshot_id": snapshot_id, "entry_id": entry["id"]} for entry in entries
        ]
        for row in rows:
            del row["id"]
        for part in batches(rows, lambda row: len(row["key"]) * _WIDEST + 500, self._packet):
            connection.execute(self._record, part)

    def import_snapshot(self, connection: Connection, snapshot: Snapshot) -> None:
        """Add a snapshot whose entries were added before."""
        connection.execute(self._import_snapshot, dict(snapshot))
        self._dialect.transactions.analyze(connection, *self._joined)

    def delete_snapshot(self, connection: Connection, snapshot_id: str) -> bool:
        """Delete a snapshot, and return whether it existed."""
        rowcount = connection.execute(self._forget, {"b_snapshot": snapshot_id}).rowcount
        connection.execute(self._forget_entries, {"b_snapshot": snapshot_id})
        return bool(rowcount)

    def _require_snapshot(self, connection: Connection, snapshot_id: str) -> None:
        check_snapshot_found(self.snapshot(connection, snapshot_id))

    def _now(self, connection: Connection, statements: int = 1) -> dict[str, Any]:
        return {"b_now": self._dialect.times.clock(connection, statements=statements)}

    def _pages(
        self, connection: Connection, statement: Select[Any], now: dict[str, Any]
    ) -> Iterator[dict[str, Any] | Damage]:
        following, skip = statement, 0
        while True:
            rows = connection.execute(following.limit(_PAGE_ROWS).offset(skip), now).all()
            yield from (read_tracked(row, time_of) for row in rows)
            if len(rows) < _PAGE_ROWS:
                return
            after, more = place_after([row[1] for row in rows])
            if after is None:
                skip += more
            else:
                following, skip = statement.where(self._key > after), more


def _in_write_order(groups: Iterable[list[int]], entries: Sequence[Tracked]) -> Iterator[list[list[int]]]:
    """Yield the groups to write first, then the groups that follow an entry of the same key that can expire."""
    first, then = [], []
    for places in groups:
        ends = [number for number, place in enumerate(places[:-1], start=1) if entries[place].expires_at is not None]
        cut = ends[-1] if ends else len(places)
        first.append(places[:cut])
        if cut < len(places):
            then.append(places[cut:])
    yield first
    yield then


_COMPARED: Final = ("content_hash", "metadata_hash", "expires_at")


def _differs(one: Any, other: Any) -> Any:
    return or_(one != other, and_(one.is_(None), other.is_not(None)), and_(one.is_not(None), other.is_(None)))


def _by_key(rows: Iterable[dict[str, Any] | Damage]) -> list[dict[str, Any]]:
    """Sort entries by key.

    This is not done in SQL, because MySQL and MariaDB would sort whole rows before comparing them.
    """
    entries = Listed(rows)
    entries.sort(key=lambda entry: str(entry["key"]))
    return entries


def sent_bytes(entry: Tracked, enough: int) -> int:
    """Return how many bytes an entry has as sent. The number is exact if it may be more than ``enough``."""
    limit = _most_bytes(entry)
    if limit <= enough:
        return limit
    return exact_bytes([entry.key, entry.storage_uri, entry.metadata, entry.inlined_value])


def _most_bytes(entry: Tracked) -> int:
    texts = (entry.key, entry.storage_uri, entry.metadata, entry.metadata, entry.inlined_value)
    return sum(len(text) for text in texts if text) * _WIDEST + 500
