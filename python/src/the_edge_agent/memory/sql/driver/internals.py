"""Private parts of other libraries that we use. Each docstring says why no public way is enough.

``python/tests/dialects/test_internals.py`` fails when a library changes one of them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine
from sqlalchemy.pool import ConnectionPoolEntry, Pool


def has_events(engine: Engine) -> bool:
    """Return whether an engine may have listeners for statements.

    ``event.contains`` needs to know the listener. No public function tells whether there is any.
    """
    listened: Any = engine
    return bool(listened._has_events)


def logs_statements(engine: Engine) -> bool:
    """Return whether an engine logs its statements.

    ``engine.echo`` ignores the level that was set with ``logging``.
    """
    return bool(engine._should_log_info())


def isolation_level_of(engine: Engine) -> str | None:
    """Return the isolation level that was passed to ``create_engine``.

    The public way, ``get_isolation_level``, sends a statement to the server.
    """
    level: str | None = getattr(engine.dialect, "_on_connect_isolation_level", None)
    return level


def invalidate_older(pool: Pool, connection: Any, error: BaseException) -> None:
    """Close a lost connection, and before their next use all connections that the pool has had for as long.

    SQLAlchemy does this when its own ``execute`` finds a lost connection. No public method reports one to the pool.
    """
    pool._invalidate(connection, error)


def parent_of(engine: Any) -> Engine | None:
    """Return the engine on which ``execution_options`` was called to create this copy, or None for an original."""
    parent: Engine | None = getattr(engine, "_proxied", None)
    return parent


def set_parent(engine: Any, parent: Engine) -> None:
    """Set the engine whose pool a copy uses. ``execution_options`` would add the listeners twice."""
    engine._proxied = parent


def socket_of_pymysql(connection: Any) -> Any:
    """Return the socket of PyMySQL's connection, or None for another driver. PyMySQL has no ``fileno``."""
    return getattr(connection, "_sock", None)


def socket_of_connector(connection: Any) -> Any:
    """Return the socket of MySQL Connector/Python's connection, or None for another driver. It has no ``fileno``."""
    return getattr(getattr(connection, "_socket", None), "sock", None)


def is_in_transaction_of_duckdb(connection: Any) -> bool:
    """Return whether DuckDB's driver for SQLAlchemy is in a transaction.

    Otherwise only a failing BEGIN would show it.
    """
    return getattr(connection, "_transaction_statements", None) is not None


def needs_proxy(pool: Any) -> bool:
    """Return whether a pool logs, pings, or has listeners. Only its own ``connect`` does these things."""
    listeners = pool.dispatch
    return bool(pool._pre_ping or listeners.checkout or listeners.reset or pool._should_log_debug())


def call_checkin_listeners(pool: Any, entry: ConnectionPoolEntry) -> None:
    """Call the pool's listeners for a returned connection. The public ``connect`` always creates a proxy."""
    pool.dispatch.checkin(entry.dbapi_connection, entry)


def connection_of(entry: Any) -> Any:
    """Return the driver's connection of a pool entry. It is opened again if it is closed or too old."""
    entry.get_connection()
    return entry.driver_connection
