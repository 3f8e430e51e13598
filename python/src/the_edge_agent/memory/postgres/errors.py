"""The meaning of psycopg's errors, without secrets and without stored values."""

from __future__ import annotations

from collections.abc import Collection

import psycopg

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.database.errors import (
    LOST,
    REFUSED,
    WITHOUT_TRANSACTIONS,
    Where,
    by_sqlstate,
    by_text,
    by_text_of_tls,
    message_of,
    refused_with,
    while_connecting,
)
from the_edge_agent.memory.database.poolers import takes_no_transactions


class OutOfTimeError(psycopg.OperationalError):
    """The time for a call is over."""


class CutError(LTMError):
    """The server closed a connection while it was set up. A new connection may help."""


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the connection is lost, so that a new connection may help."""
    code = error.sqlstate or ""
    is_of_libpq = not code and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return code.startswith(("08", "57P", "25P03", "25P04")) or (is_of_libpq and not isinstance(error, OutOfTimeError))


def failure_of(error: psycopg.Error) -> LTMError:
    """Return the failure for an error of the server, without stored values."""
    code = error.sqlstate or ""
    if takes_no_transactions(error):
        meaning = WITHOUT_TRANSACTIONS
    elif code:
        meaning = by_sqlstate(code)
    else:
        meaning = LOST if is_lost(error) else REFUSED
    shown = f"SQLSTATE {code}" if code else type(error).__name__
    error_type, _, message = meaning
    return LTMError(error_type, message if meaning is LOST else f"{message} ({shown})")


def refusal_of(error: Exception, where: Where, hidden: Collection[str]) -> LTMError:
    """Return the failure for an error of connecting: a ``CutError`` if the server closed the connection.

    Args:
        error: the error.
        where: the place to which the connection would lead.
        hidden: words that no message may show.
    """
    if isinstance(error, (TypeError, ValueError)):  # errors of Python, for example for a host name that is too long
        shown = type(error).__name__
        return LTMError("configuration_error", f"the driver does not accept the url or one of its options ({shown})")
    code, text = getattr(error, "sqlstate", None) or "", str(error)
    if takes_no_transactions(error):
        meaning = WITHOUT_TRANSACTIONS
    else:
        meaning = by_sqlstate(code) if code else by_text_of_tls(text) or by_text(text) or REFUSED
    if meaning is REFUSED and isinstance(error, psycopg.Error):
        meaning = refused_with(text, hidden)
    meaning = while_connecting(meaning, code)
    kind = CutError if meaning is LOST else LTMError
    return kind(meaning[0], message_of(meaning, where, f"SQLSTATE {code}" if code else "", text))
