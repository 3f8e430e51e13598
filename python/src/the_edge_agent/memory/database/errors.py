"""Translate errors of databases into ``error_type`` and message, by SQLSTATE or by fixed texts of libpq."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

from the_edge_agent.memory.core.results import ErrorType
from the_edge_agent.memory.database.poolers import BROKEN_PROTOCOL, NO_TRANSACTIONS, PREPARED_ELSEWHERE


class Where(NamedTuple):
    """The parts of a database address that messages may name. An unknown part is empty."""

    user: str = ""
    host: str = ""
    port: str = ""
    database: str = ""
    options: tuple[str, ...] = ()  # names of the options in the url and in the driver's arguments

    @property
    def address(self) -> str:
        """The host with its port, such as ``localhost:5432``; empty if there is no host."""
        return f"{self.host}:{self.port}" if self.host and self.port else self.host

    @property
    def for_encryption(self) -> str:
        """The names of the TLS options."""
        return ", ".join(name for name in self.options if name.startswith("ssl"))


NOWHERE: Final = Where()

# The meaning of an error: (error_type, whether to run the whole transaction again, the message for the user).
Meaning: TypeAlias = tuple[ErrorType, bool, str]

DEADLOCK: Final[Meaning] = ("lock_timeout", True, "gave way to concurrent transactions; try again")
LOCK_WAIT: Final[Meaning] = ("lock_timeout", True, "waited too long for a lock; try again")
STATEMENT_TIMEOUT: Final[Meaning] = ("query_error", False, "the server cancelled the statement at its time limit")
LOST: Final[Meaning] = ("connection_error", False, "lost the connection to the database")
READ_ONLY: Final[Meaning] = ("connection_error", False, "the database is read-only")
# A server answers so after a failover: another server may take the writes now, and a new connection may reach that one.
STANDBY: Final[Meaning] = ("connection_error", False, "the database is read-only")
OUT_OF_CLUSTER: Final[Meaning] = (
    "connection_error",
    False,
    "this node has lost its cluster, or is still joining it; it takes no statements now",
)
UNREACHABLE: Final[Meaning] = (
    "connection_error",
    False,
    "cannot reach the database; is it running at this address?",
)
UNKNOWN_HOST: Final[Meaning] = ("connection_error", False, "cannot reach the database: its host's name is unknown")
NOT_READY: Final[Meaning] = (
    "connection_error",
    False,
    "the server takes no connections now, because it is starting, stopping or recovering",
)
NO_CONNECTION: Final[Meaning] = ("connection_error", False, "the server has no connection left for us")
REFUSED_CONNECTION: Final[Meaning] = ("connection_error", False, "the database refused the connection")
CONNECT_TIMEOUT: Final[Meaning] = ("connection_timeout", False, "the database did not answer in time")
AUTH: Final[Meaning] = ("auth_failed", False, "the database refused the user name or password")
NO_DATABASE: Final[Meaning] = ("connection_error", False, "there is no such database")
CONSTRAINT: Final[Meaning] = ("validation_error", False, "the entry breaks a constraint of the table")
TOO_LARGE: Final[Meaning] = ("validation_error", False, "the entry is larger than the database accepts")
TOO_HIGH: Final[Meaning] = (
    "validation_error",
    False,
    "a number is out of range, such as a version after 2^63-1; delete the entry and store it again",
)
FULL: Final[Meaning] = ("query_error", False, "the database has no space left")
NO_TABLE: Final[Meaning] = ("query_error", False, "a table or column is missing; was it dropped, or never created?")
DENIED: Final[Meaning] = ("query_error", False, "the user lacks a privilege that this call needs")
REFUSED: Final[Meaning] = ("query_error", False, "the database refused the statement")
UNKNOWN_OPTION: Final[Meaning] = (
    "configuration_error",
    False,
    "the driver does not know one of its options, or its value",
)
BAD_OPTION: Final[Meaning] = ("configuration_error", False, "the server does not accept one of the driver's options")
NO_TLS: Final[Meaning] = (
    "configuration_error",
    False,
    "the server has no TLS, but the url requires it; set up TLS on the server, or leave the option out",
)
ONLY_TLS: Final[Meaning] = (
    "configuration_error",
    False,
    "the server takes encrypted connections only; add TLS to the url: sslmode=require for PostgreSQL, ssl_ca=FILE "
    "for MySQL and MariaDB",
)
NOT_ENCRYPTED: Final[Meaning] = (
    "configuration_error",
    False,
    "the connection is not encrypted although the url requires it: the server has no TLS, or the driver ignores the "
    "option",
)
BAD_CERTIFICATE: Final[Meaning] = (
    "connection_error",
    False,
    "the certificate of the server cannot be verified; does the url name its host and the right authority?",
)
TLS_FAILED: Final[Meaning] = (
    "connection_error",
    False,
    "the encrypted connection failed; do the certificates and the options of the url fit the server?",
)
POOLER_BROKE: Final[Meaning] = ("connection_error", False, BROKEN_PROTOCOL)
WITHOUT_TRANSACTIONS: Final[Meaning] = ("configuration_error", False, NO_TRANSACTIONS)
_PREPARED_ELSEWHERE: Final[Meaning] = ("configuration_error", False, PREPARED_ELSEWHERE)

SQLSTATE: Final[dict[str, Meaning]] = {
    "40P01": DEADLOCK,
    "40001": DEADLOCK,
    "55P03": LOCK_WAIT,
    "57014": STATEMENT_TIMEOUT,
    "57P01": LOST,
    "57P02": LOST,
    "57P04": LOST,
    "57P05": LOST,
    "25P03": LOST,  # idle in a transaction for too long
    "25P04": LOST,
    "57P03": NOT_READY,
    "26000": _PREPARED_ELSEWHERE,
    "42P05": _PREPARED_ELSEWHERE,
    "08P01": POOLER_BROKE,
    "25006": STANDBY,
    "53300": NO_CONNECTION,
    "28000": AUTH,
    "28P01": AUTH,
    "3D000": NO_DATABASE,
    "3F000": ("configuration_error", False, "no schema of the search_path exists"),
    "23505": CONSTRAINT,
    "23502": CONSTRAINT,
    "22001": TOO_LARGE,
    "22003": TOO_HIGH,
    "54000": TOO_LARGE,
    "53100": FULL,
    "42P01": NO_TABLE,
    "42703": NO_TABLE,
    "42501": DENIED,
}
_SQLSTATE_CLASS: Final[dict[str, Meaning]] = {"08": LOST, "23": CONSTRAINT}
# While connecting, these codes mean a bad option: the client has sent nothing else yet.
_OF_OPTIONS: Final = (
    *("22023", "42601", "42704", "55P02"),
    *("error 1064", "error 1115", "error 1193", "error 1231", "error 1273"),
)

# While connecting, libpq gives no code. These are texts of libpq, psycopg and the server, all in English.
_TEXTS: Final[tuple[tuple[str, Meaning], ...]] = (
    (r"password authentication failed|no password supplied|no pg_hba.conf entry|role .* does not exist", AUTH),
    (r"database .* does not exist", NO_DATABASE),
    (r"timeout expired|connection timeout|timed out", CONNECT_TIMEOUT),
    (r"translate host name|failed to resolve|name resolution|name or service not known|getaddrinfo", UNKNOWN_HOST),
    (r"starting up|shutting down|in recovery mode|not (yet )?accepting connections", NOT_READY),
    (r"too many (clients|connections)|connection slots", NO_CONNECTION),
    (
        r"server closed the connection|connection reset by peer|broken pipe|connection is (lost|closed)"
        r"|connection (already closed|not open)",
        LOST,
    ),
    (r"refused|is the server running|no route to host|network is unreachable|cannot connect to server", UNREACHABLE),
    (r"invalid value for parameter|configuration parameter|command-line argument", BAD_OPTION),
    (r"invalid (connection option|dsn|\w+ value)|bad value", UNKNOWN_OPTION),
)


# Texts of the TLS libraries of drivers while connecting, and of PgBouncer.
_TEXTS_OF_TLS: Final[tuple[tuple[str, Meaning], ...]] = (
    (r"does not support SSL|doesn't support (it|SSL)|SSL is required,? but", NO_TLS),
    (r"SSL required|insecure transport", ONLY_TLS),
    (r"closed unexpectedly|reset by peer|SYSCALL|EOF occurred", LOST),
    (
        r"verify failed|does not match host name|not valid for|validation of peer certificate|self.signed",
        BAD_CERTIFICATE,
    ),
    (
        r"(root|server|client|peer) certificate|certificate (verify|file)|\[(SSL|X509|PEM)|SSL (error|connection)",
        TLS_FAILED,
    ),
)
# The attribute of ``Where`` that a message also names.
_NAMED: Final[dict[Meaning, str]] = {
    **dict.fromkeys((UNREACHABLE, CONNECT_TIMEOUT, NOT_READY, NO_CONNECTION), "address"),
    UNKNOWN_HOST: "host",
    NO_DATABASE: "database",
    AUTH: "user",
    **dict.fromkeys((NO_TLS, NOT_ENCRYPTED, BAD_CERTIFICATE, TLS_FAILED), "for_encryption"),
}
_PLACE: Final = re.compile("^(connection failed: )?(connection to server .* failed: )?")
_QUOTED: Final = re.compile(
    "[\"“”„][^\"“”]*[\"“”]|»[^«]*«|«[^»]*»|[`'‘‚][^'’‘]*['’‘]"
)  # a server repeats the text of a client in quotation marks
_MAX_SHOWN: Final = 200  # characters of a server's text


def by_sqlstate(code: str) -> Meaning:
    """Return the meaning of an SQLSTATE."""
    return SQLSTATE.get(code) or _SQLSTATE_CLASS.get(code[:2], REFUSED)


def by_text(text: str) -> Meaning | None:
    """Return the meaning of the text of an error without a code, or None if the text is unknown."""
    return next((meaning for pattern, meaning in _TEXTS if re.search(pattern, text, re.IGNORECASE)), None)


def by_text_of_tls(text: str) -> Meaning | None:
    """Return the meaning of the text of a TLS error while connecting, or None for any other text."""
    return next((meaning for pattern, meaning in _TEXTS_OF_TLS if re.search(pattern, text, re.IGNORECASE)), None)


def is_of_postgres(error: Any) -> bool:
    """Return whether psycopg or psycopg2 raised this error."""
    return hasattr(error, "pgconn") or hasattr(error, "pgcode")


def is_of_libpq(error: Any) -> bool:
    """Return whether libpq raised this error of psycopg or psycopg2: then it has no code from the server."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return is_of_postgres(error) and not code and bool(kinds & {"OperationalError", "InterfaceError"})


