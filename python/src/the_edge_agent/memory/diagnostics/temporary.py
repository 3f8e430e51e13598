"""Tables for a short while: made beside those of a memory by the same code, and dropped again."""

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

_LEAST_TIME: Final = 0.1  # seconds of a call


class TemporaryDatabase(Database):
    """A database with tables of its own, whose names begin with one that nobody else uses.

    Whoever starts it calls ``drop``. Nothing else of the database is changed: no lasting setting is made.

    Attributes:
        end: when the calls must have ended, by ``time.monotonic``.
    """

    def __init__(
        self, source: Any, options: EngineOptions, *, name: str, dialect_class: type[Dialect] | None = None
    ) -> None:
        """Check the source; connect to nothing.

        Raises:
            LTMError: ``configuration_error``.
        """
        super().__init__(source, options, entries_name=f"{name}_entries", search=True, dialect_class=dialect_class)
        self.end = time.monotonic() + options.timeout
        self._prefix = f"{name}_"

    @property
    def table_names(self) -> list[str]:
        """The names of the tables."""
        return [table.name for table in self._copy_tables().all()]

    def drop(self) -> None:
        """Drop what there is of the tables, with their indexes and triggers; also after a start that failed.

        Raises:
            LTMError: some may still be there.
        """
        self.peek(lambda schema, connection: schema.drop(connection))

    def _seconds(self) -> float:
        return max(_LEAST_TIME, round(self.end - time.monotonic(), 1))

    def _copy_tables(self) -> Tables:
        return copy_tables(self._entries_name, self._prefix)

    def _make_ready(self, deadline: Deadline, schema: Schema, connection: Connection) -> None:
        schema.create(connection, deadline)
