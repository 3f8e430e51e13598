"""The meaning of driver errors: tables from error codes to an ``error_type``, a message, and whether to retry."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import exc

from the_edge_agent.memory.core.results import FILE_DAMAGED, ErrorType, LTMError
from the_edge_agent.memory.database.errors import (
    AUTH,
    CONNECT_TIMEOUT,
    CONSTRAINT,
    DEADLOCK,
    DENIED,
    FULL,
    LOCK_WAIT,
    LOST,
    NO_CONNECTION,
    NO_DATABASE,
    NO_TABLE,
    NOWHERE,
    ONLY_TLS,
    OUT_OF_CLUSTER,
    POOLER_BROKE,
    READ_ONLY,
    REFUSED,
    REFUSED_CONNECTION,
    STANDBY,
    STATEMENT_TIMEOUT,
    TLS_FAILED,
    TOO_HIGH,
    TOO_LARGE,
    UNKNOWN_HOST,
    UNREACHABLE,
    WITHOUT_TRANSACTIONS,
    Meaning,
    Where,
    by_sqlstate,
    by_text,
    by_text_of_tls,
    is_of_libpq,
    is_of_postgres,
    message_of,
    refused_with,
    while_connecting,
)
from the_edge_agent.memory.database.poolers import takes_no_transactions
from the_edge_agent.memory.sql.driver.deadlines import DeadlineError


class LostRaceError(Exception):
    """Another transaction created the row first: run the whole transaction again."""


class ConnectingError(exc.SQLAlchemyError):
    """Connecting failed.

    Attributes:
        error: the error of SQLAlchemy or the driver.
        where: the place to which the connection would lead.
        hidden: words that no message may show.
    """

    def __init__(self, error: BaseException, where: Where, hidden: Collection[str]) -> None:
        """Keep the error and the place."""
        super().__init__("there is no connection")
        self.error, self.where, self.hidden = error, where, hidden


class UnreadableMetadataError(LTMError):
    """A statement failed because the database cannot read some metadata. Python must decide the filter."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a driver error means.

    Attributes:
        error_type: the ``error_type`` of the failure dict.
        error: the message, without secrets or stored values.
        retry: whether the same transaction may succeed when it is run again.
        lost: whether the connection is lost or useless, so that a new connection may help.
        is_lasting: whether a new connection probably fails in the same way. Then one more attempt is enough.
        waited: whether a wait for a lock took too long. Another attempt would wait too long again.
        denied: whether a privilege is missing or the database is read-only. Another attempt cannot change that.
        untouched: whether the database surely wrote nothing, however the call ended.
        unreadable: whether the database could not read some metadata.
    """

    error_type: ErrorType
    error: str
    retry: bool = False
    lost: bool = False
    is_lasting: bool = False
    waited: bool = False
    denied: bool = False
    untouched: bool = False
    unreadable: bool = False

    def exception(self, **fields: Any) -> LTMError:
        """Return an exception for this failure. ``fields`` are more fields of its result."""
        kind = UnreadableMetadataError if self.unreadable else LTMError
        return kind(self.error_type, self.error, **fields)


_ELSEWHERE: Final = (STANDBY, OUT_OF_CLUSTER)
_NO_FILES_BESIDE: Final[Meaning] = (
    "connection_error",
    False,
    "the folder of the file is read-only, so SQLite cannot read it in WAL mode; open it with ?immutable=1&uri=true",
)
_NO_FILE: Final[Meaning] = (
    "connection_error",
    False,
    "cannot open the database file; is its folder there, and may this user read it?",
)
_INTERRUPTED: Final[Meaning] = ("connection_timeout", True, "the statement was interrupted")
_UNDONE: Final[Meaning] = ("connection_timeout", True, "the statement was interrupted, and is undone")  # SQLite
_POOL: Final[Meaning] = (
    "connection_timeout",
    False,
    "no connection became free in the pool; raise pool_size",
)
_ONE_PROCESS: Final[Meaning] = (
    "connection_error",
    False,
    "another process has the database open, and this database serves one process at a time",
)
_NO_CLIENT: Final[Meaning] = (
    "dependency_missing",
    False,
    "the client library of Firebird was not found; install it, or name its file in the url: ?fb_client_library=",
)
_UNREADABLE: Final[Meaning] = ("query_error", False, "the database cannot read the metadata of an entry")
_REFUSED_BY_SQLITE: Final[Meaning] = (
    "query_error",
    False,
    f"{REFUSED[2]}; its tables were changed, or {FILE_DAMAGED}",
)
_STATE: Final = "SQLSTATE "  # messages show this before a code of the SQL standard

_SMALL_PAGES: Final[Meaning] = (
    "configuration_error",
    False,
    "the server takes no index over keys this long; it needs an innodb_page_size of 16384 or more, which is chosen "
    "when its data folder is created, and ROW_FORMAT=DYNAMIC for our tables",
)
_NO_INNODB: Final[Meaning] = (
    "configuration_error",
    False,
    "the server has InnoDB switched off, which the tables need",
)
_LOGS_STATEMENTS: Final[Meaning] = (
    "configuration_error",
    False,
    "the server's binlog_format is STATEMENT, which allows no transaction at READ COMMITTED; set it to ROW or MIXED",
)
_ROW_LIMIT: Final[Meaning] = (
    "configuration_error",
    False,
    "the session is not allowed to read so many rows (max_join_size); set sql_big_selects = 1 in it",
)
_FORBIDDEN: Final[Meaning] = ("configuration_error", False, "an option of the server forbids what this call needs")
_MYSQL: Final[dict[int, Meaning]] = {
    **dict.fromkeys((1213, 1305, 1020, 3101, 1180), DEADLOCK),
    1205: LOCK_WAIT,
    **dict.fromkeys((3024, 1969), STATEMENT_TIMEOUT),
    **dict.fromkeys((2006, 2013, 2055, 4031, 1053), LOST),
    **dict.fromkeys((1047, 3032, 3100), OUT_OF_CLUSTER),
    **dict.fromkeys((1290, 1792, 1836), STANDBY),
    **dict.fromkeys((2002, 2003), UNREACHABLE),
    2005: UNKNOWN_HOST,
    2026: TLS_FAILED,
    3159: ONLY_TLS,
    **dict.fromkeys((1071, 1709), _SMALL_PAGES),
    **dict.fromkeys((1286, 3161), _NO_INNODB),
    1104: _ROW_LIMIT,
    1665: _LOGS_STATEMENTS,
    **dict.fromkeys((1040, 1203, 1226), NO_CONNECTION),
    **dict.fromkeys((1045, 1698, 1820, 1862, 3118, 4151), AUTH),
    **dict.fromkeys((1049, 1102), NO_DATABASE),
    **dict.fromkeys((1062, 1048), CONSTRAINT),
    **dict.fromkeys((1406, 1153), TOO_LARGE),
    **dict.fromkeys((1264, 1690), TOO_HIGH),
    1114: FULL,
    3157: _UNREADABLE,  # more than 100 nested levels; JSON_VALID fails too
    **dict.fromkeys((1146, 1054), NO_TABLE),
    **dict.fromkeys((1044, 1142), DENIED),
}
_SQLITE: Final[dict[str, Meaning]] = {
    "BUSY": LOCK_WAIT,
    "LOCKED": LOCK_WAIT,
    "INTERRUPT": _UNDONE,
    "READONLY": READ_ONLY,
    "READONLY_DIRECTORY": _NO_FILES_BESIDE,
    "CANTOPEN": _NO_FILE,
    "NOTADB": ("connection_error", False, f"{FILE_DAMAGED}, or it is not an SQLite database"),
    "CORRUPT": ("connection_error", False, FILE_DAMAGED),
    "CONSTRAINT": CONSTRAINT,
    "TOOBIG": TOO_LARGE,
    "FULL": FULL,
    "IOERR": ("query_error", False, "the file cannot be read or written"),
}
# Firebird's own numbers, for errors whose SQLSTATE says too little or something else.
_FIREBIRD: Final[dict[int, Meaning]] = {
    **dict.fromkeys((335544336, 335544345, 335544510), DEADLOCK),
    335544721: UNREACHABLE,
    **dict.fromkeys((335544726, 335544727, 335544741, 335544856), LOST),
    335544794: _INTERRUPTED,
    335544344: NO_DATABASE,
    335544352: DENIED,
    335544580: NO_TABLE,
}
# The texts of errors without a code: sqlite3 before Python 3.11, and DuckDB. Both are always in English.
_TEXTS: Final[tuple[tuple[str, Meaning], ...]] = (
    (r"database (table )?is locked", LOCK_WAIT),
    # DuckDB detects conflicts when a transaction writes or commits.
    (r"TransactionContext Error: (Conflict on|Failed to commit.* (constraint violation|conflict))", DEADLOCK),
    (r"Could not set lock on file", _ONE_PROCESS),
    (r"not a valid DuckDB database", ("connection_error", False, "the file is not a DuckDB database")),
    (r"IO Error: Cannot open file|IO Error: Could not read from file", _NO_FILE),
    (r"INTERRUPT Error", _INTERRUPTED),
    (r"^Constraint Error", CONSTRAINT),
    (r"^interrupted$", _UNDONE),
    (r"readonly database", READ_ONLY),
    (r"unable to open database file", _NO_FILE),
    (r"file is not a database", _SQLITE["NOTADB"]),
    (r"malformed", _SQLITE["CORRUPT"]),
    (r"invalid fts5 file format|vtable constructor failed", _SQLITE["CORRUPT"]),
    (r"same text encoding", ("connection_error", False, f"{FILE_DAMAGED}, or its encoding is not UTF-8")),
    (r"unsupported file format", ("connection_error", False, f"{FILE_DAMAGED}, or made by a later SQLite")),
    (r"disk is full", FULL),
    (r"string or blob too big", TOO_LARGE),
    (r"constraint failed", CONSTRAINT),
    (r"no such (table|column)", NO_TABLE),
    (r"Firebird Client Library", _NO_CLIENT),
    (
        r"is not a MariaDB variant",  # SQLAlchemy
        ("configuration_error", False, "the url says mariadb, but the server is MySQL; let the url begin with mysql"),
    ),
)
# The texts of these errors may say more.
_VAGUE: Final = (REFUSED, LOST, UNREACHABLE, POOLER_BROKE, TLS_FAILED)


DAMAGED: Final = Failure("connection_error", FILE_DAMAGED)


def may_be_damage(failure: LTMError) -> bool:
    """Return whether a damaged file may have caused a failure, although the database reported something else."""
    texts = (CONSTRAINT[2], NO_TABLE[2], REFUSED[2], DEADLOCK[2])
    return "damaged" not in failure.result and str(failure).startswith(texts)


def out_of_time(seconds: float) -> Failure:
    """Return the failure of a call whose time is over."""
    return Failure("connection_timeout", f"the database did not answer within {seconds:g} seconds")


def classify(error: BaseException) -> Failure:
    """Return the failure that stands for an error of SQLAlchemy or of a driver."""
    if isinstance(error, DeadlineError):
        return _failure(CONNECT_TIMEOUT)
    if isinstance(error, LostRaceError):
        return _failure(DEADLOCK)
    if isinstance(error, exc.TimeoutError):
        return _failure(_POOL)
    if isinstance(error, ConnectingError):
        return _no_connection(error)
    original = _original(error)
    code, meaning = _by_code(original)
    meaning = meaning or _by_text(original)
    if meaning in (None, REFUSED) and getattr(error, "connection_invalidated", False):
        meaning = LOST
    if meaning is None and is_of_libpq(original):
        meaning = LOST
    if meaning is None:
        meaning = _REFUSED_BY_SQLITE if code.startswith("SQLITE_") else REFUSED
        code = code or type(original).__name__
    return _failure(meaning, code)


def breaks_constraint(error: exc.DBAPIError) -> bool:
    """Return whether a constraint refused a row, for example because the key exists."""
    sqlstate = str(getattr(error.orig, "sqlstate", ""))  # Firebird's driver has no IntegrityError
    return isinstance(error, exc.IntegrityError) or sqlstate.startswith("23")


def _no_connection(error: ConnectingError) -> Failure:
    """Return the failure of connecting. A deadline error here means that connecting took too long."""
    if isinstance(error.error, DeadlineError):
        return _failure(CONNECT_TIMEOUT, where=error.where)
    original = _original(error.error)
    text = str(original)
    code, meaning = _by_code(original)
    if meaning in (None, *_VAGUE):
        meaning = by_text_of_tls(text) or meaning
    meaning = meaning or _by_text(original)
    if meaning in (None, REFUSED) and is_of_postgres(original):
        meaning = refused_with(text, error.hidden)
    if meaning is None:
        meaning, code = REFUSED_CONNECTION, code or type(original).__name__
    return _failure(while_connecting(meaning, code.removeprefix(_STATE)), code, where=error.where, text=text)


def _original(error: BaseException) -> Any:
    return getattr(error, "orig", None) or error


def _by_text(original: Any) -> Meaning | None:
    text = str(original)
    meanings = (meaning for pattern, meaning in _TEXTS if re.search(pattern, text, re.IGNORECASE))
    return next(meanings, None) or by_text(text)


def _failure(meaning: Meaning, code: str = "", *, where: Where = NOWHERE, text: str = "") -> Failure:
    return Failure(
        meaning[0],
        message_of(meaning, where, code, text),
        retry=meaning[1],
        lost=meaning in (LOST, POOLER_BROKE, *_ELSEWHERE),
        is_lasting=meaning in (STANDBY, POOLER_BROKE),
        waited=meaning is LOCK_WAIT,
        denied=meaning[2] in (DENIED[2], READ_ONLY[2], _NO_FILES_BESIDE[2]),
        untouched=meaning in (LOCK_WAIT, _UNDONE, DENIED, READ_ONLY, *_ELSEWHERE),
        unreadable=meaning is _UNREADABLE,
    )


def _was_closed_by_server(error: BaseException | None) -> bool:
    """Return whether the server closed the connection while it was set up, also in the TLS handshake."""
    is_ended = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
    return is_ended or type(error).__name__ == "SSLEOFError"


def _by_code(original: Any) -> tuple[str, Meaning | None]:
    number = original.args[0] if getattr(original, "args", ()) else None
    if isinstance(number, int) and not isinstance(original, OSError):
        if number == 2003 and _was_closed_by_server(getattr(original, "original_exception", None)):  # of PyMySQL
            return f"error {number}", LOST
        return f"error {number}", _by_number(number, str(original))
    sqlstate = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    for own in getattr(original, "gds_codes", None) or ():
        if own in _FIREBIRD:
            return f"error {own}", _FIREBIRD[own]
    if takes_no_transactions(original):  # psycopg2 has no code for an error that also closed the connection
        return f"{_STATE}08P01", WITHOUT_TRANSACTIONS
    if sqlstate:
        return f"{_STATE}{sqlstate}", by_sqlstate(sqlstate)
    name = getattr(original, "sqlite_errorname", None)
    if name:
        kind = name.removeprefix("SQLITE_")
        return name, _SQLITE.get(kind) or _SQLITE.get(kind.partition("_")[0])
    return "", None


def _by_number(number: int, text: str) -> Meaning:
    """Return the meaning of an error number of MySQL or MariaDB.

    A few numbers have several meanings; the text decides.
    """
    if number == -1 and "Connection not available" in text:  # Connector/Python, for a closed connection
        return LOST
    if number in (2002, 2003, 2013) and (told := by_text(text)) in (CONNECT_TIMEOUT, UNKNOWN_HOST):
        return told
    if number == 1290 and not re.search("read.only", text):  # number 1290 stands for any option of the server
        return _FORBIDDEN
    return _MYSQL.get(number, REFUSED)
