"""The dialect of CockroachDB: PostgreSQL's, without collations and table locks.

We have not run it on a server. Tests only compile its statements.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection, DateTime, String

from the_edge_agent.memory.core.validation import MAX_KEY_LENGTH
from the_edge_agent.memory.postgres.sessions import lock_timeout
from the_edge_agent.memory.sql.dialects.base import DialectSchema
from the_edge_agent.memory.sql.dialects.postgresql.connection import PostgreSQLSessions
from the_edge_agent.memory.sql.dialects.postgresql.dialect import PostgreSQLDialect
from the_edge_agent.memory.sql.dialects.postgresql.features import PostgreSQLFeatures
from the_edge_agent.memory.sql.dialects.postgresql.schema import PostgreSQLSchema


class CockroachDBSessions(PostgreSQLSessions):
    """Connections to CockroachDB."""

    def settings(self, timeout: float, idle: float, driver_connection: Any) -> list[str]:
        """Return statements that set the time limits that this server has."""
        limits = {"lock_timeout": lock_timeout(timeout), "idle_in_transaction_session_timeout": round(idle * 1_000)}
        return [f"SET {name} = {limit}" for name, limit in limits.items() if limit]


class CockroachDBSchema(PostgreSQLSchema):
    """Defines and creates our tables on CockroachDB."""

    def exclusively(self, connection: Connection, name: str) -> AbstractContextManager[Any]:
        """Lock every row, because there is no LOCK TABLE."""
        return DialectSchema.exclusively(self, connection, name)


class CockroachDBDialect(PostgreSQLDialect):
    """CockroachDB, whose strings compare by their bytes; the first start checks that."""

    sessions = CockroachDBSessions()
    features = PostgreSQLFeatures(
        exact_collation=None,
        key_type=String(MAX_KEY_LENGTH),
        has_exact_keys=False,
        hides_words=False,  # with a subquery it would not use the index
        time_type=DateTime(timezone=True),
    )
    schema_class = CockroachDBSchema
