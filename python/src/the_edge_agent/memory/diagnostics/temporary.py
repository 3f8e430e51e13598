"""Temporary tables for a check: created beside those of a memory, by the same code, and dropped at the end."""

from __future__ import annotations

import time
from typing import Any, Final

from sqlalchemy import Connection

from the_edge_agent.memory.sql.database import Database
from the_edge_agent.memory.sql.dialects import Dialect
from the_edge_agent.memory.sql.driver.deadlines import Deadline
from the_edge_agent.memory.sql.driver.options import EngineOptions
from the_edge_agent.memory.sql.schema.create import Schema
from the_edge_agent.memory.sql.schema.tables import Tables, copy_tables

_LEAST_TIME: Final = 0.1  # seconds that a call gets at least


class TemporaryDatabase(Database):
    """A database with temporary tables, whose names begin with a name that nobody else uses.

    The caller that starts it must call ``drop``. Nothing else in the database is changed, not even a setting.

    Attributes:
        end: the ``time.monotonic`` at which all calls must have ended.
    """

    def __init__(
        self, source: Any, options: EngineOptions, *, name: str, dialect_class: type[Dialect] | None = None
    ) -> None:
        """Check the source. This does not connect to the database.

        Raises:
            LTMError: ``configuration_error``.
        """
        super().__init__(source, options, entries_name=f"{name}_entries", search=True, dialect_class=dialect_class)
        self.end = time.monotonic() + options.timeout
        self._prefix = f"{name}_"

    @property
    def table_names(self) -> list[str]:
        """The names of the temporary tables."""
        return [table.name for table in self._copy_tables().all()]

    def drop(self) -> None:
        """Drop the tables that exist, with their indexes and triggers. This works after a failed start too.

        Raises:
            LTMError: tables may still be there.
        """
        self.peek(lambda schema, connection: schema.drop(connection))

    def _seconds(self) -> float:
        return max(_LEAST_TIME, round(self.end - time.monotonic(), 1))

    def _copy_tables(self) -> Tables:
        return copy_tables(self._entries_name, self._prefix)

    def _make_ready(self, deadline: Deadline, schema: Schema, connection: Connection) -> None:
        schema.create(connection, deadline)
