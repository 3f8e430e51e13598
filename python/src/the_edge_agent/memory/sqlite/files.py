"""The files of an SQLite database: create them for their owner alone, and notice when they are removed or replaced."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias
from urllib.parse import quote
from weakref import WeakValueDictionary

from the_edge_agent.memory.core.results import LostDatabaseError, LTMError

_Identity: TypeAlias = tuple[int, int]

_logger = logging.getLogger("the_edge_agent.memory")

_CHECK_INTERVAL: Final = 0.1  # seconds; reads do not check the file more often
_CLOCK_STEP: Final = 2_500_000_000  # nanoseconds; some file systems round the time of a folder to 2 seconds
_OWNER_ONLY: Final = 0o600
_GONE: Final = "the file of the database was removed or replaced while it was open"
_NEXT: Final = "the next call opens the file at this path, or creates it"
_CHANGED: Final = (
    "somebody has written into the file of the database, which is read without locks because its folder is read-only; "
    "try again"
)
_NOTHING_BESIDE: Final = ("readonly database", "unable to open database file")  # also if -wal and -shm cannot be made
_WAL: Final = "-wal"
_BESIDE: Final = (_WAL, "-shm")
_STALE: Final = (
    "the -wal beside the file of the database belongs to the file that was there before, and would destroy this one; "
    "move the -wal and the -shm away"
)


def absolute(path: str) -> str:
    """Return an absolute path, which means the same file after ``os.chdir``. Symbolic links are not resolved.

    Raises:
        LTMError: ``configuration_error``: the current folder was removed.
    """
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except OSError:
        message = "the path of the database is relative, and the current folder is gone; give an absolute path"
    raise LTMError("configuration_error", message)


class DatabaseFile:
    """The file that the connections of one memory have open, and the -wal and -shm files that SQLite keeps beside it.

    In WAL mode SQLite does not notice that its file was removed or replaced, and later commits are lost. So a write is
    acknowledged only if the files at the path are still those that the connection has open. Reads check this up to ten
    times a second.

    SQLite copies a -wal into any file that it is beside. So a -wal that belongs to another file is renamed.
    """

    def __init__(self, path: str) -> None:
        """Remember the path. No file is opened or checked yet."""
        self.path = path
        self._real = self._folder = ""  # the target of symbolic links; SQLite keeps the other files there
        self._main: _Identity | None = None
        self._beside: dict[int, list[_Identity | None]] = {}  # by the ``id`` of a connection
        self._settled: dict[int, tuple[int, int, int]] = {}  # the state of the folder at the last check, likewise
        self._next_check = 0.0
        self._journal: _Journal | None = None
        self._frozen: os.stat_result | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether SQLite reads the file without locks. Then each read must check whether the file has changed."""
        return self._frozen is not None

    def frozen(self, connection: Any) -> str | None:
        """Return a URI for a file that this new connection cannot read, and remember the state of the file.

        SQLite cannot read a file in WAL mode if it can create no files in the folder. As long as there is no -wal, the
        file has all data, and SQLite can read it with ``immutable``. For any other file this returns None.

        Raises:
            Exception: an error of the driver: another process has locked the file for too long.
        """
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            return None
        except Exception as error:  # of any driver
            if "is locked" in str(error):  # SQLite has waited for the whole time of the call
                raise
            if not any(text in str(error) for text in _NOTHING_BESIDE):
                return None
        state = self._unjournaled()
        if state is None or not os.access(self.path, os.R_OK):
            return None
        self._frozen = state
        return f"file:{quote(self.path)}?mode=ro&immutable=1"

    def _unjournaled(self) -> os.stat_result | None:
        """Return the state of the file; None if there is a journal beside it, which would have further data."""
        try:
            return None if any(map(os.path.exists, self._journals())) else os.stat(self.path)
        except OSError:
            return None

    def _journals(self) -> list[str]:
        return [os.path.realpath(self.path) + suffix for suffix in (_WAL, "-journal")]

    @contextmanager
    def opening(self, *, create: bool = True) -> Iterator[None]:
        """Open one connection within the block.

        Args:
            create: create a missing file first, so that only its owner can read it.

        Raises:
            LostDatabaseError: other connections have another file open, or the -wal of another file cannot be renamed.
            LTMError: ``connection_error``: a file cannot exist at this path.
        """
        before = _identity(self.path)
        if before is None and self._main is not None:
            raise self._lost()
        _check_place(self.path)
        if before is None and create:
            _create(self.path)
            before = _identity(self.path)
        _set_aside(os.path.realpath(self.path))
        yield
        now = _identity(self.path)
        if self._main is None:
            self._main, self._real = now, os.path.realpath(self.path)
            self._folder = os.path.dirname(self._real)
        if now != self._main or before not in (None, now):
            raise self._lost()

    def opened(self, connection: Any) -> None:
        """Remember the -wal and -shm files of a new connection. SQLite opens them at its first read."""
        self._forget(connection)
        with suppress(Exception):  # the file may be locked, or not a database: the next call will report it
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            self._remember(connection)

    def closed(self, connection: Any) -> None:
        """Forget a connection that is about to be closed."""
        self._forget(connection)
        if self._journal is not None and _identity(self._real) != self._main:
            self._journal.leave()

    def _forget(self, connection: Any) -> None:
        self._settled.pop(id(connection), None)
        self._beside.pop(id(connection), None)

    def check_read(self) -> None:
        """Check that the file is still the same, unless this was just checked.

        Raises:
            LostDatabaseError: the file was removed or replaced. Nothing was written.
        """
        now = time.monotonic()
        if now >= self._next_check or self.is_frozen:
            self.check()
            self._next_check = now + _CHECK_INTERVAL

    def check(self) -> None:
        """Check that the file is still the same.

        With a rollback journal SQLite notices this too, and then says that the database is read-only.

        Raises:
            LostDatabaseError: the file was removed or replaced. Nothing was written.
        """
        if _identity(self.path) != self._main:
            raise self._lost()
        if self._frozen is not None:
            now = self._unjournaled()
            if now is None or (now.st_size, now.st_mtime_ns) != (self._frozen.st_size, self._frozen.st_mtime_ns):
                raise LostDatabaseError("connection_error", _CHANGED)

    def check_written(self, connection: Any) -> None:
        """Check the files after a connection has committed, before the write is acknowledged.

        Raises:
            LostDatabaseError: with ``unknown: True``: the write went to files that are not at the path any more.
        """
        try:
            main, folder = os.stat(self.path), os.stat(self._folder)
        except OSError:
            raise self._lost_write() from None
        if (main.st_dev, main.st_ino) != self._main:
            raise self._lost_write()
        state = (folder.st_dev, folder.st_ino, folder.st_mtime_ns)
        if state == self._settled.get(id(connection)):  # no file was created or removed
            return
        beside = self._beside.get(id(connection)) or self._remember(connection)
        if beside and self._now_beside() != beside:
            raise self._lost_write()
        if time.time_ns() - folder.st_mtime_ns > _CLOCK_STEP:
            self._settled[id(connection)] = state

    def _remember(self, connection: Any) -> list[_Identity | None]:
        """Remember and return the identities of -wal and -shm. Without both files (no WAL mode) return nothing."""
        beside = self._now_beside()
        if beside[0] is None or beside[1] is None:
            return []
        if self._main is not None and (self._journal is None or self._journal.identity != beside[0]):
            self._journal = _open_journals.get(beside[0]) or _Journal.of(self._real, self._main)
        return self._beside.setdefault(id(connection), beside)

    def _now_beside(self) -> list[_Identity | None]:
        return [_identity(self._real + suffix) for suffix in _BESIDE]

    def _lost_write(self) -> LostDatabaseError:
        return self._lost("; this write may be lost with it", unknown=True)

    def _lost(self, more: str = "", **fields: bool) -> LostDatabaseError:
        if self._journal is not None:
            self._journal.leave()
        return LostDatabaseError("connection_error", f"{_GONE}{more}; {_NEXT}", **fields)


