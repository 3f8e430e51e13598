"""``Entries``: the statements for the entries' table, built once, and the methods that run them on a connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain, groupby
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Integer, Select, Text, bindparam, delete, func, select, type_coerce

from the_edge_agent.memory.core.damage import TIMES, Damage, Facts, read_facts
from the_edge_agent.memory.core.operations import Operation, Store, ends_by_itself, is_unconditional
from the_edge_agent.memory.core.results import LTMError, Result, ok, stored
from the_edge_agent.memory.database.writes import Write, WrittenRow
from the_edge_agent.memory.sql.dialects.base.match_query import range_conditions
from the_edge_agent.memory.sql.driver.prepared import BoundQuery, Prepared
from the_edge_agent.memory.sql.queries.batches import batches, exact_bytes
from the_edge_agent.memory.sql.queries.search import Searcher, prefix_parameters
from the_edge_agent.memory.sql.queries.single_store import SingleStore
from the_edge_agent.memory.sql.queries.versions import VersionedStore
from the_edge_agent.memory.sql.schema.create import Schema
from the_edge_agent.memory.sql.schema.rows import entry_parameters, entry_row, time_of

_WIDEST: Final = 4  # bytes of a character, escaped or not

Places = list[int]  # the positions of the operations on one key, in order


class Entries:
    """Reads and writes the entries' table of one engine.

    Attributes:
        searcher: the searches in the table.
        single: the store of one entry that commits by itself.
    """

    def __init__(self, schema: Schema) -> None:
        """Build the statements."""
        self._dialect = dialect = schema.dialect
        self._packet = schema.packet
        self.searcher = Searcher(dialect, schema.tables.entries)
        table, columns = schema.tables.entries, schema.tables.entries.c
        visible, expired = dialect.times.visible(table), dialect.times.expired(table)
        self._upsert = dialect.queries.upsert(table, entry_row(dialect, table))
        self._versioned = VersionedStore(dialect, self._upsert)
        self.single = SingleStore(dialect, self._upsert)
        self._key = columns.key
        value, metadata = type_coerce(columns.value, Text()), type_coerce(columns.metadata, Text())
        is_one, is_among = columns.key == bindparam("b_key"), columns.key.in_(bindparam("b_keys", expanding=True))
        above, rows = columns.key > bindparam("b_after"), bindparam("b_rows", type_=Integer())
        pointer = columns.storage_uri
        entry = select(columns.key, value, metadata, pointer, columns.version).where(visible)
        self._retrieve = Prepared(entry.where(is_one))
        self._facts = select(columns.key, columns.expires_at, pointer, columns.version).where(is_among)
        self._pointers = select(pointer).where(pointer.in_(bindparam("b_pointers", expanding=True))).distinct()
        self._retrieve_many = entry.where(is_among)
        keys = select(columns.key).where(visible).order_by(columns.key).limit(rows)
        page = keys.add_columns(value, metadata, pointer)
        whole = page.add_columns(columns.version, *(columns[name] for name in TIMES))
        self._keys = _by_prefix(keys.where(above), self._key)
        self._first_page, self._page = _by_prefix(page, self._key), _by_prefix(page.where(above), self._key)
        self._first_whole, self._whole = _by_prefix(whole, self._key), _by_prefix(whole.where(above), self._key)
        self._count = _by_prefix(select(func.count()).select_from(table).where(visible), self._key)
        self._delete = Prepared(delete(table).where(is_one, visible))
        self._delete_many = delete(table).where(is_among, visible)
        self._expired = select(columns.key).where(expired).order_by(columns.expires_at, columns.key).limit(rows)
        self._clean = delete(table).where(is_among, expired)
        self._expired_count = select(func.count()).select_from(table).where(expired)
        timestamp = type_coerce(dialect.times.now, columns.updated_at.type).label("now")
        written = select(columns.key, columns.version, columns.write_id, columns.updated_at, timestamp, expired)
        self._written = written.where(is_among).order_by(columns.key).with_for_update()

    # --- writes ------------------------------------------------------------------------------------

    def apply(
        self, connection: Connection, operations: Sequence[Operation], now: datetime | None, write: Write | None
    ) -> list[Result]:
        """Run stores and deletes at the time ``now``, as one write.

        Return their results in the order of the operations.

        Rows are locked in the order of their keys, so that concurrent transactions do not deadlock. Operations on one
        key keep their order. Keys that have only unconditional stores are stored together.

        Raises:
            LTMError: ``conflict`` of the first operation that has one.
        """
        results: dict[int, Result] = {}
        conflicts: dict[int, LTMError] = {}
        by_key = sorted(range(len(operations)), key=lambda place: operations[place].key)
        groups = ([*group] for _, group in groupby(by_key, key=lambda place: operations[place].key))
        for are_unconditional, run in groupby(
            groups, key=lambda places: _only_last_counts([operations[place] for place in places])
        ):
            if are_unconditional:
                results.update(self._store_together(connection, operations, [*run], now, write))
            else:
                for place in chain(*run):
                    try:
                        write_id = None if write is None else write.of(place)
                        results[place] = self._apply_one(connection, operations[place], now, write_id)
                    except LTMError as failure:
                        conflicts[place] = failure
        if conflicts:
            raise conflicts[min(conflicts)]
        return [results[place] for place in range(len(operations))]

    def _store_together(
        self,
        connection: Connection,
        operations: Sequence[Any],
        groups: list[Places],
        now: datetime | None,
        write: Write | None,
    ) -> Iterator[tuple[int, Result]]:
        """Store only the last value of each key. Its version also counts the other stores of the key."""
        write_id = None if write is None else write.id
        if len(groups) == 1:
            versions = self._upsert_one(connection, operations, groups[0], now, write_id)
            yield from self._stored(operations, groups, versions)
            return
        for batch in batches(groups, lambda places: _most_bytes(operations[places[-1]]), self._packet):
            rows = [
                entry_parameters(self._dialect, operations[places[-1]], now, len(places), write_id) for places in batch
            ]
            yield from self._stored(operations, batch, self._upsert.many(connection, rows))

    def _upsert_one(
        self,
        connection: Connection,
        operations: Sequence[Any],
        places: Places,
        now: datetime | None,
        write_id: str | None,
    ) -> dict[str, int]:
        store = operations[places[-1]]
        row = entry_parameters(self._dialect, store, now, len(places), write_id)
        return {store.key: self._upsert.one(connection, row)}

    def _stored(
        self, operations: Sequence[Any], groups: list[Places], versions: dict[str, int]
    ) -> Iterator[tuple[int, Result]]:
        for places in groups:
            key = operations[places[0]].key
            offset = versions[key] - len(places) + 1
            for version, place in enumerate(places, start=offset):
                yield place, stored(key, version)

    def _apply_one(
        self, connection: Connection, operation: Operation, now: datetime | None, write_id: str | None
    ) -> Result:
        if not isinstance(operation, Store):
            rowcount = self._delete.run(connection, {"b_key": operation.key, "b_now": now}).rowcount
            return ok(deleted=bool(rowcount), key=operation.key)
        row = entry_parameters(self._dialect, operation, now, write_id=write_id)
        if operation.if_version is None:
            return stored(operation.key, self._upsert.one(connection, row))
        return stored(operation.key, self._versioned.store(connection, row, operation.if_version))

    def delete_many(self, connection: Connection, keys: Sequence[str], now: datetime | None) -> int:
        """Delete the entries at keys that have not expired at the time ``now``. Return how many were deleted."""
        parts = self._batches_of_keys(sorted(keys))
        return sum(connection.execute(self._delete_many, {"b_keys": part, "b_now": now}).rowcount for part in parts)

    def cleanup_expired(
        self, connection: Connection, batch_size: int, timestamp: datetime | None
    ) -> tuple[list[str], int, int]:
        """Remove some expired entries; return their keys, how many were removed, and how many remain."""
        now = {"b_now": timestamp}
        keys = sorted(connection.scalars(self._expired, {"b_rows": batch_size, **now}))
        parts = self._batches_of_keys(keys)
        deleted = sum(connection.execute(self._clean, {"b_keys": part, **now}).rowcount for part in parts)
        return keys, deleted, connection.scalar(self._expired_count, now) or 0

    def written(self, connection: Connection, keys: Sequence[str]) -> list[WrittenRow]:
        """Return rows with their write ids and ages. Wait for the transactions that are writing these rows."""
        parts = self._batches_of_keys(keys)
        now = self._now(connection, len(parts))
        results = (connection.execute(self._written, {"b_keys": part, **now}) for part in parts)
        return [_written_row(*row) for rows in results for row in rows]

    # --- reads -------------------------------------------------------------------------------------

    def retrieve(self, key: str) -> BoundQuery:
        """Return the query that selects ``(key, value, metadata, pointer, version)`` of one key, as text."""
        return BoundQuery(self._retrieve, {"b_key": key, "b_now": self._dialect.times.clock()})

    def retrieve_many(self, connection: Connection, keys: Sequence[str]) -> dict[str, Sequence[Any]]:
        """Return ``(key, value, metadata, pointer, version)`` of the keys that exist, as text."""
        parts = self._batches_of_keys(keys)
        now = self._now(connection, len(parts))
        results = (connection.execute(self._retrieve_many, {"b_keys": part, **now}) for part in parts)
        return {row[0]: row for rows in results for row in rows}

    def needs_snapshot(self, keys: Sequence[str]) -> bool:
        """Return whether these keys must be read in a snapshot.

        That is so if several statements are needed, or if one statement may see several states.
        """
        return len(keys) > 1 and (not self._dialect.features.has_snapshot_reads or len(self._batches_of_keys(keys)) > 1)

    def facts(self, connection: Connection, keys: Sequence[str]) -> dict[str, Facts | Damage]:
        """Return when the entries at keys expire, and the pointers to their values in a blob storage."""
        parts = self._batches_of_keys(keys)
        rows = (row for part in parts for row in connection.execute(self._facts, {"b_keys": part}))
        return {row[0]: read_facts(*row, timestamp=time_of) for row in rows}

    def pointed_to(self, connection: Connection, pointers: Sequence[str]) -> set[str]:
        """Return the pointers that an entry has. Expired entries count too."""
        return set(connection.scalars(self._pointers, {"b_pointers": list(pointers)}))

    def page(self, prefix: str, after: str, rows: int, *, whole: bool = False) -> BoundQuery:
        """Return the query that selects ``(key, value, metadata, pointer)`` of the next keys above ``after``, as text.

        With ``whole`` each row also has the version and ``TIMES``.
        """
        if not after:  # an empty key, which another program may have written, is not above ""
            return self._in_prefix(self._first_whole if whole else self._first_page, prefix, {"b_rows": rows})
        return self._in_prefix(self._whole if whole else self._page, prefix, {"b_after": after, "b_rows": rows})

    def list_keys(self, prefix: str, after: str, rows: int) -> BoundQuery:
        """Return the query that selects the next keys above ``after``, in order."""
        return self._in_prefix(self._keys, prefix, {"b_after": after, "b_rows": rows})

    def count(self, prefix: str) -> BoundQuery:
        """Return the query that counts the entries whose keys have a prefix."""
        return self._in_prefix(self._count, prefix, {})

    def _now(self, connection: Connection, statements: int = 1) -> dict[str, Any]:
        return {"b_now": self._dialect.times.clock(connection, statements=statements)}

    def _in_prefix(self, by_prefix: Sequence[Prepared], prefix: str, parameters: dict[str, Any]) -> BoundQuery:
        prefix_values = prefix_parameters(prefix)
        return BoundQuery(
            by_prefix[len(prefix_values)], {**parameters, **prefix_values, "b_now": self._dialect.times.clock()}
        )

    def _batches_of_keys(self, keys: Sequence[str]) -> list[list[str]]:
        return [*batches(keys, lambda key: len(key) * _WIDEST, self._packet)]


def _only_last_counts(operations: Sequence[Operation]) -> bool:
    """Return whether all operations on one key are stores, and only the last one matters."""
    return all(map(is_unconditional, operations)) and not any(map(ends_by_itself, operations[:-1]))


def _written_row(
    key: str, version: int, write_id: str | None, updated_at: Any, now: datetime, is_expired: Any
) -> WrittenRow:
    age = now - updated_at if isinstance(updated_at, datetime) else None
    return WrittenRow(key, version, write_id, age, bool(is_expired))


def _by_prefix(statement: Select[Any], key: ColumnElement[str]) -> tuple[Prepared, Prepared, Prepared]:
    """Return three statements: for all keys, for a range of keys with a start, and for one with a start and an end."""
    begins, ends = range_conditions(key)
    return Prepared(statement), Prepared(statement.where(begins)), Prepared(statement.where(begins, ends))


def sent_bytes(store: Store, enough: int) -> int:
    """Return how many bytes an entry has as sent. The number is exact if it may be more than ``enough``."""
    limit = _most_bytes(store)
    if limit <= enough:
        return limit
    return exact_bytes([store.key, store.stored_value, store.metadata, store.search_text])


def _most_bytes(store: Store) -> int:
    return (len(store.key) + len(store.stored_value) + 2 * len(store.metadata or "")) * _WIDEST + len(
        store.search_text or ""
    )
