"""SQLAlchemyBackend: long-term memory on any SQL database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, islice
from typing import Any, ClassVar, Final, Literal

try:
    from sqlalchemy import URL, Connection, Engine, select
except ImportError as error:
    raise ImportError(
        'SQLAlchemyBackend needs SQLAlchemy; install it with: pip install "the-edge-agent[sqlalchemy]"'
    ) from error

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.contract.result_types import (
    CleanupResult,
    OptimizeResult,
)
from the_edge_agent.memory.core.damage import (
    Damage,
    Facts,
    around,
    is_key,
    is_of_file,
    place_after,
    read_whole_entry,
    search_result,
)
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.languages import Language, check_language
from the_edge_agent.memory.core.namespaces import EVERYTHING, KeyRange
from the_edge_agent.memory.core.operations import Delete, Import, OnConflict, Operation, Store, is_unconditional
from the_edge_agent.memory.core.pages import EntryRow, Order, Place, readable_time
from the_edge_agent.memory.core.results import (
    LTMError,
    Result,
    ok,
    returns_result,
    stored,
)
from the_edge_agent.memory.core.tokens import Term, search_text
from the_edge_agent.memory.core.validation import (
    check_batch_size,
    check_flag,
)
from the_edge_agent.memory.database.backend import Answer, DatabaseBackend, Find, Measured
from the_edge_agent.memory.database.blobs import BlobStorage
from the_edge_agent.memory.database.search_plan import Reader, all_matching, first_answer
from the_edge_agent.memory.database.writes import Change, Write
from the_edge_agent.memory.sql.database import Database, OnDatabase
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sql.driver.errors import UnreadableMetadataError
from the_edge_agent.memory.sql.driver.options import EngineOptions, check_source, check_table_name
from the_edge_agent.memory.sql.large_values import LargeValues
from the_edge_agent.memory.sql.queries.entries import sent_bytes
from the_edge_agent.memory.sql.queries.search import Search, results_of
from the_edge_agent.memory.sql.queries.statements import Statements
from the_edge_agent.memory.sql.schema.rows import Pointer, entry_of, time_of
from the_edge_agent.memory.sql.schema.tables import EntryColumns, LTMEntry, entry_class

_PAGE_TEXT = 1_000_000  # characters that a page of iterate_all should have
_MAX_PAGE_ROWS = 1_000
_STEMMED_AT_ONCE = 200  # entries that one transaction rewrites
_UPDATED_AT: Final = 6  # the place of the column in a whole row
_IS_INDEXED: Final = 9
_SMALL = 500_000  # bytes; every server accepts an entry of this size


class SQLAlchemyBackend(OnDatabase, DatabaseBackend):
    """Long-term memory on SQLite, PostgreSQL, MySQL, MariaDB, or any database that SQLAlchemy speaks to.

    ``LTMBackend`` has the contract of each method, which is the same on every database. Many threads may use one
    object, and after a fork the child opens its own connections. A call takes a connection from the pool and runs in
    one transaction. The whole transaction runs again after a conflict with another one, or if the connection was lost
    before anything was committed. No call takes longer than ``timeout``.

    If the connection is lost during COMMIT, the ``write_id`` in each row shows whether the write was done; see
    ``database/writes.py``. If it cannot show that, the failure has ``"unknown": True``. Only such a failure may have
    stored something.
    """

    _database: Database

    #: A subclass may set its own dialect class here, in place of the database's.
    dialect_class: ClassVar[type[Dialect] | None] = None

    def __init__(
        self,
        url: str | URL | None = None,
        pool_size: int = 5,
        echo: bool = False,
        lazy: bool = False,
        *,
        table_name: str = LTMEntry.__tablename__,
        create_tables: bool = True,
        search: bool = True,
        language: str | None = None,
        catalog: str | Mapping[str, Any] | CatalogBackend | None = None,
        storage: Mapping[str, Any] | BlobStorage | None = None,
        ttl: float | None = None,
        errors: Literal["return", "raise"] = "return",
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
            url: a SQLAlchemy database URL: ``sqlite:///memory.db``, ``sqlite://`` (in memory),
                ``postgresql://user:password@host/db``, ``mysql+pymysql://user:password@host/db``. Without a driver in
                the URL, the installed one is used.
            pool_size: how many connections stay open.
            echo: log every statement, without the values.
            lazy: import no driver and connect to nothing until the first call.
            table_name: the name of the entries' table, so that several memories can share a database: up to 40
                lower-case letters, digits and underscores.
            create_tables: whether to create missing tables. If False, the tables must exist; see ``ddl``.
            search: whether words can be searched. If False, the table stores no words, so that a store costs less; then
                ``search`` takes filters and prefixes but no words. Each table decides this when it is created.
            language: the language of the words: ``english`` (the default of a new table), another language that
                Snowball knows, or ``none`` for exact words. None uses the language of the table. See docs/search.md.
            catalog: the catalog that keeps the ledger of this memory: the name of a catalog, a mapping with its
                ``type`` and options, or a catalog object, which the caller must close. A catalog in the same database
                is written in the same transaction. ``url``, ``pool_size``, ``echo`` and ``lazy`` default to the
                backend's.
            storage: a blob storage for values larger than its ``inline_threshold`` (by default 65,536 bytes of JSON): a
                mapping of ``uri`` (a folder, or a URL that fsspec knows), ``inline_threshold``, ``grace_period`` and
                ``options``. No other memory may use the same storage.
            ttl: the lifetime, in seconds, of entries that are stored without ``ttl`` and ``expires_at``; None for none.
            errors: ``return`` makes the methods return a failure as a dict; ``raise`` makes them raise ``LTMError``.
            engine: an engine of the caller, in place of ``url``, for example the application's. The memory shares it,
                never disposes it, and adds no listeners to it or its pool.
            max_overflow: how many connections there may be above ``pool_size``; they are closed after use.
            pool_timeout: seconds to wait for a free connection.
            connect_timeout: seconds to wait for the server when connecting.
            timeout: seconds that a call may take, including all waits and repetitions.
            idle_transaction_timeout: the server ends a transaction after so many seconds without a statement, and frees
                its locks. None means half of ``timeout``, at least 5. 0 means the server's setting.
            prepare_threshold: with psycopg, after how many runs the server keeps a statement prepared; None for never.
                Use None behind a connection pooler in transaction mode: otherwise another client's statement may run
                instead.
            engine_args: more arguments of SQLAlchemy's ``create_engine``, such as ``pool_recycle``.
            connect_args: more arguments of the driver's ``connect``, such as ``sslmode``.

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
            create_tables=create_tables,
            engine_args={} if engine_args is None else engine_args,
            connect_args={} if connect_args is None else connect_args,
        )
        source = check_source(url, engine, options)
        blobs = None if storage is None else BlobStorage.of(storage)
        entries_name = check_table_name(table_name)
        self._set_defaults(ttl, errors)
        self._entries_name = entries_name
        self._keeps_words = check_flag("search", search)
        self._language_name = check_language(language, search=self._keeps_words)
        self._database = self._database_of(source, options)
        self._values = LargeValues(blobs, self._database)
        is_lazy = check_flag("lazy", lazy)
        inherited = {"pool_size": pool_size, "echo": echo, "lazy": is_lazy}
        if prepare_threshold is not None:  # which not every database takes
            inherited["prepare_threshold"] = prepare_threshold
        self._open_ledger(catalog, inherited)
        try:
            if self._ledger.is_here and entries_name != LTMEntry.__tablename__:
                message = "a catalog on the same database keeps the ledger of ltm_entries, not of another table_name"
                raise LTMError("configuration_error", message)
            if not is_lazy:
                self._database.start()
        except BaseException:
            self.close()
            raise

    def _database_of(self, source: Any, options: EngineOptions) -> Database:
        return Database(
            source,
            options,
            entries_name=self._entries_name,
            search=self._keeps_words,
            language=self._language_name,
            dialect_class=self.dialect_class,
        )

    @property
    def entry_class(self) -> type[EntryColumns]:
        """The mapped class of the entries' table: ``LTMEntry``, or another for a ``table_name`` or ``search=False``."""
        return entry_class(self._entries_name, search=self._keeps_words)

    def _target(self) -> tuple[str, str, str]:
        return (*self._database.target(), self._entries_name)

    @property
    def dialect(self) -> str:
        """The name of SQLAlchemy's dialect, such as ``postgresql``; connects first if need be."""
        return str(self._database.start().engine.dialect.name)

    def ddl(self) -> list[str]:
        """Return the SQL statements that create the tables of an empty database, for those who run DDL themselves.

        It connects, because the SQL depends on the server, but it creates nothing. Call it on a ``lazy`` backend before
        the tables exist.

        Raises:
            LTMError: the database cannot be reached.
        """
        return self._database.ddl()

    @returns_result
    def cleanup_storage(self, batch_size: int = 100) -> CleanupResult:
        """Remove blobs that no entry points to, and that are older than the storage's grace period.

        Other processes may write at the same time. No other memory may use the same storage.

        Args:
            batch_size: how many to remove in this call, 1 to 10,000.

        Returns:
            ``{"success": True, "deleted_count": int, "remaining_count": int}``.
        """
        deleted, remaining = self._values.clean(check_batch_size(batch_size))
        return ok(deleted_count=deleted, remaining_count=remaining)

    @returns_result
    def optimize(self) -> OptimizeResult:
        """Update the stems and the index of words, so that searches are right and fast.

        If another release of the stemmer stored the words, they are stemmed again; the log has a warning about this.
        First stop all programs that use the other release. On MySQL and MariaDB stores update the index later, so that
        searches after an import are slow until this method has run.

        Other processes may read and write at the same time. This may take long: about 0.1 milliseconds for each entry
        for the index, and as long as a store of each entry for the stems. Each transaction is short. If a call ends
        early, call it again.

        Returns:
            ``{"success": True, "stemmed": int, "blocks": int, "entries": int}``: for how many entries the words were
            stemmed again, how many blocks of the index were created, and for how many entries. Each is 0 if there was
            nothing to do.
        """
        stemmed = self._update_stems()
        blocks, entries = self._database.optimize()
        return ok(stemmed=stemmed, blocks=blocks, entries=entries)

    def _update_stems(self) -> int:
        """Store the words of all entries again if another stemmer made them. Return for how many entries."""
        rules = self._rules()
        if not self._keeps_words or self._database.run(lambda connection, sql: sql.stems.are_of(connection, rules)):
            return 0
        stemmed, rows = 0, self._stemmed_rows(rules)
        while some := [*islice(rows, _STEMMED_AT_ONCE)]:
            self._database.run(lambda connection, sql, some=some: sql.stems.renew(connection, some), write=True)  # type: ignore[misc]
            stemmed += len(some)
        self._database.run(lambda connection, sql: sql.stems.keep(connection, rules), write=True)
        return stemmed

    def _stemmed_rows(self, rules: Language) -> Iterator[tuple[str, int, Any, str]]:
        """Yield key, version, time and search text of all entries that can be read."""
        for row in self._rows(EVERYTHING, whole=True):
            if isinstance(row, Damage) or row[_IS_INDEXED] == 0:
                continue
            key, text, metadata, pointer, version, _, updated_at, *_ = row
            entry = self._value_now(key, entry_of(key, text, metadata, pointer, version))
            if entry is not None and not isinstance(entry, Damage):
                yield key, version, updated_at, search_text(key, entry["value"], entry["metadata"], rules)

    def _get(self, key: str, *, times: bool = False) -> dict[str, Any] | Damage | None:
        return self._values.entry(key, self._timed_row if times else self._row)

    def _get_many(self, keys: Sequence[str], *, times: bool = False) -> Mapping[str, dict[str, Any] | Damage | None]:
        needs_snapshot = self._database.start().statements.entries.needs_snapshot(keys)
        _, entries = self._values.read(
            lambda: self._database.run(
                lambda connection, sql: sql.entries.retrieve_many(connection, keys, times=times),
                snapshot=needs_snapshot,
            ),
            lambda rows: {key: self._entry_of(key, rows.get(key)) for key in keys},
        )
        return entries

    def _keys(self, keys: KeyRange, after: str, limit: int) -> Iterator[str]:
        def page(after: str, rows: int) -> Sequence[Sequence[Any]]:
            return self._database.read(lambda sql: sql.entries.list_keys(keys, after, rows))

        rows = chain.from_iterable(_pages(page, after, limit, lambda rows: limit))
        return (row[0] for row in rows if is_key(row[0]))

    def _count(self, keys: KeyRange) -> int:
        return int(self._database.read(lambda sql: sql.entries.count(keys))[0][0])

    def _measure(self, keys: KeyRange) -> Measured:
        if not self._database.start().statements.entries.measures_bytes:
            return self._measured_in_python(keys)
        row = self._database.read(lambda sql: sql.entries.measure(keys))[0]
        entries, size, oldest, newest, expired, waiting, outside = row
        if outside:
            size += self._bytes_outside(keys, outside)
        return int(entries), int(size), oldest, newest, int(expired), int(waiting)

    def _bytes_outside(self, keys: KeyRange, count: int) -> int:
        """Return the bytes of the values in the blob storage."""
        size, after = 0, ""
        while rows := self._database.read(lambda sql, after=after: sql.entries.count_pointers(keys, after, 1_000)):  # type: ignore[misc]
            size += sum(number * self._values.size(pointer, count) for pointer, number in rows)
            after = rows[-1][0]
        return size

    def _measured_in_python(self, keys: KeyRange) -> Measured:
        """Measure entries by reading them all, on a database without a known function for bytes."""
        entries, size, created, updated = 0, 0, list[Any](), list[Any]()
        for row in self._rows(keys, whole=True):
            entries += 1
            if isinstance(row, Damage):
                continue
            key, text, metadata, pointer, _, created_at, updated_at, *_ = row
            value_size = len(text.encode()) if pointer is None else self._values.size(pointer, 1)
            size += len(key.encode()) + value_size + len((metadata or "").encode())
            created, updated = (
                [min(created_at, *created)] if created else [created_at],
                [max(updated_at, *updated)] if updated else [updated_at],
            )
        expired = int(self._database.read(lambda sql: sql.entries.count_expired(keys))[0][0])
        return entries, size, *(created or [None]), *(updated or [None]), expired, 0

    def _entry_rows(self, keys: KeyRange, order: Order, place: Place, skip: int, limit: int) -> list[EntryRow]:
        rows = self._database.read(lambda sql: sql.entries.ordered(keys, order, place, skip, limit))
        return [EntryRow(row[0], readable_time(row[_UPDATED_AT]), self._whole_entry(row)) for row in rows]

    def _touch(self, keys: Sequence[str], lifetime: timedelta | None) -> Mapping[str, datetime | None]:
        return self._database.write(
            lambda connection, sql, _: sql.touch(connection, keys, lifetime, ledger=self._ledger.is_here),
            lambda _: Change(may_repeat=True),
        )

    def _import(self, imports: Sequence[Import], on_conflict: OnConflict) -> Collection[str]:
        placed = [replace(each, store=self._placed_store(each.store)) for each in imports]

        def work(connection: Connection, sql: Statements, write: Write | None) -> set[str]:
            self._values.keep(connection, sql, [each.store for each in placed])
            return sql.import_many(connection, placed, on_conflict, write, ledger=self._ledger.is_here)

        def change(existing: set[str]) -> Change:
            is_replacing = on_conflict == "replace"
            stored_keys = {each.key for each in placed if is_replacing or each.key not in existing}
            return Change(stored_keys, is_unconditional=is_replacing)

        existing = self._database.write(work, change)
        self._database.do_upkeep(len(placed))
        return existing

    def _remove(self, deletes: Sequence[Delete]) -> int:
        keys = [delete.key for delete in deletes]
        return self._database.write(
            lambda connection, sql, _: sql.delete_many(connection, keys, ledger=self._ledger.is_here),
            lambda count: Change(deleted=keys if count else ()),
        )

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        _, deleted, remaining = self._database.write(
            lambda connection, sql, _: sql.cleanup_expired(connection, limit, ledger=self._ledger.is_here),
            lambda removed: Change(deleted=removed[0], of_expired=True),
        )
        return deleted, remaining

    def _iterate(self, keys: KeyRange) -> Iterator[Any]:
        for row in self._rows(keys):
            if isinstance(row, Damage):
                yield row
                continue
            entry = self._value_now(row[0], entry_of(*row))
            if entry is not None:
                yield entry if isinstance(entry, Damage) else (row[0], entry["value"], entry["metadata"])

    def _iterate_entries(self, keys: KeyRange) -> Iterator[Any]:
        for row in self._rows(keys, whole=True):
            entry = row if isinstance(row, Damage) else self._whole_entry(row)
            if entry is not None:
                yield entry

    def _whole_entry(self, row: Sequence[Any]) -> dict[str, Any] | Damage | None:
        """Return the entry of a whole row with its value, or None if the entry is gone."""
        key, text, metadata, pointer, version, *times, lifetime, is_indexed = row
        inline = text if pointer is None else "null"
        entry = read_whole_entry(
            key, inline, metadata, version, times, time_of, lifetime=lifetime, is_indexed=is_indexed
        )
        if pointer is None or isinstance(entry, Damage):
            return entry
        return self._value_now(key, {**entry, "value": Pointer(pointer)})

    def _rows(self, keys: KeyRange, *, whole: bool = False) -> Iterator[Sequence[Any] | Damage]:
        """Yield all rows that can be read. Skip those in a damaged part of the file."""
        last = ""

        def page(after: str, rows: int) -> Sequence[Sequence[Any]]:
            nonlocal last
            last = after
            return self._database.read(lambda sql: sql.entries.page(keys, after, rows, whole=whole))

        def rows_after(page: Sequence[Sequence[Any]]) -> int:
            size = sum(len(row[1]) + len(row[2] or "") for row in page) + 1
            return max(1, min(_MAX_PAGE_ROWS, len(page) * _PAGE_TEXT // size))

        def next_key(after: str) -> Any:
            return self._database.run(lambda connection, sql: next_key_of(connection, sql, keys, after))

        try:
            yield from chain.from_iterable(_pages(page, "", 16, rows_after))
        except LTMError as failure:
            if not is_of_file(failure):
                raise
        else:
            return
        yield from around(last, next_key, lambda after: page(after, 1))

    def _one_call(self) -> AbstractContextManager[Any]:
        return self._database.one_call()

    def _search(self, terms: Sequence[Term], condition: Node | None, keys: KeyRange, offset: int, limit: int) -> Result:
        search = Search(terms, condition, keys, limit, offset)
        return self._finished(partial(self._results_and_damages, search))

    def _finished(self, find: Find) -> Result:
        known_damages: dict[str, Damage] = {}
        while True:  # at most `limit` values are fetched at a time
            (results, damages), entries = self._values.read(partial(find, known_damages), self._fetched)
            more = {key: entry for key, entry in entries.items() if isinstance(entry, Damage)}
            if not more:
                return search_result([entries[entry["key"]] for entry in results], damages)
            known_damages.update(more)

    def _answer(self, answer: Callable[[Reader], Answer], condition: Node | None, keys: KeyRange) -> Answer:
        rules = self._rules()

        def answered(*, filters: bool) -> Answer:
            def work(connection: Connection, sql: Statements, deadline: Deadline) -> Answer:
                return answer(sql.entries.searcher.reads(connection, condition, keys, rules, deadline, filters=filters))

            return self._database.run_timed(work, snapshot=True)

        try:
            return answered(filters=True)
        except UnreadableMetadataError:
            pass
        return answered(filters=False)

    def _results_and_damages(
        self, search: Search, known_damages: dict[str, Damage]
    ) -> tuple[list[Any], Sequence[Damage]]:
        if known_damages:
            self._knows_damage = True
        try:
            if known_damages:
                return self._undamaged(search, known_damages)
            results = self._results(search)
            return (results, ()) if self._are_whole(results, search.offset) else self._undamaged(search, known_damages)
        except UnreadableMetadataError:
            pass
        return self._undamaged(search, known_damages, filters=False)

    def _undamaged(
        self, search: Search, known_damages: dict[str, Damage], *, filters: bool = True
    ) -> tuple[list[Any], Sequence[Damage]]:
        lost = self._values.lost(known_damages)

        def work(connection: Connection, sql: Statements, deadline: Deadline) -> tuple[list[Any], Sequence[Damage]]:
            return sql.entries.searcher.undamaged(connection, search, lost, deadline, filters=filters)

        return self._database.run_timed(work, snapshot=True)

    def _fetched(self, results_and_damages: tuple[list[Any], Sequence[Damage]]) -> dict[str, Any]:
        return {entry["key"]: self._values.whole(entry["key"], entry) for entry in results_and_damages[0]}

    def _results(self, search: Search) -> list[dict[str, Any] | Damage]:
        deadline = self._database.deadline()
        steps = self._database.start().statements.entries.searcher.steps(search)
        rows = first_answer(steps, lambda step: self._database.read(lambda sql: step.statement), search.rows)
        results = None if rows is None else results_of(search, rows, deadline)
        if results is not None:
            return results
        arguments = (search.terms, search.offset, search.limit)
        return self._answer(lambda reader: all_matching(reader, *arguments), search.metadata_filter, search.keys)

    def _row(self, key: str) -> Sequence[Any] | None:
        rows = self._database.read(lambda sql: sql.entries.retrieve(key))
        return rows[0] if rows else None

    def _timed_row(self, key: str) -> Sequence[Any] | None:
        rows = self._database.read(lambda sql: sql.entries.retrieve(key, times=True))
        return rows[0] if rows else None

    def _entry_of(self, key: str, row: Sequence[Any] | None) -> dict[str, Any] | Damage | None:
        return None if row is None else self._values.whole(key, entry_of(*row))

    def _value_now(self, key: str, entry: dict[str, Any] | Damage) -> dict[str, Any] | Damage | None:
        """Return an entry with its value, or None if the entry is gone."""
        whole = self._values.whole(key, entry)
        if isinstance(entry, Damage) or not isinstance(whole, Damage):
            return whole
        current = self._get(key)  # the entry may have been replaced since its page was read
        return current if current is None or isinstance(current, Damage) else {**entry, **current}

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        results = super()._apply(operations)
        self._database.do_upkeep(len(operations))
        return results

    def _write(self, operations: Sequence[Operation]) -> list[Result]:
        placed = [self._placed(operation) for operation in operations]
        if len(placed) == 1 and (version := self._stored_autocommit(placed[0])) is not None:
            return [stored(placed[0].key, version)]

        def work(connection: Connection, sql: Statements, write: Write | None) -> list[Result]:
            self._values.keep(connection, sql, placed)
            return sql.apply(connection, placed, write, ledger=self._ledger.is_here)

        return self._database.write(work, partial(Change.of, placed))

    def _stored_autocommit(self, operation: Operation) -> int | None:
        """Store in one statement, and return the version. Return None if that is not possible."""
        if self._ledger.is_here or not is_unconditional(operation) or operation.pointer is not None:
            return None
        return self._database.store(operation)

    def _placed(self, operation: Operation) -> Operation:
        return self._placed_store(operation) if isinstance(operation, Store) else operation

    def _placed_store(self, store: Store) -> Store:
        """Put the value of a store into the blob storage if it is large. Refuse an entry that the server refuses."""
        placed = self._values.place(store)
        if (size := sent_bytes(placed, _SMALL)) > _SMALL:
            self._database.check_size(size)
        return placed

    def _facts(self, keys: Sequence[str]) -> dict[str, Facts | Damage]:
        return self._database.run(lambda connection, sql: sql.entries.facts(connection, keys))


def next_key_of(connection: Connection, sql: Statements, keys: KeyRange, after: str) -> Any:
    """Return the next key of a range above ``after``, read only from the index, or None if there is none."""
    key = sql.schema.tables.entries.c.key
    while True:
        next_key = connection.scalar(select(key).where(key > after, key >= keys.start).order_by(key).limit(1))
        if not isinstance(next_key, str) or (keys.end is not None and next_key >= keys.end):
            return None
        if next_key in keys:
            return next_key
        after = next_key


def _pages(
    read: Callable[[str, int], Sequence[Sequence[Any]]],
    after: str,
    rows: int,
    rows_after: Callable[[Sequence[Sequence[Any]]], int],
) -> Iterator[Sequence[Sequence[Any]]]:
    """Yield page after page of rows that begin with their keys.

    Args:
        read: takes a key and a number, and returns that many of the rows after the key.
        after: the key before the first page.
        rows: how many rows the first page has.
        rows_after: takes a page and returns how many rows the next page has.
    """
    skip = 0
    while True:
        page = read(after, rows + skip)
        yield page[skip:]
        if len(page) < rows + skip:
            return
        rows = rows_after(page)
        last_key, skip = place_after([row[0] for row in page])
        after = after if last_key is None else last_key
