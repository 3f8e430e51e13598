"""Driver errors to failures: one table from codes to ``error_type`` and whether to retry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import exc

from the_edge_agent.memory.poolers import (
    BROKEN_PROTOCOL,
    NO_TRANSACTIONS,
    PREPARED_ELSEWHERE,
    takes_no_transactions,
)
from the_edge_agent.memory.results import ErrorType, LTMError
from the_edge_agent.memory.sql.deadlines import DeadlineError


class LostRaceError(Exception):
    """Another transaction created the row first: run the whole transaction again."""


class UnreadableMetadataError(LTMError):
    """A statement failed for metadata that the database cannot read: Python has to decide a filter."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a driver error means.

    Attributes:
        error_type: of the failure dict.
        error: the message, without secrets or stored values.
        retry: whether the same transaction may succeed when it is run again.
        lost: whether the connection is gone, or is of no more use, so that another one may serve.
        waited: whether it was a wait for a lock that took too long, and would again.
        denied: whether a privilege is missing or nothing can be written, which no other attempt changes.
        untouched: whether the server has refused to write, so that surely nothing was written.
        unreadable: whether it was metadata that the database cannot read.
    """

    error_type: ErrorType
    error: str
    retry: bool = False
    lost: bool = False
    waited: bool = False
    denied: bool = False
    untouched: bool = False
    unreadable: bool = False

    def exception(self, **fields: Any) -> LTMError:
        """Return the exception that carries this failure, with more fields in its result."""
        kind = UnreadableMetadataError if self.unreadable else LTMError
        return kind(self.error_type, self.error, **fields)


# What an error means: (error_type, retry the whole transaction, what to tell the user).
_Meaning = tuple[ErrorType, bool, str]
_DEADLOCK: Final[_Meaning] = ("lock_timeout", True, "gave way to concurrent transactions; try again")
_LOCK_WAIT: Final[_Meaning] = ("lock_timeout", True, "waited too long for a lock; try again")
_STATEMENT_TIMEOUT: Final[_Meaning] = (
    "query_error",
    False,
    "the server cancelled the statement at its time limit",
)
_LOST: Final[_Meaning] = ("connection_error", False, "lost the connection to the database")
_READ_ONLY: Final[_Meaning] = ("connection_error", False, "the database is read-only")
# Of a server, whose writes may go to another one by now: after a failover a new connection may lead there.
_STANDBY: Final[_Meaning] = ("connection_error", False, "the database is read-only")
_OUT_OF_CLUSTER: Final[_Meaning] = (
    "connection_error",
    False,
    "this node has lost its cluster, or is joining it, and takes no statements meanwhile",
)
_ELSEWHERE: Final = (_STANDBY, _OUT_OF_CLUSTER)
_UNREACHABLE: Final[_Meaning] = (
    "connection_error",
    False,
    "cannot reach the database; is it running at this address?",
)
_NO_FILE: Final[_Meaning] = ("connection_error", False, "cannot open the database file; is its folder there?")
_CONNECT_TIMEOUT: Final[_Meaning] = ("connection_timeout", False, "the database did not answer in time")
_INTERRUPTED: Final[_Meaning] = ("connection_timeout", True, "the statement was interrupted")
_POOL: Final[_Meaning] = (
    "connection_timeout",
    False,
    "no connection became free in the pool; raise pool_size",
)
_AUTH: Final[_Meaning] = ("auth_failed", False, "the database refused the user name or password")
_NO_DATABASE: Final[_Meaning] = ("connection_error", False, "there is no such database")
_ONE_PROCESS: Final[_Meaning] = (
    "connection_error",
    False,
    "another process has the database open, and this database serves one process at a time",
)
_NO_CLIENT: Final[_Meaning] = (
    "dependency_missing",
    False,
    "the client library of Firebird was not found; install it, or name its file in the url: ?fb_client_library=",
)
_CONSTRAINT: Final[_Meaning] = ("validation_error", False, "the entry breaks a constraint of the table")
_TOO_LARGE: Final[_Meaning] = ("validation_error", False, "the entry is larger than the database accepts")
_UNREADABLE: Final[_Meaning] = ("query_error", False, "the database cannot read the metadata of an entry")
_TOO_HIGH: Final[_Meaning] = (
    "validation_error",
    False,
    "a number is out of range, such as a version after 2^63-1; delete the entry and store it anew",
)
_FULL: Final[_Meaning] = ("query_error", False, "the database has no space left")
_NO_TABLE: Final[_Meaning] = (
    "query_error",
    False,
    "a table or column is missing; was it dropped, or never created?",
)
_DENIED: Final[_Meaning] = ("query_error", False, "the user lacks a privilege that this call needs")
_REFUSED: Final[_Meaning] = ("query_error", False, "the database refused the statement")

_PREPARED_ELSEWHERE: Final[_Meaning] = ("configuration_error", False, PREPARED_ELSEWHERE)
_BROKEN_PROTOCOL: Final[_Meaning] = ("connection_error", False, BROKEN_PROTOCOL)
_NO_TRANSACTIONS: Final[_Meaning] = ("configuration_error", False, NO_TRANSACTIONS)

_SQLSTATE: Final[dict[str, _Meaning]] = {
    "40P01": _DEADLOCK,
    "40001": _DEADLOCK,
    "55P03": _LOCK_WAIT,
    "57014": _STATEMENT_TIMEOUT,
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": _UNREACHABLE,
    "26000": _PREPARED_ELSEWHERE,
    "42P05": _PREPARED_ELSEWHERE,
    "08P01": _BROKEN_PROTOCOL,
    "25006": _STANDBY,
    "53300": ("connection_error", False, "the server has no connection left for us"),
    "28000": _AUTH,
    "28P01": _AUTH,
    "3D000": _NO_DATABASE,
    "3F000": ("configuration_error", False, "no schema of the search_path exists"),
    "23505": _CONSTRAINT,
    "23502": _CONSTRAINT,
    "22001": _TOO_LARGE,
    "22003": _TOO_HIGH,
    "54000": _TOO_LARGE,
    "53100": _FULL,
    "42P01": _NO_TABLE,
    "42703": _NO_TABLE,
    "42501": _DENIED,
}
_SQLSTATE_CLASS: Final[dict[str, _Meaning]] = {"08": _LOST, "23": _CONSTRAINT}
_SMALL_PAGES: Final[_Meaning] = (
    "configuration_error",
    False,
    "the server takes no index over keys this long; it needs an innodb_page_size of 16384 or more",
)
_NO_INNODB: Final[_Meaning] = (
    "configuration_error",
    False,
    "the server has InnoDB switched off, which the tables need",
)
_LOGS_STATEMENTS: Final[_Meaning] = (
    "configuration_error",
    False,
    "the server's binlog_format is STATEMENT, which takes no transaction at READ COMMITTED; set it to ROW or MIXED",
)
_FORBIDDEN: Final[_Meaning] = ("configuration_error", False, "an option of the server forbids what this call needs")
_MYSQL: Final[dict[int, _Meaning]] = {
    **dict.fromkeys((1213, 1305, 1020, 3101, 1180), _DEADLOCK),
    1205: _LOCK_WAIT,
    **dict.fromkeys((3024, 1969), _STATEMENT_TIMEOUT),
    **dict.fromkeys((2006, 2013, 2055, 4031, 1053), _LOST),
    **dict.fromkeys((1047, 3032, 3100), _OUT_OF_CLUSTER),
    **dict.fromkeys((1290, 1792, 1836), _STANDBY),
    **dict.fromkeys((2002, 2003, 2005), _UNREACHABLE),
    **dict.fromkeys((1071, 1709), _SMALL_PAGES),
    **dict.fromkeys((1286, 3161), _NO_INNODB),
    1665: _LOGS_STATEMENTS,
    1040: ("connection_error", False, "the server has no connection left for us"),
    **dict.fromkeys((1045, 1698), _AUTH),
    1049: _NO_DATABASE,
    **dict.fromkeys((1062, 1048), _CONSTRAINT),
    **dict.fromkeys((1406, 1153), _TOO_LARGE),
    **dict.fromkeys((1264, 1690), _TOO_HIGH),
    1114: _FULL,
    3157: _UNREADABLE,  # nested deeper than 100 levels, of which JSON_VALID fails too
    **dict.fromkeys((1146, 1054), _NO_TABLE),
    **dict.fromkeys((1044, 1142), _DENIED),
}
_SQLITE: Final[dict[str, _Meaning]] = {
    "BUSY": _LOCK_WAIT,
    "LOCKED": _LOCK_WAIT,
    "INTERRUPT": _INTERRUPTED,
    "READONLY": _READ_ONLY,
    "CANTOPEN": _NO_FILE,
    "NOTADB": ("connection_error", False, "the file is not an SQLite database"),
    "CORRUPT": ("connection_error", False, "the file is damaged"),
    "CONSTRAINT": _CONSTRAINT,
    "TOOBIG": _TOO_LARGE,
    "FULL": _FULL,
    "IOERR": ("query_error", False, "the file cannot be read or written"),
}
# Firebird's own numbers: where its SQLSTATE says too little, or something else.
_FIREBIRD: Final[dict[int, _Meaning]] = {
    **dict.fromkeys((335544336, 335544345, 335544510), _DEADLOCK),
    335544721: _UNREACHABLE,
    **dict.fromkeys((335544726, 335544727, 335544741, 335544856), _LOST),
    335544794: _INTERRUPTED,
    335544344: _NO_DATABASE,
    335544352: _DENIED,
    335544580: _NO_TABLE,
}
# Before Python 3.11 sqlite3 gives no code, and libpq gives none while connecting: their fixed English texts.
_TEXTS: Final[tuple[tuple[str, _Meaning], ...]] = (
    (r"database (table )?is locked", _LOCK_WAIT),
    # DuckDB, which looks for conflicts when a transaction writes or commits.
    (r"TransactionContext Error: (Conflict on|Failed to commit.* (constraint violation|conflict))", _DEADLOCK),
    (r"Could not set lock on file", _ONE_PROCESS),
    (r"not a valid DuckDB database", ("connection_error", False, "the file is not a DuckDB database")),
    (r"IO Error: Cannot open file|IO Error: Could not read from file", _NO_FILE),
    (r"INTERRUPT Error", _INTERRUPTED),
    (r"^Constraint Error", _CONSTRAINT),
    (r"^interrupted$", _INTERRUPTED),
    (r"readonly database", _READ_ONLY),
    (r"unable to open database file", _NO_FILE),
    (r"file is not a database", _SQLITE["NOTADB"]),
    (r"disk image is malformed", _SQLITE["CORRUPT"]),
    (r"disk is full", _FULL),
    (r"string or blob too big", _TOO_LARGE),
    (r"constraint failed", _CONSTRAINT),
    (r"no such (table|column)", _NO_TABLE),
    (
        r"password authentication failed|no password supplied|no pg_hba.conf entry|role .* does not exist",
        _AUTH,
    ),
    (r"database .* does not exist", _NO_DATABASE),
    (r"timeout expired|connection timeout|timed out", _CONNECT_TIMEOUT),
    (r"server closed the connection|connection is lost|connection is closed", _LOST),
    (
        r"starting up|shutting down|refused|could not translate|failed to resolve|is the server running",
        _UNREACHABLE,
    ),
    (
        r"invalid (connection option|dsn|\w+ value)",
        ("configuration_error", False, "the driver does not know an option of the url"),
    ),
    (r"too many (clients|connections)|connection slots", _SQLSTATE["53300"]),
    (r"Firebird Client Library", _NO_CLIENT),
    (
        r"is not a MariaDB variant",  # SQLAlchemy
        ("configuration_error", False, "the url says mariadb, and the server is MySQL; begin it with mysql"),
    ),
)


def out_of_time(seconds: float) -> Failure:
    """Return the failure of a call whose time is over."""
    return Failure("connection_timeout", f"the database did not answer within {seconds:g} seconds")


def classify(error: BaseException) -> Failure:
    """Return the failure that stands for an error of SQLAlchemy or of a driver."""
    if isinstance(error, DeadlineError):
        return _failure(_CONNECT_TIMEOUT, "")
    if isinstance(error, LostRaceError):
        return _failure(_DEADLOCK, "")
    if isinstance(error, exc.TimeoutError):
        return _failure(_POOL, "")
    original: Any = getattr(error, "orig", None) or error
    code, meaning = _by_code(original)
    if meaning is None:
        text = str(original)
        meaning = next((known for pattern, known in _TEXTS if re.search(pattern, text, re.IGNORECASE)), None)
    if getattr(error, "connection_invalidated", False) and (meaning is None or meaning is _REFUSED):
        meaning = _LOST
    if meaning is None:
        meaning, code = _REFUSED, code or type(original).__name__
    return _failure(meaning, code)


def breaks_constraint(error: exc.DBAPIError) -> bool:
    """Return whether a row could not be written because of another one, or of what it lacks."""
    sqlstate = str(getattr(error.orig, "sqlstate", ""))  # Firebird's driver has no IntegrityError
    return isinstance(error, exc.IntegrityError) or sqlstate.startswith("23")


def _failure(meaning: _Meaning, code: str) -> Failure:
    error_type, retry, message = meaning
    return Failure(
        error_type,
        f"{message} ({code})" if code else message,
        retry,
        lost=meaning in (_LOST, _BROKEN_PROTOCOL, *_ELSEWHERE),
        waited=meaning is _LOCK_WAIT,
        denied=meaning in (_DENIED, _READ_ONLY, _STANDBY),
        untouched=meaning in (_DENIED, _READ_ONLY, *_ELSEWHERE),
        unreadable=meaning is _UNREADABLE,
    )


def _by_code(original: Any) -> tuple[str, _Meaning | None]:
    number = original.args[0] if getattr(original, "args", ()) else None
    if isinstance(number, int) and not isinstance(original, OSError):
        if number in (2003, 2013) and "timed out" in str(original):
            return f"error {number}", _CONNECT_TIMEOUT
        if number == 1290 and not re.search("read.only", str(original)):  # it stands for every option of the server
            return f"error {number}", _FORBIDDEN
        return f"error {number}", _MYSQL.get(number, _REFUSED)
    sqlstate = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    for own in getattr(original, "gds_codes", None) or ():
        if own in _FIREBIRD:
            return f"error {own}", _FIREBIRD[own]
    if takes_no_transactions(original):  # psycopg2 keeps no code of what has also ended the connection
        return "SQLSTATE 08P01", _NO_TRANSACTIONS
    if sqlstate:
        return f"SQLSTATE {sqlstate}", _SQLSTATE.get(sqlstate) or _SQLSTATE_CLASS.get(sqlstate[:2], _REFUSED)
    name = getattr(original, "sqlite_errorname", None)
    if name:
        return name, _SQLITE.get(name.removeprefix("SQLITE_").partition("_")[0])
    return "", None
