"""What we use of other libraries though they do not promise it: each with the public way that is missing.

``python/tests/dialects/test_internals.py`` fails when a library changes one of them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine
from sqlalchemy.pool import ConnectionPoolEntry, Pool


def has_events(engine: Engine) -> bool:
    """Return whether somebody may listen to the statements of an engine.

    ``event.contains`` answers for one function that the caller knows. Nothing public answers for any function.
    """
    listened: Any = engine
    return bool(listened._has_events)


def logs_statements(engine: Engine) -> bool:
    """Return whether an engine logs its statements.

    ``engine.echo`` does not know of the level that ``logging`` has set.
    """
    return bool(engine._should_log_info())


def isolation_level_of(engine: Engine) -> str | None:
    """Return the isolation level that ``create_engine`` was given.

    The public way, ``get_isolation_level``, asks the server.
    """
    level: str | None = getattr(engine.dialect, "_on_connect_isolation_level", None)
    return level


def invalidate_older(pool: Pool, connection: Any, error: BaseException) -> None:
    """Close a connection, and each that the pool has had for as long before somebody uses it.

    SQLAlchemy does so when its own ``execute`` meets a lost connection. There is no public way to say that it is lost.
    """
    pool._invalidate(connection, error)


def parent_of(engine: Any) -> Engine | None:
    """Return the engine that ``execution_options`` was called on, None if this is none of its copies."""
    parent: Engine | None = getattr(engine, "_proxied", None)
    return parent


def set_parent(engine: Any, parent: Engine) -> None:
    """Set the engine of which another has the pool; ``execution_options`` would add listeners twice."""
    engine._proxied = parent


def socket_of_pymysql(connection: Any) -> Any:
    """Return the socket of a connection of PyMySQL, None of another; mysqlclient and psycopg have ``fileno``."""
    return getattr(connection, "_sock", None)


def socket_of_connector(connection: Any) -> Any:
    """Return the socket of a connection of MySQL Connector/Python, None of another; there is no ``fileno``."""
    return getattr(getattr(connection, "_socket", None), "sock", None)


def is_in_transaction_of_duckdb(connection: Any) -> bool:
    """Return whether DuckDB's driver for SQLAlchemy is in a transaction; only an error of BEGIN would tell."""
    return getattr(connection, "_transaction_statements", None) is not None


def needs_proxy(pool: Any) -> bool:
    """Return whether a pool logs, pings, or has listeners, which only its own ``connect`` cares for."""
    told = pool.dispatch
    return bool(pool._pre_ping or told.checkout or told.reset or pool._should_log_debug())


def tell_checkin(pool: Any, entry: ConnectionPoolEntry) -> None:
    """Tell the listeners of a pool that a connection comes back; ``connect`` has no part without a proxy."""
    pool.dispatch.checkin(entry.dbapi_connection, entry)


def connection_of(entry: Any) -> Any:
    """Return the driver's connection of a place in the pool, opened again if it is closed or too old."""
    entry.get_connection()
    return entry.driver_connection
