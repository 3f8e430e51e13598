"""SQLiteBackend: long-term memory in one SQLite file, with the standard library alone.

This is the reference implementation of the contract. SQLite's full-text index looks up words. The functions in ``core``
that define them decide about phrases, negations, filters, scores and order.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final, Literal

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.core.damage import (
    Damage,
    Facts,
    around,
    is_key,
    is_of_file,
    read_facts,
    read_lifetimes,
    read_version,
    search_result,
)
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.languages import check_language
from the_edge_agent.memory.core.namespaces import KeyRange
from the_edge_agent.memory.core.operations import Delete, Import, OnConflict, Operation, Store, is_unconditional
from the_edge_agent.memory.core.pages import EntryRow, Order, Place
from the_edge_agent.memory.core.results import LTMError, Result, already_there, conflict, ok, stored
from the_edge_agent.memory.core.tokens import Term, has_words
from the_edge_agent.memory.core.validation import check_flag, microseconds_of
from the_edge_agent.memory.database.backend import Answer, DatabaseBackend, Measured
from the_edge_agent.memory.database.native_rows import (
    ENTRY,
    ITEM,
    TIMED,
    WHOLE,
    Page,
    entry_of,
    entry_row_of,
    item_of,
    iterate,
    measured_by,
    measured_of,
    page_of,
    stores_of_imports,
    timed_of,
    undamaged_results,
    whole_of,
)
from the_edge_agent.memory.database.search_plan import Reader
from the_edge_agent.memory.sqlite.database import IN_MEMORY, SQLiteDatabase, now, timestamp, written
from the_edge_agent.memory.sqlite.search import IN_RANGE, VISIBLE, SQLiteSearch, conditions_of, range_values

# A store is one statement. If the entry has expired, the store counts as a new entry with version 1.
_UPSERT: Final = """
    INSERT INTO ltm_entries (key, value, metadata, {names}version, expires_at, created_at, updated_at, lifetime,
                             is_indexed)
    VALUES (:key, :value, :metadata, {values}1, :expires_at, :now, :now, :lifetime, :is_indexed)
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value, metadata = excluded.metadata, {changes}
        version = CASE WHEN expires_at <= :now THEN 1
                       WHEN typeof(version) = 'integer' AND version BETWEEN 1 AND 9223372036854775806
                       THEN version + 1 END,
        created_at = CASE WHEN expires_at <= :now THEN :now ELSE created_at END,
        expires_at = excluded.expires_at, updated_at = :now, storage_uri = NULL,
        lifetime = excluded.lifetime, is_indexed = excluded.is_indexed
    RETURNING version"""
_IMPORT: Final = """
    INSERT INTO ltm_entries (key, value, metadata, {names}version, expires_at, created_at, updated_at, lifetime,
                             is_indexed)
    VALUES (:key, :value, :metadata, {values}:version, :expires_at, :created_at, :updated_at, :lifetime, :is_indexed)
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value, metadata = excluded.metadata, {changes}
        version = excluded.version, created_at = excluded.created_at, expires_at = excluded.expires_at,
        updated_at = excluded.updated_at, storage_uri = NULL, lifetime = excluded.lifetime,
        is_indexed = excluded.is_indexed
    WHERE :replaces OR expires_at <= :now
    RETURNING key"""


def _with_and_without_words(statement: str) -> dict[bool, str]:
    """Return two forms of a statement. The key says whether the table stores words."""
    words = {"names": "search_text, ", "values": ":search_text, ", "changes": "search_text = excluded.search_text,"}
    return {True: statement.format(**words), False: statement.format(**dict.fromkeys(words, ""))}


_STORE: Final = _with_and_without_words(_UPSERT)
_STORE_COPY: Final = _with_and_without_words(_IMPORT)
_AT_KEY: Final = f"SELECT {{}} FROM ltm_entries WHERE key = :key AND {VISIBLE}"
_ENTRY: Final = _AT_KEY.format(", ".join(ENTRY))
_TIMED_ENTRY: Final = _AT_KEY.format(", ".join(TIMED))
# The statement of a ``retrieve`` without and with times, and what reads its row.
_AS_READ: Final[dict[bool, tuple[str, Callable[[Any], dict[str, Any] | Damage]]]] = {
    False: (_ENTRY, entry_of),
    True: (_TIMED_ENTRY, partial(timed_of, timestamp=timestamp)),
}
_VERSION: Final = _AT_KEY.format("version")
_LIFETIME: Final = _AT_KEY.format("key, expires_at, lifetime")
_TOUCH: Final = "UPDATE ltm_entries SET expires_at = :expires_at, lifetime = :lifetime WHERE key = :key"
_DELETE: Final = f"DELETE FROM ltm_entries WHERE key = :key AND {VISIBLE}"
# SQLite uses one of two lower limits for its search in the index; with the plus it does not use "key > :after".
_KEYS: Final = f"""
    SELECT {{columns}} FROM ltm_entries
    WHERE key >= max(:start, :after) AND key < :end AND +key > :after AND {VISIBLE}{{more}} ORDER BY key"""
_DESCENDING: Final = f"""
    SELECT {{columns}} FROM ltm_entries
    WHERE key >= :start AND key < :end AND {VISIBLE}{{more}} ORDER BY key DESC"""
_NEXT_KEY: Final = (
    "SELECT key FROM ltm_entries WHERE key >= max(:start, :after) AND key < :end AND key > :after{more} LIMIT 1"
)
_END: Final = " AND key < :end"  # without a range this condition would exclude damaged keys that are not text
_COUNT_ALL: Final = f"SELECT count(*) FROM ltm_entries WHERE {VISIBLE}"
_COUNT: Final = f"{_COUNT_ALL} AND {IN_RANGE}{{more}}"
_MEASURE: Final = "SELECT {} FROM ltm_entries WHERE true".format(
    measured_by(VISIBLE, "expires_at <= :now", "length(CAST({} AS BLOB))", "{}")
)
_EXPIRED: Final = "SELECT id, key FROM ltm_entries WHERE expires_at <= :now ORDER BY expires_at, key LIMIT :limit"
_EXPIRED_COUNT: Final = "SELECT count(*) FROM ltm_entries WHERE expires_at <= :now"


class SQLiteBackend(DatabaseBackend):
    """Long-term memory in one SQLite file, or in RAM. It needs only Python.

    ``LTMBackend`` documents the methods. Many threads and processes may use one file, and many threads one object. A
    forked child process opens its own connections. ``SQLAlchemyBackend("sqlite:///...")`` can open the same file, also
    at the same time; only that class can read values in a blob storage.
    """

    _database: SQLiteDatabase

    def __init__(
        self,
        path: str | os.PathLike[str] = IN_MEMORY,
        *,
        db_path: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
        lazy: bool = False,
        search: bool = True,
        language: str | None = None,
        create_tables: bool = True,
        catalog: str | Mapping[str, Any] | CatalogBackend | None = None,
        ttl: float | None = None,
        errors: Literal["return", "raise"] = "return",
    ) -> None:
        """Open the file and create the tables, unless ``lazy``.

        Args:
            path: the path of the file, which is created if it does not exist. ``":memory:"`` is a memory in RAM that
                disappears when the backend is closed.
            db_path: another name of ``path``.
            timeout: how many seconds a call may take, including the wait for other writers.
            lazy: open the file in the first call, and not now.
            search: whether words can be searched; see ``SQLAlchemyBackend``.
            language: the language of the words; see ``SQLAlchemyBackend``.
            create_tables: whether to create missing tables, and the file. If False, they must exist.
            catalog: a catalog that is kept in step with the memory: the name of a catalog, a mapping with its ``type``
                and options, or a catalog object, which the caller must close. A catalog in the same file is written in
                the same transaction; ``{"type": "sqlite"}`` without a ``path`` means the same file.
            ttl: the lifetime in seconds of entries that are stored without ``ttl`` and ``expires_at``; None for never.
            errors: whether methods return their failures as dicts, or raise them as ``LTMError``.

        Raises:
            LTMError: ``configuration_error`` and, unless ``lazy``, ``connection_error``.
        """
        if db_path is not None and path != IN_MEMORY:
            raise LTMError("configuration_error", "path and db_path mean the same; give one of them")
        self._set_defaults(ttl, errors)
        self._keeps_words = check_flag("search", search)
        self._database = SQLiteDatabase(
            path if db_path is None else db_path,
            timeout,
            search=self._keeps_words,
            language=check_language(language, search=self._keeps_words),
            create_tables=create_tables,
        )
        self._open(catalog, {"timeout": timeout, "auto_migrate": create_tables}, lazy)

    # --- writes ------------------------------------------------------------------------------------

    def _remove(self, deletes: Sequence[Delete]) -> int:
        with self._database.transaction(write=True) as connection:
            return sum(result["deleted"] for result in self._run(connection, deletes))

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        with self._database.transaction(write=True) as connection:
            at = now()
            removed = connection.execute(_EXPIRED, {"now": written(at), "limit": limit}).fetchall()
            connection.executemany("DELETE FROM ltm_entries WHERE id = ?", [(row[0],) for row in removed])
            remaining = connection.execute(_EXPIRED_COUNT, {"now": written(at)}).fetchone()[0]
            if self._ledger.here is not None:
                self._ledger.here.forget(connection, [row[1] for row in removed], at)
        return len(removed), remaining

    def _write(self, operations: Sequence[Operation]) -> list[Result]:
        is_one_statement = len(operations) == 1 and is_unconditional(operations[0]) and self._ledger.here is None
        begun = self._database.statement(write=True) if is_one_statement else self._database.transaction(write=True)
        with begun as connection:
            return self._run(connection, operations)

    def _run(self, connection: sqlite3.Connection, operations: Sequence[Operation]) -> list[Result]:
        """Run stores and deletes in order, all with the same time, and write a ledger in the same file."""
        at = now()
        results = [
            _store(connection, operation, at) if isinstance(operation, Store) else _delete(connection, operation, at)
            for operation in operations
        ]
        if self._ledger.here is not None:
            self._ledger.here.follow(connection, operations, at)
        return results

    def _touch(self, keys: Sequence[str], lifetime: timedelta | None) -> dict[str, datetime | None]:
        with self._database.transaction(write=True) as connection:
            at = now()
            found = (connection.execute(_LIFETIME, {"key": key, "now": written(at)}).fetchone() for key in keys)
            expiries, renewed = dict[str, datetime | None](), dict[str, datetime]()
            for key, (expires_at, own) in read_lifetimes(filter(None, found), timestamp).items():
                new = own if lifetime is None else lifetime
                if new is not None:
                    expires_at = renewed[key] = at + new
                    values = {"key": key, "expires_at": written(expires_at), "lifetime": microseconds_of(new)}
                    connection.execute(_TOUCH, values)
                expiries[key] = expires_at
            if self._ledger.here is not None:
                self._ledger.here.touch(connection, renewed, at)
        return expiries

    def _import(self, imports: Sequence[Import], on_conflict: OnConflict) -> list[str]:
        with self._database.transaction(write=True) as connection:
            at = now()
            existing = [each for each in imports if not _store_copy(connection, each, at, replaces=False)]
            if existing and on_conflict == "fail":
                key = existing[0].key
                row = connection.execute(_VERSION, {"key": key, "now": written(at)}).fetchone()
                raise already_there(key, read_version(key, row[0]))
            if on_conflict == "replace":
                for each in existing:
                    _store_copy(connection, each, at, replaces=True)
            keys = {each.key for each in existing}
            if self._ledger.here is not None:
                copied = [each for each in imports if on_conflict == "replace" or each.key not in keys]
                self._ledger.here.follow(connection, stores_of_imports(copied), at)
        return [*keys]

    def _facts(self, keys: Sequence[str]) -> dict[str, Facts | Damage]:
        facts = "SELECT key, expires_at, storage_uri, version FROM ltm_entries WHERE key = ?"
        with self._database.transaction() as connection:
            rows = {key: connection.execute(facts, (key,)).fetchone() for key in keys}
        return {key: read_facts(*row, timestamp=timestamp) for key, row in rows.items() if row}

    # --- reads -------------------------------------------------------------------------------------

    def _get(self, key: str, *, times: bool = False) -> dict[str, Any] | Damage | None:
        statement, read = _AS_READ[times]
        with self._database.statement() as connection:
            row = connection.execute(statement, {"key": key, "now": written(now())}).fetchone()
        return None if row is None else read(row)

    def _get_many(self, keys: Sequence[str], *, times: bool = False) -> dict[str, dict[str, Any] | Damage | None]:
        statement, read = _AS_READ[times]
        with self._database.transaction() as connection:
            at = written(now())
            rows = {key: connection.execute(statement, {"key": key, "now": at}).fetchone() for key in keys}
        return {key: row and read(row) for key, row in rows.items()}

    def _keys(self, keys: KeyRange, after: str, limit: int) -> list[str]:
        statement, values = _KEYS.format(columns="key", more=_more(keys)), {**range_values(keys), "after": after}
        with self._database.statement() as connection, closing(connection.execute(statement, values)) as rows:
            return [*islice((row[0] for row in rows if is_key(row[0])), limit)]

    def _count(self, keys: KeyRange) -> int:
        statement = _COUNT.format(more=_more(keys)) if keys.has_limits else _COUNT_ALL
        with self._database.statement() as connection:
            return int(connection.execute(statement, range_values(keys)).fetchone()[0])

    def _measure(self, keys: KeyRange) -> Measured:
        statement = f"{_MEASURE} AND {IN_RANGE}{_more(keys)}" if keys.has_limits else _MEASURE
        with self._database.statement() as connection:
            return measured_of(connection.execute(statement, range_values(keys)).fetchone(), timestamp)

    def _entry_rows(self, keys: KeyRange, order: Order, place: Place, skip: int, limit: int) -> list[EntryRow]:
        with self._database.transaction() as connection:
            if order == "newest":
                rows = self._reads(connection, None, keys).newest_entries(place, skip, limit)
            else:
                statement, values = self._by_key(keys, order, place.key)
                with closing(connection.execute(statement, values)) as found:
                    rows = [*islice(self._database.in_time(found), skip, skip + limit)]
        return [entry_row_of(row, timestamp) for row in rows]

    def _iterate(self, keys: KeyRange) -> Iterator[Any]:
        return self._pages(ITEM, keys, item_of)

    def _iterate_entries(self, keys: KeyRange) -> Iterator[Any]:
        return self._pages(WHOLE, keys, partial(whole_of, timestamp=timestamp))

    def _pages(self, columns: Sequence[str], keys: KeyRange, item_of: Callable[[Any], Any]) -> Iterator[Any]:
        """Yield ``item_of(row)`` of every row, and a ``Damage`` for each row in a damaged part of the file."""
        statement, last = _KEYS.format(columns=", ".join(columns), more=_more(keys)), ""

        def page(after: str, skip: int) -> Page:
            nonlocal last
            last = after
            return self._page(statement, keys, after, skip)

        try:
            yield from iterate(page, item_of)
        except LTMError as failure:
            if not is_of_file(failure):
                raise
        else:
            return

        def next_key(after: str) -> Any:
            nonlocal last
            last = after
            return self._next_key(keys, after)

        rest = around(last, next_key, lambda after: self._page(statement, keys, after, is_one=True)[0])
        try:
            yield from (row if isinstance(row, Damage) else item_of(row) for row in rest)
        except LTMError as failure:
            if not is_of_file(failure):
                raise
        else:
            return
        # The index of the keys is damaged too, but the table may be whole. SQLite sorts all of it for each page.
        table = statement.replace("FROM ltm_entries", "FROM ltm_entries NOT INDEXED")
        begin = last
        yield from iterate(lambda after, skip: self._page(table, keys, after or begin, skip), item_of)

    def _next_key(self, keys: KeyRange, after: str) -> Any:
        with self._database.statement() as connection:
            statement = _NEXT_KEY.format(more=_more(keys))
            row = connection.execute(statement, {**range_values(keys), "after": after}).fetchone()
            return row and row[0]

    def _page(self, statement: str, keys: KeyRange, after: str, skip: int = 0, *, is_one: bool = False) -> Page:
        values, statement = {**range_values(keys), "after": after}, self._begun(statement, keys, after)
        if is_one:
            statement += " LIMIT 1"  # because the driver reads one row ahead
        with self._database.statement() as connection, closing(connection.execute(statement, values)) as rows:
            return page_of(rows, skip)

    @staticmethod
    def _begun(statement: str, keys: KeyRange, after: str) -> str:
        """Return a statement that reads rows by key, so that it reads damaged keys too."""
        if not keys.has_limits:
            statement = statement.replace(_END, "")
        if not after:  # includes a damaged entry with an empty key
            statement = statement.replace("+key >", "+key >=")
        return statement

    def _by_key(self, keys: KeyRange, order: Order, after: str) -> tuple[str, dict[str, Any]]:
        """Return the statement that reads the whole entries after a key, in the order of keys, and its parameters."""
        values = {**range_values(keys), "after": after}
        statement = (_KEYS if order == "key" else _DESCENDING).format(columns=", ".join(WHOLE), more=_more(keys))
        if order == "key":
            return self._begun(statement, keys, after), values
        if after:
            return statement, {**values, "end": min(after, values["end"])}
        return self._begun(statement, keys, after), values

    def _search(self, terms: Sequence[Term], condition: Node | None, keys: KeyRange, offset: int, limit: int) -> Result:
        # Without words the first statement that answers returns whole results, so no transaction is needed.
        begun = self._database.transaction() if has_words(terms) else self._database.statement()
        with begun as connection:
            results = self._reads(connection, condition, keys).results(terms, offset, limit)
        if self._are_whole(results, offset):
            return search_result(results)
        with (
            self._database.statement() as connection,
            closing(self._reads(connection, condition, keys).every(terms, keeps_words=self._keeps_words)) as matching,
        ):
            return undamaged_results(self._database.in_time(matching), terms, condition, offset, limit, timestamp)

    def _answer(self, answer: Callable[[Reader], Answer], condition: Node | None, keys: KeyRange) -> Answer:
        with self._database.transaction() as connection:
            return answer(self._reads(connection, condition, keys))

    def _reads(self, connection: sqlite3.Connection, condition: Node | None, keys: KeyRange) -> SQLiteSearch:
        return SQLiteSearch(self._database, connection, condition, keys, self._rules())


def _more(keys: KeyRange) -> str:
    """Return the end of the conditions of a statement that reads a range of keys."""
    return "".join(f" AND {condition}" for condition in conditions_of(keys))


def _check_version(connection: sqlite3.Connection, operation: Operation, at: datetime) -> None:
    """Raise the ``conflict`` of a store or delete whose entry has another version than ``if_version``."""
    if operation.if_version is None:
        return
    row = connection.execute(_VERSION, {"key": operation.key, "now": written(at)}).fetchone()
    version = read_version(operation.key, row[0]) if row else 0
    if version != operation.if_version:
        raise conflict(operation.key, version)


def _parameters(store: Store, at: datetime, expires_at: datetime | None) -> dict[str, Any]:
    return {
        "key": store.key,
        "value": store.value,
        "metadata": store.metadata,
        "search_text": store.search_text,
        "expires_at": written(expires_at),
        "lifetime": microseconds_of(store.ttl),
        "is_indexed": int(store.index),
        "now": written(at),
    }


def _store(connection: sqlite3.Connection, store: Store, at: datetime) -> Result:
    _check_version(connection, store, at)
    values = _parameters(store, at, at + store.ttl if store.ttl else store.expires_at)
    ((version,),) = connection.execute(_STORE[store.search_text is not None], values).fetchall()
    return stored(store.key, version)


def _store_copy(connection: sqlite3.Connection, copy: Import, at: datetime, *, replaces: bool) -> bool:
    """Store an imported entry, and return whether it was stored: without ``replaces`` it replaces expired ones only."""
    values = {
        **_parameters(copy.store, at, copy.store.expires_at),
        "version": copy.version,
        "created_at": written(copy.created_at or at),
        "updated_at": written(copy.updated_at or at),
        "replaces": replaces,
    }
    return bool(connection.execute(_STORE_COPY[copy.store.search_text is not None], values).fetchall())


def _delete(connection: sqlite3.Connection, delete: Delete, at: datetime) -> Result:
    _check_version(connection, delete, at)
    deleted_count = connection.execute(_DELETE, {"key": delete.key, "now": written(at)}).rowcount
    return ok(deleted=bool(deleted_count), key=delete.key)
