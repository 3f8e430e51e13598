"""SQLiteDatabase: connections, transactions, tables and errors of one SQLite database, with the standard library."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from typing import Any, Final
from weakref import ref

from the_edge_agent.memory.contract.result_types import PoolState
from the_edge_agent.memory.core import cancelling
from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.results import FILE_DAMAGED, LostDatabaseError, LTMError
from the_edge_agent.memory.core.validation import check_flag, check_seconds
from the_edge_agent.memory.database.errors import (
    CONNECT_TIMEOUT,
    CONSTRAINT,
    FULL,
    LOCK_WAIT,
    NO_TABLE,
    READ_ONLY,
    REFUSED,
    TOO_LARGE,
    Meaning,
)
from the_edge_agent.memory.database.native_tables import NO_TABLES
from the_edge_agent.memory.database.tickets import Ticket, Tickets
from the_edge_agent.memory.sqlite.damage import is_damage
from the_edge_agent.memory.sqlite.files import DatabaseFile, absolute
from the_edge_agent.memory.sqlite.forks import SQLiteCall
from the_edge_agent.memory.sqlite.schema import SQLiteTables
from the_edge_agent.memory.sqlite.settings import OURS, TOLERANT, why_unusable

IN_MEMORY: Final = ":memory:"
_STEPS_BETWEEN_CHECKS: Final = 20_000  # instructions of SQLite between two checks of the time; far below a millisecond

_TABLES: Final = SQLiteTables()
_REFUSED: Final = f"{REFUSED[2]}; its tables were changed, or {FILE_DAMAGED}"
_DAMAGED: Final[Meaning] = ("connection_error", False, FILE_DAMAGED)
# Failures by the English texts of SQLite, which do not change. Python has SQLite's error codes only since 3.11.
_FAILURES: Final[tuple[tuple[str, Meaning], ...]] = (
    ("is locked", LOCK_WAIT),
    ("interrupted", CONNECT_TIMEOUT),
    ("readonly database", READ_ONLY),
    (
        "unable to open",
        (
            "connection_error",
            False,
            "cannot open the database file; is its folder there, and may this user read it?",
        ),
    ),
    ("not a database", ("connection_error", False, f"{FILE_DAMAGED}, or it is not an SQLite database")),
    ("invalid fts5 file format", _DAMAGED),
    ("vtable constructor failed", _DAMAGED),
    ("same text encoding", ("connection_error", False, f"{FILE_DAMAGED}, or its encoding is not UTF-8")),
    ("unsupported file format", ("connection_error", False, f"{FILE_DAMAGED}, or made by a later SQLite")),
    ("malformed", _DAMAGED),
    ("constraint failed", CONSTRAINT),
    ("too big", TOO_LARGE),
    ("is full", FULL),
    ("no such", NO_TABLE),
)
_MAY_BE_DAMAGE: Final = (None, CONSTRAINT, NO_TABLE)


class SQLiteDatabase:
    """An SQLite file, or an SQLite database in RAM, for many threads. A forked process may go on using a file.

    A file has as many connections as there are simultaneous calls; they stay open. A database in RAM has one
    connection, and calls wait for it.

    Attributes:
        path: the absolute path of the file, or ``:memory:``.
        closed: whether ``close`` was called.
        has_full_text: whether there is a full-text index. It is set when the first transaction begins.
        has_metadata_words: whether the index has words for metadata too. An SQLite without JSON functions makes none.
        language: the rules of the table's language; None before the start, and for a table without search.
        on_start: called after the start of a file, when transactions can run. If it raises, the next call starts again.
        most_connections: how many calls an asynchronous program makes at a time. This class has no limit.
    """

    most_connections: Final = 10

    def __init__(
        self,
        path: Any,
        timeout: Any,
        *,
        search: bool | None = None,
        language: str | None = None,
        create_tables: Any = True,
    ) -> None:
        """Check the arguments. No file is opened.

        Args:
            path: the path of the file, or ``:memory:``.
            timeout: how many seconds a transaction may take, including the wait for other writers.
            search: whether the table of entries has search texts. None means that the caller does not use this table:
                it is not created or checked.
            language: the language that the table must have; None for the language of the table, or English if the
                table is new.
            create_tables: whether to create missing tables, and the file.

        Raises:
            LTMError: ``configuration_error``.
        """
        self._creates = check_flag("create_tables", create_tables)
        self.path = _check_path(path)
        self._file = None if self.path == IN_MEMORY else DatabaseFile(self.path)
        self._timeout = check_seconds("timeout", timeout)
        self._search, self._language_name = search, language
        self.language: Language | None = None
        self.closed = self.has_full_text = self.has_metadata_words = self._is_ready = False
        self.on_start: Callable[[], None] | None = None
        self._idle: list[_Connection] = []
        self._inherited: list[_Connection] = []
        self._start_anew()

    def start(self) -> None:
        """Open the database and create its tables, unless this was done before.

        Raises:
            LTMError: the database cannot be opened.
        """
        with self.transaction():
            pass

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction. Commit at its end; roll back if it raises.

        Args:
            write: take the write lock at the beginning. A transaction that takes it after a read could fail as busy.

        Raises:
            LTMError: after ``close``, and for every error of SQLite.
        """
        with self.statement(write=write) as connection:
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def statement(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection for one statement, which is a transaction by itself.

        The block must read the rows of the statement to the end, or close its cursor.

        Args:
            write: whether the statement writes. A write succeeds only if the file is still the same afterwards.

        Raises:
            LTMError: after ``close``, and for every error of SQLite.
        """
        deadline = time.monotonic() + self._timeout
        loan = _Loan(deadline)
        problem: LTMError | None = None
        with SQLiteCall(), cancelling.guarded(loan.stop):
            try:
                try:
                    try:
                        connection = self._take(loan)
                        self._call.loan = loan
                        yield connection
                        if write and loan.file is not None:
                            loan.file.check_written(connection)
                        elif loan.file is not None and loan.file.is_frozen:
                            loan.file.check()
                    except sqlite3.Error as error:
                        problem = failure_of(error, loan.connection)
                        if loan.file is not None and self._is_ready:
                            loan.file.check()
                    except LTMError:
                        raise
                    except Exception as error:  # for example while decoding a damaged row
                        if not is_damage(error, loan.connection):
                            raise
                        problem = LTMError("connection_error", FILE_DAMAGED)
                except LostDatabaseError:
                    self._leave(loan.file)
                    raise
                finally:
                    self._give(loan)
            finally:
                self._give(loan)  # again, because an interrupt may have skipped the first one
        if loan.interrupts:
            raise loan.interrupts.pop()
        if problem is not None:
            raise problem

    def in_time(self, rows: Iterable[Any]) -> Iterator[Any]:
        """Yield rows, and fail when the time of the call is over. SQLite's own check does not see work in Python."""
        for row in rows:
            if time.monotonic() > self._call.loan.deadline:
                raise sqlite3.OperationalError("interrupted")
            yield row

    def is_at(self, path: Any) -> bool:
        """Return whether a path leads to this database. ``:memory:`` is a different database each time."""
        other = _check_path(path)
        return IN_MEMORY not in (self.path, other) and os.path.realpath(self.path) == os.path.realpath(other)

    def is_same(self, other: SQLiteDatabase) -> bool:
        """Return whether this is another ``SQLiteDatabase`` on the same file."""
        return self.is_at(other.path)

    def __str__(self) -> str:
        """Name the file."""
        return self.path

    def pool_state(self) -> PoolState | None:
        """Return the state of the connections; None after ``close`` and before the first connection."""
        with self._lock:
            idle, in_use = len(self._idle), len(self._borrowers)
            is_closed = self.closed
        in_use -= idle  # an idle connection stays in the list of borrowers
        if is_closed or not (idle or in_use > 0):
            return None
        is_file = self._file is not None
        waiting = None if is_file else self._turns.waiting()
        return {
            "size": None if is_file else 1,
            "in_use": max(0, in_use),
            "idle": idle,
            "overflow": 0,
            "waiting": waiting,
        }

    def target(self) -> tuple[str, str]:
        """Return the kind of the database, and the name of the file without its folder."""
        return "sqlite", os.path.basename(self.path)

    def close(self) -> None:
        """Close every connection; those in use are closed when their transactions end. Closing again does nothing."""
        if os.getpid() != self._process:
            self._after_fork()
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
        if idle:
            with SQLiteCall():
                for connection in idle:
                    self._close(connection)

    def _start_anew(self) -> None:
        self._process, self._lock, self._turns = os.getpid(), threading.Lock(), Tickets(1)
        self._call = threading.local()
        self._borrowers: dict[_Connection, _Loan] = {}

    def _take(self, loan: _Loan) -> _Connection:
        if os.getpid() != self._process:
            self._after_fork()
        if self._file is None:
            loan.turn = self._turns.take(self._timeout)
            if loan.turn is None:
                raise LTMError("connection_timeout", f"no turn within {self._timeout:g} seconds")
        with self._lock:
            if self.closed:
                raise LTMError("connection_error", "this backend is closed")
            loan.file = self._file
            if self._idle:  # an interrupt here loses no connection: it is always idle, or has a borrower
                loan.connection = self._idle[-1]
                self._borrowers[loan.connection] = loan
                self._idle.pop()
        if loan.connection is None:
            self._connect(loan)
        elif loan.file is not None:
            loan.file.check_read()
        connection = loan.connection
        assert connection is not None
        connection.loan = loan
        if not self._is_ready:
            self._make_ready(connection, loan.deadline)
        return connection

    def _give(self, loan: _Loan) -> None:
        """Take a connection back, and end the turn. After an interrupt at any moment this can be called again."""
        connection = loan.connection
        if connection is not None:
            with self._lock:
                is_lent = self._borrowers.get(connection, loan) is loan and connection not in self._idle
            if is_lent:
                connection.loan = None
                try:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                finally:
                    self._put_back(connection, loan)
        turn, loan.turn = loan.turn, None
        if turn is not None:
            self._turns.give_back(turn)

    def _put_back(self, connection: _Connection, loan: _Loan) -> None:
        with self._lock:
            is_reusable = self._is_ready and not self.closed and loan.file is self._file
            if is_reusable:
                self._idle.append(connection)
        loan.connection = None  # the connection is idle now, or will be closed
        if not is_reusable:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        with self._lock:
            self._borrowers.pop(connection, None)
        if self._file is not None:
            self._file.closed(connection)
        connection.close()

    def _leave(self, file: DatabaseFile | None) -> None:
        """Close the connections to a file that was removed or replaced. The next call opens the file at the path."""
        with self._lock:
            if self._file is not file:
                return
            self._file, self._is_ready = DatabaseFile(self.path), False
            idle, self._idle = self._idle, []
        for connection in idle:
            self._close(connection)

    def _after_fork(self) -> None:
        """Start without the parent's connections. A database in RAM is now a copy that belongs to this process."""
        self._start_anew()
        if self.path != IN_MEMORY:
            self._inherited += self._idle
            self._idle = []

    def _connect(self, loan: _Loan) -> None:
        failure: LTMError | None = None
        if not self._creates and self._file is not None and not os.path.exists(self.path):
            raise LTMError("configuration_error", f"there is no file {self.path}; {NO_TABLES}")
        try:
            with nullcontext() if loan.file is None else loan.file.opening():
                loan.connection = connection = self._opened(self.path)
                uri = None if loan.file is None else loan.file.frozen(connection)
                if uri is not None:
                    connection.close()
                    loan.connection = connection = self._opened(uri, is_uri=True)
            self._borrowers[connection] = loan
            connection.watch()
            connection.text_factory = TOLERANT
            for setting in OURS:
                connection.execute(setting)
            if self._is_ready and loan.file is not None:
                loan.file.opened(connection)
            return
        except sqlite3.Error as error:
            failure = failure_of(error)
        raise failure

    def _opened(self, place: str, *, is_uri: bool = False) -> _Connection:
        return sqlite3.connect(
            place,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
            uri=is_uri,
        )

    def _make_ready(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Create missing tables, check existing ones, and find out what the database can do."""
        try:
            if problem := why_unusable(connection, is_file=self._file is not None):
                raise LTMError("configuration_error", problem)
            language = self._language_name
            if not _TABLES.is_ready(connection, self._search):
                _TABLES.check_layouts(connection, self._search)
                if not self._creates:
                    raise LTMError("configuration_error", NO_TABLES)
                if self.path != IN_MEMORY:
                    _switch_to_wal(connection, deadline)  # after the check, so that a refused file is not changed
                connection.execute("BEGIN IMMEDIATE")
                _TABLES.create(connection, self._search, language)
                connection.execute("COMMIT")
            if self._search:
                self.language = _TABLES.language_of(connection, language)
                self._language_name = self.language.name  # a file that replaces this one must have it too
            columns = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info('ltm_entries_fts')")]
            self.has_full_text, self.has_metadata_words = bool(columns), "metadata" in columns
            if self._file is not None:
                self._file.opened(connection)
            self._is_ready = True
            if self.on_start is not None and self.path != IN_MEMORY:
                try:
                    self.on_start()
                except BaseException:
                    self._is_ready = False
                    raise
            return
        except sqlite3.Error as error:
            failure = failure_of(error, connection)
        raise failure


class _Loan:
    """The connection of one call, with its deadline.

    Attributes:
        deadline: the ``time.monotonic`` at which the call must end.
        connection: the connection; None before there is one.
        file: the file that the connection has open; None for a database in RAM.
        turn: the right to use the only connection of a database in RAM; None for a file.
        interrupts: an exception of a signal or another thread, which SQLite would have swallowed.
    """

    __slots__ = ("connection", "deadline", "file", "interrupts", "turn")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.connection: _Connection | None = None
        self.file: DatabaseFile | None = None
        self.interrupts: list[BaseException] = []
        self.turn: Ticket | None = None

    def stop(self) -> None:
        """End the call now."""
        self.deadline = -math.inf  # what watches the running statement sees it


class _Connection(sqlite3.Connection):
    """A connection whose statements stop when the time of the call is over.

    Attributes:
        loan: the loan of the call that uses the connection; None while it is idle.
    """

    loan: _Loan | None = None

    def watch(self) -> None:
        """From now on, check the time again and again while a statement runs."""
        watching = _watching(ref(self))
        next(watching)
        self.set_progress_handler(watching.__next__, _STEPS_BETWEEN_CHECKS)


def _watching(watched: ref[_Connection]) -> Iterator[bool]:
    """Yield whether the statement must stop.

    This is a generator, because it is always inside its ``try``: a function could be interrupted before its ``try``.
    """
    loan: _Loan | None = None
    while True:
        try:
            connection = watched()
            loan = None if connection is None else connection.loan
            connection = None
            yield loan is not None and (time.monotonic() > loan.deadline or bool(loan.interrupts))
        except GeneratorExit:
            return
        except BaseException as error:
            if loan is not None:
                loan.interrupts.append(error)


def failure_of(error: sqlite3.Error, connection: sqlite3.Connection | None = None) -> LTMError:
    """Return the failure for an error of SQLite. Its message shows no stored data.

    Args:
        error: the error of SQLite.
        connection: a connection on which to check the file for damage if the error does not tell; or None.
    """
    meaning = next((meaning for text, meaning in _FAILURES if text in str(error)), None)
    if meaning in _MAY_BE_DAMAGE and is_damage(error, connection):
        meaning = _DAMAGED
    if meaning is None:
        return LTMError("query_error", f"{_REFUSED} ({type(error).__name__})")
    error_type, _, message = meaning
    return LTMError(error_type, message)


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(timezone.utc)


def written(timestamp: datetime | None) -> str | None:
    """Return a time in UTC as the text that is stored. This text sorts by time."""
    return None if timestamp is None else timestamp.replace(tzinfo=None).isoformat(" ", "microseconds")


def timestamp(text: str | None) -> datetime | None:
    """Return the time in UTC from text that ``written`` has made."""
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def _switch_to_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Switch the file to WAL mode, which is permanent. SQLite does not wait for others that do the same; this does."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "is locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _check_path(path: Any) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise LTMError("configuration_error", f"path must be a path or ':memory:', not {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise LTMError("configuration_error", "path must be the path of an SQLite file, or ':memory:'")
    return text if text == IN_MEMORY else absolute(text)
