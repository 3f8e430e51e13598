"""``PostgresDatabase``: one PostgreSQL database through psycopg, with lazy start, transactions, deadlines and forks."""

from __future__ import annotations

import atexit
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakSet

try:
    import psycopg
except ImportError as error:
    raise ImportError(
        'PostgresBackend and PostgresCatalog need psycopg; install it with: pip install "the-edge-agent[postgres]"'
    ) from error

from the_edge_agent.memory.contract.result_types import PoolState
from the_edge_agent.memory.core.calls import note_retry
from the_edge_agent.memory.core.cancelling import guarded
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.showing import kind_of
from the_edge_agent.memory.core.validation import check_flag, check_idle_timeout, check_prepare_threshold, check_seconds
from the_edge_agent.memory.database.native_tables import NO_TABLES
from the_edge_agent.memory.database.writes import Change, Write, Writer, WrittenRow, version_of
from the_edge_agent.memory.postgres.errors import CutError, OutOfTimeError, failure_of, is_lost
from the_edge_agent.memory.postgres.pool import Pool, closed
from the_edge_agent.memory.postgres.schema import PostgresTables
from the_edge_agent.memory.postgres.url import parse_url

Answer = TypeVar("Answer")
Row = TypeVar("Row")

# The statements that begin a transaction; None runs one statement without BEGIN. They do not ask for READ WRITE, so
# that a database that is read-only by default stays read-only.
AUTOCOMMIT: Final = "commit"  # sends no BEGIN; the statement commits by itself
WRITE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
ONE_STATE: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL gin_fuzzy_search_limit = 0"

_TABLES: Final = PostgresTables()
_STREAMED_ROWS: Final = 100  # rows that the server sends at a time
_TO_END: Final = 0.5  # seconds to end a transaction whose time is over
_FIRST_PAUSE: Final = 0.05  # seconds between two attempts
_LONGEST_PAUSE: Final = 1.0
_CREATION_ATTEMPTS: Final = 12  # other classes create the same tables without our advisory lock
_STANDBY: Final = "25006"  # the server takes no writes; after a failover another server may
_LASTING: Final = (_STANDBY, "08P01")  # a new connection probably fails in the same way, so one more attempt is enough
_GAVE_WAY: Final = ("40P01", "40001")
_RACED: Final = ("23505", "42P07", "42710", "42P01", "XX000", *_GAVE_WAY)  # when other processes create the same tables

_databases: WeakSet[PostgresDatabase] = WeakSet()
_inherited: list[Any] = []  # pools of a parent process; freeing them would close the parent's connections


@dataclass(slots=True)
class _Progress:
    """The progress of a transaction. After COMMIT was sent, only the reply tells whether it happened."""

    is_committing: bool = False


