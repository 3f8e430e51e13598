"""SQLiteBackend: long-term memory in one SQLite file, with the standard library alone.

This is the reference implementation of the contract. SQLite's full-text index looks up words. The functions in ``core``
that define them decide about phrases, negations, filters, scores and order.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.core.damage import (
    Damage,
    Facts,
    around,
    is_key,
    is_of_file,
    read_facts,
    read_version,
    search_result,
)
from the_edge_agent.memory.core.filters import Node
from the_edge_agent.memory.core.languages import check_language
from the_edge_agent.memory.core.operations import Delete, Operation, Store, is_unconditional
from the_edge_agent.memory.core.results import LTMError, Result, conflict, ok, stored
from the_edge_agent.memory.core.tokens import Term, has_words
from the_edge_agent.memory.core.validation import check_flag
from the_edge_agent.memory.database.backend import Answer, DatabaseBackend
from the_edge_agent.memory.database.native_rows import (
    Page,
    entry_of,
    item_of,
    iterate,
    page_of,
    undamaged_results,
    whole_of,
)
from the_edge_agent.memory.database.search_plan import Reader
from the_edge_agent.memory.sqlite.database import IN_MEMORY, SQLiteDatabase, now, timestamp, written
from the_edge_agent.memory.sqlite.search import IN_PREFIX, VISIBLE, SQLiteSearch, range_values

# A store is one statement. If the entry has expired, the store counts as a new entry with version 1.
_UPSERT: Final = """
    INSERT INTO ltm_entries (key, value, metadata, {names}version, expires_at, created_at, updated_at)
    VALUES (:key, :value, :metadata, {values}1, :expires_at, :now, :now)
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value, metadata = excluded.metadata, {changes}
        version = CASE WHEN expires_at <= :now THEN 1
                       WHEN typeof(version) = 'integer' AND version BETWEEN 1 AND 9223372036854775806
                       THEN version + 1 END,
        created_at = CASE WHEN expires_at <= :now THEN :now ELSE created_at END,
        expires_at = excluded.expires_at, updated_at = :now, storage_uri = NULL
    RETURNING version"""
_STORE: Final = _UPSERT.format(
    names="search_text, ", values=":search_text, ", changes="search_text = excluded.search_text,"
)
_STORE_WITHOUT_WORDS: Final = _UPSERT.format(names="", values="", changes="")
_ENTRY: Final = f"SELECT key, value, metadata, version, storage_uri FROM ltm_entries WHERE key = :key AND {VISIBLE}"
_DELETE: Final = f"DELETE FROM ltm_entries WHERE key = :key AND {VISIBLE}"
# SQLite uses one of two lower limits for its search in the index; with the plus it does not use "key > :after".
_KEYS: Final = f"""
    SELECT key FROM ltm_entries
    WHERE key >= max(:prefix, :after) AND key < :end AND +key > :after AND {VISIBLE} ORDER BY key"""
_NEXT_KEY: Final = (
    "SELECT key FROM ltm_entries WHERE key >= max(:prefix, :after) AND key < :end AND key > :after LIMIT 1"
)
_END: Final = " AND key < :end"  # without a prefix this condition would exclude damaged keys that are not text
_COUNT_ALL: Final = f"SELECT count(*) FROM ltm_entries WHERE {VISIBLE}"
_COUNT: Final = f"{_COUNT_ALL} AND {IN_PREFIX}"
_PAGE: Final = _KEYS.replace("SELECT key", "SELECT key, value, metadata, storage_uri")
_WHOLE_PAGE: Final = _PAGE.replace(" FROM", ", version, created_at, updated_at, expires_at FROM")
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
        catalog: str | Mapping[str, Any] | CatalogBackend | None = None,
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
            catalog: a catalog that is kept in step with the memory: the name of a catalog, a mapping with its ``type``
                and options, or a catalog object, which the caller must close. A catalog in the same file is written in
                the same transaction; ``{"type": "sqlite"}`` without a ``path`` means the same file.

        Raises:
            LTMError: ``configuration_error`` and, unless ``lazy``, ``connection_error``.
        """
        if db_path is not None and path != IN_MEMORY:
            raise LTMError("configuration_error", "path and db_path mean the same; give one of them")
        self._keeps_words = check_flag("search", search)
        self._database = SQLiteDatabase(
            path if db_path is None else db_path,
            timeout,
            search=self._keeps_words,
            language=check_language(language, search=self._keeps_words),
        )
        self._open(catalog, {"timeout": timeout}, lazy)

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

    def _facts(self, keys: Sequence[str]) -> dict[str, Facts | Damage]:
        facts = "SELECT key, expires_at, storage_uri, version FROM ltm_entries WHERE key = ?"
        with self._database.transaction() as connection:
            rows = {key: connection.execute(facts, (key,)).fetchone() for key in keys}
        return {key: read_facts(*row, timestamp=timestamp) for key, row in rows.items() if row}

    # --- reads -------------------------------------------------------------------------------------

    def _get(self, key: str) -> dict[str, Any] | Damage | None:
        with self._database.statement() as connection:
            row = connection.execute(_ENTRY, {"key": key, "now": written(now())}).fetchone()
        return None if row is None else entry_of(*row)

    def _get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any] | Damage | None]:
        with self._database.transaction() as connection:
            at = written(now())
            rows = {key: connection.execute(_ENTRY, {"key": key, "now": at}).fetchone() for key in keys}
        return {key: row and entry_of(*row) for key, row in rows.items()}

    def _keys(self, prefix: str, after: str, limit: int) -> list[str]:
        values = {**range_values(prefix), "after": after}
        with self._database.statement() as connection, closing(connection.execute(_KEYS, values)) as rows:
            return [*islice((row[0] for row in rows if is_key(row[0])), limit)]

    def _count(self, prefix: str) -> int:
        with self._database.statement() as connection:
            counted = _COUNT if prefix else _COUNT_ALL
            return int(connection.execute(counted, range_values(prefix)).fetchone()[0])

    def _iterate(self, prefix: str) -> Iterator[Any]:
        return self._pages(_PAGE, prefix, item_of)

    def _iterate_entries(self, prefix: str) -> Iterator[Any]:
        return self._pages(_WHOLE_PAGE, prefix, partial(whole_of, timestamp=timestamp))

    def _pages(self, statement: str, prefix: str, item_of: Callable[[Any], Any]) -> Iterator[Any]:
        """Yield ``item_of(row)`` of every row, and a ``Damage`` for each row in a damaged part of the file."""
        last = ""

        def page(after: str, skip: int) -> Page:
            nonlocal last
            last = after
            return self._page(statement, prefix, after, skip)

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
            return self._next_key(prefix, after)

        rest = around(last, next_key, lambda after: self._page(statement, prefix, after, is_one=True)[0])
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
        yield from iterate(lambda after, skip: self._page(table, prefix, after or begin, skip), item_of)

    def _next_key(self, prefix: str, after: str) -> Any:
        with self._database.statement() as connection:
            row = connection.execute(_NEXT_KEY, {**range_values(prefix), "after": after}).fetchone()
            return row and row[0]

    def _page(self, statement: str, prefix: str, after: str, skip: int = 0, *, is_one: bool = False) -> Page:
        values = {**range_values(prefix), "after": after}
        if not prefix:
            statement = statement.replace(_END, "")
        if not after:  # includes a damaged entry with an empty key
            statement = statement.replace("+key >", "+key >=")
        if is_one:
            statement += " LIMIT 1"  # because the driver reads one row ahead
        with self._database.statement() as connection, closing(connection.execute(statement, values)) as rows:
            return page_of(rows, skip)

    def _search(self, terms: Sequence[Term], condition: Node | None, prefix: str, offset: int, limit: int) -> Result:
        # Without words the first statement that answers returns whole results, so no transaction is needed.
        begun = self._database.transaction() if has_words(terms) else self._database.statement()
        with begun as connection:
            results = self._reads(connection, condition, prefix).results(terms, offset, limit)
        if self._are_whole(results, offset):
            return search_result(results)
        with (
            self._database.statement() as connection,
            closing(self._reads(connection, condition, prefix).every(terms, keeps_words=self._keeps_words)) as matching,
        ):
            return undamaged_results(self._database.in_time(matching), terms, condition, offset, limit)

    def _answer(self, answer: Callable[[Reader], Answer], condition: Node | None, prefix: str) -> Answer:
        with self._database.transaction() as connection:
            return answer(self._reads(connection, condition, prefix))

    def _reads(self, connection: sqlite3.Connection, condition: Node | None, prefix: str) -> SQLiteSearch:
        return SQLiteSearch(self._database, connection, condition, prefix, self._rules())


def _store(connection: sqlite3.Connection, store: Store, at: datetime) -> Result:
    if store.if_version is not None:
        row = connection.execute(_ENTRY, {"key": store.key, "now": written(at)}).fetchone()
        version = read_version(store.key, row[3]) if row else 0
        if version != store.if_version:
            raise conflict(store.key, version)
    values = {
        "key": store.key,
        "value": store.value,
        "metadata": store.metadata,
        "search_text": store.search_text,
        "expires_at": written(at + store.ttl if store.ttl else store.expires_at),
        "now": written(at),
    }
    statement = _STORE_WITHOUT_WORDS if store.search_text is None else _STORE
    ((version,),) = connection.execute(statement, values).fetchall()
    return stored(store.key, version)


def _delete(connection: sqlite3.Connection, delete: Delete, at: datetime) -> Result:
    deleted_count = connection.execute(_DELETE, {"key": delete.key, "now": written(at)}).rowcount
    return ok(deleted=bool(deleted_count), key=delete.key)
