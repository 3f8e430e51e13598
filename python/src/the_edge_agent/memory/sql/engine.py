"""The engine of one backend: pool, lazy start, schema creation, ownership, close."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection, Engine, create_engine, insert, inspect, select
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import StaticPool

from the_edge_agent.memory.results import LTMError
from the_edge_agent.memory.sql import legacy
from the_edge_agent.memory.sql.dialects import Dialect, for_dialect, for_name
from the_edge_agent.memory.sql.errors import Failure
from the_edge_agent.memory.sql.schema import SCHEMA_VERSION, Tables, copy_tables
from the_edge_agent.memory.sql.transactions import retrying, run_transaction
from the_edge_agent.memory.sql.url import load_dialect, missing_driver, parse_url, with_installed_driver

Answer = TypeVar("Answer")
Statements = TypeVar("Statements")

_CREATION_ATTEMPTS = 12  # many processes may create the tables at once; each loser looks again


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to connect; times in seconds.

    Attributes:
        pool_size: connections kept open.
        max_overflow: connections above that, closed after use.
        pool_timeout: how long to wait for a free connection.
        connect_timeout: how long connecting may take.
        timeout: how long a call may take.
        echo: log every statement, without its values.
    """

    pool_size: int
    max_overflow: int
    pool_timeout: float
    connect_timeout: float
    timeout: float
    echo: bool


class _Closable(Protocol):
    def close(self) -> Any: ...


def _close(engine: Engine, keeper: _Closable | None) -> None:
    engine.dispose()
    if keeper is not None:
        keeper.close()


class _Opened(Generic[Statements]):
    """A started engine and what was learnt of it."""

    def __init__(
        self,
        engine: Engine,
        dialect: Dialect,
        statements: Statements,
        max_entry_bytes: int | None,
        keeper: _Closable | None,
    ) -> None:
        self.engine = engine
        self.dialect = dialect
        self.statements = statements
        self.max_entry_bytes = max_entry_bytes
        # One connection for all threads: each transaction waits for its turn.
        self.turn: AbstractContextManager[Any] = Lock() if isinstance(engine.pool, StaticPool) else nullcontext()
        self._keeper = keeper

    def close(self) -> None:
        _close(self.engine, self._keeper)


