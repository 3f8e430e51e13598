"""``Entries``: the statements for the entries' table, built once, and the methods that run them on a connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, groupby
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    type_coerce,
    update,
)

from the_edge_agent.memory.core.damage import TIMES, Damage, Facts, read_facts, read_lifetimes, read_version
from the_edge_agent.memory.core.namespaces import KeyRange
from the_edge_agent.memory.core.operations import (
    Delete,
    Import,
    OnConflict,
    Operation,
    Store,
    ends_by_itself,
    is_unconditional,
)
from the_edge_agent.memory.core.pages import Order, Place
from the_edge_agent.memory.core.results import LTMError, Result, already_there, ok, stored
from the_edge_agent.memory.core.validation import microseconds_of
from the_edge_agent.memory.database.writes import Write, WrittenRow
from the_edge_agent.memory.sql.dialects.base import Dialect
from the_edge_agent.memory.sql.dialects.base.match_query import conditions_of, is_namespaced
from the_edge_agent.memory.sql.dialects.base.upsert import insert_new
from the_edge_agent.memory.sql.driver.prepared import BoundQuery, Prepared
from the_edge_agent.memory.sql.queries.batches import batches, exact_bytes
from the_edge_agent.memory.sql.queries.search import Searcher, range_parameters
from the_edge_agent.memory.sql.queries.single_store import SingleStore
from the_edge_agent.memory.sql.queries.versions import VersionedWrites
from the_edge_agent.memory.sql.schema.create import Schema
from the_edge_agent.memory.sql.schema.rows import entry_parameters, entry_row, time_of, time_parameters

_WIDEST: Final = 4  # bytes of a character, escaped or not

Places = list[int]  # the positions of the operations on one key, in order


class RangeStatements:
    """A statement with the conditions of a range of keys, prepared once for each kind of a range."""

    def __init__(self, statement: Select[Any], key: ColumnElement[str], namespaced: ColumnElement[bool]) -> None:
        """Take the statement without these conditions.

        Args:
            statement: the statement.
            key: the column.
            namespaced: the condition for keys of namespaces.
        """
        self._statement, self._key, self._namespaced = statement, key, namespaced
        self._prepared: dict[tuple[Any, ...], Prepared] = {}

    def of(self, keys: KeyRange) -> Prepared:
        """Return the statement for a range."""
        kind = (bool(keys.start), keys.is_open, keys.end is None, keys.is_nested)
        prepared = self._prepared.get(kind)
        if prepared is None:
            namespaced = [self._namespaced] if keys.is_nested else []
            statement = self._statement.where(*conditions_of(self._key, keys), *namespaced)
            prepared = self._prepared[kind] = Prepared(statement)
        return prepared


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
        self._versioned = VersionedWrites(dialect, self._upsert)
        self.single = SingleStore(dialect, self._upsert)
        self._key = columns.key
        value, metadata = type_coerce(columns.value, Text()), type_coerce(columns.metadata, Text())
        is_one, is_among = columns.key == bindparam("b_key"), columns.key.in_(bindparam("b_keys", expanding=True))
        rows = bindparam("b_rows", type_=Integer())
        pointer = columns.storage_uri
        entry = select(columns.key, value, metadata, pointer, columns.version).where(visible)
        timed = entry.add_columns(*(columns[name] for name in TIMES))
        self._retrieve, self._retrieve_timed = Prepared(entry.where(is_one)), Prepared(timed.where(is_one))
        self._facts = select(columns.key, columns.expires_at, pointer, columns.version).where(is_among)
        self._pointers = select(pointer).where(pointer.in_(bindparam("b_pointers", expanding=True))).distinct()
        self._retrieve_many, self._retrieve_many_timed = entry.where(is_among), timed.where(is_among)
        keys = select(columns.key).where(visible).order_by(columns.key).limit(rows)
        page = keys.add_columns(value, metadata, pointer)
        facts = (columns.version, *(columns[name] for name in TIMES), columns.lifetime, columns.is_indexed)
        whole = page.add_columns(*facts)
        namespaced = is_namespaced(columns.key, dialect.queries.position, dialect.queries.beginning)

        def in_range(statement: Select[Any]) -> RangeStatements:
            return RangeStatements(statement, columns.key, namespaced)

        def locked(statement: Select[Any]) -> Select[Any]:
            return statement if dialect.features.is_embedded else statement.with_for_update()

        self._keys, self._page, self._whole = in_range(keys), in_range(page), in_range(whole)
        self._count = in_range(select(func.count()).select_from(table).where(visible))
        self._measure = in_range(_measurement(dialect, table, visible, expired))
        self._count_expired = in_range(select(func.count()).select_from(table).where(expired))
        after = bindparam("b_pointer", type_=pointer.type)
        counted = select(pointer, func.count()).where(visible, pointer > after).group_by(pointer).order_by(pointer)
        self._count_pointers = in_range(counted.limit(rows))
        last_time = bindparam("b_time", type_=columns.updated_at.type)
        is_above = columns.key > bindparam("b_after")
        is_older = or_(columns.updated_at < last_time, and_(columns.updated_at == last_time, is_above))
        by_time = (columns.updated_at.desc(), columns.key)
        unordered = whole.order_by(None).offset(bindparam("b_skipped", type_=Integer()))
        self._up = in_range(unordered.order_by(columns.key))
        self._down = in_range(unordered.order_by(columns.key.desc()))
        self._newest = in_range(unordered.order_by(*by_time))
        self._older = in_range(unordered.where(is_older).order_by(*by_time))
        self._lifetimes = select(columns.key, columns.expires_at, columns.lifetime)
        self._lifetimes = locked(self._lifetimes.where(is_among, visible).order_by(columns.key))
        renewed = {"expires_at": dialect.times.expiry, "lifetime": bindparam("b_lifetime", type_=BigInteger())}
        self._renew = update(table).where(is_among).values(renewed)
        self._expiries = select(columns.key, columns.expires_at).where(is_among)
        self._existing = select(columns.key, columns.version, case((visible, 1), else_=0)).where(is_among)
        self._existing = locked(self._existing.order_by(columns.key))
        self._remove = delete(table).where(is_among)
        times = {name: bindparam(f"b_{name}", type_=dialect.times.timestamp) for name in ("created_at", "updated_at")}
        now = dialect.times.now
        is_bound = isinstance(now, BindParameter)  # then ``_import_parameters`` puts the time into the row
        copied = {name: time if is_bound else func.coalesce(time, now, type_=time.type) for name, time in times.items()}
        ends = bindparam("b_until", type_=dialect.times.timestamp)
        self._import = insert(table).values({**entry_row(dialect, table), **copied, "expires_at": ends})
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
        if isinstance(operation, Delete) and operation.if_version is not None:
            deleted = self._versioned.delete(connection, operation.key, operation.if_version, now)
            return ok(deleted=deleted, key=operation.key)
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

    def touch(
        self, connection: Connection, keys: Sequence[str], lifetime: timedelta | None, now: datetime | None
    ) -> tuple[dict[str, datetime | None], dict[str, datetime | None]]:
        """Renew the lifetimes of entries at the time ``now``.

        Args:
            connection: a connection in a transaction.
            keys: different keys.
            lifetime: the new lifetime; None for the one that each entry has.
            now: the time of the transaction, or None for the server's.

        Returns:
            When each entry that exists expires then, and the same for those that were renewed.

        Raises:
            LTMError: ``query_error``: a lifetime or a time is damaged.
        """
        parts = self._batches_of_keys(sorted(keys))
        results = (connection.execute(self._lifetimes, {"b_keys": part, "b_now": now}) for part in parts)
        found = read_lifetimes(chain.from_iterable(results), time_of)
        expiries = {key: expires_at for key, (expires_at, _) in found.items()}
        groups: dict[timedelta, list[str]] = {}
        for key, (_, own) in found.items():
            if (each := lifetime or own) is not None:
                groups.setdefault(each, []).append(key)
        renewed: dict[str, datetime | None] = {}
        for each, of_group in groups.items():
            parameters = {"b_lifetime": microseconds_of(each), **time_parameters(each, None, now)}
            for part in self._batches_of_keys(of_group):
                connection.execute(self._renew, {**parameters, "b_keys": part})
                renewed |= {row[0]: row[1] for row in connection.execute(self._expiries, {"b_keys": part})}
        return {**expiries, **renewed}, renewed

    def import_many(
        self,
        connection: Connection,
        imports: Sequence[Import],
        on_conflict: OnConflict,
        now: datetime | None,
        write: Write | None,
    ) -> set[str]:
        """Store entries of different keys, sorted by key. Return the keys that had an entry at the time ``now``.

        Raises:
            LTMError: ``conflict`` of the first of these, if ``on_conflict`` is ``fail``.
            LostRaceError: another transaction has created one of the rows meanwhile.
        """
        rows = [
            row
            for part in self._batches_of_keys([each.key for each in imports])
            for row in connection.execute(self._existing, {"b_keys": part, "b_now": now})
        ]
        existing = {key: version for key, version, is_visible in rows if is_visible}
        if existing and on_conflict == "fail":
            first = min(existing)
            raise already_there(first, read_version(first, existing[first]))
        stored = [each for each in imports if on_conflict == "replace" or each.key not in existing]
        replaced = {row[0] for row in rows} & {each.key for each in stored}
        for part in self._batches_of_keys(sorted(replaced)):
            connection.execute(self._remove, {"b_keys": part})
        write_id = None if write is None else write.of_import
        for batch in batches(stored, lambda each: _most_bytes(each.store), self._packet):
            parameters = [self._import_parameters(each, now, write_id) for each in batch]
            insert_new(connection, self._import, parameters)
        return set(existing)

    def _import_parameters(self, entry: Import, now: datetime | None, write_id: str | None) -> dict[str, Any]:
        parameters = entry_parameters(self._dialect, entry.store, now, write_id=write_id)
        times = {"b_created_at": entry.created_at or now, "b_updated_at": entry.updated_at or now}
        return {**parameters, **times, "b_until": entry.store.expires_at, "b_count": entry.version}

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

    def retrieve(self, key: str, *, times: bool = False) -> BoundQuery:
        """Return the query that selects ``(key, value, metadata, pointer, version)`` of one key, as text.

        With ``times`` the row also has ``TIMES``.
        """
        query = self._retrieve_timed if times else self._retrieve
        return BoundQuery(query, {"b_key": key, "b_now": self._dialect.times.clock()})

    def retrieve_many(
        self, connection: Connection, keys: Sequence[str], *, times: bool = False
    ) -> dict[str, Sequence[Any]]:
        """Return ``(key, value, metadata, pointer, version)`` of the keys that exist, as text; see ``retrieve``."""
        statement = self._retrieve_many_timed if times else self._retrieve_many
        parts = self._batches_of_keys(keys)
        now = self._now(connection, len(parts))
        results = (connection.execute(statement, {"b_keys": part, **now}) for part in parts)
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

    def page(self, keys: KeyRange, after: str, rows: int, *, whole: bool = False) -> BoundQuery:
        """Return the query that selects ``(key, value, metadata, pointer)`` of the next keys above ``after``, as text.

        With ``whole`` each row also has the version, ``TIMES``, the lifetime and whether its words are indexed.
        """
        return self._bound(self._whole if whole else self._page, keys.after(after), {"b_rows": rows})

    def ordered(self, keys: KeyRange, order: Order, place: Place, skip: int, rows: int) -> BoundQuery:
        """Return the query that selects whole rows, as ``page`` does, in an order; see ``_entry_rows``."""
        values: dict[str, Any] = {"b_rows": rows, "b_skipped": skip}
        if order == "key":
            return self._bound(self._up, keys.after(place.key), values)
        if order == "-key":
            return self._bound(self._down, keys.before(place.key), values)
        if not place.key:
            return self._bound(self._newest, keys, values)
        return self._bound(self._older, keys, {**values, "b_after": place.key, "b_time": place.timestamp})

    def list_keys(self, keys: KeyRange, after: str, rows: int) -> BoundQuery:
        """Return the query that selects the next keys above ``after``, in order."""
        return self._bound(self._keys, keys.after(after), {"b_rows": rows})

    def count(self, keys: KeyRange) -> BoundQuery:
        """Return the query that counts the entries in a range of keys."""
        return self._bound(self._count, keys, {})

    @property
    def measures_bytes(self) -> bool:
        """Whether the database can count bytes; see ``measure``."""
        return self._dialect.queries.byte_size(self._key) is not None

    def measure(self, keys: KeyRange) -> BoundQuery:
        """Return the query that measures a range of keys.

        Its row has the number of entries, their bytes, the first time of creation, the last time of a store, and how
        many entries have expired, are not in the index of words, and have their value in a blob storage.
        """
        return self._bound(self._measure, keys, {})

    def count_expired(self, keys: KeyRange) -> BoundQuery:
        """Return the query that counts the expired entries in a range of keys."""
        return self._bound(self._count_expired, keys, {})

    def count_pointers(self, keys: KeyRange, after: str, rows: int) -> BoundQuery:
        """Return the query that selects the next pointers above ``after``, with how many entries have each."""
        return self._bound(self._count_pointers, keys, {"b_pointer": after, "b_rows": rows})

    def _now(self, connection: Connection, statements: int = 1) -> dict[str, Any]:
        return {"b_now": self._dialect.times.clock(connection, statements=statements)}

    def _bound(self, statements: RangeStatements, keys: KeyRange, parameters: dict[str, Any]) -> BoundQuery:
        values = {**parameters, **range_parameters(keys), "b_now": self._dialect.times.clock()}
        return BoundQuery(statements.of(keys), values)

    def _batches_of_keys(self, keys: Sequence[str]) -> list[list[str]]:
        return [*batches(keys, lambda key: len(key) * _WIDEST, self._packet)]


def _measurement(
    dialect: Dialect, table: Table, visible: ColumnElement[bool], expired: ColumnElement[bool]
) -> Select[Any]:
    columns, bytes_of = table.c, dialect.queries.byte_size
    pointer = columns.storage_uri

    def count(*conditions: ColumnElement[bool]) -> ColumnElement[Any]:
        return func.coalesce(func.sum(case((and_(*conditions), 1), else_=0)), 0)

    sizes = [bytes_of(columns.key), bytes_of(columns.value), bytes_of(columns.metadata)]
    if any(size is None for size in sizes):
        size: ColumnElement[Any] = null()
    else:
        key, value, metadata = (func.coalesce(each, 0) for each in sizes)
        size = key + metadata + case((pointer.is_(None), value), else_=0)
    waiting = dialect.queries.is_waiting(table)
    created, updated = (case((visible, columns[name])) for name in ("created_at", "updated_at"))
    return select(
        count(visible),
        func.coalesce(func.sum(case((visible, size), else_=0)), 0),
        func.min(created, type_=columns.created_at.type),
        func.max(updated, type_=columns.updated_at.type),
        count(expired),
        literal_column("0") if waiting is None else count(visible, waiting),
        count(visible, pointer.is_not(None)),
    ).select_from(table)


def _only_last_counts(operations: Sequence[Operation]) -> bool:
    """Return whether all operations on one key are stores, and only the last one matters."""
    return all(map(is_unconditional, operations)) and not any(map(ends_by_itself, operations[:-1]))


def _written_row(
    key: str, version: int, write_id: str | None, updated_at: Any, now: datetime, is_expired: Any
) -> WrittenRow:
    age = now - updated_at if isinstance(updated_at, datetime) else None
    return WrittenRow(key, version, write_id, age, bool(is_expired))


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
