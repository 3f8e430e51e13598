"""MariaDB: as MySQL, with RETURNING, its own collation, and JSON that is plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Connection, Table, cast, func
from sqlalchemy.dialects.mysql import DOUBLE, VARCHAR, insert
from sqlalchemy.types import Numeric, TypeEngine

from the_edge_agent.memory.filters import Path
from the_edge_agent.memory.sql.dialects.conditions import Kind, NotInSQLError, Test
from the_edge_agent.memory.sql.dialects.mysql import MySQLDialect
from the_edge_agent.memory.validation import MAX_KEY_LENGTH


class MariaDBDialect(MySQLDialect):
    """MariaDB 10.5 or later."""

    key_type: ClassVar[TypeEngine[Any]] = VARCHAR(MAX_KEY_LENGTH, charset="utf8mb4", collation="utf8mb4_nopad_bin")

    def __init__(self, entries: Table) -> None:
        """Build the statements."""
        super().__init__(entries)
        statement = insert(entries).values(self.new_row())
        changes = self.changes(statement.inserted)
        self._upsert_returning = statement.on_duplicate_key_update(changes).returning(entries.c.version)

    def upsert(self, connection: Connection, row: Mapping[str, Any]) -> int:
        """Store an entry in one statement."""
        version: int = connection.execute(self._upsert_returning, row).scalar_one()
        return version
