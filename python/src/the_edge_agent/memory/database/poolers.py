"""Messages about connection poolers such as PgBouncer: what is wrong, and what to do."""

from __future__ import annotations

from typing import Final

PREPARED_ELSEWHERE: Final = (
    "a connection pooler such as PgBouncer has mixed up the prepared statements of its clients; leave "
    "prepare_threshold out, or let the pooler keep sessions (pool_mode = session)"
)
BROKEN_PROTOCOL: Final = (
    "the server, or a connection pooler such as PgBouncer before it, has ended the conversation; if prepare_threshold "
    "is set, leave it out, or let the pooler keep sessions (pool_mode = session)"
)
NO_TRANSACTIONS: Final = (
    "the connection pooler takes no transactions (pool_mode = statement), which this memory needs; set pool_mode to "
    "transaction or session"
)
PREPARES: Final = (
    "the engine lets the server keep prepared statements, which a connection pooler mixes up; make the engine with "
    'connect_args={"prepare_threshold": None}'
)
_SINGLE_STATEMENTS: Final = "statement pooling"


def takes_no_transactions(error: BaseException) -> bool:
    """Return whether a pooler has refused to begin a transaction. Only the text says so: the SQLSTATE is just 08P01."""
    return _SINGLE_STATEMENTS in str(error)