class _Journal:
    """The -wal of a file. It is held open, so that the operating system gives its inode number to no other file.

    Attributes:
        identity: the device and inode number of the -wal.
    """

    def __init__(self, real: str, main: _Identity, held: int) -> None:
        self._real, self._main, self._held = real, main, held
        state = os.fstat(held)
        self.identity = state.st_dev, state.st_ino
        _open_journals[self.identity] = self

    @classmethod
    def of(cls, real: str, main: _Identity) -> _Journal | None:
        """Return the journal of the file at a path; None on systems where an open file cannot be deleted."""
        if os.name != "posix":
            return None
        with suppress(OSError):
            return cls(real, main, os.open(real + _WAL, os.O_RDONLY | os.O_CLOEXEC))
        return None

    def __del__(self) -> None:
        os.close(self._held)

    def leave(self) -> None:
        """Rename the -wal if it is beside another file, now or before this process opens that file."""
        for journal in [self, *_left]:
            if _identity(journal._real + _WAL) != journal.identity:
                _left.discard(journal)
        if _identity(self._real + _WAL) == self.identity:
            _left.add(self)
            with suppress(LTMError):  # no error now, because no call opens the file now
                _set_aside(self._real)

    def set_aside(self, main: _Identity | None) -> None:
        """Rename the -wal, unless there is no file ``main`` beside it, or the -wal belongs to that file.

        Raises:
            LostDatabaseError: it cannot be renamed.
        """
        if main is None:
            return
        _left.discard(self)
        if main == self._main:
            return
        new_name = f"{self._real}.{secrets.token_hex(4)}{_WAL}"
        try:
            if os.fstat(self._held).st_size:
                os.rename(self._real + _WAL, new_name)
                _logger.warning("the -wal of a file that was replaced is now %r", os.path.basename(new_name))
            else:
                os.unlink(self._real + _WAL)
            os.unlink(self._real + "-shm")  # SQLite can make it again from the -wal
        except FileNotFoundError:  # another thread was faster
            return
        except OSError:
            _left.add(self)
        else:
            return
        raise LostDatabaseError("connection_error", _STALE)


