"""check_database: test whether a memory works on a database, and describe the database. It leaves nothing behind."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Select, Text, inspect, select, type_coerce

from the_edge_agent.memory.core.damage import (
    ROW,
    TIMES,
    TRACKED,
    Damage,
    around,
    is_of_file,
    read_tracked,
    read_whole_entry,
)
from the_edge_agent.memory.core.results import FILE_DAMAGED, LTMError, ok
from the_edge_agent.memory.diagnostics.facts import learn
from the_edge_agent.memory.diagnostics.self_test import STEPS
from the_edge_agent.memory.diagnostics.temporary import TemporaryDatabase
from the_edge_agent.memory.sql.backend import SQLAlchemyBackend
from the_edge_agent.memory.sql.database import Database
from the_edge_agent.memory.sql.dialects import for_name
from the_edge_agent.memory.sql.driver.options import EngineOptions
from the_edge_agent.memory.sql.driver.url import parse_url
from the_edge_agent.memory.sql.queries.statements import Statements
from the_edge_agent.memory.sql.schema.rows import time_of
from the_edge_agent.memory.sql.schema.tables import LTMEntry

_NAME_CHARACTERS: Final = string.ascii_lowercase + string.digits
_CLEANING_SHARE: Final = 0.2  # this part of the time is reserved for cleaning up
_LEAST_CLEANING: Final = 1.0  # seconds to clean up, even when the time is over: no tables should be left behind
_SETTLING: Final = 0.5  # seconds that a server needs to end the statement of a connection that was cut
_PAGE_ROWS: Final = 200
# The columns for ``_read_entry``.
_ENTRY: Final = ("key", "value", "metadata", "storage_uri", "version", *TIMES, "lifetime", "is_indexed")
_TYPED: Final = ("key", "version", "byte_size", *TIMES, "lifetime", "is_indexed")
_COPY: Final = "copy what can be read into a new one, all but the entries with the keys listed above"
_OF_A_FILE: Final = ("uri", "mode", "cache")  # options for the file in the URL


def check_database(url: Any, timeout: float = 30.0, *, data: bool = False) -> dict[str, Any]:
    """Connect to a database, describe it, and test a memory in temporary tables, which are dropped at the end.

    The tables of an existing memory are not changed, and none are created. Nothing is left behind, even if the check
    fails or is interrupted. An SQLite or DuckDB file that does not exist is not created. The result has no password.

    Args:
        url: a SQLAlchemy database URL.
        timeout: seconds for the whole check; cleaning up may take one or two seconds more.
        data: also read every entry of ``ltm_entries`` and of the catalog, page by page, each page within ``timeout``.
            Values in a blob storage are not read. If entries are damaged, the check fails.

    Returns:
        ``{"success": bool, "url", "missing_file", "server", "server_version", "dialect", "is_portable", "driver",
        "driver_version", "pool", "search_path", "filter_path", "limits", "schema", "self_test", "left_behind"}``.
        A failure has ``error`` and ``error_type``, and those of the other keys that were learnt before it.
        ``self_test`` is a list of ``{"step": str, "success": bool, "ms": float}``. ``left_behind`` has the names of
        tables that could not be dropped. With ``data`` there are also ``entries_read`` and ``damaged``, a list of
        ``{"place": "memory" or "catalog", "key": str, "problem": str}``.
    """
    report: dict[str, Any] = {}
    try:
        options = EngineOptions(timeout=timeout)
        parsed, _ = parse_url(url)
        report["url"] = repr(parsed)
        options = replace(options, connect_timeout=min(timeout, options.connect_timeout))
        problem = _failure(_Check(url, options, report).run, parsed)
        if data and (problem is None or "schema" in report):
            problem = _failure(_check_data, url, options, report) or problem
        if problem is not None:
            raise problem
    except LTMError as failure:
        return {**failure.result, **report}
    return ok(**report)


def _failure(check: Callable[..., None], *arguments: Any) -> LTMError | None:
    try:
        check(*arguments)
    except LTMError as failure:
        return failure
    return None


def _check_data(url: Any, options: EngineOptions, report: dict[str, Any]) -> None:
    """Read all rows of the memory and the catalog, and add ``entries_read`` and ``damaged`` to the report.

    Raises:
        LTMError: ``query_error`` if rows are damaged, ``connection_error`` if the file is damaged, or another failure
            of the database.
    """
    report["entries_read"], report["damaged"] = 0, []
    if report["missing_file"] is not None or report["schema"]["state"] != "complete":
        return
    is_file = False
    database = Database(url, replace(options, create_tables=False), entries_name=LTMEntry.__tablename__)
    try:
        for place, read in (("memory", _read_entry), ("catalog", _read_tracked)):
            for entry in _rows(database, place, read):
                report["entries_read"] += 1
                if isinstance(entry, Damage):
                    is_file = is_file or entry.what == ROW
                    report["damaged"].append({"place": place, "key": entry.key, "problem": entry.problem})
    finally:
        database.close()
    if count := len(report["damaged"]):
        if is_file:
            raise LTMError("connection_error", f"{FILE_DAMAGED}; {_COPY}")
        entries = "1 entry is" if count == 1 else f"{count:,} entries are"
        raise LTMError("query_error", f"{entries} damaged; store or delete the entries with the keys listed above")


def _rows(database: Database, place: str, read: Callable[[Sequence[Any]], Any]) -> Iterator[Any]:
    """Read the rows of the memory or the catalog page by page, by key, and yield ``read(row)`` of each."""
    after: Any = None

    def page(connection: Connection, sql: Statements, limit: int = _PAGE_ROWS) -> Sequence[Sequence[Any]]:
        tables = sql.schema.tables
        if place == "memory" and not inspect(connection).has_table(tables.entries.name):
            return ()  # this database has only a catalog
        table, names = (tables.entries, _ENTRY) if place == "memory" else (tables.catalog, TRACKED)
        columns = [table.c[name] if name in _TYPED else type_coerce(table.c[name], Text()) for name in names]
        rows = select(*columns).order_by(table.c.key).limit(limit)
        return connection.execute(rows if after is None else rows.where(table.c.key > after)).all()

    def next_key(last: str) -> Any:
        nonlocal after
        after = last or None
        return database.run(lambda connection, sql: connection.scalar(_next_key(sql, place, last)))

    try:
        while rows := database.run(page):
            yield from map(read, rows)
            after = rows[-1][0 if place == "memory" else 1]
    except LTMError as failure:
        if not is_of_file(failure):
            raise
    else:
        return
    one_by_one = around(after or "", next_key, lambda _: database.run(lambda connection, sql: page(connection, sql, 1)))
    yield from (row if isinstance(row, Damage) else read(row) for row in one_by_one)


def _next_key(sql: Statements, place: str, after: str) -> Select[Any]:
    tables = sql.schema.tables
    key = (tables.entries if place == "memory" else tables.catalog).c.key
    return select(key).where(key > after).order_by(key).limit(1)


def _read_entry(row: Sequence[Any]) -> Any:
    key, value, metadata, pointer, version, *times, lifetime, is_indexed = row
    inline = value if pointer is None else "null"
    return read_whole_entry(key, inline, metadata, version, times, time_of, lifetime=lifetime, is_indexed=is_indexed)


def _read_tracked(row: Sequence[Any]) -> Any:
    return read_tracked(row, time_of)


class _Check:
    """One check, with the time that it has left."""

    def __init__(self, url: Any, options: EngineOptions, report: dict[str, Any]) -> None:
        self._url = url
        self._options = options
        self._report = report
        self._name = "tea_" + "".join(secrets.choice(_NAME_CHARACTERS) for _ in range(5))
        self._end = time.monotonic() + options.timeout

    def run(self, url: Any) -> None:
        with self._place(url) as place:
            database = TemporaryDatabase(place, self._options, name=self._name)
            database.end = self._end
            memory = _MemoryOn(database, place)
            try:
                database.peek(lambda schema, connection: learn(self._report, schema, connection, self._options))
                self._test(database, memory)
            finally:
                memory.close()

    @contextmanager
    def _place(self, url: Any) -> Iterator[Any]:
        """Yield the URL of the database; if its file does not exist, the URL of a temporary file beside it."""
        file = for_name(url.get_backend_name()).engines.new_file(url)
        self._report["missing_file"] = None if file is None else str(file)
        if file is None:
            yield self._url
            return
        try:
            yield url.difference_update_query(_OF_A_FILE).set(database=str(file.with_name(f"{self._name}.db")))
        finally:
            _remove(file.parent, self._name)

    def _test(self, database: TemporaryDatabase, memory: SQLAlchemyBackend) -> None:
        self._report["self_test"], self._report["left_behind"] = [], []
        is_created = False
        database.end = self._end - self._options.timeout * _CLEANING_SHARE
        try:
            with self._step("create_tables", "the self-test is not possible, its tables cannot be created"):
                self._check_time(database)
                database.start()
                is_created = True
            for name, step in STEPS:
                with self._step(name, f"the self-test failed at {name}"):
                    self._check_time(database)
                    step(memory)
        finally:
            try:
                if not is_created:
                    time.sleep(_SETTLING)
            finally:
                failure = self._cleaned(database)
        if failure is not None:
            raise failure

    def _cleaned(self, database: TemporaryDatabase) -> LTMError | None:
        try:
            with self._step("clean_up", "the tables of the self-test may still be there, drop them"):
                database.end = max(self._end, time.monotonic() + _LEAST_CLEANING)
                database.drop()
        except LTMError as failure:
            self._report["left_behind"] = database.table_names
            return failure
        return None

    def _check_time(self, database: TemporaryDatabase) -> None:
        if time.monotonic() >= database.end:
            raise LTMError("connection_timeout", f"the check did not end within {self._options.timeout:g} seconds")

    @contextmanager
    def _step(self, name: str, failing: str) -> Iterator[None]:
        began, success = time.perf_counter(), False
        try:
            yield
            success = True
        except LTMError as failure:
            raise failure.within(failing) from None
        finally:
            milliseconds = round((time.perf_counter() - began) * 1000, 1)
            self._report["self_test"].append({"step": name, "success": success, "ms": milliseconds})


class _MemoryOn(SQLAlchemyBackend):
    """A memory that uses an existing ``Database`` object."""

    def __init__(self, database: Database, url: Any) -> None:
        self._existing = database
        super().__init__(url, lazy=True)

    def _database_of(self, source: Any, options: EngineOptions) -> Database:
        return self._existing


def _remove(folder: Path, name: str) -> None:
    for file in folder.glob(f"{name}.db*"):
        file.unlink(missing_ok=True)
