"""Upserts that return the version: one statement, where the database has INSERT ... RETURNING."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.sql.dml import Insert

from the_edge_agent.memory.sql.dialects.base import Dialect


class UpsertReturning(Dialect):
    """What PostgreSQL, SQLite and MariaDB have in common."""

    def __init__(self, entries: Table) -> None:
        """Build the statements."""
        super().__init__(entries)
        statement = self.upsert_statement()
        self._returning = statement.returning(entries.c.version)
        self._returning_both = statement.returning(entries.c.key, entries.c.version)

    def upsert_statement(self) -> Insert:
        """Return the insert that becomes an update when the key is there."""
        raise NotImplementedError

    def upsert(self, connection: Connection, row: Mapping[str, Any]) -> int:
        """Store an entry in one statement."""
        version: int = connection.execute(self._returning, row).scalar_one()
        return version

    def upsert_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Store entries in one statement."""
        return {row[0]: row[1] for row in connection.execute(self._returning_both, rows)}
