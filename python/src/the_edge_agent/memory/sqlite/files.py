"""The files of an SQLite database: where they are, made for their owner alone, and still those that were opened."""

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

_BETWEEN_LOOKS: Final = 0.1  # seconds for which reads trust the last look
_CLOCK_STEP: Final = 2_500_000_000  # nanoseconds; the time of a folder is as coarse as 2 seconds
_OURS_ALONE: Final = 0o600
_GONE: Final = "the file of the database was removed or replaced while it was open"
_NEXT: Final = "the next call opens the file that is there then, or creates it"
_CHANGED: Final = (
    "somebody has written into the file of the database, which is read without locks because its folder is read-only; "
    "try again"
)
_NOTHING_BESIDE: Final = ("readonly database", "unable to open database file")  # where files beside are missing, too
_WAL: Final = "-wal"
_BESIDE: Final = (_WAL, "-shm")
_STALE: Final = (
    "the -wal beside the file of the database belongs to the file that was there before, and would destroy this one; "
    "move the -wal and the -shm away"
)


def absolute(path: str) -> str:
    """Return a path that means the same file after ``os.chdir``. Symbolic links stay as they are.

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
    """The file that the connections of one memory have open, and what SQLite keeps beside it.

    SQLite does not notice in WAL mode that its file was removed or replaced: what it commits then is lost. So a write
    is acknowledged only if the files at the path are still those of the connection. Reads look ten times a second.

    SQLite writes a -wal into whatever file it is beside. So one that belongs to another file is renamed.
    """

    def __init__(self, path: str) -> None:
        """Look at nothing yet."""
        self.path = path
        self._real = self._folder = ""  # where links lead to; SQLite keeps the other files there
        self._main: _Identity | None = None
        self._beside: dict[int, list[_Identity | None]] = {}  # by the ``id`` of a connection
        self._settled: dict[int, tuple[int, int, int]] = {}  # the folder as it was when those were last looked at
        self._next_look = 0.0
        self._journal: _Journal | None = None
        self._frozen: os.stat_result | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether SQLite reads the file without locks, so that each read needs a look whether it has changed."""
        return self._frozen is not None

    def frozen(self, connection: Any) -> str | None:
        """Return a URI for what this new connection cannot read, and remember the file as it is; else None.

        SQLite reads no file in WAL mode in a folder where it can create no files. As long as there is no -wal, what it
        needs is in the file; ``immutable`` lets it read that.

        Raises:
            Exception: of the driver: another process has locked the file for too long.
        """
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            return None
        except Exception as error:  # of whatever driver
            if "is locked" in str(error):  # it has waited as long as a call may
                raise
            if not any(text in str(error) for text in _NOTHING_BESIDE):
                return None
        found = self._unjournaled()
        if found is None or not os.access(self.path, os.R_OK):
            return None
        self._frozen = found
        return f"file:{quote(self.path)}?mode=ro&immutable=1"

    def _unjournaled(self) -> os.stat_result | None:
        """Return the state of the file if no journal is beside it, of which SQLite would have to read more."""
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
            create: create the file first, if it is not there, so that only its owner can read it.

        Raises:
            LostDatabaseError: other connections have another file open, or the -wal of another file cannot be renamed.
            LTMError: ``connection_error``: there can be no file.
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
        """Remember the files beside a new connection's, which SQLite opens when it first reads."""
        self._forget(connection)
        with suppress(Exception):  # it may be locked, or no database: the call that comes next will say so
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            self._remember(connection)

    def closed(self, connection: Any) -> None:
        """Forget a connection, which is about to be closed."""
        self._forget(connection)
        if self._journal is not None and _identity(self._real) != self._main:
            self._journal.leave()

    def _forget(self, connection: Any) -> None:
        self._settled.pop(id(connection), None)
        self._beside.pop(id(connection), None)

    def check_read(self) -> None:
        """Look at the file, unless that was just done.

        Raises:
            LostDatabaseError: it is another one, or none; nothing was done.
        """
        now = time.monotonic()
        if now >= self._next_look or self.is_frozen:
            self.check()
            self._next_look = now + _BETWEEN_LOOKS

    def check(self) -> None:
        """Look at the file; with a rollback journal SQLite does too, and then calls it read-only.

        Raises:
            LostDatabaseError: it is another one, or none; nothing was done.
        """
        if _identity(self.path) != self._main:
            raise self._lost()
        if self._frozen is not None:
            now = self._unjournaled()
            if now is None or (now.st_size, now.st_mtime_ns) != (self._frozen.st_size, self._frozen.st_mtime_ns):
                raise LostDatabaseError("connection_error", _CHANGED)

    def check_written(self, connection: Any) -> None:
        """Look at the files after a connection has committed, before anybody is told.

        Raises:
            LostDatabaseError: ``unknown: True``: what was written is in files that nobody else opens, for now.
        """
        try:
            main, folder = os.stat(self.path), os.stat(self._folder)
        except OSError:
            raise self._lost_write() from None
        if (main.st_dev, main.st_ino) != self._main:
            raise self._lost_write()
        state = (folder.st_dev, folder.st_ino, folder.st_mtime_ns)
        if state == self._settled.get(id(connection)):  # no file came or went
            return
        beside = self._beside.get(id(connection)) or self._remember(connection)
        if beside and self._now_beside() != beside:
            raise self._lost_write()
        if time.time_ns() - folder.st_mtime_ns > _CLOCK_STEP:
            self._settled[id(connection)] = state

    def _remember(self, connection: Any) -> list[_Identity | None]:
        """Return the files beside, and remember them once they are there: other journals come and go."""
        found = self._now_beside()
        if found[0] is None or found[1] is None:
            return []
        if self._main is not None and (self._journal is None or self._journal.identity != found[0]):
            self._journal = _known.get(found[0]) or _Journal.of(self._real, self._main)
        return self._beside.setdefault(id(connection), found)

    def _now_beside(self) -> list[_Identity | None]:
        return [_identity(self._real + suffix) for suffix in _BESIDE]

    def _lost_write(self) -> LostDatabaseError:
        return self._lost("; this write may be lost with it", unknown=True)

    def _lost(self, more: str = "", **fields: bool) -> LostDatabaseError:
        if self._journal is not None:
            self._journal.leave()
        return LostDatabaseError("connection_error", f"{_GONE}{more}; {_NEXT}", **fields)


