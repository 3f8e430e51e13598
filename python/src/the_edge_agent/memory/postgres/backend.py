"""PostgresBackend: long-term memory in one PostgreSQL database, with psycopg and without SQLAlchemy.

The indexes of the server look up words and plain metadata values. Python decides phrases, negations, whole filters,
scores and order, by the functions that define them, and streams the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any, Final, Literal

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.memory.core.damage import (
    Damage,
    Facts,
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
from the_edge_agent.memory.core.tokens import Term
from the_edge_agent.memory.core.validation import check_flag
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
    range_of,
    stores_of_imports,
    timed_of,
    whole_of,
)
from the_edge_agent.memory.database.search_plan import Reader, all_matching
from the_edge_agent.memory.database.writes import Change, Write, WrittenRow
from the_edge_agent.memory.postgres.database import (
    AUTOCOMMIT,
    ONE_STATE,
    PostgresDatabase,
    streamed,
)
from the_edge_agent.memory.postgres.search import (
    IN_RANGE,
    VISIBLE,
    PostgresReader,
    more_conditions,
    newest_entries,
    results_at_once,
    selected,
    undamaged_of,
)
from the_edge_agent.memory.postgres.shared_sql import json_copy
from the_edge_agent.memory.postgres.times import MICROSECONDS, in_utc, microseconds, utc

# An upsert in one statement, at the time of the server. An expired entry counts as absent, so the store creates an
# entry.
_UPSERT: Final = """
    INSERT INTO ltm_entries AS e (key, value, metadata, metadata_json, {names}version, expires_at, created_at,
                                  updated_at, write_id, lifetime, is_indexed)
    VALUES (%(key)s, %(value)s, %(metadata)s, %(metadata_json)s::jsonb, {values}1,
            coalesce(%(expires_at)s::timestamptz, now() + %(ttl)s{microseconds}), now(), now(), %(write_id)s,
            %(ttl)s::bigint, %(is_indexed)s)
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value, metadata = excluded.metadata, metadata_json = excluded.metadata_json,
        {changes}
        version = CASE WHEN e.expires_at <= now() THEN 1
                       WHEN e.write_id = excluded.write_id THEN e.version WHEN e.version >= 1 THEN e.version + 1 END,
        created_at = CASE WHEN e.expires_at <= now() THEN now() ELSE e.created_at END,
        expires_at = excluded.expires_at, updated_at = now(), write_id = excluded.write_id, storage_uri = NULL,
        lifetime = excluded.lifetime, is_indexed = excluded.is_indexed"""
# An import. Its entry has times and a version already.
_COPY: Final = """
    INSERT INTO ltm_entries AS e (key, value, metadata, metadata_json, {names}version, expires_at, created_at,
                                  updated_at, write_id, lifetime, is_indexed)
    VALUES (%(key)s, %(value)s, %(metadata)s, %(metadata_json)s::jsonb, {values}%(version)s,
            %(expires_at)s::timestamptz, coalesce(%(created_at)s::timestamptz, now()),
            coalesce(%(updated_at)s::timestamptz, now()), %(write_id)s, %(ttl)s::bigint, %(is_indexed)s)
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value, metadata = excluded.metadata, metadata_json = excluded.metadata_json,
        {changes}
        version = excluded.version, created_at = excluded.created_at, expires_at = excluded.expires_at,
        updated_at = excluded.updated_at, write_id = excluded.write_id, storage_uri = NULL,
        lifetime = excluded.lifetime, is_indexed = excluded.is_indexed
    WHERE %(replaces)s OR e.expires_at <= now() RETURNING key"""


def _with_and_without_words(statement: str) -> dict[bool, str]:
    """Return two forms of a statement. The key says whether the table stores words."""
    words = {"names": "search_text, ", "values": "%(search_text)s, ", "changes": "search_text = excluded.search_text,"}
    without = dict.fromkeys(words, "")
    return {
        keeps: statement.format(**(words if keeps else without), microseconds=MICROSECONDS) for keeps in (True, False)
    }


_STORE: Final = _with_and_without_words(_UPSERT)
_STORE_COPY: Final = _with_and_without_words(_COPY)
_PUT: Final = {words: f"{store} RETURNING version" for words, store in _STORE.items()}
_CREATE: Final = {words: f"{store} WHERE e.expires_at <= now() RETURNING version" for words, store in _STORE.items()}
_VERSION: Final = f"SELECT version FROM ltm_entries WHERE key = %(key)s AND {VISIBLE} FOR UPDATE"
# Reads which write each row is from; waits for transactions that are writing the rows. An infinite time has no age.
_WRITTEN: Final = """
    SELECT key, version, write_id, CASE WHEN isfinite(updated_at) THEN extract(epoch FROM now() - updated_at) END,
           coalesce(expires_at <= now(), false)
    FROM ltm_entries WHERE key = ANY(%(keys)s) ORDER BY key FOR UPDATE"""
_DELETE: Final = f"DELETE FROM ltm_entries WHERE key = %(key)s AND {VISIBLE}"
# Rows are locked in the order of their keys, so that transactions do not deadlock. Without MATERIALIZED the subquery
# could run again for each row, with a different result.
_DELETE_MANY: Final = f"""
    WITH gone AS MATERIALIZED (
        SELECT key FROM ltm_entries WHERE key = ANY(%(keys)s) AND {VISIBLE} ORDER BY key FOR UPDATE)
    DELETE FROM ltm_entries e USING gone WHERE e.key = gone.key"""
_AT_KEY: Final = f"SELECT {{}} FROM ltm_entries WHERE key = %(key)s AND {VISIBLE}"
_AT_KEYS: Final = f"SELECT {{}} FROM ltm_entries WHERE key = ANY(%(keys)s) AND {VISIBLE}"
_LIFETIMES: Final = f"{_AT_KEYS} ORDER BY key FOR UPDATE".format(selected(("key", "expires_at", "lifetime")))
# The columns of a ``retrieve`` without and with times, and what reads its row.
_AS_READ: Final[dict[bool, tuple[str, Callable[[Any], dict[str, Any] | Damage]]]] = {
    False: (selected(ENTRY), entry_of),
    True: (selected(TIMED), partial(timed_of, timestamp=in_utc)),
}
_TOUCH: Final = f"""
    UPDATE ltm_entries SET lifetime = coalesce(%(ttl)s::bigint, lifetime),
                           expires_at = now() + coalesce(%(ttl)s::bigint, lifetime){MICROSECONDS}
    WHERE key = ANY(%(keys)s) RETURNING key, {utc("expires_at")}"""
_BY_KEY: Final = f"SELECT {{columns}} FROM ltm_entries WHERE {IN_RANGE} AND key > %(after)s AND {VISIBLE}{{more}}"
_KEYS: Final = f"{_BY_KEY} ORDER BY key LIMIT %(limit)s"
_COUNT: Final = f"SELECT count(*) FROM ltm_entries WHERE {IN_RANGE} AND {VISIBLE}{{more}}"
_MEASURE: Final = "SELECT {} FROM ltm_entries WHERE {}{{more}}".format(
    measured_by(VISIBLE, "expires_at <= now()", "octet_length({})", utc("{0}")), IN_RANGE
)
_PAGE: Final = f"{_BY_KEY} ORDER BY key"
_ENTRY_ROWS: Final[dict[Order, str]] = {
    "key": f"{_KEYS} OFFSET %(skip)s",
    "-key": f"{_BY_KEY} ORDER BY key DESC LIMIT %(limit)s OFFSET %(skip)s".replace("key > %(after)s AND ", ""),
}
_CLEAN: Final = """
    WITH gone AS MATERIALIZED (
        SELECT key FROM ltm_entries WHERE expires_at <= now() ORDER BY expires_at, key LIMIT %(limit)s FOR UPDATE)
    DELETE FROM ltm_entries e USING gone WHERE e.key = gone.key RETURNING e.key"""
_EXPIRED_COUNT: Final = "SELECT count(*) FROM ltm_entries WHERE expires_at <= now()"
_FACTS: Final = f"SELECT key, {utc('expires_at')}, storage_uri, version FROM ltm_entries WHERE key = ANY(%(keys)s)"


class PostgresBackend(DatabaseBackend):
    """Long-term memory in one PostgreSQL database (12 or later); needs psycopg.

    ``LTMBackend`` has the contract of each method. Many threads and processes may use one database, and a forked child
    opens its own connections. ``SQLAlchemyBackend`` can open the same database, also at the same time. Only that class
    reads values in a blob storage.
    """

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
        search: bool = True,
        language: str | None = None,
        create_tables: bool = True,
        catalog: str | Mapping[str, Any] | CatalogBackend | None = None,
        ttl: float | None = None,
        errors: Literal["return", "raise"] = "return",
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
            search: whether words can be searched; see ``SQLAlchemyBackend``.
            language: the language of the words; see ``SQLAlchemyBackend``.
            create_tables: whether to create missing tables. If False, they must exist.
            catalog: the catalog that keeps the ledger of this memory: the name of a catalog, a mapping with its
                ``type`` and options, or a catalog object, which the caller must close. A catalog in the same database
                is written in the same transaction. ``{"type": "postgres"}`` without a ``url`` means the same database.
            ttl: the lifetime in seconds of entries that are stored without ``ttl`` and ``expires_at``; None for never.
            errors: whether methods return their failures as dicts, or raise them as ``LTMError``.

        Raises:
            LTMError: ``configuration_error`` and, unless ``lazy``, ``connection_error``, ``connection_timeout`` or
                ``auth_failed``. No message shows the password.
        """
        options = {
            "pool_size": pool_size,
            "timeout": timeout,
            "connect_timeout": connect_timeout,
            "idle_transaction_timeout": idle_transaction_timeout,
            "prepare_threshold": prepare_threshold,
        }
        self._set_defaults(ttl, errors)
        self._keeps_words = check_flag("search", search)
        language_name = check_language(language, search=self._keeps_words)
        self._database = PostgresDatabase(
            url, **options, search=self._keeps_words, language=language_name, create_tables=create_tables
        )
        self._open(catalog, {**options, "auto_migrate": create_tables}, lazy)

    # --- writes ------------------------------------------------------------------------------------

    def _remove(self, deletes: Sequence[Delete]) -> int:
        keys = [delete.key for delete in deletes]

        def work(connection: Any, _: Write) -> int:
            deleted = connection.execute(_DELETE_MANY, {"keys": keys}).rowcount
            if self._ledger.here is not None:
                self._ledger.here.follow(connection, deletes)
            return int(deleted)

        return self._database.write(work, lambda counts: Change(deleted=keys if counts[-1] else ()), _look)

    def _remove_expired(self, limit: int) -> tuple[int, int]:
        def work(connection: Any, _: Write) -> tuple[list[str], int]:
            if not connection.execute(_EXPIRED_COUNT).fetchone()[0]:  # a user who may only read can call this
                return [], 0
            keys = [row[0] for row in connection.execute(_CLEAN, {"limit": limit})]
            remaining = connection.execute(_EXPIRED_COUNT).fetchone()[0]
            if self._ledger.here is not None:
                self._ledger.here.forget(connection, keys)
            return keys, remaining

        keys, remaining = self._database.write(
            work, lambda answers: Change(deleted=answers[-1][0], of_expired=True), _look
        )
        return len(keys), remaining

    def _write(self, operations: Sequence[Operation]) -> list[Result]:
        if len(operations) == 1 and is_unconditional(operations[0]) and self._ledger.here is None:
            return [self._store_autocommit(operations[0])]
        run = partial(self._run, operations)
        return self._database.write(run, lambda results: Change.of(operations, results[-1]), _look)

    def _store_autocommit(self, store: Store) -> Result:
        """Store one entry by one statement that commits by itself."""
        row = _parameters(store)

        def work(connection: Any, write: Write) -> int:
            version: int = _put(connection, {**row, "write_id": write.id})[0]
            return version

        change = Change({store.key}, is_unconditional=True)
        return stored(store.key, self._database.write(work, lambda _: change, _look, AUTOCOMMIT))

    def _run(self, operations: Sequence[Operation], connection: Any, write: Write) -> list[Result]:
        """Run stores and deletes, sorted by key. Operations on one key keep their order.

        Raises:
            LTMError: ``conflict`` of the first operation that has one.
        """
        results: dict[int, Result] = {}
        conflicts: dict[int, LTMError] = {}
        places = sorted(range(len(operations)), key=lambda place: operations[place].key)
        for are_unconditional, group in groupby(places, key=lambda place: is_unconditional(operations[place])):
            some = [*group]
            if are_unconditional and len(some) > 1:
                stores: list[Any] = [operations[place] for place in some]
                rows = [
                    {**_parameters(store), "write_id": write.of(place)}
                    for place, store in zip(some, stores, strict=True)
                ]
                results |= zip(some, _put_many(connection, rows), strict=True)
                continue
            for place in some:
                try:
                    results[place] = _do(connection, operations[place], write.of(place))
                except LTMError as failure:
                    conflicts[place] = failure
        if conflicts:
            raise conflicts[min(conflicts)]
        if self._ledger.here is not None:
            self._ledger.here.follow(connection, operations)
        return [results[place] for place in range(len(operations))]

    def _touch(self, keys: Sequence[str], lifetime: timedelta | None) -> dict[str, datetime | None]:
        def work(connection: Any, _: Write) -> dict[str, datetime | None]:
            found = read_lifetimes(connection.execute(_LIFETIMES, {"keys": [*keys]}), in_utc)
            renewed = [key for key, (_, own) in found.items() if lifetime is not None or own is not None]
            if not renewed:
                return {key: expires_at for key, (expires_at, _) in found.items()}
            rows = connection.execute(_TOUCH, {"keys": renewed, "ttl": microseconds(lifetime)}).fetchall()
            expiries = {key: in_utc(expires_at) for key, expires_at in rows}
            if self._ledger.here is not None:
                self._ledger.here.touch(connection, {key: expiries[key] for key in renewed})
            return {key: expiries.get(key, expires_at) for key, (expires_at, _) in found.items()}

        return self._database.write(work, lambda _: Change(may_repeat=True), _look)

    def _import(self, imports: Sequence[Import], on_conflict: OnConflict) -> list[str]:
        replaces = on_conflict == "replace"

        def work(connection: Any, write: Write) -> list[str]:
            existing = _put_copies(connection, imports, write, replaces=False)
            if existing and on_conflict == "fail":
                raise already_there(existing[0].key, _locked_version(connection, existing[0].key))
            if replaces:
                _put_copies(connection, existing, write, replaces=True)
            keys = [each.key for each in existing]
            if self._ledger.here is not None:
                self._ledger.here.follow(connection, stores_of_imports(copied_of(keys)))
            return keys

        def copied_of(existing: Collection[str]) -> list[Import]:
            return [each for each in imports if replaces or each.key not in existing]

        def change(answers: list[list[str]]) -> Change:
            copied = {each.key for each in copied_of({*answers[-1]})}
            return Change(copied, is_unconditional=replaces)

        return self._database.write(work, change, _look)

    def _facts(self, keys: Sequence[str]) -> dict[str, Facts | Damage]:
        rows = self._database.run(lambda connection: connection.execute(_FACTS, {"keys": [*keys]}).fetchall())
        return {row[0]: read_facts(*row, timestamp=in_utc) for row in rows}

    # --- reads -------------------------------------------------------------------------------------

    def _get(self, key: str, *, times: bool = False) -> dict[str, Any] | Damage | None:
        columns, read = _AS_READ[times]
        statement = _AT_KEY.format(columns)
        row = self._database.run(lambda connection: connection.execute(statement, {"key": key}).fetchone())
        return None if row is None else read(row)

    def _get_many(self, keys: Sequence[str], *, times: bool = False) -> dict[str, dict[str, Any] | Damage | None]:
        columns, read = _AS_READ[times]
        statement = _AT_KEYS.format(columns)
        rows = self._database.run(lambda connection: connection.execute(statement, {"keys": keys}).fetchall())
        entries = {row[0]: read(row) for row in rows}
        return {key: entries.get(key) for key in keys}

    def _keys(self, keys: KeyRange, after: str, limit: int) -> list[str]:
        statement = _KEYS.format(columns="key", more=more_conditions(keys))
        values = {**range_of(keys), "after": after, "limit": limit}
        rows = self._database.run(lambda connection: connection.execute(statement, values).fetchall())
        return [row[0] for row in rows]

    def _count(self, keys: KeyRange) -> int:
        statement, values = _COUNT.format(more=more_conditions(keys)), range_of(keys)
        return int(self._database.run(lambda connection: connection.execute(statement, values).fetchone()[0]))

    def _measure(self, keys: KeyRange) -> Measured:
        statement, values = _MEASURE.format(more=more_conditions(keys)), range_of(keys)
        row = self._database.run(lambda connection: connection.execute(statement, values).fetchone())
        return measured_of(row, in_utc)

    def _entry_rows(self, keys: KeyRange, order: Order, place: Place, skip: int, limit: int) -> list[EntryRow]:
        if order == "newest":
            read = partial(newest_entries, keys=keys, place=place, limit=skip + limit)
            rows = self._database.run(read, ONE_STATE)[skip:]
        else:
            values = {**range_of(keys), "after": place.key, "skip": skip, "limit": limit}
            if order == "-key" and place.key:
                values["end"] = min(values["end"], place.key)
            statement = _begun(_ENTRY_ROWS[order], place.key)
            statement = statement.format(columns=selected(WHOLE), more=more_conditions(keys))
            rows = self._database.run(lambda connection: connection.execute(statement, values).fetchall())
        return [entry_row_of(row, in_utc) for row in rows]

    def _iterate(self, keys: KeyRange) -> Iterator[Any]:
        return iterate(partial(self._page, ITEM, keys), item_of)

    def _iterate_entries(self, keys: KeyRange) -> Iterator[Any]:
        return iterate(partial(self._page, WHOLE, keys), partial(whole_of, timestamp=in_utc))

    def _page(self, columns: Sequence[str], keys: KeyRange, after: str, skip: int) -> Page:
        values = {**range_of(keys), "after": after}
        statement = _begun(_PAGE, after).format(columns=selected(columns), more=more_conditions(keys))
        return self._database.run(partial(_page, statement=statement, values=values, skip=skip), ONE_STATE)

    def _search(self, terms: Sequence[Term], condition: Node | None, keys: KeyRange, offset: int, limit: int) -> Result:
        arguments = (terms, condition, keys, offset, limit)
        results = self._database.run(lambda connection: results_at_once(connection, *arguments))
        if results is None:
            results = self._answer(lambda reader: all_matching(reader, terms, offset, limit), condition, keys)
        if self._are_whole(results, offset):
            return search_result(results)
        return self._database.run(lambda connection: undamaged_of(connection, *arguments), ONE_STATE)

    def _answer(self, answer: Callable[[Reader], Answer], condition: Node | None, keys: KeyRange) -> Answer:
        reads = partial(PostgresReader, rules=self._rules(), keeps_words=self._keeps_words)
        return self._database.run(lambda connection: answer(reads(connection, condition, keys)), ONE_STATE)