def while_connecting(meaning: Meaning, code: str = "") -> Meaning:
    """Return the meaning of an error while connecting. It cannot be the failure of a statement."""
    if code in _OF_OPTIONS:
        return BAD_OPTION
    if meaning is REFUSED:
        return REFUSED_CONNECTION
    error_type, retry, message = meaning
    return ("connection_error", retry, message) if error_type == "query_error" else meaning


def refused_with(text: str, hidden: Iterable[str]) -> Meaning:
    """Return the meaning of an unknown error while connecting. Its message has the server's text without quotations.

    Args:
        text: the text of the error, in any language.
        hidden: secrets such as the password. A text that contains one of them is not shown at all.
    """
    shown = _QUOTED.sub("…", _PLACE.sub("", text.partition("\n")[0]))[:_MAX_SHOWN]
    if not shown or any(secret in shown for secret in hidden if secret):
        return REFUSED_CONNECTION
    error_type, retry, message = REFUSED_CONNECTION
    return error_type, retry, f"{message}; it says: {shown}"


def options_in(text: str, where: Where) -> list[str]:
    """Return the options that the text of an error names; if it names none, all options of the connection."""
    named = [option for option in where.options if re.search(rf"(?<![\w-]){option}(?![\w-])", text)]
    return named or [*where.options]


def message_of(meaning: Meaning, where: Where, code: str = "", text: str = "") -> str:
    """Return the message for the user. It names the wrong part of the address or the wrong option, and the code."""
    default = "address" if meaning[0] == "connection_error" else ""
    name = str(getattr(where, _NAMED.get(meaning, default), ""))
    named = f"user {name}" if name and meaning is AUTH else name
    if meaning in (UNKNOWN_OPTION, BAD_OPTION):
        named = ", ".join(options_in(text, where))
    details = ", ".join(filter(None, (named, code)))
    return f"{meaning[2]} ({details})" if details else meaning[2]