class _Journal:
    """The -wal of a file. It is held open, so that the operating system gives its number to no other file.

    Attributes:
        identity: of the -wal.
    """

    def __init__(self, real: str, main: _Identity, held: int) -> None:
        self._real, self._main, self._held = real, main, held
        found = os.fstat(held)
        self.identity = found.st_dev, found.st_ino
        _known[self.identity] = self

    @classmethod
    def of(cls, real: str, main: _Identity) -> _Journal | None:
        """Return the journal of the file at a path; None where an open file could not be deleted."""
        if os.name != "posix":
            return None
        with suppress(OSError):
            return cls(real, main, os.open(real + _WAL, os.O_RDONLY | os.O_CLOEXEC))
        return None

    def __del__(self) -> None:
        os.close(self._held)

    def leave(self) -> None:
        """Take the -wal away from another file, now or before that is opened by this process."""
        for journal in [self, *_left]:
            if _identity(journal._real + _WAL) != journal.identity:
                _left.discard(journal)
        if _identity(self._real + _WAL) == self.identity:
            _left.add(self)
            with suppress(LTMError):  # nobody opens the file now
                _set_aside(self._real)

    def set_aside(self, main: _Identity | None) -> None:
        """Rename the -wal, unless it belongs to the file that is there now, or none is there.

        Raises:
            LostDatabaseError: it cannot be renamed.
        """
        if main is None:
            return
        _left.discard(self)
        if main == self._main:
            return
        kept = f"{self._real}.{secrets.token_hex(4)}{_WAL}"
        try:
            if os.fstat(self._held).st_size:
                os.rename(self._real + _WAL, kept)
                _logger.warning("the -wal of a file that was replaced is now %r", os.path.basename(kept))
            else:
                os.unlink(self._real + _WAL)
            os.unlink(self._real + "-shm")  # made of the -wal
        except FileNotFoundError:  # another thread was quicker
            return
        except OSError:
            _left.add(self)
        else:
            return
        raise LostDatabaseError("connection_error", _STALE)


_known: Final[WeakValueDictionary[_Identity, _Journal]] = WeakValueDictionary()
_left: Final[set[_Journal]] = set()  # of files that are gone


def _set_aside(real: str) -> None:
    """Let no -wal of another file be beside the file at a path, as far as this process knows whose it is.

    Raises:
        LostDatabaseError: it cannot be renamed.
    """
    beside = _identity(real + _WAL)
    journal = None if beside is None else _known.get(beside)
    if journal is not None:
        journal.set_aside(_identity(real))


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_place(path: str) -> None:
    """Check that there is a file, or that one can be created.

    Raises:
        LTMError: ``connection_error`` its folder is missing, or it is a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(os.path.realpath(path))
        if os.path.isdir(folder):
            return
        problem = f"there is no folder {os.path.basename(folder)!r}"
    except OSError:  # SQLite says why
        return
    else:
        if stat.S_ISREG(mode):
            return
        kind = "folder" if stat.S_ISDIR(mode) else "pipe or a device"
        problem = f"{os.path.basename(path)!r} is a {kind}"
    # The whole path is not shown: a variable in it may hold a secret.
    raise LTMError("connection_error", f"cannot open the database file: {problem}")


def _create(path: str) -> None:
    """Create an empty file that only its owner can read; SQLite gives the files beside it the same mode.

    It is made under another name: closing a file that SQLite has opened by then would drop SQLite's locks.
    """
    place = os.path.realpath(path)
    made = f"{place}.{secrets.token_hex(8)}"
    with suppress(OSError):  # no folder, or a read-only one: SQLite says so
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _OURS_ALONE))
        try:
            _link(made, place)
        finally:
            os.unlink(made)


def _link(made: str, place: str) -> None:
    try:
        os.link(made, place)
    except FileExistsError:
        return
    except OSError:  # the file system has no links
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _OURS_ALONE))
