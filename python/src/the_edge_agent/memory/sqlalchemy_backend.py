"""SQLAlchemyBackend: long-term memory on any SQL database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

try:
    from sqlalchemy import Engine
except ImportError as error:
    raise ImportError(
        'SQLAlchemyBackend needs SQLAlchemy; install it with: pip install "the-edge-agent[sqlalchemy]"'
    ) from error

from the_edge_agent.memory.base import Delete, LTMBackend, LTMTransaction, Operation, Store
from the_edge_agent.memory.codec import decode
from the_edge_agent.memory.filters import parse_filter
from the_edge_agent.memory.results import LTMError, Result, ok, returns_result
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.engine import Database, EngineOptions
from the_edge_agent.memory.sql.entries import Entries
from the_edge_agent.memory.sql.schema import LTMEntry
from the_edge_agent.memory.sql.search import Search
from the_edge_agent.memory.text import parse_query
from the_edge_agent.memory.validation import check_key, check_limit, check_offset, check_prefix

_PAGE_TEXT = 1_000_000  # characters that a page of iterate_all aims at
_MAX_PAGE_ROWS = 1_000


class SQLAlchemyBackend(LTMBackend):
    """Long-term memory on SQLite, PostgreSQL, MySQL, MariaDB, or any database that SQLAlchemy speaks to.

    The contract of each method is ``LTMBackend``'s, the same on every database. Safe for many threads; a
    call takes a connection from the pool and runs in one transaction, which is run again as a whole when it
    lost to a concurrent one. ``close`` closes the engine, which belongs to the backend.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"transactions"})  # type: ignore[misc]

    #: Set in a subclass to use a dialect class of one's own in place of the database's.
    dialect_class: ClassVar[type[Dialect] | None] = None

    def __init__(
        self,
        url: str,
        pool_size: int = 5,
        echo: bool = False,
        lazy: bool = False,
        *,
        max_overflow: int = 10,
        pool_timeout: float = 10.0,
        connect_timeout: float = 10.0,
        timeout: float = 30.0,
    ) -> None:
        """Connect and create the tables, unless ``lazy``.

        Args:
            url: a SQLAlchemy database URL: ``sqlite:///memory.db``, ``sqlite://`` (in memory),
                ``postgresql://user:password@host/db``, ``mysql+pymysql://user:password@host/db``. Without a
                driver the installed one is taken.
            pool_size: connections kept open.
            echo: log every statement, without the values.
            lazy: import no driver and connect to nothing until the first call.
            max_overflow: connections above ``pool_size``, closed after use.
            pool_timeout: seconds to wait for a free connection.
            connect_timeout: seconds to wait for the server when connecting.
            timeout: seconds after which a call that keeps losing to concurrent ones gives up.

        Raises:
            LTMError: ``configuration_error``, ``dependency_missing`` and, unless ``lazy``,
                ``connection_error``, ``connection_timeout`` or ``auth_failed``.
        """
        options = EngineOptions(
            pool_size=_whole("pool_size", pool_size, 1),
            max_overflow=_whole("max_overflow", max_overflow, 0),
            pool_timeout=_seconds("pool_timeout", pool_timeout),
            connect_timeout=_seconds("connect_timeout", connect_timeout),
            timeout=_seconds("timeout", timeout),
            echo=_flag("echo", echo),
        )
        self._database = Database(
            url, options, Entries, entries_name=LTMEntry.__tablename__, dialect_class=self.dialect_class
        )
        if not _flag("lazy", lazy):
            self._database.start()

    @property
    def dialect(self) -> str:
        """The name of SQLAlchemy's dialect, such as ``postgresql``; connects first if need be."""
        return str(self._database.start().engine.dialect.name)

    @property
    def _engine(self) -> Engine | None:
        return self._database.engine

    @property
    def _initialized(self) -> bool:
        return self._database.engine is not None

    @property
    def _closed(self) -> bool:
        return self._database.closed

    @returns_result
    def store(self, key: str, value: Any, metadata: dict[str, Any] | None = None) -> Result:
        """Create or replace the entry at ``key``; see ``LTMBackend.store``."""
        return self._apply([Store.of(key, value, metadata)])[0]

    @returns_result
    def delete(self, key: str) -> Result:
        """Delete the entry at ``key``; see ``LTMBackend.delete``."""
        return self._apply([Delete.of(key)])[0]

    @returns_result
    def retrieve(self, key: str, default: Any = None) -> Result:
        """Return the entry at ``key``; see ``LTMBackend.retrieve``."""
        check_key(key)
        row = self._database.run(lambda connection, entries: entries.retrieve(connection, key))
        if row is None:
            return ok(value=default, found=False, metadata=None, version=None)
        value, metadata, version = row
        return ok(value=decode(value), found=True, metadata=metadata and decode(metadata), version=version)

    @returns_result
    def search(
        self,
        query: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        prefix: str | None = None,
        offset: int = 0,
    ) -> Result:
        """Return the entries that match, best first; see ``LTMBackend.search``."""
        terms = parse_query(query)
        search = Search(
            terms or (),
            parse_filter(metadata_filter),
            check_prefix(prefix),
            check_limit(limit),
            check_offset(offset),
        )
        if terms == ():
            self._database.start()
            return ok(results=[], count=0)
        results = self._database.run(
            lambda connection, entries: entries.search(connection, search),
            snapshot=not search.is_one_statement,
        )
        return ok(results=results, count=len(results))

    def iterate_all(self, prefix: str | None = None) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        """Yield ``(key, value, metadata)`` in key order; see ``LTMBackend.iterate_all``.

        Memory stays constant; no connection is held between yields.
        """
        checked = check_prefix(prefix)
        self._database.start()
        return self._iterate(checked)

    def _iterate(self, prefix: str) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
        after, rows = "", 16
        while True:
            page = self._page(prefix, after, rows)
            for key, value, metadata in page:
                yield key, decode(value), metadata and decode(metadata)
            if len(page) < rows:
                return
            after = page[-1][0]
            size = sum(len(value) + len(metadata or "") for _, value, metadata in page)
            rows = max(1, min(_MAX_PAGE_ROWS, rows * _PAGE_TEXT // size))

    def _page(self, prefix: str, after: str, rows: int) -> Sequence[Sequence[Any]]:
        return self._database.run(lambda connection, entries: entries.page(connection, prefix, after, rows))

    def transaction(self) -> LTMTransaction:
        """Return a transaction that queues until ``commit``; see ``LTMBackend.transaction``."""
        self._database.start()
        return super().transaction()

    def _apply(self, operations: Sequence[Operation]) -> list[Result]:
        for operation in operations:
            if isinstance(operation, Store):
                self._database.check_size(operation.key, operation.value, operation.metadata, operation.search_text)
        return self._database.run(lambda connection, entries: entries.apply(connection, operations), write=True)

    def close(self) -> None:
        """Close every connection; idempotent."""
        self._database.close()

    def __repr__(self) -> str:
        """Name the database, with the password hidden."""
        return f"{type(self).__name__}({self._database.url.render_as_string(hide_password=True)!r})"


def _whole(name: str, number: Any, least: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise LTMError("configuration_error", f"{name} must be an integer of at least {least}, not {number!r}")
    return number


def _seconds(name: str, number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < 1e9:
        raise LTMError("configuration_error", f"{name} must be a positive number of seconds, not {number!r}")
    return float(number)


def _flag(name: str, flag: Any) -> bool:
    if not isinstance(flag, bool):
        raise LTMError("configuration_error", f"{name} must be true or false, not {flag!r}")
    return flag
