"""What errors of psycopg mean, without secrets and without anything that is stored."""

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
    """The time of a call is over."""


class CutError(LTMError):
    """A connection was cut while it was made or set up; another one may serve."""


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the connection is gone, so that another one may serve."""
    code = error.sqlstate or ""
    is_of_libpq = not code and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return code.startswith(("08", "57P", "25P03", "25P04")) or (is_of_libpq and not isinstance(error, OutOfTimeError))


def failure_of(error: psycopg.Error) -> LTMError:
    """Return the failure that stands for an error of the server, without anything that is stored."""
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
    """Return why there is no connection: a ``CutError`` if there was one, and the server has ended it.

    Args:
        error: that came instead of it.
        where: it would lead.
        hidden: what no message may show.
    """
    if isinstance(error, (TypeError, ValueError)):  # Python's own, as of a host whose name is too long
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