_open_journals: Final[WeakValueDictionary[_Identity, _Journal]] = WeakValueDictionary()
_left: Final[set[_Journal]] = set()  # journals of files that were removed or replaced


def _set_aside(real: str) -> None:
    """Rename a -wal beside the file at a path if this process knows that it belongs to another file.

    Raises:
        LostDatabaseError: it cannot be renamed.
    """
    beside = _identity(real + _WAL)
    journal = None if beside is None else _open_journals.get(beside)
    if journal is not None:
        journal.set_aside(_identity(real))


def _identity(path: str) -> _Identity | None:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _check_place(path: str) -> None:
    """Check that there is a file at a path, or that one can be created.

    Raises:
        LTMError: ``connection_error``: the folder is missing, or the path is a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(os.path.realpath(path))
        if os.path.isdir(folder):
            return
        problem = f"there is no folder {os.path.basename(folder)!r}"
    except OSError:  # SQLite will report it
        return
    else:
        if stat.S_ISREG(mode):
            return
        kind = "folder" if stat.S_ISDIR(mode) else "pipe or a device"
        problem = f"{os.path.basename(path)!r} is a {kind}"
    # The message does not show the whole path, because a variable in it may be a secret.
    raise LTMError("connection_error", f"cannot open the database file: {problem}")


def _create(path: str) -> None:
    """Create an empty file that only its owner can read. SQLite gives the same mode to the files beside it.

    The file is created under another name and then linked. Another thread may have opened the file in SQLite meanwhile,
    and closing a file drops all locks that this process has on it.
    """
    place = os.path.realpath(path)
    temporary = f"{place}.{secrets.token_hex(8)}"
    with suppress(OSError):  # the folder is missing or read-only: SQLite will report it
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _OWNER_ONLY))
        try:
            _link(temporary, place)
        finally:
            os.unlink(temporary)


def _link(temporary: str, place: str) -> None:
    try:
        os.link(temporary, place)
    except FileExistsError:
        return
    except OSError:  # the file system has no links
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _OWNER_ONLY))