def _begun(statement: str, after: str) -> str:
    """Return a statement that reads rows by key, for the first page too."""
    if after:
        return statement
    return statement.replace("key > %(after)s", "key >= %(after)s")  # an empty key, of another program, is not above ""


def _put_many(connection: Any, rows: Sequence[dict[str, Any]]) -> Iterator[Result]:
    """Store the rows in order, without waiting for each reply."""
    with connection.cursor() as cursor:
        cursor.executemany(_PUT[rows[0]["search_text"] is not None], rows, returning=True)
        for row in rows:
            yield stored(row["key"], cursor.fetchone()[0])
            cursor.nextset()


def _put_copies(connection: Any, imports: Sequence[Import], write: Write, *, replaces: bool) -> list[Import]:
    """Store imported entries in the order of their keys, and return those that were not stored.

    Without ``replaces`` these are the ones whose key has an entry. The transaction has locked this entry.
    """
    if not imports:
        return []
    rows = [
        {
            **_parameters(each.store),
            "version": each.version,
            "created_at": each.created_at,
            "updated_at": each.updated_at,
            "write_id": write.of_import,
            "replaces": replaces,
        }
        for each in imports
    ]
    left = []
    with connection.cursor() as cursor:
        cursor.executemany(_STORE_COPY[rows[0]["search_text"] is not None], rows, returning=True)
        for each in imports:
            if cursor.fetchone() is None:
                left.append(each)
            cursor.nextset()
    return left


