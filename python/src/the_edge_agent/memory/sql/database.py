"""``Database``: the engine of one backend, with lazy start, transactions, forks and close."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import Pool, QueuePool, StaticPool

from the_edge_agent.memory.contract.result_types import PoolState
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.operations import Store
from the_edge_agent.memory.core.results import LostDatabaseError, LTMError
from the_edge_agent.memory.database.tickets import Tickets
from the_edge_agent.memory.database.writes import Change, Write, Writer, WrittenRow, version_of
from the_edge_agent.memory.sql.connecting import Closable, first_connection, new_engine, with_a_pool_of_its_own
from the_edge_agent.memory.sql.dialects import Dialect, for_dialect, for_name
from the_edge_agent.memory.sql.driver.deadlines import Deadline, DeadlineError, common_end
from the_edge_agent.memory.sql.driver.errors import DAMAGED, Failure, may_be_damage, out_of_time
from the_edge_agent.memory.sql.driver.options import EngineOptions
from the_edge_agent.memory.sql.driver.pool import CallPool
from the_edge_agent.memory.sql.driver.prepared import BoundQuery, has_listeners
from the_edge_agent.memory.sql.driver.url import SafeURL, parse_url, with_installed_driver
from the_edge_agent.memory.sql.queries.statements import Statements
from the_edge_agent.memory.sql.schema.create import Schema
from the_edge_agent.memory.sql.schema.tables import Tables, copy_tables
from the_edge_agent.memory.sql.transactions import retrying, run_autocommit, run_transaction

Answer = TypeVar("Answer")

_logger = logging.getLogger("the_edge_agent.memory")
_NO_TABLES: Final = (
    "the tables do not exist, and create_tables is false (of a catalog: auto_migrate); "
    "create them with the statements of ddl()"
)
_CREATION_ATTEMPTS: Final = 12  # many processes may create the tables at the same time; each that fails tries again
_TO_FIND_DAMAGE: Final = 2.0  # seconds at most, after a call that failed
_STATEMENT_BYTES: Final = 4096  # a statement has fewer bytes than this besides the entry
_databases: WeakSet[Database] = WeakSet()
# The pools of a parent process. They are never freed, because drivers would then close the parent's connections.
_inherited: list[Any] = []


class Database:
    """An engine that connects on first use, creates the tables once, and runs transactions.

    Many threads may use one object. After a fork the child opens its own connections.

    Attributes:
        language: the language of the words; None before the start, and for a table without words.
        on_start: a function that is called after the start, when transactions are possible. If it raises, the next call
            starts again.
    """

    def __init__(
        self,
        source: Any,
        options: EngineOptions,
        *,
        entries_name: str,
        search: bool | None = None,
        language: str | None = None,
        dialect_class: type[Dialect] | None = None,
    ) -> None:
        """Check the source. Import no driver, and do not connect.

        Args:
            source: a URL, or an engine of the caller.
            options: the options of the engine.
            entries_name: the name of the entries' table.
            search: whether that table stores words. None for a catalog, which needs no entries' table and accepts any.
            language: the language that the words must have. None accepts the language of the table; a new one gets
                English.
            dialect_class: the dialect class to use in place of the database's own.

        Raises:
            LTMError: ``configuration_error``.
        """
        self._shared = source if isinstance(source, Engine) else None
        self.url, self._hidden_args = (SafeURL(*source.url), {}) if isinstance(source, Engine) else _located(source)
        self._dialect_of_url = for_name(self.url.get_backend_name())
        self.closed = False
        self._options = options
        self._entries_name = entries_name
        self._search, self._language_name = search, language
        self.language: Language | None = None
        self._dialect_class = dialect_class
        self._opened: _Opened | None = None
        self._writer = Writer(options.timeout)
        self._starting = Tickets(1)
        self.on_start: Callable[[], None] | None = None
        _databases.add(self)

    @property
    def most_connections(self) -> int:
        """The highest number of connections that the pool may have."""
        if self._shared is None:
            return self._options.pool_size + self._options.max_overflow
        pool: Any = self._shared.pool
        most = pool.size() + pool._max_overflow if isinstance(pool, QueuePool) else 10
        return int(most)

    @property
    def engine(self) -> Engine | None:
        """The engine; None before the start and after close."""
        return (self._shared or self._opened.engine) if self._opened else None

    @property
    def sessions(self) -> sessionmaker[Any] | None:
        """The factory for ORM sessions on the engine; None before the start and after close."""
        return self._opened.sessions if self._opened else None

    def start(self) -> _Opened:
        """Connect and create the tables, unless that was done before.

        Raises:
            LTMError: the backend is closed, or the database cannot be used. A later call tries again.
        """
        return self._opened or self._in_time(self._start)

    def run(
        self,
        work: Callable[[Connection, Statements], Answer],
        *,
        write: bool = False,
        snapshot: bool = False,
    ) -> Answer:
        """Run ``work`` in one transaction. Start the database first if necessary.

        Raises:
            LTMError: nothing has changed, unless its result has ``unknown: True``.
        """
        return self.run_timed(lambda connection, sql, _: work(connection, sql), write=write, snapshot=snapshot)

    def run_timed(
        self,
        work: Callable[[Connection, Statements, Deadline], Answer],
        *,
        write: bool = False,
        snapshot: bool = False,
    ) -> Answer:
        """Run ``work`` as ``run`` does, and pass the call's deadline to it. For work that takes time in Python."""

        def transact(deadline: Deadline) -> Answer:
            opened = self._opened or self._start(deadline)

            def on_its_turn() -> Answer:
                with opened.turn(deadline):
                    return run_transaction(
                        opened.engine,
                        opened.schema.dialect,
                        lambda connection: work(connection, opened.statements, deadline),
                        deadline,
                        write=write,
                        snapshot=snapshot,
                    )

            return self._cleaned_up(opened, on_its_turn)

        return self._in_time(transact)

    def read(self, query: Callable[[Statements], BoundQuery]) -> Sequence[Sequence[Any]]:
        """Run one statement that only reads, and return its rows. Start the database first if necessary.

        Raises:
            LTMError: the statement failed.
        """
        opened = self._direct()
        if opened is None:
            return self.run(lambda connection, sql: query(sql).run(connection).rows)

        def read_autocommit() -> Sequence[Sequence[Any]]:
            with self._dialect_of_url.sessions.call(), Deadline(self._seconds()) as deadline:
                return run_autocommit(opened.engine, opened.schema.dialect, query(opened.statements), deadline).rows

        return self._cleaned_up(opened, read_autocommit)

    def store(self, store: Store) -> int | None:
        """Store one entry by one statement that commits by itself. Return its version, or None if that is impossible.

        Raises:
            LTMError: nothing has changed, unless its result has ``unknown: True``.
        """
        opened = self._direct()
        if opened is None or not opened.statements.entries.single.is_possible:
            return None
        single = opened.statements.entries.single

        def store_autocommit(write: Write | None) -> int:
            with self._dialect_of_url.sessions.call(), Deadline(self._seconds()) as deadline:
                return single.store(opened.engine, store, deadline, write)

        def store_settled() -> int:
            if not opened.schema.dialect.features.socket_drivers:  # a file has no connection to lose
                return store_autocommit(None)
            return self._settled(store_autocommit, lambda: Change({store.key}, is_unconditional=True), version_of)

        return self._cleaned_up(opened, store_settled)

    def write(
        self, work: Callable[[Connection, Statements, Write | None], Answer], change: Callable[[Answer], Change]
    ) -> Answer:
        """Run ``work`` in one transaction that writes entries. Start the database first if necessary.

        If the connection is lost at the end, the rows show whether the write was done; see ``database/writes.py``.

        Args:
            work: a function that gets the write that marks its rows, or None if no connection can be lost.
            change: takes an answer of ``work`` and returns what it has changed.

        Raises:
            LTMError: nothing has changed, unless its result has ``unknown: True``.
        """
        answers: list[Answer] = []

        def attempt(write: Write | None) -> Answer:
            def once(connection: Connection, sql: Statements) -> Answer:
                answers.append(work(connection, sql, write))
                return answers[-1]

            return self.run(once, write=True)

        if not self._dialect_of_url.features.socket_drivers:
            return attempt(None)
        return self._settled(attempt, lambda: change(answers[-1]), lambda _: answers[-1])

    def _settled(
        self,
        attempt: Callable[[Write | None], Answer],
        change: Callable[[], Change],
        done: Callable[[Sequence[WrittenRow]], Answer],
    ) -> Answer:
        write = self._writer.begin()

        def look(keys: Sequence[str]) -> list[WrittenRow]:
            return self.run(lambda connection, sql: sql.entries.written(connection, keys))

        with common_end(self._seconds()):
            return write.settled(lambda: attempt(write), change, look, done)

    def do_upkeep(self, stores: int) -> None:
        """Do the upkeep after stores, if it is due. An error here is only logged, because the stores have succeeded."""
        opened = self._opened
        if opened is None or opened.upkeep is None or not opened.upkeep.is_due(stores):
            return
        try:
            with common_end(self._seconds() / 2):  # the store had the other half
                opened.upkeep.some(self._write)
        except LTMError as failure:
            _logger.info("words are put into the index later: %s", failure)

    def optimize(self) -> tuple[int, int]:
        """Do all upkeep now. Return how many blocks were created, and for how many entries.

        Raises:
            LTMError: some of the work is left.
        """
        upkeep = self.start().upkeep
        return (0, 0) if upkeep is None else upkeep.all(self._write)

    def deadline(self) -> Deadline:
        """Return the deadline of a call that begins now. Inside ``one_call`` it is the end of that call."""
        return Deadline(self._seconds())

    @contextmanager
    def one_call(self) -> Iterator[None]:
        """Limit everything in this block, including work in Python, to the time of one call.

        Raises:
            LTMError: the time is over.
        """
        problem = None
        with common_end(self._seconds()):
            try:
                yield
            except DeadlineError:
                problem = out_of_time(self._options.timeout).exception()
        if problem is not None:
            raise problem

    def ddl(self) -> list[str]:
        """Return the statements that create the missing tables. This connects, but creates nothing.

        Raises:
            LTMError: the database cannot be reached.
        """
        return self.peek(lambda schema, connection: schema.statements(connection))

    def peek(self, work: Callable[[Schema, Connection], Answer]) -> Answer:
        """Run ``work`` on a connection, without starting the database and without creating tables.

        Raises:
            LTMError: the database cannot be reached, or ``work`` failed.
        """

        def look(deadline: Deadline) -> Answer:
            if self.closed:
                raise _closed()
            if self._opened is not None:
                return self._look(self._opened.engine, deadline, work)[1]
            engine, keeper = self._engine()
            try:
                return self._look(engine, deadline, work)[1]
            except Exception as error:
                problem = self._damage(error, engine)
                if problem is None:
                    raise
            finally:
                self._dispose(engine, keeper)
            raise problem

        return self._in_time(look)

    def is_at(self, url: Any) -> bool:
        """Return whether a URL leads to this database. A URL for memory always leads to a new database.

        Raises:
            LTMError: ``configuration_error`` if it is not a database URL.
        """
        other = with_installed_driver(_located(url)[0])
        is_lasting = other.database not in (None, "", ":memory:")
        mine = self._dialect_of_url.engines.identity(with_installed_driver(self.url))
        return (
            is_lasting and self._shared is None and mine == for_name(other.get_backend_name()).engines.identity(other)
        )

    def is_same(self, other: Database) -> bool:
        """Return whether this is another ``Database`` on the same database."""
        if self._shared is not None or other._shared is not None:
            return self._shared is other._shared
        return self.is_at(other.url)

    def check_size(self, size: int) -> None:
        """Refuse an entry that is larger than the server accepts in one statement.

        Args:
            size: how many bytes the entry has as sent.

        Raises:
            LTMError: ``validation_error``.
        """
        packet = self.start().schema.packet
        if packet is not None and size > largest_entry(packet):
            message = f"the entry has {size:,} bytes as sent; the server accepts packets of {packet:,}"
            raise LTMError("validation_error", message)

    def pool_state(self) -> PoolState | None:
        """Return the state of the pool; None before the start, after ``close``, and for a pool that does not count."""
        engine = self.engine
        pool = engine and engine.pool
        if not isinstance(pool, QueuePool):
            return None
        return {
            "size": pool.size(),
            "in_use": pool.checkedout(),
            "idle": pool.checkedin(),
            "overflow": max(0, pool.overflow()),
            "waiting": pool.waiting() if isinstance(pool, CallPool) else None,
        }

    def target(self) -> tuple[str, str]:
        """Return the kind of the database, and its name; for a file, its name without the folder."""
        opened = self._opened
        dialect: Any = self._dialect_of_url if opened is None else opened.schema.dialect
        kind = (dialect.features.product or self.url.get_backend_name()).lower()
        return kind, os.path.basename(self.url.database or "")

    def close(self) -> None:
        """Close every connection of our own engine. A second call does nothing."""
        with _held(self._starting, math.inf):
            self.closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def after_fork(self) -> None:
        """Forget the parent's connections, in a forked child."""
        self._starting = Tickets(1)
        self._writer = Writer(self._options.timeout)
        opened = self._opened
        if opened is None:
            return
        _inherited.append(opened.engine.pool)
        if self._shared is None:
            opened.engine.dispose(close=False)
        else:
            opened.engine = with_a_pool_of_its_own(self._shared)
        opened.one_at_a_time = opened.one_at_a_time and Tickets(1)

    def __str__(self) -> str:
        """Return the URL as text, without secrets."""
        return repr(self.url)

    def _write(self, work: Callable[[Connection], Answer]) -> Answer:
        return self.run(lambda connection, _: work(connection), write=True)

    def _direct(self) -> _Opened | None:
        """Return the started database if single statements may run directly on the driver's connection, else None."""
        opened = self._opened
        if (
            opened is None
            or self._shared is not None
            or opened.one_at_a_time is not None
            or has_listeners(opened.engine)
        ):
            return None
        return opened

    def _cleaned_up(self, opened: _Opened, work: Callable[[], Answer]) -> Answer:
        """Do the work of a call. Then close connections that no call can use any more.

        If the work fails because the file is damaged, the failure says so.
        """
        pool = opened.engine.pool
        try:
            return work()
        except LostDatabaseError:
            self._close_lost(opened)
            raise
        except Exception as error:
            problem = self._damage(error, opened.engine)
            if problem is None:
                raise
        finally:
            self._close_leftovers(opened, pool)
        raise problem

    def _damage(self, error: Exception, engine: Engine) -> LTMError | None:
        """Return the failure for a damaged file if that is why a call failed, else None."""
        dialect_class = for_dialect(engine.dialect)
        if not dialect_class.features.finds_damage or (isinstance(error, LTMError) and not may_be_damage(error)):
            return None
        with (
            suppress(Exception),
            Deadline(min(self._seconds(), _TO_FIND_DAMAGE)) as deadline,
            deadline.released(),
            closing(engine.raw_connection()) as pooled,
        ):
            deadline.guard(partial(dialect_class.sessions.stop, pooled.driver_connection))
            if dialect_class.sessions.is_damage(error, pooled.driver_connection):
                return DAMAGED.exception()
        return None

    def _close_leftovers(self, opened: _Opened, pool: Pool) -> None:
        """Close the connections that a call left in the pools, if the database was closed meanwhile."""
        if self._opened is not opened and self._shared is None:
            pool.dispose()
            opened.engine.pool.dispose()

    def _close_lost(self, opened: _Opened) -> None:
        """Close the connections to a database whose file was removed or replaced. The next call starts again."""
        with _held(self._starting, math.inf):
            is_ours = self._opened is opened
            if is_ours:
                self._opened = None
        if is_ours:
            opened.close()

    def _in_time(self, work: Callable[[Deadline], Answer]) -> Answer:
        with self._dialect_of_url.sessions.call(), Deadline(self._seconds()) as deadline:
            return work(deadline)

    def _seconds(self) -> float:
        """Return how many seconds a call may take."""
        return self._options.timeout

    def _start(self, deadline: Deadline) -> _Opened:
        with _held(self._starting, deadline.remaining()):
            if self.closed:
                raise _closed()
            is_first = self._opened is None
            opened = self._opened = self._opened or self._open(deadline)
        if is_first and self.on_start is not None:
            try:
                self.on_start()
            except BaseException:
                self._opened = None
                opened.close()
                raise
        return opened

    def _open(self, deadline: Deadline) -> _Opened:
        if self._shared is None and not self._options.create_tables:
            file = self._dialect_of_url.engines.new_file(self.url)
            if file is not None:  # a connection would create the file, without tables
                raise LTMError("configuration_error", f"there is no file {file}; {_NO_TABLES}")
        engine, keeper = self._engine()
        problem: LTMError | None = None
        try:
            schema, _ = self._look(engine, deadline, partial(self._make_ready, deadline))
        except BaseException as error:
            problem = self._damage(error, engine) if isinstance(error, Exception) else None
            self._dispose(engine, keeper)
            if problem is None:
                raise
        if problem is not None:
            raise problem
        for fallback in schema.dialect.features.fallbacks:
            _logger.warning("%s: %s", engine.dialect.name, fallback)
        close = (lambda: None) if self._shared is not None else (lambda: self._dispose(engine, keeper))
        return _Opened(engine, schema, close)

    def _make_ready(self, deadline: Deadline, schema: Schema, connection: Connection) -> None:
        is_complete = schema.is_complete(connection)  # first, so that a database that is refused does not change
        if not is_complete and not self._options.create_tables:
            raise LTMError("configuration_error", _NO_TABLES)
        if self._shared is None:
            schema.dialect.schema.set_up(connection)
            connection.rollback()
        if not is_complete:
            schema.create(connection, deadline)
        if self._search:
            self.language = schema.language_of(connection)
            # If another database takes its place, it must have the same language.
            self._language_name = None if self.language is None else self.language.name

    def _copy_tables(self) -> Tables:
        return copy_tables(self._entries_name, search=bool(self._search))

    def _engine(self) -> tuple[Engine, Closable | None]:
        if self._shared is None:
            return new_engine(self.url, self._options, self._hidden_args)
        return self._shared, None

    def _dispose(self, engine: Engine, keeper: Closable | None) -> None:
        if self._shared is not None:
            return
        with suppress(LTMError), self._dialect_of_url.sessions.call():  # in a forked child it may be impossible
            engine.dispose()
            if keeper is not None:
                keeper.close()

    def _look(
        self, engine: Engine, deadline: Deadline, work: Callable[[Schema, Connection], Answer]
    ) -> tuple[Schema, Answer]:
        """Probe the server and run ``work``. Repeat both if another process changed the tables at the same time."""
        attempts = 0

        def lost_the_race(failure: Failure) -> bool:
            nonlocal attempts
            attempts += 1
            raced = failure.retry or failure.lost or failure.error_type in ("query_error", "validation_error")
            return raced and not failure.denied and attempts < _CREATION_ATTEMPTS

        def attempt() -> tuple[Schema, Answer]:
            is_ours = self._shared is None
            with deadline.released(), first_connection(engine, deadline, is_ours=is_ours) as connection:
                schema = Schema.of(
                    connection,
                    self._copy_tables(),
                    self._dialect_class,
                    search=self._search,
                    language=self._language_name,
                )
                return schema, work(schema, connection)

        return retrying(attempt, deadline, again=lost_the_race)


