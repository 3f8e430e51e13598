"""What errors of psycopg mean, without secrets and without anything that is stored."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from the_edge_agent.memory.poolers import (
    BROKEN_PROTOCOL,
    NO_TRANSACTIONS,
    PREPARED_ELSEWHERE,
    takes_no_transactions,
)
from the_edge_agent.memory.results import ErrorType, LTMError

# By SQLSTATE (PostgreSQL's appendix A).
_FAILURES: Final[dict[str, tuple[ErrorType, str]]] = {
    "40P01": ("lock_timeout", "gave way to concurrent transactions; try again"),
    "40001": ("lock_timeout", "gave way to concurrent transactions; try again"),
    "55P03": ("lock_timeout", "waited too long for a lock; try again"),
    "57014": ("query_error", "the server cancelled the statement at its time limit"),
    "57P01": ("connection_error", "lost the connection to the database"),
    "57P02": ("connection_error", "lost the connection to the database"),
    "26000": ("configuration_error", PREPARED_ELSEWHERE),
    "42P05": ("configuration_error", PREPARED_ELSEWHERE),
    "08P01": ("connection_error", BROKEN_PROTOCOL),
    "25006": ("connection_error", "the database is read-only"),
    "23505": ("validation_error", "the entry breaks a constraint of the table"),
    "23502": ("validation_error", "the entry breaks a constraint of the table"),
    "23514": ("validation_error", "the entry breaks a constraint of the table"),
    "22001": ("validation_error", "the entry is larger than the database accepts"),
    "22003": (
        "validation_error",
        "a number is out of range, such as a version after 2^63-1; delete the entry and store it anew",
    ),
    "54000": ("validation_error", "the entry is larger than the database accepts"),
    "53100": ("query_error", "the database has no space left"),
    "42P01": ("query_error", "a table or column is missing; was it dropped, or never created?"),
    "42703": ("query_error", "a table or column is missing; was it dropped, or never created?"),
    "42501": ("query_error", "the user lacks a privilege that this call needs"),
}
# What libpq, and the server, say of a connection that was cut while it was made.
_CUT: Final = "server closed the connection|connection has been closed|reset by peer|terminating connection"
# While connecting libpq gives no code: its texts.
_REFUSALS: Final[tuple[tuple[str, ErrorType, str], ...]] = (
    ("password|pg_hba.conf|role .* does not exist", "auth_failed", "the database refused the user name or password"),
    ("database .* does not exist", "connection_error", "there is no such database"),
    ("timeout expired|timed out", "connection_timeout", "the database did not answer in time"),
    ("too many|slots", "connection_error", "the server has no connection left for us"),
    (
        r"invalid (connection option|dsn|\w+ value)|bad value",
        "configuration_error",
        "the driver does not know an option of the url",
    ),
    ("", "connection_error", "cannot reach the database; is it running at this address?"),
)


class OutOfTimeError(psycopg.OperationalError):
    """The time of a call is over."""


class CutError(LTMError):
    """A connection was cut while it was made or set up; another one may serve."""


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the connection is gone, so that another one may serve."""
    code = error.sqlstate or ""
    is_of_libpq = not code and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return code.startswith(("08", "57P")) or (is_of_libpq and not isinstance(error, OutOfTimeError))


def failure_of(error: psycopg.Error) -> LTMError:
    """Return the failure that stands for an error of the server, without anything that is stored."""
    code = error.sqlstate or ""
    if takes_no_transactions(error):
        return LTMError("configuration_error", f"{NO_TRANSACTIONS} (SQLSTATE {code})")
    if code in _FAILURES:
        error_type, message = _FAILURES[code]
        return LTMError(error_type, f"{message} (SQLSTATE {code})")
    if is_lost(error):
        return LTMError("connection_error", "lost the connection to the database")
    shown = f"SQLSTATE {code}" if code else type(error).__name__
    return LTMError("query_error", f"the database refused the statement ({shown})")


def refusal_of(error: Exception) -> LTMError:
    """Return why there is no connection: a ``CutError`` if there was one, and the server has ended it.

    libpq has no code for that, and other texts for a connection that it never had.
    """
    is_late = isinstance(error, OutOfTimeError)
    if not is_late and (getattr(error, "sqlstate", None) == "57P01" or re.search(_CUT, str(error))):
        return CutError("connection_error", "lost the connection to the database")
    if isinstance(error, (TypeError, ValueError)):  # Python's own, as of a host whose name is too long
        shown = type(error).__name__
        return LTMError("configuration_error", f"the driver does not accept the url or one of its options ({shown})")
    for pattern, error_type, message in _REFUSALS:
        if re.search(pattern, str(error), re.IGNORECASE):
            return LTMError(error_type, message)
    raise AssertionError("the last pattern fits everything")