def _put(connection: Any, row: Mapping[str, Any], statement: Mapping[bool, str] = _PUT) -> Any:
    return connection.execute(statement[row["search_text"] is not None], row).fetchone()


def _do(connection: Any, operation: Operation, write_id: str) -> Result:
    if isinstance(operation, Delete):
        if operation.if_version is not None:
            version = _locked_version(connection, operation.key)
            if version != operation.if_version:
                raise conflict(operation.key, version)
        deleted = connection.execute(_DELETE, {"key": operation.key}).rowcount
        return ok(deleted=bool(deleted), key=operation.key)
    values = {**_parameters(operation), "write_id": write_id}
    if operation.if_version is None:
        return stored(operation.key, _put(connection, values)[0])
    version = _locked_version(connection, operation.key)
    row = None
    if version == operation.if_version:
        statement = _PUT if version else _CREATE
        row = _put(connection, values, statement)
    if row is None:  # another transaction may have created the entry meanwhile
        raise conflict(operation.key, version or _locked_version(connection, operation.key))
    return stored(operation.key, row[0])


def _look(connection: Any, keys: Sequence[str]) -> list[WrittenRow]:
    return [_written_row(*row) for row in connection.execute(_WRITTEN, {"keys": [*keys]})]


def _written_row(key: str, version: int, write_id: str | None, age: Any, is_expired: bool) -> WrittenRow:
    return WrittenRow(key, version, write_id, None if age is None else timedelta(seconds=float(age)), is_expired)


def _locked_version(connection: Any, key: str) -> int:
    row = connection.execute(_VERSION, {"key": key}).fetchone()
    return read_version(key, row[0]) if row else 0


def _parameters(store: Store) -> dict[str, Any]:
    return {
        "key": store.key,
        "value": store.value,
        "metadata": store.metadata,
        "metadata_json": json_copy(store.metadata),
        "search_text": store.search_text,
        "ttl": microseconds(store.ttl),
        "expires_at": store.expires_at,
        "is_indexed": int(store.index),
        "write_id": None,
    }


def _page(connection: Any, statement: str, values: dict[str, Any], skip: int) -> Page:
    with streamed(connection) as cursor:
        return page_of(cursor.execute(statement, values), skip)
