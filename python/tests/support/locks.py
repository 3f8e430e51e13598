"""Locks of whole tables on a server, so that calls of a test have to wait."""

from __future__ import annotations

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from databases import Database


def lock_tables(database: Database, *names: str) -> Connection:
    """Lock tables against reads and writes until the returned connection is closed."""
    connection = create_engine(database.url, poolclass=NullPool).connect()
    if database.target.family == "postgresql":
        statement = f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE"
    else:
        statement = f"LOCK TABLES {', '.join(f'{name} WRITE' for name in names)}"
    connection.exec_driver_sql(statement)
    return connection
