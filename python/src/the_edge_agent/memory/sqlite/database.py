"""One SQLite database through the standard library: its connections, transactions, tables and errors."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from typing import Any, Final
from weakref import ref

from the_edge_agent.memory.core.languages import Language
from the_edge_agent.memory.core.results import FILE_DAMAGED, LostDatabaseError, LTMError
from the_edge_agent.memory.core.validation import check_seconds
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
from the_edge_agent.memory.database.tickets import Ticket, Tickets
from the_edge_agent.memory.sqlite.damage import is_damage
from the_edge_agent.memory.sqlite.files import DatabaseFile, absolute
from the_edge_agent.memory.sqlite.forks import SQLiteCall
from the_edge_agent.memory.sqlite.schema import SQLiteTables
from the_edge_agent.memory.sqlite.settings import OURS, TOLERANT, why_unusable

IN_MEMORY: Final = ":memory:"
_STEPS_BETWEEN_LOOKS: Final = 20_000  # of SQLite's machine, well under a millisecond, between two looks at the clock

_TABLES: Final = SQLiteTables()
_REFUSED: Final = f"{REFUSED[2]}; its tables were changed, or {FILE_DAMAGED}"
_DAMAGED: Final[Meaning] = ("connection_error", False, FILE_DAMAGED)
# By SQLite's own English texts, which do not change: error codes came with Python 3.11.
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
    """A file, or a database in memory, for many threads, and for forks of a process that uses a file.

    A file gets as many connections as there are calls at once; they are kept. A database in memory lives in one
    connection, for which calls wait in turn.

    Attributes:
        path: of the file, absolute, or ``:memory:``.
        closed: whether ``close`` has been called.
        has_full_text: whether there is a full-text index, known after the first transaction has begun.
        has_metadata_words: whether it has words for metadata too; an SQLite without JSON functions makes it without.
        language: of the words; None before the start, and for a table without words.
        on_start: called after the start of a file, when transactions can be run; if it raises, the next call starts
            anew.
    """

    def __init__(self, path: Any, timeout: Any, *, search: bool | None = None, language: str | None = None) -> None:
        """Check the arguments; open nothing.

        Args:
            path: of the file, or ``:memory:``.
            timeout: seconds that a transaction may take, the wait for other writers included.
            search: whether the entries' table keeps words; None needs no such table and takes what is there.
            language: that these words must be of; None for that of the table, English for a new one.

        Raises:
            LTMError: ``configuration_error``.
        """
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
        """Open the database and create its tables, unless that is done.

        Raises:
            LTMError: it cannot be opened.
        """
        with self.transaction():
            pass

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction; commit at its end, roll back if it raises.

        Args:
            write: take the write lock first: a transaction that reads and then writes would fail as busy.

        Raises:
            LTMError: after ``close``, and for every error of SQLite.
        """
        with self.statement(write=write) as connection:
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def statement(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend a connection for one statement, a transaction by itself, which is read to its end or closed.

        Args:
            write: whether it writes; what was written counts only if the file is still there.

        Raises:
            LTMError: after ``close``, and for every error of SQLite.
        """
        deadline = time.monotonic() + self._timeout
        loan = _Loan(deadline)
        problem: LTMError | None = None
        with SQLiteCall():
            try:
                try:
                    try:
                        connection = self._take(loan)
                        self._call.deadline = deadline
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
                    except Exception as error:  # of a row such as no call writes
                        if not is_damage(error, loan.connection):
                            raise
                        problem = LTMError("connection_error", FILE_DAMAGED)
                except LostDatabaseError:
                    self._leave(loan.file)
                    raise
                finally:
                    self._give(loan)
            finally:
                self._give(loan)  # an exception of a signal or another thread may have struck before the first one
        if loan.struck:
            raise loan.struck.pop()
        if problem is not None:
            raise problem

    def in_time(self, rows: Iterable[Any]) -> Iterator[Any]:
        """Yield rows within ``statement`` until its time is over: what Python does with them SQLite cannot stop."""
        for row in rows:
            if time.monotonic() > self._call.deadline:
                raise sqlite3.OperationalError("interrupted")
            yield row

    def is_at(self, path: Any) -> bool:
        """Return whether a path leads to this database; one in memory is each time another."""
        other = _check_path(path)
        return IN_MEMORY not in (self.path, other) and os.path.realpath(self.path) == os.path.realpath(other)

    def is_same(self, other: SQLiteDatabase) -> bool:
        """Return whether this is another ``SQLiteDatabase`` on the same file."""
        return self.is_at(other.path)

    def __str__(self) -> str:
        """Name the file."""
        return self.path

    def close(self) -> None:
        """Close every connection, those in use when their transactions end; idempotent."""
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
            if self._idle:  # at every moment it is idle, or whose it is can be told
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
        """Take a connection back, and end the turn; may be called again, after an exception at any moment."""
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
            is_kept = self._is_ready and not self.closed and loan.file is self._file
            if is_kept:
                self._idle.append(connection)
        loan.connection = None  # by now it is idle, or to be closed
        if not is_kept:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        with self._lock:
            self._borrowers.pop(connection, None)
        if self._file is not None:
            self._file.closed(connection)
        connection.close()

    def _leave(self, file: DatabaseFile | None) -> None:
        """Close what is open of a file that is gone: the next call opens the one that is there then."""
        with self._lock:
            if self._file is not file:
                return
            self._file, self._is_ready = DatabaseFile(self.path), False
            idle, self._idle = self._idle, []
        for connection in idle:
            self._close(connection)

    def _after_fork(self) -> None:
        """Leave the connections of the parent process alone; a database in memory is now this process's own copy."""
        self._start_anew()
        if self.path != IN_MEMORY:
            self._inherited += self._idle
            self._idle = []

    def _connect(self, loan: _Loan) -> None:
        failure: LTMError | None = None
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
        """Create the tables unless they are there, and look at what the database can do."""
        try:
            if problem := why_unusable(connection, is_file=self._file is not None):
                raise LTMError("configuration_error", problem)
            wanted = self._language_name
            if not _TABLES.is_ready(connection, self._search):
                _TABLES.check_layouts(connection, self._search)
                if self.path != IN_MEMORY:
                    _switch_to_wal(connection, deadline)  # after the look: a file that is refused stays as it was
                connection.execute("BEGIN IMMEDIATE")
                _TABLES.create(connection, self._search, wanted)
                connection.execute("COMMIT")
            if self._search:
                self.language = _TABLES.language_of(connection, wanted)
                self._language_name = self.language.name  # of a file that is put in place of this one too
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
    """A connection that one call has, with its turn and its time.

    Attributes:
        connection: None until it is found or made.
        file: that the connection has open; None in memory.
        turn: of a database in memory.
        struck: an exception of a signal or another thread that SQLite would have swallowed.
    """

    __slots__ = ("connection", "deadline", "file", "struck", "turn")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.connection: _Connection | None = None
        self.file: DatabaseFile | None = None
        self.struck: list[BaseException] = []
        self.turn: Ticket | None = None


class _Connection(sqlite3.Connection):
    """A connection whose statements end with the time of the call that has it.

    Attributes:
        loan: of that call; None while it is idle.
    """

    loan: _Loan | None = None

    def watch(self) -> None:
        """Look at the clock from time to time, from now on."""
        watching = _watching(ref(self))
        next(watching)
        self.set_progress_handler(watching.__next__, _STEPS_BETWEEN_LOOKS)


def _watching(watched: ref[_Connection]) -> Iterator[bool]:
    """Yield whether the statement must stop. A generator is within its ``try`` already when it goes on."""
    loan: _Loan | None = None
    while True:
        try:
            connection = watched()
            loan = None if connection is None else connection.loan
            connection = None
            yield loan is not None and (time.monotonic() > loan.deadline or bool(loan.struck))
        except GeneratorExit:
            return
        except BaseException as error:
            if loan is not None:
                loan.struck.append(error)


def failure_of(error: sqlite3.Error, connection: sqlite3.Connection | None = None) -> LTMError:
    """Return the failure that stands for an error of SQLite, without anything that is stored.

    Args:
        error: of SQLite.
        connection: to find out by whether the file is damaged, where the error does not tell.
    """
    found = next((meaning for text, meaning in _FAILURES if text in str(error)), None)
    if found in _MAY_BE_DAMAGE and is_damage(error, connection):
        found = _DAMAGED
    if found is None:
        return LTMError("query_error", f"{_REFUSED} ({type(error).__name__})")
    error_type, _, message = found
    return LTMError(error_type, message)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc)


def written(timestamp: datetime | None) -> str | None:
    """Return a time in UTC as SQLite keeps it: text that sorts by time."""
    return None if timestamp is None else timestamp.replace(tzinfo=None).isoformat(" ", "microseconds")


def timestamp(text: str | None) -> datetime | None:
    """Return the time that ``written`` has made text of."""
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def _switch_to_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Switch, which lasts; SQLite does not wait for others who are doing the same."""
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