class PostgresDatabase:
    """A pool of connections that is opened on first use, creates the tables once, and runs transactions.

    Many threads may use one object. A forked child opens its own connections.

    Attributes:
        most_connections: the highest number of connections that the pool may have.
        language: the language of the words; None before the start, and for a table without words.
        on_start: a function that is called after the start, when transactions are possible. If it raises, the next call
            starts again.
    """

    def __init__(
        self,
        url: Any,
        *,
        pool_size: Any,
        timeout: Any,
        connect_timeout: Any,
        idle_transaction_timeout: Any,
        prepare_threshold: Any,
        search: bool | None = None,
        language: str | None = None,
        create_tables: Any = True,
    ) -> None:
        """Check the arguments. Do not connect.

        Args:
            url: ``postgresql://user:password@host:port/database``.
            pool_size: the highest number of connections.
            timeout: seconds that a call may take, including the wait for a connection.
            connect_timeout: seconds that connecting may take.
            idle_transaction_timeout: the server ends a transaction after so many seconds without a statement. None
                means half of ``timeout``, at least 5. 0 means the server's setting.
            prepare_threshold: after how many runs the server keeps a statement prepared; None for never.
            search: whether the entries' table stores words. None for a catalog, which needs no entries' table and
                accepts any.
            language: the language that the words must have. None accepts the language of the table; a new one gets
                English.
            create_tables: whether to create missing tables.

        Raises:
            LTMError: ``configuration_error``. The message never shows the URL.
        """
        self._creates = check_flag("create_tables", create_tables)
        parsed, self._place = parse_url(url)
        if isinstance(pool_size, bool) or not isinstance(pool_size, int) or not 1 <= pool_size <= 1_000:
            raise LTMError(
                "configuration_error", f"pool_size must be an integer from 1 to 1,000, not {kind_of(pool_size)}"
            )
        self.most_connections: int = pool_size
        self._search, self._language_name = search, language
        self.language: Language | None = None
        self._timeout = check_seconds("timeout", timeout)
        self._new_pool = partial(
            Pool,
            parsed,
            size=pool_size,
            timeout=self._timeout,
            connect_timeout=check_seconds("connect_timeout", connect_timeout),
            idle=check_idle_timeout(idle_transaction_timeout, self._timeout),
            prepare_threshold=check_prepare_threshold(prepare_threshold),
        )
        self.closed = self._is_ready = False
        self._pool: Pool | None = None
        self._writer = Writer(self._timeout)
        self.on_start: Callable[[], None] | None = None
        self._lock = threading.Lock()
        _databases.add(self)

    def start(self) -> None:
        """Connect and create the tables, unless that was done before.

        Raises:
            LTMError: the database cannot be used.
        """
        self._in_time(self._make_ready)

    def run(self, work: Callable[[Any], Answer], begin: str | None = None, deadline: float | None = None) -> Answer:
        """Run ``work`` on a connection. Start the database first if necessary.

        Args:
            work: a function that gets the connection. It runs again after a conflict with another transaction, and if
                the connection was lost before anything was committed.
            begin: ``WRITE``, ``ONE_STATE``, ``AUTOCOMMIT`` for a single statement that writes and commits by itself, or
                None for a single statement that reads.
            deadline: when the call ends, by Python's monotonic clock; None if the call begins now.

        Raises:
            LTMError: nothing has changed, unless its result has ``unknown: True``.
        """

        def call(deadline: float) -> Answer:
            self._make_ready(deadline)
            return self._retrying(work, begin, deadline)

        return self._in_time(call, deadline)

    def write(
        self,
        work: Callable[[Any, Write], Answer],
        change: Callable[[list[Answer]], Change],
        look: Callable[[Any, Sequence[str]], Sequence[WrittenRow]],
        begin: str = WRITE,
    ) -> Answer:
        """Run ``work``, which writes entries. If the connection is lost at the end, find out whether it was done.

        Args:
            work: a function that gets the connection, and the write that marks its rows. With ``AUTOCOMMIT`` it returns
                a version.
            change: takes the answers of ``work`` and returns what was changed.
            look: takes a connection and keys, and returns the rows, see ``Write.settled``.
            begin: ``WRITE``, or ``AUTOCOMMIT`` for a single statement that commits by itself.

        Raises:
            LTMError: nothing has changed, unless its result has ``unknown: True``.
        """
        write, deadline = self._writer.begin(), time.monotonic() + self._timeout
        answers: list[Any] = []

        def once(connection: Any) -> Answer:
            answers.append(work(connection, write))
            return answers[-1]  # type: ignore[no-any-return]

        def done(rows: Sequence[WrittenRow]) -> Any:
            return answers[-1] if answers else version_of(rows)

        answer: Answer = write.settled(
            lambda: self.run(once, begin, deadline),
            lambda: change(answers),
            lambda keys: self.run(lambda connection: look(connection, keys), None, deadline),
            done,
        )
        return answer

    def is_at(self, url: Any) -> bool:
        """Return whether a URL leads to this database.

        Raises:
            LTMError: ``configuration_error`` if it is not a URL of PostgreSQL.
        """
        return parse_url(url)[1] == self._place

    def is_same(self, other: PostgresDatabase) -> bool:
        """Return whether this is another ``PostgresDatabase`` on the same database."""
        return self._place == other._place

    def pool_state(self) -> PoolState | None:
        """Return the state of the pool; None before the first connection and after ``close``."""
        pool = self._pool
        return None if pool is None else pool.state()

    def target(self) -> tuple[str, str]:
        """Return the kind of the database, and its name."""
        return "postgresql", self._place.name

    def close(self) -> None:
        """Close every connection. Those in use are closed when their transactions end. A second call does nothing."""
        with self._lock:
            self.closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def after_fork(self) -> None:
        """Forget the parent's connections, in a forked child."""
        if self._pool is not None:
            _inherited.append(self._pool)
        self._pool, self._lock, self._writer = None, threading.Lock(), Writer(self._timeout)

    def __str__(self) -> str:
        """Return the place of the database as text, without the password."""
        return str(self._place)

    def _in_time(self, call: Callable[[float], Answer], deadline: float | None = None) -> Answer:
        problem: LTMError
        try:
            return call(time.monotonic() + self._timeout if deadline is None else deadline)
        except OutOfTimeError:
            problem = self._out_of_time()
        raise problem

    def _out_of_time(self, **fields: Any) -> LTMError:
        message = f"the database did not answer within {self._timeout:g} seconds"
        return LTMError("connection_timeout", message, **fields)

    def _make_ready(self, deadline: float) -> None:
        if self.closed:
            raise closed()
        if self._is_ready:
            return
        # In a transaction, so that a pooler that allows no transactions is detected here.
        if not self._retrying(partial(_TABLES.is_ready, search=self._search), ONE_STATE, deadline):
            if not self._creates:
                raise LTMError("configuration_error", NO_TABLES)
            create = partial(_TABLES.create, search=self._search, language=self._language_name)
            self._retrying(create, WRITE, deadline, codes=_RACED, attempts=_CREATION_ATTEMPTS)
        if self._search:
            language_of = partial(_TABLES.language_of, requested=self._language_name)
            self.language = self._retrying(language_of, ONE_STATE, deadline)
            self._language_name = self.language.name  # a database in its place must have the same
        self._is_ready = True
        if self.on_start is not None:
            try:
                self.on_start()
            except BaseException:
                self._is_ready = False
                raise

    def _retrying(
        self,
        work: Callable[[Any], Answer],
        begin: str | None,
        deadline: float,
        *,
        codes: tuple[str, ...] = _GAVE_WAY,
        attempts: float = math.inf,
    ) -> Answer:
        """Run ``work``.

        Repeat it for errors with one of ``codes``, at most ``attempts`` times, and for lost connections.
        """
        pause, is_first_loss, was_lasting = _FIRST_PAUSE, True, False
        while True:
            progress, attempts = _Progress(), attempts - 1
            try:
                return self._transact(work, begin, deadline, progress)
            except CutError as error:
                failure, is_gone, is_timeout, code = LTMError.of(error.result), True, False, ""
            except psycopg.Error as error:
                is_timeout, code = isinstance(error, OutOfTimeError), error.sqlstate or ""
                failure, is_gone = failure_of(error), is_lost(error)
            fields = {"unknown": True} if progress.is_committing and (is_gone or is_timeout) else {}
            if is_timeout:
                raise self._out_of_time(**fields)
            if fields:
                raise LTMError.of({**failure.result, **fields})
            again = code in codes and attempts > 0
            lost = is_gone or code == _STANDBY
            if code in _LASTING:
                lost, was_lasting = not was_lasting, True
            if time.monotonic() + pause > deadline or not (again or lost):
                raise failure
            note_retry()
            if lost and self._pool is not None:
                self._pool.replace_all()  # the other connections are as old
            if lost and is_first_loss:
                is_first_loss = False
                continue
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads retries, keeps no secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _transact(
        self, work: Callable[[Any], Answer], begin: str | None, deadline: float, progress: _Progress
    ) -> Answer:
        pool = self._opened_pool()
        connection = pool.take(deadline)
        is_sound = False
        try:
            with guarded(connection.stop):
                answer = self._run_work(work, begin, connection, progress, pool.lock_timeout)
            is_sound = True
            return answer
        except (psycopg.Error, LTMError):
            is_sound = True
            raise
        finally:
            pool.give_back(connection, is_sound=is_sound)

    def _run_work(
        self, work: Callable[[Any], Answer], begin: str | None, connection: Any, progress: _Progress, lock_timeout: int
    ) -> Answer:
        if begin is None or begin == AUTOCOMMIT:
            progress.is_committing = begin == AUTOCOMMIT
            return work(connection)
        # BEGIN and the setting in one round trip. SET without LOCAL would stay in a pooler's session.
        limit = f"; SET LOCAL lock_timeout = {lock_timeout}" if begin == WRITE else ""
        connection.execute(begin + limit, prepare=False)  # two statements cannot be prepared as one
        answer = work(connection)
        progress.is_committing = begin == WRITE
        connection.execute("COMMIT")
        return answer

    def _opened_pool(self) -> Pool:
        with self._lock:
            if self.closed:
                raise closed()
            if self._pool is None:
                self._pool = self._new_pool()
            return self._pool


def in_time(connection: Any, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows until the time of the call is over. The server cannot stop the work of Python between two rows.

    Raises:
        OutOfTimeError: the time is over.
    """
    for row in rows:
        if time.monotonic() > connection.deadline:
            connection.deadline = time.monotonic() + _TO_END  # the server still answers, so the cursor can be closed
            raise OutOfTimeError("Python took too long")
        yield row


def streamed(connection: Any, limit: int = _STREAMED_ROWS) -> Any:
    """Return a server-side cursor. The server sends at most ``limit`` rows at a time."""
    cursor = connection.cursor(name="rows")
    cursor.itersize = min(limit, _STREAMED_ROWS)
    return cursor


@atexit.register
def _close_all() -> None:
    for database in list(_databases):  # otherwise a pool would wait for threads that no longer run
        database.close()


def _after_fork() -> None:
    for database in list(_databases):
        database.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