class Database(Generic[Statements]):
    """An engine that connects on first use, creates the tables once, and runs transactions.

    Safe for many threads. ``prepare`` makes, once for the dialect, the statements that transactions use.
    """

    def __init__(
        self,
        url: Any,
        options: EngineOptions,
        prepare: Callable[[Dialect], Statements],
        *,
        entries_name: str,
        dialect_class: type[Dialect] | None = None,
    ) -> None:
        """Check the URL; import no driver and connect to nothing.

        Raises:
            LTMError: ``configuration_error`` for a bad URL.
        """
        self.url, self._hidden_args = parse_url(url)
        self.closed = False
        self._options = options
        self._prepare = prepare
        self._entries_name = entries_name
        self._dialect_class = dialect_class
        self._opened: _Opened[Statements] | None = None
        self._starting = Lock()

    @property
    def engine(self) -> Engine | None:
        """The engine; None before the start and after close."""
        return self._opened.engine if self._opened else None

    def start(self) -> _Opened[Statements]:
        """Connect and create the tables unless that is done.

        Raises:
            LTMError: after close, or when the database cannot be used; a later call tries again.
        """
        opened = self._opened
        if opened is not None:
            return opened
        with self._starting:
            if self.closed:
                raise LTMError("connection_error", "this backend is closed")
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def run(
        self,
        work: Callable[[Connection, Statements], Answer],
        *,
        write: bool = False,
        snapshot: bool = False,
    ) -> Answer:
        """Run ``work`` in one transaction, started first if need be.

        Raises:
            LTMError: nothing has changed then.
        """
        opened = self.start()
        try:
            with opened.turn:
                return run_transaction(
                    opened.engine,
                    opened.dialect,
                    lambda connection: work(connection, opened.statements),
                    timeout=self._options.timeout,
                    write=write,
                    snapshot=snapshot,
                )
        finally:
            if self.closed:  # meanwhile, by another thread: leave no connection in the pool
                opened.engine.dispose()

    def check_size(self, *texts: str | None) -> None:
        """Refuse an entry larger than the server reads in one packet.

        Raises:
            LTMError: ``validation_error``.
        """
        limit = self.start().max_entry_bytes
        present = [text for text in texts if text]
        if limit is None or sum(map(len, present)) * 4 < limit - _STATEMENT_BYTES:
            return
        size = sum(len(text.encode()) + sum(map(text.count, _ESCAPED)) for text in present)
        if size > limit - _STATEMENT_BYTES:
            raise LTMError(
                "validation_error",
                f"the entry has {size:,} bytes as sent; the server accepts packets of {limit:,}",
            )

    def close(self) -> None:
        """Close every connection; idempotent."""
        with self._starting:
            self.closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _open(self) -> _Opened[Statements]:
        engine, keeper = self._create_engine()
        try:
            dialect, limit = self._create_tables(engine)
        except BaseException:
            _close(engine, keeper)
            raise
        return _Opened(engine, dialect, self._prepare(dialect), limit, keeper)

    def _create_engine(self) -> tuple[Engine, _Closable | None]:
        options = self._options
        url = with_installed_driver(self.url)
        load_dialect(url)
        family = for_name(url.get_backend_name())
        url, engine_options = family.engine_options(url)
        connect_args = family.connect_args(url.get_driver_name(), options.connect_timeout, options.timeout)
        if not issubclass(engine_options.get("poolclass", object), StaticPool):
            engine_options |= {
                "pool_size": options.pool_size,
                "max_overflow": options.max_overflow,
                "pool_timeout": options.pool_timeout,
            }
        problem: LTMError
        try:
            engine = create_engine(
                url,
                echo=options.echo,
                hide_parameters=True,
                connect_args={**connect_args, **engine_options.pop("connect_args", {}), **self._hidden_args},
                **engine_options,
            )
            return engine, family.prepare_engine(engine)
        except ImportError:
            problem = missing_driver(url)
        except (ArgumentError, TypeError, ValueError) as error:
            problem = LTMError("configuration_error", f"the engine cannot be created: {type(error).__name__}")
        raise problem

    def _create_tables(self, engine: Engine) -> tuple[Dialect, int | None]:
        attempts = 0

        def lost_the_race(failure: Failure) -> bool:
            nonlocal attempts
            attempts += 1
            raced = failure.retry or failure.error_type in ("query_error", "validation_error")
            return raced and attempts < _CREATION_ATTEMPTS

        return retrying(lambda: self._attempt_creation(engine), timeout=self._options.timeout, again=lost_the_race)

    def _attempt_creation(self, engine: Engine) -> tuple[Dialect, int | None]:
        try:
            connection = engine.connect()
        except (TypeError, UnicodeError) as error:
            refused = type(error).__name__
        else:
            with connection:
                return self._create_missing(connection)
        raise LTMError("configuration_error", f"the driver does not accept the url or one of its options ({refused})")

    def _create_missing(self, connection: Connection) -> tuple[Dialect, int | None]:
        dialect_class = self._dialect_class or for_dialect(connection.dialect)
        tables = copy_tables(self._entries_name)
        dialect_class.extend(tables.entries)
        dialect = dialect_class(tables.entries)
        dialect.probe(connection)
        limit = dialect.max_entry_bytes(connection)
        found = _schema_version(connection, tables)
        connection.rollback()
        if found is not None and found > SCHEMA_VERSION:
            raise LTMError(
                "configuration_error",
                f"the database has schema version {found}; this release knows {SCHEMA_VERSION}. Upgrade the-edge-agent",
            )
        if found is None or not inspect(connection).has_table(self._entries_name):
            connection.rollback()
            with connection.begin():
                dialect.begin(connection, write=True)
                legacy.set_aside(connection, dialect)
                dialect.create(connection, tables.all())
            legacy.move_entries(connection, dialect)
            connection.rollback()
            if not dialect.has_exact_keys:
                dialect.check_keys(connection)
                connection.rollback()
            with connection.begin():
                dialect.begin(connection, write=True)
                if _schema_version(connection, tables) is None:
                    connection.execute(insert(tables.schema_version).values(id=1, version=SCHEMA_VERSION))
        return dialect, limit


_STATEMENT_BYTES = 4096  # more than a store's statement has besides the entry
_ESCAPED = ("'", '"', "\\")  # drivers that write values into the statement double these


def _schema_version(connection: Connection, tables: Tables) -> int | None:
    table = tables.schema_version
    if not inspect(connection).has_table(table.name):
        return None
    version: int | None = connection.scalar(select(table.c.version))
    return version