class OnDatabase:
    """Attributes of a memory or catalog that come from its ``Database``, which the subclass sets."""

    _database: Database

    @property
    def _engine(self) -> Engine | None:
        return self._database.engine

    @property
    def _session_factory(self) -> sessionmaker[Session] | None:
        """The factory of sessions for the caller's own queries; None before a lazy start and after close."""
        return self._database.sessions

    @property
    def _initialized(self) -> bool:
        return self._database.engine is not None

    @property
    def _closed(self) -> bool:
        return self._database.closed


class _Opened:
    """A started engine, with the schema and statements for its server."""

    def __init__(self, engine: Engine, schema: Schema, close: Callable[[], None]) -> None:
        self.engine = engine
        self.schema = schema
        self.statements = Statements(schema)
        entries = schema.tables.entries
        self.upkeep = schema.dialect.queries.upkeep(entries) if schema.search else None
        self.close = close
        self.sessions = sessionmaker(engine)
        # One connection for all threads: each transaction waits for its turn.
        self.one_at_a_time = Tickets(1) if isinstance(engine.pool, StaticPool) else None

    @contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Wait for the turn of this call, if there is only one connection."""
        if self.one_at_a_time is None:
            yield
        else:
            with _held(self.one_at_a_time, deadline.remaining()):
                yield


def largest_entry(packet: int) -> int:
    """Return how many bytes an entry may have as sent, if the server accepts packets of ``packet`` bytes."""
    return packet - _STATEMENT_BYTES


def _located(url: Any) -> tuple[URL, dict[str, Any]]:
    parsed, hidden = parse_url(url)
    return for_name(parsed.get_backend_name()).engines.located(parsed), hidden


def _closed() -> LTMError:
    return LTMError("connection_error", "this backend is closed")


@contextmanager
def _held(turns: Tickets, seconds: float) -> Iterator[None]:
    """Wait for the only ticket for at most ``seconds``, and give it back at the end."""
    turn = turns.take(seconds)
    if turn is None:
        raise LTMError("connection_timeout", "the call waited all of its time, because other calls had to end first")
    try:
        yield
    finally:
        turns.give_back(turn)


def _after_fork() -> None:
    for database in list(_databases):
        database.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
